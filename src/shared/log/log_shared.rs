//! The event log of one database, as writers and readers share it.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU32, AtomicU64, Ordering};

use pushy_core::histogram;
use pushy_core::log::cursor::Cursor;

use crate::pg::clock;
use crate::pg::condition::Condition;
use crate::shared::database::NEVER;
use crate::shared::statistics::Histogram;

/// What `LogShared::gap` was when it was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap(u64);

impl Gap {
    /// Whoever drops notices need not leave a marker.
    const OPEN: u64 = 1;
    /// Somebody has left none.
    const USED: u64 = 2;
}

/// The event log of one database.
#[repr(C)]
pub struct LogShared {
    /// One more than the part that writers append to; 0: ask the table.
    part: AtomicU32,
    /// Pages that this part had when it was opened, with room to be used again: while it is no bigger it is not full.
    blocks: AtomicU32,
    /// Changes when a part was emptied in place: whoever reads it may have missed what went.
    emptied: AtomicU64,
    /// One more than the ring of the relay; 0: none runs, nobody asks where things lie.
    pub(super) ring: AtomicU32,
    /// Something may have been committed that is in no tick.
    dirty: AtomicBool,
    /// When (µs) that was first so since the last tick; 0: it is not.
    dirty_since: AtomicI64,
    /// Ticks by the time from there on.
    pub tick_delays: Histogram,
    /// The relay has found nobody who waits for ticks, and leaves more time between them.
    takes_its_time: AtomicBool,
    /// Somebody waits all the same.
    hurried: AtomicBool,
    /// LISTENers of queues are to be told that these have work.
    pub tells_queues: AtomicBool,
    /// It has something to do: for pushy.workers.
    pub relay_busy: AtomicBool,
    /// When the relay is to come although nothing was written (µs): the log ages.
    pub relay_due: AtomicI64,
    /// The newest life of a relay that began since the server started or was promoted; 0: none.
    begun_epoch: AtomicI64,
    /// Ticks written since the server started; broadcast with each.
    ticks: AtomicU64,
    ticked: Condition,
    /// The gap (`pushy_core::log::gap`): how often it was closed, and in the lowest bits whether it is open
    /// and somebody has found it so.
    gap: AtomicU64,
    /// What relays took from the gap is written down, or none ever came.
    pub gap_is_certain: AtomicBool,
    /// One more than a part that is as big as the whole log may be; 0: none.
    full_part: AtomicU32,
    /// The part that writers append to is as big as a part should be: the relay should turn to another.
    pub is_crowded: AtomicBool,
    /// A subscription gives no jobs to its queue: the relay tries again when a queue or a privilege changes.
    pub has_stopped: AtomicBool,
    /// Events of transactions that have not ended.
    pub pending: AtomicU64,
    /// The last event emitted to LISTENers.
    emitted_epoch: AtomicI64,
    emitted_tick: AtomicI64,
    emitted_n: AtomicI32,
}

impl LogShared {
    pub fn init(&self) {
        self.ticked.init();
        self.relay_due.store(NEVER, Ordering::Relaxed);
    }

    /// For another database, or another life of the extension.
    pub fn reset(&self) {
        let Self {
            part,
            blocks,
            // Readers that remember one of these must never meet it again.
            emptied: _,
            ticks: _,
            // The relay gives its ring back when it leaves.
            ring: _,
            dirty,
            dirty_since,
            tick_delays,
            takes_its_time,
            hurried,
            tells_queues,
            relay_busy,
            relay_due,
            begun_epoch,
            ticked: _,
            gap: _,
            gap_is_certain: _,
            full_part,
            is_crowded,
            has_stopped,
            pending,
            emitted_epoch: _,
            emitted_tick: _,
            emitted_n: _,
        } = self;
        for number in [part, blocks, full_part] {
            number.store(0, Ordering::SeqCst);
        }
        for flag in [
            dirty,
            takes_its_time,
            hurried,
            tells_queues,
            relay_busy,
            is_crowded,
            has_stopped,
        ] {
            flag.store(false, Ordering::SeqCst);
        }
        relay_due.store(NEVER, Ordering::SeqCst);
        dirty_since.store(0, Ordering::SeqCst);
        for count in &tick_delays.0 {
            count.store(0, Ordering::Relaxed);
        }
        pending.store(0, Ordering::SeqCst);
        begun_epoch.store(0, Ordering::SeqCst);
        self.forget_gap();
        self.set_emitted(0, 0, 0);
    }

