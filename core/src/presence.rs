//! What a server knows of the extension's presence in a database: a word in shared memory that commits say and looks conclude.
//! `core/tests/presence_model/` walks every interleaving.

use std::sync::atomic::{AtomicU64, Ordering};

/// Whether the database has the extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Presence {
    /// Not looked at since the server started.
    Unknown = 0,
    Present = 1,
    Absent = 2,
    /// It is there with a script that this library does not work with: all is kept as it is until ALTER EXTENSION UPDATE.
    Incompatible = 3,
}

/// The bits of a `Presence`; above them how often a commit has said one.
const PRESENCE: u64 = 0b11;
const ONCE: u64 = PRESENCE + 1;

#[repr(transparent)]
pub struct SaidPresence(AtomicU64);

/// What was said when somebody began to look for the extension. Between the look and what it concludes others may
/// create or drop the extension, and theirs is the later word.
#[derive(Clone, Copy, Debug)]
pub struct Look(u64);

impl SaidPresence {
    pub const fn new() -> Self {
        Self(AtomicU64::new(Presence::Unknown as u64))
    }

    pub fn get(&self) -> Presence {
        match self.0.load(Ordering::SeqCst) & PRESENCE {
            1 => Presence::Present,
            2 => Presence::Absent,
            3 => Presence::Incompatible,
            _ => Presence::Unknown,
        }
    }

    /// A commit brings the extension or takes it away. Looks that began before this conclude nothing.
    pub fn announce(&self, presence: Presence) {
        let next = |said: u64| Some(((said & !PRESENCE) + ONCE) | presence as u64);
        let _ = self
            .0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, next);
    }

    /// A commit has perhaps brought the extension: looks that began before this conclude nothing. In one step, because a commit that says
    /// so at the same moment is the later word.
    pub fn doubt(&self) {
        self.0.fetch_add(ONCE, Ordering::SeqCst);
    }

    /// Before a look whether the extension is there.
    pub fn begin_look(&self) -> Look {
        Look(self.0.load(Ordering::SeqCst))
    }

    /// Says what a look has found; false, and nothing is said, where a commit has said something since the look began.
    pub fn conclude(&self, look: Look, presence: Presence) -> bool {
        let found = (look.0 & !PRESENCE) | presence as u64;
        self.0
            .compare_exchange(look.0, found, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    /// Something of the extension was committed; true where nothing was known of it.
    pub fn witness(&self) -> bool {
        let witness = |said: u64| {
            (said & PRESENCE == Presence::Unknown as u64).then_some(said | Presence::Present as u64)
        };
        self.0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, witness)
            .is_ok()
    }
}

impl Default for SaidPresence {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;
    use std::time::{Duration, Instant};

    #[test]
    fn a_look_concludes_nothing_once_a_commit_has_said_or_doubted_something() {
        let said = SaidPresence::new();
        let looks: [&dyn Fn(); 3] = [
            &|| said.announce(Presence::Present),
            &|| said.announce(Presence::Absent),
            &|| said.doubt(),
        ];
        for says in looks {
            let look = said.begin_look();
            says();
            let before = said.get();
            assert!(!said.conclude(look, Presence::Incompatible));
            assert_eq!(said.get(), before);
        }
        assert!(said.conclude(said.begin_look(), Presence::Unknown));
        assert!(said.witness() && !said.witness());
        assert_eq!(said.get(), Presence::Present);
    }

    /// CREATE EXTENSION commits while others end prepared transactions, of which nobody knows what was in them.
    #[test]
    fn a_doubt_takes_back_no_word_that_is_said_meanwhile() {
        let (said, is_over) = (SaidPresence::new(), AtomicBool::new(false));
        let doubters = std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2));
        std::thread::scope(|scope| {
            for _ in 0..doubters {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        said.doubt();
                    }
                });
            }
            let since = Instant::now();
            let mut taken_back = 0;
            for round in 0.. {
                let presence = [Presence::Present, Presence::Absent][round % 2];
                said.announce(presence);
                // As long as others would need to store what they read before.
                for _ in 0..20 {
                    taken_back += u32::from(said.get() != presence);
                }
                if taken_back > 0 || since.elapsed() > Duration::from_millis(500) {
                    break;
                }
            }
            is_over.store(true, Ordering::Relaxed);
            assert_eq!(taken_back, 0);
        });
    }
}
