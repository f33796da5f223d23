//! Where a row is.

use pgrx::pg_sys;

/// Where a row stands in its table (ctid).
#[derive(Clone, Copy, Debug)]
pub struct Tid(pg_sys::ItemPointerData);

impl Tid {
    pub(in crate::pg) fn new(tid: pg_sys::ItemPointerData) -> Self {
        Self(tid)
    }

    pub(in crate::pg) fn raw(self) -> pg_sys::ItemPointerData {
        self.0
    }
}
