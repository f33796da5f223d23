//! Notices that are in no log, because it was full or because no relay could come: who dropped some leaves a marker in the log,
//! an event of its transaction that says no more. Where a committed marker waits for the relay the gap is *open*, and who drops
//! more leaves none: however long nothing can be logged, markers stay few. The relay closes the gap, and then publishes a resync
//! after the end of each transaction that may have found it open.

use super::seen::Seen;

/// What a relay knows when it ticks.
#[derive(Clone, Copy, Debug)]
pub struct Tick {
    /// All that was done by the relays before is written down.
    pub was_certain: bool,
    /// Somebody had found the gap open since the last tick; asked after the snapshot was taken.
    pub was_used: bool,
    /// It is closed since then, and those who left markers before cannot open it.
    pub has_closed: bool,
    /// A marker's transaction has committed.
    pub is_due: bool,
    /// The next transaction's number, read after that.
    pub next: u64,
}

/// What it does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settled {
    /// Readers get a resync.
    pub lost: bool,
    /// Each end of a transaction with a number below is followed by another resync; 0: there is none to wait for.
    pub until: u64,
}

impl Tick {
    /// `until`: as the tick before has left it. `before`, `now`: who was over at the last tick that was written, and now.
    pub fn settle(&self, until: u64, before: &Seen, now: &Seen) -> Settled {
        let is_uncertain = !self.was_certain && (self.is_due || until > 0);
        let is_coming = self.is_due && !self.has_closed;
        let until = if is_uncertain || is_coming || self.was_used {
            self.next
        } else {
            until
        };
        let is_last = self.has_closed && now.are_over_below(until);
        Settled {
            lost: self.is_due || now.has_ended_since(before, until),
            until: if is_last { 0 } else { until },
        }
    }
}
