//! How big our relations are.

use pgrx::pg_sys::{self, Oid};

use crate::pg::identity;

/// Bytes of a page.
pub const PAGE: i64 = pg_sys::BLCKSZ as i64;

/// Bytes of the rows of a relation of ours alone; 0 where it is gone.
pub fn bytes(name: &str) -> i64 {
    let Some(oid) = identity::internal_relation(name) else {
        return 0;
    };
    // SAFETY: a relation of ours, if it is still there.
    unsafe {
        let relation = pg_sys::try_relation_open(oid, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
        if relation.is_null() {
            return 0;
        }
        let blocks =
            pg_sys::RelationGetNumberOfBlocksInFork(relation, pg_sys::ForkNumber::MAIN_FORKNUM);
        pg_sys::relation_close(relation, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
        i64::from(blocks) * PAGE
    }
}

/// Bytes of a relation of ours with all that belongs to it; 0 where it is gone.
pub fn total_bytes(name: &str) -> i64 {
    let Some(oid) = identity::internal_relation(name) else {
        return 0;
    };
    // SAFETY: takes a regclass, answers a bigint; its NULL is for a relation dropped meanwhile.
    unsafe {
        pg_sys::OidFunctionCall1Coll(
            Oid::from(pg_sys::F_PG_TOTAL_RELATION_SIZE),
            Oid::INVALID,
            oid.into(),
        )
        .value() as i64
    }
}
