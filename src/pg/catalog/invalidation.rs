//! Caches of what the catalogs say: invalidated when something that they depend on may have changed, and by nothing else, because
//! anybody makes and drops objects of his own in a loop.

use std::cell::{Cell, RefCell};

use pgrx::pg_sys::SysCacheIdentifier::{
    self, AUTHMEMROLEMEM, AUTHOID, CASTSOURCETARGET, CLAOID, CONSTROID, NAMESPACEOID, OPEROID,
    PROCOID, TYPEOID,
};
use pgrx::{pg_guard, pg_sys};
use rustc_hash::{FxBuildHasher, FxHashSet};

use crate::pg::per_process::PerProcess;

/// Grows with every message that something may be another which somebody here depends on.
static GENERATION: PerProcess<Cell<u64>> = PerProcess::new(Cell::new(1));
/// Messages of any kind about rows of the catalogs so far.
static MESSAGES: PerProcess<Cell<u64>> = PerProcess::new(Cell::new(0));
/// Those of them that say whose code runs with which rights; and those by which the generation grew.
static CHANGES: PerProcess<Cell<u64>> = PerProcess::new(Cell::new(1));
/// The tables of interest since the generation grew.
static RELATIONS: PerProcess<RefCell<FxHashSet<u32>>> =
    PerProcess::new(RefCell::new(FxHashSet::with_hasher(FxBuildHasher)));
/// The rows of interest since then.
static ROWS: PerProcess<RefCell<FxHashSet<Row>>> =
    PerProcess::new(RefCell::new(FxHashSet::with_hasher(FxBuildHasher)));

/// What the names in the body of a function mean, and who may call it.
const MEANINGS: [SysCacheIdentifier::Type; 7] = [
    PROCOID,
    NAMESPACEOID,
    AUTHOID,
    AUTHMEMROLEMEM,
    CASTSOURCETARGET,
    OPEROID,
    CLAOID,
];

/// A row of a catalog, as messages name it: by its cache, and the hash of its key there. Another row may have the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Row {
    cache: i32,
    hash: u32,
}

impl Row {
    /// Inside a transaction.
    fn of(cache: SysCacheIdentifier::Type, keys: [pg_sys::Oid; 2]) -> Self {
        let [first, second] = keys.map(pg_sys::Datum::from);
        let none = pg_sys::Datum::null();
        let cache = cache as i32;
        Self {
            cache,
            // SAFETY: hashes as many keys as the cache has.
            hash: unsafe { pg_sys::GetSysCacheHashValue(cache, first, second, none, none) },
        }
    }

    fn of_oid(cache: SysCacheIdentifier::Type, oid: pg_sys::Oid) -> Self {
        Self::of(cache, [oid, pg_sys::Oid::INVALID])
    }

    pub fn function(oid: pg_sys::Oid) -> Self {
        Self::of_oid(PROCOID, oid)
    }

    pub fn schema(oid: pg_sys::Oid) -> Self {
        Self::of_oid(NAMESPACEOID, oid)
    }

    /// That of a table, which another message says is in another schema now.
    pub fn schema_of(relation: pg_sys::Oid) -> Self {
        // SAFETY: a syscache look-up.
        Self::schema(unsafe { pg_sys::get_rel_namespace(relation) })
    }

    pub fn role(oid: pg_sys::Oid) -> Self {
        Self::of_oid(AUTHOID, oid)
    }

    /// Of types only domains are of interest, because every temporary table of anybody comes and goes with a type.
    pub fn domain(oid: pg_sys::Oid) -> Self {
        Self::of_oid(TYPEOID, oid)
    }

    pub fn cast(from: pg_sys::Oid, to: pg_sys::Oid) -> Self {
        Self::of(CASTSOURCETARGET, [from, to])
    }

    /// A type that the planner has met.
    pub fn planned_type(item: &pg_sys::PlanInvalItem) -> Option<Self> {
        let cache = TYPEOID as i32;
        let hash = item.hashValue;
        (item.cacheId == cache).then_some(Self { cache, hash })
    }

    /// All rows of a cache.
    const fn any(cache: SysCacheIdentifier::Type) -> Self {
        Self {
            cache: cache as i32,
            hash: 0,
        }
    }

    /// Default operator classes, which superusers make.
    pub const fn any_operator_class() -> Self {
        Self::any(CLAOID)
    }

    /// What roles may do.
    pub const fn any_role() -> [Self; 2] {
        [Self::any(AUTHOID), Self::any(AUTHMEMROLEMEM)]
    }

    /// Whatever the body of a function may name.
    pub fn any_meaning() -> [Self; MEANINGS.len()] {
        MEANINGS.map(Self::any)
    }
}

