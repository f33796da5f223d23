//! Caches of what the catalogs say: told when it may have changed.

use std::cell::{Cell, RefCell};

use pgrx::{pg_guard, pg_sys};
use rustc_hash::{FxBuildHasher, FxHashSet};

use crate::pg::per_process::PerProcess;

/// Grows with every message that something may be another which somebody here depends on.
static GENERATION: PerProcess<Cell<u64>> = PerProcess::new(Cell::new(1));
/// The tables of interest since the last message.
static RELATIONS: PerProcess<RefCell<FxHashSet<u32>>> =
    PerProcess::new(RefCell::new(FxHashSet::with_hasher(FxBuildHasher)));

/// Asks the server for its messages; once, at load.
pub fn init() {
    // SAFETY: registered for the life of the process; there is room for 64 and 10 of them (inval.c), and
    // a library is loaded once.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(on_relation), pg_sys::Datum::from(0usize));
        for cache in [
            pg_sys::SysCacheIdentifier::PROCOID,
            pg_sys::SysCacheIdentifier::NAMESPACEOID,
            pg_sys::SysCacheIdentifier::AUTHOID,
            pg_sys::SysCacheIdentifier::AUTHMEMROLEMEM,
        ] {
            pg_sys::CacheRegisterSyscacheCallback(
                cache as i32,
                Some(on_other),
                pg_sys::Datum::from(0usize),
            );
        }
    }
}

/// Unchanged means: no function, no schema, no role, no membership and no table of interest is another than at the same
/// number.
pub fn generation() -> u64 {
    GENERATION.get()
}

/// Changes of this table count until the generation grows.
pub fn depend_on(relation: pg_sys::Oid) {
    RELATIONS.with_borrow_mut(|relations| {
        relations.insert(relation.to_u32());
    });
}

fn grow() {
    GENERATION.set(GENERATION.get() + 1);
    RELATIONS.with(|cell| {
        if let Ok(mut relations) = cell.try_borrow_mut() {
            relations.clear();
        }
    });
}

#[pg_guard]
unsafe extern "C-unwind" fn on_relation(_arg: pg_sys::Datum, relation: pg_sys::Oid) {
    let concerns_us = relation == pg_sys::Oid::INVALID
        || RELATIONS.with(|cell| {
            cell.try_borrow()
                .map_or(true, |relations| relations.contains(&relation.to_u32()))
        });
    if concerns_us {
        grow();
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_other(_arg: pg_sys::Datum, _cache: i32, _hash: u32) {
    grow();
}

/// Tells every session, this one included, that a table is another; with the commit of this transaction.
pub fn tell_changed(relation: pg_sys::Oid) {
    // SAFETY: a table that exists, locked by the caller.
    unsafe { pg_sys::CacheInvalidateRelcacheByRelid(relation) }
}
