//! Tables without an index that are only appended to, and emptied whole: rows written, and read in the order of their places.

use pgrx::pg_sys::{self, Datum};

use crate::errors::Result;
use crate::pg::function::Answer;
use crate::pg::guard::guarded;
use crate::pg::heap::{Slots, Table};
use crate::pg::spi::Row;

/// Neighbours on one page: rows of one `append`, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbours {
    pub block: u32,
    /// The line pointer of the first, from 1.
    pub first: u16,
    pub count: u16,
}

/// A row met by `scan`, whatever became of the transaction that wrote it.
pub struct Met<'row> {
    pub block: u32,
    pub offset: u16,
    /// The transaction, or savepoint, that wrote it.
    pub xmin: u32,
    pub row: Row<'row>,
}

// Called within one guard.
extern "C-unwind" {
    fn heap_form_tuple(
        desc: pg_sys::TupleDesc,
        values: *mut pg_sys::Datum,
        nulls: *mut bool,
    ) -> pg_sys::HeapTuple;
    fn GetCurrentCommandId(used: bool) -> pg_sys::CommandId;
    fn heap_insert(
        table: pg_sys::Relation,
        tuple: pg_sys::HeapTuple,
        command: pg_sys::CommandId,
        options: i32,
        state: *mut pg_sys::BulkInsertStateData,
    );
    fn heap_freetuple(tuple: pg_sys::HeapTuple);
}

impl Table {
    /// Appends rows, as wide as the table, and says where they are, in order.
    #[cfg_attr(target_os = "linux", link_section = "commit_path")]
    pub fn append_placed<const WIDTH: usize>(
        &self,
        rows: &[[Answer; WIDTH]],
        mut placed: impl FnMut(Neighbours),
    ) {
        match rows {
            // Most transactions write one: without slots it costs half.
            [row] => placed(self.append_one(row)),
            _ => self.append_many(rows, placed),
        }
    }

    fn append_one<const WIDTH: usize>(&self, row: &[Answer; WIDTH]) -> Neighbours {
        let mut values = [Datum::null(); WIDTH];
        let mut nulls = [false; WIDTH];
        for (at, answer) in row.iter().enumerate() {
            (values[at], nulls[at]) = answer.value_and_null();
        }
        // SAFETY: the table is open for writing; as many values as it has columns. One guard for all calls.
        unsafe {
            let desc = (*self.raw()).rd_att;
            assert_eq!((*desc).natts as usize, WIDTH);
            let (values, nulls) = (values.as_mut_ptr(), nulls.as_mut_ptr());
            guarded(|| {
                let tuple = heap_form_tuple(desc, values, nulls);
                let command = GetCurrentCommandId(true);
                heap_insert(self.raw(), tuple, command, 0, std::ptr::null_mut());
                let place = Neighbours {
                    block: block_of(&(*tuple).t_self),
                    first: (*tuple).t_self.ip_posid,
                    count: 1,
                };
                heap_freetuple(tuple);
                place
            })
        }
    }

    #[inline(never)]
    fn append_many<const WIDTH: usize>(
        &self,
        rows: &[[Answer; WIDTH]],
        mut placed: impl FnMut(Neighbours),
    ) {
        // SAFETY: the table is open for writing; an ERROR frees the slots with their context.
        unsafe {
            let mut slots = Slots::new(self.raw());
            slots.fill(rows.iter());
            let filled = slots.filled();
            pg_sys::heap_multi_insert(
                self.raw(),
                filled.as_mut_ptr(),
                filled.len() as i32,
                pg_sys::GetCurrentCommandId(true),
                0,
                std::ptr::null_mut(),
            );
            let mut run: Option<Neighbours> = None;
            for slot in filled {
                let tid = (**slot).tts_tid;
                let block = block_of(&tid);
                match &mut run {
                    Some(run) if run.block == block && run.first + run.count == tid.ip_posid => {
                        run.count += 1;
                    }
                    _ => {
                        let next = Neighbours {
                            block,
                            first: tid.ip_posid,
                            count: 1,
                        };
                        if let Some(whole) = run.replace(next) {
                            placed(whole);
                        }
                    }
                }
            }
            if let Some(last) = run {
                placed(last);
            }
            slots.free();
        }
    }

    /// Pages of the table, full or not.
    pub fn blocks(&self) -> u32 {
        // SAFETY: an open relation; asks for the size of its file.
        unsafe {
            pg_sys::RelationGetNumberOfBlocksInFork(self.raw(), pg_sys::ForkNumber::MAIN_FORKNUM)
        }
    }