/// Asks the server for its messages; once, at load.
pub fn init() {
    // SAFETY: registered for the life of the process; there is room for 64 and 10 of them (inval.c), and
    // a library is loaded once.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(on_relation), pg_sys::Datum::from(0usize));
        let of_row = |cache, callback| {
            let none = pg_sys::Datum::from(0usize);
            pg_sys::CacheRegisterSyscacheCallback(cache as i32, callback, none);
        };
        of_row(TYPEOID, Some(on_row));
        of_row(CONSTROID, Some(on_constraint));
        for cache in MEANINGS {
            of_row(cache, Some(on_meaning));
        }
    }
}

/// Unchanged means: no table and no row of interest is another than at the same number.
pub fn generation() -> u64 {
    GENERATION.get()
}

/// Unchanged means: so is the generation, and no function, operator, cast, operator class, schema, role or membership at all is
/// another.
pub fn changes() -> u64 {
    CHANGES.get()
}

/// Changes of this table count until the generation grows.
pub fn depend_on(relation: pg_sys::Oid) {
    RELATIONS.with_borrow_mut(|relations| {
        relations.insert(relation.to_u32());
    });
}

/// The same of a row; said before it is read.
pub fn depend_on_row(row: Row) {
    ROWS.with_borrow_mut(|rows| {
        rows.insert(row);
    });
}

/// How many messages about rows have come: read before [`depend_on_rows`].
pub fn messages() -> u64 {
    MESSAGES.get()
}

/// Changes of these rows count until the generation grows; also if one came since there were `before` messages, when nobody
/// knew yet what depends on it.
pub fn depend_on_rows(rows: &[Row], before: u64) {
    if rows.is_empty() {
        return;
    }
    ROWS.with_borrow_mut(|all| all.extend(rows));
    if messages() != before {
        grow();
    }
}

fn add_one(count: &PerProcess<Cell<u64>>) {
    count.set(count.get() + 1);
}

fn grow() {
    add_one(&GENERATION);
    add_one(&CHANGES);
    RELATIONS.with(|cell| {
        if let Ok(mut relations) = cell.try_borrow_mut() {
            relations.clear();
        }
    });
    ROWS.with(|cell| {
        if let Ok(mut rows) = cell.try_borrow_mut() {
            rows.clear();
        }
    });
}

#[pg_guard]
unsafe extern "C-unwind" fn on_relation(_arg: pg_sys::Datum, relation: pg_sys::Oid) {
    let named = relation.to_u32();
    let is_of_interest = RELATIONS.with(|cell| {
        cell.try_borrow()
            .map_or(true, |relations| relations.contains(&named))
    });
    // 0 names all.
    if named == 0 || is_of_interest {
        grow();
    }
}

/// Hash 0 names all rows.
#[pg_guard]
unsafe extern "C-unwind" fn on_row(_arg: pg_sys::Datum, cache: i32, hash: u32) {
    add_one(&MESSAGES);
    let is_of_interest = ROWS.with(|cell| {
        cell.try_borrow().map_or(true, |rows| {
            [hash, 0]
                .iter()
                .any(|&hash| rows.contains(&Row { cache, hash }))
        })
    });
    if hash == 0 || is_of_interest {
        grow();
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_meaning(arg: pg_sys::Datum, cache: i32, hash: u32) {
    add_one(&CHANGES);
    on_row(arg, cache, hash);
}

/// A constraint does not say whose it is; one of a domain comes with a message about the domain. ALTER DOMAIN … DROP CONSTRAINT invalidates
/// the domain in its own transaction only with the next command that writes (AlterDomainDropConstraint in typecmds.c, after the last
/// CommandCounterIncrement): so in a transaction that has written, the constraint counts.
#[pg_guard]
unsafe extern "C-unwind" fn on_constraint(_arg: pg_sys::Datum, _cache: i32, hash: u32) {
    add_one(&MESSAGES);
    let is_any_of_interest = ROWS.with(|cell| {
        cell.try_borrow().map_or(true, |rows| {
            rows.iter().any(|row| row.cache == TYPEOID as i32)
        })
    });
    let may_be_ours = pg_sys::GetTopTransactionIdIfAny() != pg_sys::TransactionId::INVALID;
    if hash == 0 || is_any_of_interest && may_be_ours {
        grow();
    }
}

/// Invalidates a table in every session, this one included; with the commit of this transaction.
pub fn send(relation: pg_sys::Oid) {
    // SAFETY: a table that exists, locked by the caller.
    unsafe { pg_sys::CacheInvalidateRelcacheByRelid(relation) }
}
