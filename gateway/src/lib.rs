//! Pushy's gateway: hands what was published in a database to browsers. A table of contents.
//!
//! One connection reads the event log for everybody (`source`, `hub::pump`); the hub sends each notice to whom it concerns
//! (`hub`, `topics`); who that may be, the server says (`who`, `source`); three ways lead in (`ways`), behind one door (`serve`).

pub mod clock;
pub mod gateway;
pub mod hub;
pub mod limits;
pub mod metrics;
pub mod notice;
pub mod presence;
pub mod report;
pub mod serve;
pub mod settings;
pub mod source;
pub mod topics;
pub mod ways;
pub mod who;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A lock whose holder has panicked is taken all the same: each hold leaves what it guards whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