    /// All rows there are, committed or not, in the order of their places.
    pub fn scan(&self, each: impl FnMut(Met<'_>) -> Result<()>) -> Result<()> {
        self.scan_from(0, each)
    }

    /// The same of the last page.
    pub fn scan_last_page(&self, each: impl FnMut(Met<'_>) -> Result<()>) -> Result<()> {
        self.scan_from(self.blocks().saturating_sub(1), each)
    }

    fn scan_from(&self, first: u32, mut each: impl FnMut(Met<'_>) -> Result<()>) -> Result<()> {
        // SAFETY: the scan keeps the page of the tuple that it hands over.
        self.each_tuple(first, |_, tuple| unsafe {
            each(Met {
                block: block_of(&(*tuple).t_self),
                offset: (*tuple).t_self.ip_posid,
                xmin: xmin_of((*tuple).t_data),
                row: Row::of_tuple(tuple, (*self.raw()).rd_att),
            })
        })
    }

    /// Marks rows as those of a transaction that was rolled back, so that a VACUUM makes room of them whatever snapshots
    /// there are: a backup that reads for hours, or a transaction held open, would else keep them all. Nobody who reads
    /// the table may want them any more. Not in the WAL, as any hint of the server's; the VACUUM is.
    pub fn disown(&self, mut is_over: impl FnMut(Row<'_>) -> bool) -> Result<()> {
        // SAFETY: the scan keeps the page of its tuple pinned. The bits are changed under an exclusive lock of the page, under
        // which nobody else sets a hint.
        self.each_tuple(0, |scan, tuple| unsafe {
            if is_over(Row::of_tuple(tuple, (*self.raw()).rd_att)) {
                let buffer = (*scan.cast::<pg_sys::HeapScanDescData>()).rs_cbuf;
                self.lock_not_all_visible(buffer, &mut (*tuple).t_self);
                let mask = &mut (*(*tuple).t_data).t_infomask;
                *mask &= !(pg_sys::HEAP_XMIN_COMMITTED as u16);
                *mask |= pg_sys::HEAP_XMIN_INVALID as u16;
                pg_sys::MarkBufferDirtyHint(buffer, true);
                pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_UNLOCK as _);
            }
            Ok(())
        })
    }

    /// From page `first` on: the scan, and each of its tuples, whose page it keeps pinned.
    fn each_tuple(
        &self,
        first: u32,
        mut each: impl FnMut(pg_sys::TableScanDesc, pg_sys::HeapTuple) -> Result<()>,
    ) -> Result<()> {
        // SAFETY: the protocol of a sequential scan. After an ERROR the resource owner lets go of it.
        unsafe {
            let flags = pg_sys::ScanOptions::SO_TYPE_SEQSCAN | pg_sys::ScanOptions::SO_ALLOW_STRAT;
            let scan = pg_sys::heap_beginscan(
                self.raw(),
                &raw mut pg_sys::SnapshotAnyData,
                0,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                flags,
            );
            if first > 0 {
                pg_sys::heap_setscanlimits(scan, first, pg_sys::InvalidBlockNumber);
            }
            let mut outcome = Ok(());
            loop {
                let tuple = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
                if tuple.is_null() {
                    break;
                }
                outcome = each(scan, tuple);
                if outcome.is_err() {
                    break;
                }
                crate::pg::interrupts::check();
            }
            pg_sys::heap_endscan(scan);
            outcome
        }
    }

    /// Locks a page, to change the hints of this row. Where somebody's VACUUM has found that
    /// everybody sees all of the page, the row is deleted first: that takes the mark from the page and from the visibility map,
    /// in the WAL as on disk, and none can be put there again while this transaction runs.
    ///
    /// # Safety
    /// The page is pinned, and the row is on it.
    unsafe fn lock_not_all_visible(&self, buffer: pg_sys::Buffer, row: pg_sys::ItemPointer) {
        let is_all_visible = || {
            pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_EXCLUSIVE as _);
            let page = pg_sys::BufferGetPage(buffer).cast::<pg_sys::PageHeaderData>();
            u32::from((*page).pd_flags) & pg_sys::PD_ALL_VISIBLE != 0
        };
        while is_all_visible() {
            pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_UNLOCK as _);
            pg_sys::simple_heap_delete(self.raw(), row);
        }
    }
}

/// Who wrote a row; FrozenTransactionId, which counts as committed, where that is long ago.
unsafe fn xmin_of(header: pg_sys::HeapTupleHeader) -> u32 {
    let frozen = pg_sys::HEAP_XMIN_FROZEN as u16;
    if (*header).t_infomask & frozen == frozen {
        return 2;
    }
    (*header).t_choice.t_heap.t_xmin.into_inner()
}

fn block_of(tid: &pg_sys::ItemPointerData) -> u32 {
    u32::from(tid.ip_blkid.bi_hi) << 16 | u32::from(tid.ip_blkid.bi_lo)
}
