//! Rows of catalogs as the server's caches have them.

use pgrx::pg_sys::{self, Oid};

/// What `read` finds in the row of this number; None where there is none.
///
/// # Safety
/// `cache` is one whose only key is a number, and its rows have the form `Form`. In a transaction.
pub(in crate::pg) unsafe fn of_oid<Form, T>(
    cache: pg_sys::SysCacheIdentifier::Type,
    oid: Oid,
    read: impl FnOnce(&Form) -> T,
) -> Option<T> {
    of_oid_with(cache, oid, |form, _| read(form))
}

/// The same, where a column is asked for that may be NULL or of any length.
///
/// # Safety
/// As of `of_oid`.
pub(in crate::pg) unsafe fn of_oid_with<Form, T>(
    cache: pg_sys::SysCacheIdentifier::Type,
    oid: Oid,
    read: impl FnOnce(&Form, pg_sys::HeapTuple) -> T,
) -> Option<T> {
    let tuple = pg_sys::SearchSysCache1(cache as i32, oid.into());
    if tuple.is_null() {
        return None;
    }
    let found = read(&*pg_sys::GETSTRUCT(tuple).cast::<Form>(), tuple);
    pg_sys::ReleaseSysCache(tuple);
    Some(found)
}
