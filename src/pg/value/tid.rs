//! Where a row is.

use pgrx::pg_sys;

use crate::pg::function::{Answer, IntoAnswer};

/// Where a row stands in its table (ctid).
#[derive(Clone, Copy, Debug)]
pub struct Tid(pg_sys::ItemPointerData);

impl Tid {
    pub(in crate::pg) fn new(tid: pg_sys::ItemPointerData) -> Self {
        Self(tid)
    }

    /// Before all rows of a page.
    pub fn before_page(page: u32) -> Self {
        let ip_blkid = pg_sys::BlockIdData {
            bi_hi: (page >> 16) as u16,
            bi_lo: page as u16,
        };
        Self(pg_sys::ItemPointerData {
            ip_blkid,
            ip_posid: 0,
        })
    }

    pub(in crate::pg) fn raw(self) -> pg_sys::ItemPointerData {
        self.0
    }
}

impl IntoAnswer for Tid {
    fn into_answer(self) -> Answer {
        // SAFETY: room for one, in the current memory context.
        let copy = unsafe {
            let copy = pg_sys::palloc(size_of::<pg_sys::ItemPointerData>())
                .cast::<pg_sys::ItemPointerData>();
            *copy = self.0;
            copy
        };
        Answer::Datum(pg_sys::Datum::from(copy))
    }
}
