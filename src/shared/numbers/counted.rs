//! How far the numbers of one kind were counted, in shared memory.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// Numbers of one kind in a database.
#[derive(Default)]
pub struct Numbers {
    /// The highest that was given out, or passed over: how far was counted, where numbers begin again.
    pub(super) highest: AtomicI64,
    /// What the sequence was set to: numbers up to it are given out from memory. Or one of the two below.
    pub(super) reserved: AtomicI64,
    /// The first that was given out here, or may have been: none below was. Or `NEVER`, `UNKNOWN` or `JUST_NOW`. `Sequence::first` keeps it
    /// for the next life of the server, because what a load has called its jobs before it must go on to call them.
    pub(super) drawn_from: AtomicI64,
    /// That the sequence is not followed was said in this life of the server.
    pub(super) said_left: AtomicBool,
}

/// The sequence has not been looked at in this life of the server.
pub(super) const UNSEEN: i64 = 0;
/// The sequence may be another than the one that was looked at.
pub(super) const FORGOTTEN: i64 = -1;

/// Nobody has looked in this life of the server.
pub(super) const UNKNOWN: i64 = 0;
/// The first is being given out, by who holds the lock of `reserve`.
pub(super) const JUST_NOW: i64 = -1;
/// No number was given out here.
pub const NEVER: i64 = i64::MAX;

impl Numbers {
    pub fn reset(&self) {
        self.highest.store(0, Ordering::SeqCst);
        self.drawn_from.store(UNKNOWN, Ordering::SeqCst);
        self.reserved.store(UNSEEN, Ordering::SeqCst);
        self.said_left.store(false, Ordering::SeqCst);
    }

    /// The highest number that is known; 0: none is.
    pub fn highest(&self) -> i64 {
        self.highest.load(Ordering::SeqCst)
    }

    /// Somebody has this number: others go on behind it.
    pub fn pass_over(&self, number: i64) {
        self.highest.fetch_max(number, Ordering::SeqCst);
    }

    /// Its sequence is another by now: a script has made it, or that was rolled back.
    pub(super) fn forget_sequence(&self) {
        if self.reserved.load(Ordering::SeqCst) != UNSEEN {
            self.reserved.store(FORGOTTEN, Ordering::SeqCst);
        }
    }
}
