//! Rows read by their address.

use pgrx::pg_sys;

use crate::pg::guard::guarded;
use crate::pg::heap::Table;
use crate::pg::spi::Row;

impl Table {
    /// Reads rows by their addresses.
    pub fn reader(&self) -> Reader<'_> {
        // SAFETY: an open table; the slot is dropped with the reader.
        Reader {
            table: self,
            blocks: self.blocks(),
            slot: unsafe { pg_sys::table_slot_create(self.raw(), std::ptr::null_mut()) },
        }
    }
}

/// Fetches rows one after another; the page of the last one stays pinned.
pub struct Reader<'table> {
    table: &'table Table,
    blocks: u32,
    slot: *mut pg_sys::TupleTableSlot,
}

impl Reader<'_> {
    /// The row at an address, if there is one; whether its transaction has committed is the caller's to know.
    pub fn fetch(&self, block: u32, offset: u16) -> Option<Row<'_>> {
        if block >= self.blocks {
            return None;
        }
        let mut tid = pg_sys::ItemPointerData {
            ip_blkid: pg_sys::BlockIdData {
                bi_hi: (block >> 16) as u16,
                bi_lo: block as u16,
            },
            ip_posid: offset,
        };
        // SAFETY: a function pointer of the server, whose errors must not jump over our frames; the block
        // exists.
        unsafe {
            let fetch = (*(*self.table.raw()).rd_tableam)
                .tuple_fetch_row_version
                .expect("every table access method has it");
            let (relation, slot) = (self.table.raw(), self.slot);
            let tid = &mut tid;
            let found = guarded(|| fetch(relation, tid, &raw mut pg_sys::SnapshotAnyData, slot));
            if !found {
                return None;
            }
            let count = (*(*relation).rd_att).natts;
            if i32::from((*slot).tts_nvalid) < count {
                pg_sys::slot_getsomeattrs_int(slot, count);
            }
        }
        Some(Row::of_slot(self.slot))
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        // After an ERROR the resource owner lets go of it.
        if !std::thread::panicking() {
            // SAFETY: made by reader(), in the same resource owner.
            unsafe { pg_sys::ExecDropSingleTupleTableSlot(self.slot) }
        }
    }
}
