//! Which channels sessions listen to, because the relay does not emit notices that nobody would hear: NOTIFY hands each
//! notice to every session that listens to anything, and each reads it to find that it is for another channel.

use std::sync::atomic::{AtomicU32, Ordering};

/// Two channels may share a counter: then a notice may be emitted that nobody hears.
const COUNTERS: usize = 4096;

/// How many sessions listen, by the hash of database and channel.
#[repr(C)]
pub struct Listened {
    sessions: [AtomicU32; COUNTERS],
}

/// The counter of a channel.
#[derive(Clone, Copy)]
pub struct ListenerCounter(usize);

impl ListenerCounter {
    /// `channel`: its `pushy_core::channel::hash`.
    pub fn of(database: u32, channel: u64) -> Self {
        // The golden ratio's digits spread the databases' numbers, which are neighbours (Knuth, 6.4).
        let spread = u64::from(database).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self((channel ^ (spread >> 32)) as usize % COUNTERS)
    }
}

impl Listened {
    /// Before the LISTEN commits: from then on the session is owed what others commit.
    pub fn add(&self, counter: ListenerCounter) {
        self.sessions[counter.0].fetch_add(1, Ordering::SeqCst);
    }

    /// After the UNLISTEN has committed, or when the session is over.
    pub fn remove(&self, counter: ListenerCounter) {
        self.sessions[counter.0].fetch_sub(1, Ordering::SeqCst);
    }

    /// False: no session listens to the channel. Ask once the notice is committed: a session that is owed it has committed
    /// its LISTEN before.
    pub fn has(&self, counter: ListenerCounter) -> bool {
        self.sessions[counter.0].load(Ordering::SeqCst) > 0
    }
}
