//! Where notices lie that a relay has not met yet.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use pushy_core::log::written::{About, Written};

use crate::pg::spinlock::Spinlock;

/// Runs that wait for the relay; when there are more, it looks at the log itself.
const CELLS: usize = 4096;

/// Where events lie that a relay has not met yet: filled by writers before they commit.
#[repr(C, align(64))]
pub struct Ring {
    /// The database it serves; 0: free.
    pub(super) database: AtomicU32,
    overflowed: AtomicBool,
    lock: Spinlock,
    /// Cells written and read so far; the difference waits.
    head: AtomicUsize,
    tail: AtomicUsize,
    cells: [Cell; CELLS],
}

#[repr(C)]
struct Cell {
    database: AtomicU32,
    block: AtomicU32,
    /// Whether it is a marker, part, first line pointer and count in one.
    location: AtomicU64,
    xid: AtomicU64,
    position: AtomicI64,
    channel: AtomicU64,
    own_xid: AtomicU32,
    bytes: AtomicU32,
}

impl Cell {
    fn put(&self, database: u32, written: &Written) {
        let location = u64::from(written.is_marker) << 40
            | u64::from(written.part) << 32
            | u64::from(written.first) << 16
            | u64::from(written.count);
        self.database.store(database, Ordering::Relaxed);
        self.block.store(written.block, Ordering::Relaxed);
        self.location.store(location, Ordering::Relaxed);
        self.xid.store(written.xid, Ordering::Relaxed);
        self.position.store(written.position, Ordering::Relaxed);
        self.own_xid.store(written.own_xid, Ordering::Relaxed);
        // An event has a channel of a byte at least: no bytes are no About.
        let (channel, bytes) = written
            .about
            .map_or((0, 0), |about| (about.channel, about.bytes));
        self.channel.store(channel, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    fn get(&self) -> (u32, Written) {
        let location = self.location.load(Ordering::Relaxed);
        let written = Written {
            part: (location >> 32) as u8,
            block: self.block.load(Ordering::Relaxed),
            first: (location >> 16) as u16,
            count: location as u16,
            xid: self.xid.load(Ordering::Relaxed),
            own_xid: self.own_xid.load(Ordering::Relaxed),
            position: self.position.load(Ordering::Relaxed),
            is_marker: location >> 40 & 1 != 0,
            about: match self.bytes.load(Ordering::Relaxed) {
                0 => None,
                bytes => Some(About {
                    channel: self.channel.load(Ordering::Relaxed),
                    bytes,
                }),
            },
        };
        (self.database.load(Ordering::Relaxed), written)
    }
}

impl Ring {
    /// Adds a run; true when the relay should come and take what is there.
    pub(super) fn push(&self, database: u32, written: &Written) -> bool {
        self.lock.with(|| {
            let (head, tail) = (
                self.head.load(Ordering::Relaxed),
                self.tail.load(Ordering::Relaxed),
            );
            if head - tail >= CELLS {
                self.overflowed.store(true, Ordering::Relaxed);
                return true;
            }
            self.cells[head % CELLS].put(database, written);
            self.head.store(head + 1, Ordering::Relaxed);
            head + 1 - tail > CELLS / 2
        })
    }

    /// Forgets what is in it; true when something had not found room.
    pub fn start_over(&self) -> bool {
        self.lock.with(|| {
            self.tail
                .store(self.head.load(Ordering::Relaxed), Ordering::Relaxed);
            self.overflowed.swap(false, Ordering::Relaxed)
        })
    }

    pub fn has_overflowed(&self) -> bool {
        self.overflowed.load(Ordering::SeqCst)
    }

    /// Takes what is in it. The list is made between two holds of the lock, which is a spinlock.
    pub fn drain(&self, database: u32) -> Vec<Written> {
        // Writers only add, and never over what has not been read: no lock while reading.
        let (head, tail) = self.lock.with(|| {
            (
                self.head.load(Ordering::Relaxed),
                self.tail.load(Ordering::Relaxed),
            )
        });
        let taken = (tail..head)
            .map(|at| self.cells[at % CELLS].get())
            .filter(|(of, _)| *of == database)
            .map(|(_, written)| written)
            .collect();
        self.lock.with(|| self.tail.store(head, Ordering::Relaxed));
        taken
    }
}
