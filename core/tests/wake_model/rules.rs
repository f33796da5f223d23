//! What is checked: the size of a run, and the one rule that a mutant breaks.

use crate::world::Budget;

/// The largest run that a world has room for.
pub const ROWS: usize = 3;
pub const PRIORITIES: usize = 2;
pub const EXECUTORS: usize = 2;
pub const PROCESSES: usize = EXECUTORS + 3;

/// The rule of the protocol that a run breaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    None,

    // announce
    /// The bit is set before `low` is written.
    BitBeforeLow,
    /// The announcer looks for an idle executor before it writes.
    WakeBeforeWrite,
    /// A session that locked a row and aborts says nothing.
    SilentAbort,
    /// A session that locked a row, left it ready and commits says nothing.
    SilentCommit,
    /// Rows are announced before they are visible.
    AnnounceBeforeCommit,

    // claim
    /// The bit is cleared after the swap.
    ClearAfterSwap,
    /// The snapshot is older than the swap.
    SnapshotBeforeSwap,
    /// A full claim does not announce what follows it.
    NoReannounce,
    /// ... announces it by the position that the last row has now, not the one it was found by.
    ReannounceMovedPosition,
    /// ... announces it and wakes nobody.
    ReannounceWakesNobody,
    /// A claim that leaves another priority's `low` set does not set the bit again.
    LeavesNoBit,
    /// ... sets the bit and wakes nobody.
    LeavesBitWakesNobody,
    /// A batch that failed says nothing.
    SilentFailure,
    /// Rows claimed and not run are not announced.
    SilentStop,

    // idle
    /// The flag says idle only after the last look at the bit.
    IdleAfterLook,
    /// The latch is reset between the last look and the sleep.
    ResetBeforeSleep,
    /// An executor that exits does not look at the bit after it said so.
    BlindExit,
}

pub struct Rules {
    /// The rows that each enqueuer's transaction inserts, each given by its priority.
    pub enqueuers: &'static [&'static [usize]],
    /// Sessions that lock a ready row for a while.
    pub lockers: usize,
    /// They also may give the row a new position, as a cancel and a retry in one transaction would.
    pub lockers_move: bool,
    pub executors: usize,
    /// Rows that one claim takes at most.
    pub claim: u32,
    pub budget: Budget,
    pub fault: Fault,
}

impl Rules {
    /// The priority of a row.
    pub fn priority(&self, row: usize) -> usize {
        let mut rows = self.enqueuers.iter().flat_map(|rows| rows.iter());
        rows.nth(row).copied().unwrap_or(0)
    }

    /// The number of priorities in use.
    pub fn priorities(&self) -> usize {
        (0..ROWS).map(|row| self.priority(row)).max().unwrap_or(0) + 1
    }

    /// The first row of an enqueuer.
    pub fn first_row(&self, enqueuer: usize) -> usize {
        self.enqueuers[..enqueuer]
            .iter()
            .map(|rows| rows.len())
            .sum()
    }

    pub fn breaks(&self, fault: Fault) -> bool {
        self.fault == fault
    }
}
