//! Caches of what the catalogs say: invalidated when it may have changed.

use std::cell::{Cell, RefCell};

use pgrx::{pg_guard, pg_sys};
use rustc_hash::{FxBuildHasher, FxHashSet};

use crate::pg::per_process::PerProcess;

/// Grows with every message that something may be another which somebody here depends on.
static GENERATION: PerProcess<Cell<u64>> = PerProcess::new(Cell::new(1));
/// The tables of interest since the last message.
static RELATIONS: PerProcess<RefCell<FxHashSet<u32>>> =
    PerProcess::new(RefCell::new(FxHashSet::with_hasher(FxBuildHasher)));
/// The domains of interest since the last message, as messages name them. Not all types are, because every temporary table of
/// anybody comes and goes with a type.
static DOMAINS: PerProcess<RefCell<FxHashSet<u32>>> =
    PerProcess::new(RefCell::new(FxHashSet::with_hasher(FxBuildHasher)));
/// Messages about types and constraints so far.
static TYPE_MESSAGES: PerProcess<Cell<u64>> = PerProcess::new(Cell::new(0));

/// Asks the server for its messages; once, at load.
pub fn init() {
    use pg_sys::SysCacheIdentifier::{
        AUTHMEMROLEMEM, AUTHOID, CASTSOURCETARGET, CLAOID, CONSTROID, NAMESPACEOID, OPEROID,
        PROCOID, TYPEOID,
    };
    // SAFETY: registered for the life of the process; there is room for 64 and 10 of them (inval.c), and
    // a library is loaded once.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(on_relation), pg_sys::Datum::from(0usize));
        pg_sys::CacheRegisterSyscacheCallback(
            TYPEOID as i32,
            Some(on_type),
            pg_sys::Datum::from(0usize),
        );
        pg_sys::CacheRegisterSyscacheCallback(
            CONSTROID as i32,
            Some(on_constraint),
            pg_sys::Datum::from(0usize),
        );
        for cache in [
            PROCOID,
            NAMESPACEOID,
            AUTHOID,
            AUTHMEMROLEMEM,
            CASTSOURCETARGET,
            OPEROID,
            CLAOID,
        ] {
            pg_sys::CacheRegisterSyscacheCallback(
                cache as i32,
                Some(on_other),
                pg_sys::Datum::from(0usize),
            );
        }
    }
}

/// Unchanged means: no function, operator, cast, operator class, schema, role or membership, and no table or domain of interest,
/// is another than at the same number.
pub fn generation() -> u64 {
    GENERATION.get()
}

/// Changes of this table count until the generation grows.
pub fn depend_on(relation: pg_sys::Oid) {
    RELATIONS.with_borrow_mut(|relations| {
        relations.insert(relation.to_u32());
    });
}

/// How many messages about types and constraints have come: read before [`depend_on_domains`].
pub fn type_messages() -> u64 {
    TYPE_MESSAGES.get()
}

/// Changes of these domains, by their hash in the syscache, count until the generation grows; also if one came since there
/// were `before` such messages, when nobody knew yet what depends on it.
pub fn depend_on_domains(hashes: &[u32], before: u64) {
    if hashes.is_empty() {
        return;
    }
    DOMAINS.with_borrow_mut(|domains| domains.extend(hashes));
    if type_messages() != before {
        grow();
    }
}

fn grow() {
    GENERATION.set(GENERATION.get() + 1);
    for interesting in [&RELATIONS, &DOMAINS] {
        interesting.with(|cell| {
            if let Ok(mut interesting) = cell.try_borrow_mut() {
                interesting.clear();
            }
        });
    }
}

/// Whether a message names something of interest; 0: it names everything.
fn concerns_us(interesting: &PerProcess<RefCell<FxHashSet<u32>>>, named: u32) -> bool {
    named == 0
        || interesting.with(|cell| {
            cell.try_borrow()
                .map_or(true, |interesting| interesting.contains(&named))
        })
}

#[pg_guard]
unsafe extern "C-unwind" fn on_relation(_arg: pg_sys::Datum, relation: pg_sys::Oid) {
    if concerns_us(&RELATIONS, relation.to_u32()) {
        grow();
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_type(_arg: pg_sys::Datum, _cache: i32, hash: u32) {
    TYPE_MESSAGES.set(TYPE_MESSAGES.get() + 1);
    if concerns_us(&DOMAINS, hash) {
        grow();
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_other(_arg: pg_sys::Datum, _cache: i32, _hash: u32) {
    grow();
}

/// A constraint does not say whose it is. ALTER DOMAIN … DROP CONSTRAINT invalidates the domain in its own transaction only with the next
/// command that writes (AlterDomainDropConstraint in typecmds.c, after the last CommandCounterIncrement).
#[pg_guard]
unsafe extern "C-unwind" fn on_constraint(_arg: pg_sys::Datum, _cache: i32, _hash: u32) {
    TYPE_MESSAGES.set(TYPE_MESSAGES.get() + 1);
    let is_any_of_interest = DOMAINS.with(|cell| {
        cell.try_borrow()
            .map_or(true, |domains| !domains.is_empty())
    });
    if is_any_of_interest {
        grow();
    }
}

/// Invalidates a table in every session, this one included; with the commit of this transaction.
pub fn send(relation: pg_sys::Oid) {
    // SAFETY: a table that exists, locked by the caller.
    unsafe { pg_sys::CacheInvalidateRelcacheByRelid(relation) }
}
