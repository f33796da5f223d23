//! What runs when any transaction, or savepoint, ends.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

use pgrx::pg_sys;

use crate::errors::Result;
use crate::pg::ereport::Ready;
use crate::pg::panics::edge;
use crate::pg::per_process::PerProcess;
use crate::pg::transaction;

/// What a transaction's end was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Commit,
    Abort,
    /// PREPARE TRANSACTION: whatever it made visible comes with COMMIT PREPARED.
    Prepare,
}

/// What a savepoint's end was; `level` is its own nest level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SavepointEnd {
    Release,
    Rollback,
}

/// A transaction is about to commit; errors still abort it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    Commit,
    /// PREPARE TRANSACTION.
    Prepare,
}

/// Who wants to know how transactions and savepoints end.
pub struct Observer {
    /// Runs when everything deferred is done, with the transaction still open: may write and raise.
    pub before: Option<fn(Before) -> Result<()>>,
    /// Called, as `before` is, only in a transaction that has called `expect`.
    /// These two allocate nothing, raise nothing, flip atomics and set latches only.
    pub at_end: fn(End),
    pub at_savepoint_end: fn(SavepointEnd, i32),
}

const MOST_OBSERVERS: usize = 4;
static mut OBSERVERS: [Option<&'static Observer>; MOST_OBSERVERS] = [None; MOST_OBSERVERS];

/// Adds an observer for the life of the process; while the library is loaded. They are called in order.
pub fn observe(observer: &'static Observer) {
    // SAFETY: single-threaded, at load.
    unsafe {
        let observers = &mut *std::ptr::addr_of_mut!(OBSERVERS);
        let free = observers.iter_mut().find(|place| place.is_none());
        *free.expect("room for every observer") = Some(observer);
    }
}

/// Asks for the observers to be called when this transaction ends, because one has collected something. Else they are not
/// called: most transactions of a server have nothing to do with us (1,000 instructions of 65,000). A session that never
/// asked does not even register the callbacks (40 instructions; some 2 % of the time, because their code and data are in
/// nobody's cache).
#[cfg_attr(target_os = "linux", link_section = "commit_path")]
pub fn expect() {
    EXPECTED.store(true, Ordering::Relaxed);
    if !ASKED.load(Ordering::Relaxed) {
        ask();
    }
}

/// Asks for `at_end` to be called when this transaction is prepared or that fails, though nothing may have been collected.
pub fn expect_prepare() {
    PREPARING.store(true, Ordering::Relaxed);
    if !ASKED.load(Ordering::Relaxed) {
        ask();
    }
}

static LATER: PerProcess<Cell<bool>> = PerProcess::new(Cell::new(false));

/// Runs what a statement has put off, when another role with other settings may be at work and nothing stops it: no code of
/// users may run inside. So does all that is called `before` a commit.
pub fn later<T>(work: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            LATER.set(self.0);
        }
    }
    let _restore = Restore(LATER.replace(true));
    work()
}

/// Stops before code of users runs [`later`].
pub fn expect_now() {
    assert!(
        !LATER.get(),
        "code of a user's was about to run after the statement that has caused it"
    );
}

/// In `at_end`: whether something was collected.
pub fn is_expected() -> bool {
    EXPECTED.load(Ordering::Relaxed)
}

#[cold]
fn ask() {
    // SAFETY: registered for the life of the process; inside a transaction, of which they hear from here on.
    unsafe {
        pg_sys::RegisterXactCallback(Some(on_end), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(on_savepoint_end), std::ptr::null_mut());
    }
    // Only now: with no memory left they have raised an ERROR.
    ASKED.store(true, Ordering::Relaxed);
}

static EXPECTED: AtomicBool = AtomicBool::new(false);
static PREPARING: AtomicBool = AtomicBool::new(false);
/// Whether the server tells us of ends: from the first `expect` of this process on.
static ASKED: AtomicBool = AtomicBool::new(false);

/// # Safety
/// On the main thread, after the library was loaded.
unsafe fn observers() -> impl Iterator<Item = &'static Observer> {
    let observers = &*std::ptr::addr_of!(OBSERVERS);
    observers.iter().flatten().copied()
}

#[cfg_attr(target_os = "linux", link_section = "commit_path")]
unsafe extern "C-unwind" fn on_end(event: pg_sys::XactEvent::Type, _arg: *mut std::ffi::c_void) {
    if !EXPECTED.load(Ordering::Relaxed) && !is_last_of_prepare(event) {
        return;
    }
    let end = match event {
        pg_sys::XactEvent::XACT_EVENT_PRE_COMMIT => return before(Before::Commit),
        pg_sys::XactEvent::XACT_EVENT_PRE_PREPARE => return before(Before::Prepare),
        pg_sys::XactEvent::XACT_EVENT_COMMIT => End::Commit,
        pg_sys::XactEvent::XACT_EVENT_ABORT => End::Abort,
        pg_sys::XactEvent::XACT_EVENT_PREPARE => End::Prepare,
        _ => return,
    };
    edge(move || {
        for observer in observers() {
            (observer.at_end)(end);
        }
    });
    EXPECTED.store(false, Ordering::Relaxed);
    PREPARING.store(false, Ordering::Relaxed);
}

/// Whether a transaction that has collected nothing, and that PREPARE was said to, ends with this.
fn is_last_of_prepare(event: pg_sys::XactEvent::Type) -> bool {
    PREPARING.load(Ordering::Relaxed)
        && matches!(
            event,
            pg_sys::XactEvent::XACT_EVENT_PREPARE
                | pg_sys::XactEvent::XACT_EVENT_ABORT
                | pg_sys::XactEvent::XACT_EVENT_COMMIT
        )
}

/// Lets the observers act while errors still abort the transaction. Behind the guard nothing is left to drop.
unsafe fn before(what: Before) {
    let outcome = edge(move || {
        let all = || {
            observers()
                .filter_map(|observer| observer.before)
                .try_for_each(|before| before(what))
        };
        later(all).map_err(|error| Ready::new(&error))
    });
    if let Err(error) = outcome {
        error.raise();
    }
}

unsafe extern "C-unwind" fn on_savepoint_end(
    event: pg_sys::SubXactEvent::Type,
    _mine: pg_sys::SubTransactionId,
    _parent: pg_sys::SubTransactionId,
    _arg: *mut std::ffi::c_void,
) {
    if !EXPECTED.load(Ordering::Relaxed) {
        return;
    }
    let end = match event {
        pg_sys::SubXactEvent::SUBXACT_EVENT_COMMIT_SUB => SavepointEnd::Release,
        pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB => SavepointEnd::Rollback,
        _ => return,
    };
    edge(move || {
        for observer in observers() {
            (observer.at_savepoint_end)(end, transaction::nest_level());
        }
    });
}
