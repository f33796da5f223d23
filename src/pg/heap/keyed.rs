//! Rows found and locked by a unique key as they are at this moment, whatever snapshot the transaction has:
//! one of REPEATABLE READ would not see what it must, and one of SERIALIZABLE would conflict with all who look.

use pgrx::pg_sys;

use super::{advance_command, find, Key, Table};
use crate::errors::Result;
use crate::pg::spi::{Row, Tid};
use crate::pg::{interrupts, prepared_wait, snapshot, transaction};

/// How an attempt to lock a row in share mode ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShareLock {
    Locked,
    /// Somebody holds it alone, or changes it.
    Held,
    /// It is another by now, or gone.
    Changed,
}

/// What becomes of a wish to lock a row that somebody else has locked.
#[derive(Clone, Copy)]
pub enum Holder<'a> {
    /// What waits is told which prepared transaction it waits for; this says what it is.
    WaitedFor(&'a dyn Fn() -> String),
    LetBe,
}

impl Table {
    /// Reads the rows that an index has of these keys: what is committed by now, and what this transaction has written
    /// (true).
    pub fn read_present(
        &self,
        index: &str,
        keys: &[Key],
        mut each: impl FnMut(Row<'_>, Tid, bool) -> Result<()>,
    ) -> Result<()> {
        let index = find(index)?;
        let mut outcome = Ok(());
        // SAFETY: the protocol of an index scan (indexam.c) with a snapshot that is none of a moment; ended here, and by the
        // resource owner after an ERROR. The tuple is the slot's, which keeps its page pinned while `each` reads it.
        unsafe {
            let index = pg_sys::index_open(index, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
            let scan = self.begin_scan(index, keys, present());
            let seen = pg_sys::table_slot_create(self.raw(), std::ptr::null_mut());
            let forward = pg_sys::ScanDirection::ForwardScanDirection;
            while outcome.is_ok() && pg_sys::index_getnext_slot(scan, forward, seen) {
                pg_sys::slot_getsomeattrs_int(seen, (*(*self.raw()).rd_att).natts);
                let is_own = transaction::is_own(xmin(seen));
                outcome = each(Row::of_slot(seen), Tid::new((*seen).tts_tid), is_own);
            }
            pg_sys::ExecDropSingleTupleTableSlot(seen);
            pg_sys::index_endscan(scan);
            pg_sys::index_close(index, pg_sys::NoLock as pg_sys::LOCKMODE);
        }
        outcome
    }

    /// Where the row is that a unique index has of these keys, as of now.
    fn place_of(&self, index: &str, keys: &[Key]) -> Result<Option<Tid>> {
        let mut place = None;
        self.walk(index, keys, &snapshot::take_latest(), false, |_, tid| {
            place = Some(tid);
            Ok(false)
        })?;
        Ok(place)
    }

    /// Locks the row FOR UPDATE that a unique index has of these keys, until the transaction, or savepoint, ends, and reads it as
    /// it is then. None where there is none, or where somebody else holds it and `holder` says not to wait.
    pub fn lock_now<T>(
        &self,
        index: &str,
        keys: &[Key],
        holder: Holder<'_>,
        mut take: impl FnMut(Row<'_>, Tid) -> Result<T>,
    ) -> Result<Option<T>> {
        let mut is_said = false;
        loop {
            let Some(place) = self.place_of(index, keys)? else {
                return Ok(None);
            };
            // SAFETY: the slot is ended here, and by the resource owner after an ERROR.
            let slot = unsafe { pg_sys::table_slot_create(self.raw(), std::ptr::null_mut()) };
            let update = pg_sys::LockTupleMode::LockTupleExclusive;
            let mut result =
                self.lock_at(place, update, pg_sys::LockWaitPolicy::LockWaitSkip, slot);
            if let (pg_sys::TM_Result::TM_WouldBlock, Holder::WaitedFor(what)) = (result, holder) {
                if !std::mem::replace(&mut is_said, true) {
                    prepared_wait::say_which(&what(), "holds it", &self.holders_of(place))?;
                }
                result = self.lock_at(place, update, pg_sys::LockWaitPolicy::LockWaitBlock, slot);
            }
            let taken = (result == pg_sys::TM_Result::TM_Ok).then(|| {
                // SAFETY: the slot has the row that was locked.
                unsafe { pg_sys::slot_getsomeattrs_int(slot, (*(*self.raw()).rd_att).natts) };
                take(Row::of_slot(slot), place)
            });
            // SAFETY: made above; nothing of it is used any more.
            unsafe { pg_sys::ExecDropSingleTupleTableSlot(slot) };
            match taken {
                Some(taken) => return taken.map(Some),
                None if result == pg_sys::TM_Result::TM_WouldBlock => return Ok(None),
                // It is another by now, or gone.
                None => {
                    advance_command();
                    interrupts::check();
                }
            }
        }
    }

    /// Deletes the rows that an index has of these keys, as they are at this moment. Who holds one is waited for; one that
    /// somebody else has deleted, or changed, meanwhile is let be.
    pub fn delete_of(&self, index: &str, keys: &[Key]) -> Result<()> {
        let mut places = Vec::new();
        self.walk(index, keys, &snapshot::take_latest(), false, |_, tid| {
            places.push(tid);
            Ok(true)
        })?;
        if places.is_empty() {
            return Ok(());
        }
        let update = pg_sys::LockTupleMode::LockTupleExclusive;
        let waits = pg_sys::LockWaitPolicy::LockWaitBlock;
        // SAFETY: the slot is ended here, and by the resource owner after an ERROR.
        unsafe {
            let slot = pg_sys::table_slot_create(self.raw(), std::ptr::null_mut());
            places.retain(|place| {
                self.lock_at(*place, update, waits, slot) == pg_sys::TM_Result::TM_Ok
            });
            pg_sys::ExecDropSingleTupleTableSlot(slot);
        }
        self.delete(places.into_iter());
        advance_command();
        Ok(())
    }

    pub(super) fn lock_at(
        &self,
        place: Tid,
        mode: pg_sys::LockTupleMode::Type,
        policy: pg_sys::LockWaitPolicy::Type,
        slot: *mut pg_sys::TupleTableSlot,
    ) -> pg_sys::TM_Result::Type {
        let mut tid = place.raw();
        // SAFETY: the protocol of nodeLockRows.c, with a slot of this table.
        unsafe {
            let lock = (*(*self.raw()).rd_tableam)
                .tuple_lock
                .expect("every table access method has it");
            let mut failure: pg_sys::TM_FailureData = std::mem::zeroed();
            let (relation, command) = (self.raw(), pg_sys::GetCurrentCommandId(false));
            let (tid, failure) = (&mut tid, &mut failure);
            crate::pg::guard::guarded(|| {
                lock(
                    relation,
                    tid,
                    present(),
                    slot,
                    command,
                    mode,
                    policy,
                    0,
                    failure,
                )
            })
        }
    }

    /// The open transactions, prepared ones among them, that hold the row at this place: the numbers of their top levels.
    #[cold]
    fn holders_of(&self, place: Tid) -> Vec<u32> {
        let mut tid = place.raw();
        let mut xids = Vec::new();
        // SAFETY: the slot has the row while its header is read, and is ended here, or by the resource owner after an ERROR. Members
        // of a multixact are allocated in the current memory context. Only of a transaction that is open is it asked whose part it is.
        unsafe {
            let slot = pg_sys::table_slot_create(self.raw(), std::ptr::null_mut());
            let fetch = (*(*self.raw()).rd_tableam)
                .tuple_fetch_row_version
                .expect("every table access method has it");
            let (relation, any) = (self.raw(), &raw mut pg_sys::SnapshotAnyData);
            let tid = &mut tid;
            if crate::pg::guard::guarded(|| fetch(relation, tid, any, slot)) {
                let mut is_copy = false;
                let tuple = pg_sys::ExecFetchSlotHeapTuple(slot, false, &mut is_copy);
                let header = (*tuple).t_data;
                // Together, because another locker changes both, in the page that the row still is in.
                let page = (*slot.cast::<pg_sys::BufferHeapTupleTableSlot>()).buffer;
                pg_sys::LockBuffer(page, pg_sys::BUFFER_LOCK_SHARE as _);
                let mask = u32::from((*header).t_infomask);
                let xmax = (*header).t_choice.t_heap.t_xmax;
                pg_sys::LockBuffer(page, pg_sys::BUFFER_LOCK_UNLOCK as _);
                if mask & pg_sys::HEAP_XMAX_INVALID != 0 {
                    // Whoever held it has let go of it.
                } else if mask & pg_sys::HEAP_XMAX_IS_MULTI != 0 {
                    let mut members = std::ptr::null_mut();
                    let is_lock = mask & pg_sys::HEAP_XMAX_LOCK_ONLY != 0;
                    let count = pg_sys::GetMultiXactIdMembers(xmax, &mut members, false, is_lock);
                    xids.extend((0..count.max(0) as usize).map(|at| (*members.add(at)).xid));
                } else {
                    xids.push(xmax);
                }
                xids.retain(|xid| pg_sys::TransactionIdIsInProgress(*xid));
                for xid in &mut xids {
                    *xid = pg_sys::SubTransGetTopmostTransaction(*xid);
                }
            }
            pg_sys::ExecDropSingleTupleTableSlot(slot);
        }
        xids.into_iter().map(u32::from).collect()
    }

    /// Locks a row FOR SHARE until the transaction, or savepoint, ends: nobody changes, claims or removes it meanwhile, and
    /// others may do the same. Waits for nobody.
    pub fn lock_shared(&self, row: Tid) -> ShareLock {
        let share = pg_sys::LockTupleMode::LockTupleShare;
        // SAFETY: the slot is ended here, and by the resource owner after an ERROR.
        let result = unsafe {
            let slot = pg_sys::table_slot_create(self.raw(), std::ptr::null_mut());
            let result = self.lock_at(row, share, pg_sys::LockWaitPolicy::LockWaitSkip, slot);
            pg_sys::ExecDropSingleTupleTableSlot(slot);
            result
        };
        match result {
            pg_sys::TM_Result::TM_Ok => ShareLock::Locked,
            pg_sys::TM_Result::TM_WouldBlock => ShareLock::Held,
            _ => ShareLock::Changed,
        }
    }
}

/// What is committed by now, and all that this transaction has done.
fn present() -> pg_sys::Snapshot {
    &raw mut pg_sys::SnapshotSelfData
}

/// # Safety
/// The slot has a row of a table.
unsafe fn xmin(slot: *mut pg_sys::TupleTableSlot) -> u32 {
    let read = (*(*slot).tts_ops)
        .getsysattr
        .expect("every slot of a table has it");
    let mut null = false;
    let xmin = pg_sys::MinTransactionIdAttributeNumber;
    crate::pg::guard::guarded(|| read(slot, xmin, &mut null)).value() as u32
}