    /// For a transaction whose notices are in no log, and that has its number: None where a marker stands for it, else what is
    /// known of the gap for the marker that it is to leave.
    pub fn join_gap(&self) -> Option<Gap> {
        let join = |gap: u64| (gap & Gap::OPEN != 0).then_some(gap | Gap::USED);
        let joined = self
            .gap
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, join);
        joined.err().map(Gap)
    }

    /// A marker has committed that was written when this was known: unless the relay has closed the gap since then, because it
    /// may have met the marker.
    pub fn open_gap(&self, gap: Gap) {
        let open = gap.0 | Gap::OPEN;
        let _ = self
            .gap
            .compare_exchange(gap.0, open, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Whoever drops notices from here on leaves a marker; answers whether somebody has found the gap open.
    pub fn close_gap(&self) -> bool {
        self.change_gap(|gap| (gap | Gap::OPEN | Gap::USED) + 1)
    }

    /// Whether somebody has found the gap open since this was last asked.
    pub fn take_gap(&self) -> bool {
        self.change_gap(|gap| gap & !Gap::USED)
    }

    fn change_gap(&self, change: impl Fn(u64) -> u64) -> bool {
        let changed = self
            .gap
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |gap| Some(change(gap)));
        changed.is_ok_and(|gap| gap & Gap::USED != 0)
    }

    /// Another log begins, or none is.
    fn forget_gap(&self) {
        self.close_gap();
        self.gap_is_certain.store(false, Ordering::SeqCst);
    }

    /// How far LISTENers have heard.
    pub fn emitted(&self) -> Cursor {
        Cursor::new(
            self.emitted_epoch.load(Ordering::SeqCst),
            self.emitted_tick.load(Ordering::SeqCst),
            self.emitted_n.load(Ordering::SeqCst),
        )
    }

    pub fn set_emitted(&self, epoch: i64, tick: i64, n: i32) {
        self.emitted_epoch.store(epoch, Ordering::SeqCst);
        self.emitted_tick.store(tick, Ordering::SeqCst);
        self.emitted_n.store(n, Ordering::SeqCst);
    }

    pub fn begin_epoch(&self, epoch: i64) {
        self.begun_epoch.store(epoch, Ordering::SeqCst);
    }

    pub fn begun_epoch(&self) -> i64 {
        self.begun_epoch.load(Ordering::SeqCst)
    }

    pub fn part(&self) -> Option<u32> {
        self.part.load(Ordering::SeqCst).checked_sub(1)
    }

    /// What somebody read from the table, unless the relay has said otherwise since.
    pub fn learn_part(&self, part: u32, blocks: u32) {
        let learned = self
            .part
            .compare_exchange(0, part + 1, Ordering::SeqCst, Ordering::SeqCst);
        if learned.is_ok() {
            self.blocks.store(blocks, Ordering::SeqCst);
        }
    }

    pub fn set_part(&self, part: u32, blocks: u32) {
        self.blocks.store(blocks, Ordering::SeqCst);
        self.part.store(part + 1, Ordering::SeqCst);
    }

    /// Pages of the part that writers append to which it had when it was opened.
    pub fn blocks(&self) -> u32 {
        self.blocks.load(Ordering::SeqCst)
    }

    pub fn times_emptied(&self) -> u64 {
        self.emptied.load(Ordering::SeqCst)
    }

    /// Before anything of a part goes, once it is known to be lost.
    pub fn announce_emptied(&self) {
        self.emptied.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether events that are for this part find no room.
    pub fn is_full(&self, part: u32) -> bool {
        self.full_part.load(Ordering::SeqCst) == part + 1
    }

    /// `part`, to which the caller has just written, has reached its size. The number names no later filling of that
    /// part when it is read, because a part is not emptied before the caller's transaction ends.
    pub fn set_full(&self, part: u32) {
        self.full_part.store(part + 1, Ordering::SeqCst);
    }

    pub fn clear_full(&self) {
        self.full_part.store(0, Ordering::SeqCst);
    }

    /// The extension came or went: what was known is of another log.
    pub fn forget_part(&self) {
        self.part.store(0, Ordering::SeqCst);
        self.blocks.store(0, Ordering::SeqCst);
        self.forget_gap();
        self.set_emitted(0, 0, 0);
    }

    pub fn is_dirty(&self) -> bool {
        self.dirty.load(Ordering::SeqCst)
    }

    /// Takes the mark off: before the relay takes its snapshot. Since when it was there.
    pub fn take_dirty(&self) -> i64 {
        self.hurried.store(false, Ordering::SeqCst);
        self.dirty.store(false, Ordering::SeqCst);
        self.dirty_since.swap(0, Ordering::SeqCst)
    }

    /// What was written since then (0: nothing is known of) is in a tick. A commit that the round did not see yet is not counted.
    pub fn count_tick(&self, since: i64) {
        if since != 0 {
            let delay = u64::try_from(clock::now().0 - since).unwrap_or(0);
            self.tick_delays.0[histogram::bucket(delay)].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Puts the mark on, for what has committed; true when it was off.
    pub fn set_dirty(&self) -> bool {
        // A plain load first: under load the mark is on, and a swap would take the cache line.
        if self.dirty.load(Ordering::SeqCst) {
            return false;
        }
        // Before the mark: whoever takes it takes the time with it.
        self.dirty_since.store(clock::now().0, Ordering::SeqCst);
        !self.dirty.swap(true, Ordering::SeqCst)
    }

    /// The same for the relay itself, which has to look again.
    pub fn look_again(&self) {
        self.dirty.store(true, Ordering::SeqCst);
    }

    pub fn set_takes_its_time(&self, yes: bool) {
        // A plain load first: writers read it.
        if self.takes_its_time() != yes {
            self.takes_its_time.store(yes, Ordering::SeqCst);
        }
    }

    pub(super) fn takes_its_time(&self) -> bool {
        self.takes_its_time.load(Ordering::SeqCst)
    }

    pub fn is_hurried(&self) -> bool {
        self.hurried.load(Ordering::SeqCst)
    }

    /// True when nobody had asked for it since the last tick.
    pub(super) fn hurry(&self) -> bool {
        !self.is_hurried() && !self.hurried.swap(true, Ordering::SeqCst)
    }

    /// How many ticks there have been: read it, look at the tables, then `wait_tick`.
    pub fn ticks(&self) -> u64 {
        self.ticks.load(Ordering::SeqCst)
    }

    pub fn announce_tick(&self) {
        self.ticks.fetch_add(1, Ordering::SeqCst);
        self.ticked.broadcast();
    }

    /// Does `work`, which waits for something else as well: a tick that comes meanwhile sets this process's latch.
    pub fn while_awaiting_tick<T>(&self, work: impl FnOnce() -> T) -> T {
        self.ticked.while_listed(work)
    }

    /// Sleeps until there was a tick since `seen` was read, or `timeout` has passed; on a standby for a moment.
    pub fn wait_tick(&self, seen: u64, timeout: std::time::Duration) {
        self.ticked.wait_change(timeout, || self.ticks() != seen);
    }
}
