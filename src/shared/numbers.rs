//! Numbers of jobs, queues, watches and subscriptions: counted in shared memory, so that none comes twice in one life of the server, and kept in a
//! sequence for the next.
//!
//! Not drawn by nextval(), for two reasons. It makes its sequence the session's last one, so that lastval() after a write of a
//! watched table would be of a sequence that is not the caller's. And a role with pg_write_all_data may set any sequence, which has
//! no trigger to keep it out: a number that comes again would be that of somebody's job, queue or watch.

use std::sync::atomic::{AtomicI64, Ordering};

use super::database::DatabaseSlot;
use crate::errors::{Error, Result, SqlState};
use crate::pg::per_process::PerProcess;
use crate::pg::spi::{self, Plan};
use crate::pg::{database, ereport, identity, object_lock, sequence};
use crate::{params, shared};

/// Numbers of one kind in a database.
#[derive(Default)]
pub struct Numbers {
    /// The highest that was given out, or passed over.
    highest: AtomicI64,
    /// What the sequence was set to: numbers up to it are given out from memory. 0: the sequence has not been looked at.
    reserved: AtomicI64,
}

impl Numbers {
    pub fn reset(&self) {
        self.highest.store(0, Ordering::SeqCst);
        self.reserved.store(0, Ordering::SeqCst);
    }

    /// The highest number that is known; 0: none is.
    pub fn highest(&self) -> i64 {
        self.highest.load(Ordering::SeqCst)
    }

    /// Somebody has this number: others go on behind it.
    pub fn pass_over(&self, number: i64) {
        self.highest.fetch_max(number, Ordering::SeqCst);
    }

    /// Its sequence is another by now: a script has made it.
    pub fn forget_sequence(&self) {
        self.reserved.store(0, Ordering::SeqCst);
    }
}

/// What is numbered, and how.
pub struct Numbered {
    sequence: &'static str,
    of: fn(&DatabaseSlot) -> &Numbers,
    /// The highest number that a table holds; as the extension's owner.
    kept: fn() -> Result<i64>,
    /// Numbers that the sequence is ahead, so that few draws write it.
    ahead: i64,
    /// How far a sequence that somebody has set is followed: while the server runs, and at the first draw of its life, when the tables
    /// are all that is known.
    followed: [i64; 2],
    /// What is passed over where the sequence is not followed, because transactions that are prepared may have drawn it.
    jump: i64,
}

impl Numbered {
    /// Jobs, and positions in the order of ready jobs.
    pub const fn jobs(kept: fn() -> Result<i64>) -> Self {
        Self {
            sequence: "position_seq",
            of: |slot| &slot.positions,
            kept,
            ahead: 256,
            followed: [1 << 40, 1 << 53],
            jump: 100_000,
        }
    }

    /// What is declared: their columns are of type int.
    const fn declared(
        sequence: &'static str,
        of: fn(&DatabaseSlot) -> &Numbers,
        kept: fn() -> Result<i64>,
    ) -> Self {
        Self {
            sequence,
            of,
            kept,
            ahead: 0,
            followed: [0, 1 << 30],
            jump: 1_000,
        }
    }

    pub const fn queues(kept: fn() -> Result<i64>) -> Self {
        Self::declared("queue_id_seq", |slot| &slot.queue_numbers, kept)
    }

    pub const fn watches(kept: fn() -> Result<i64>) -> Self {
        Self::declared("watch_id_seq", |slot| &slot.watch_numbers, kept)
    }

    pub const fn subscriptions(kept: fn() -> Result<i64>) -> Self {
        Self::declared(
            "subscription_id_seq",
            |slot| &slot.subscription_numbers,
            kept,
        )
    }

    /// The first of so many numbers that follow one another.
    pub fn draw(&self, count: usize) -> Result<i64> {
        let count = count as i64;
        let Some(slot) = here() else {
            return self.draw_from_sequence(count);
        };
        let numbers = (self.of)(slot);
        // Read before, because what is drawn must be of what was reserved by then.
        let reserved = numbers.reserved.load(Ordering::SeqCst);
        if numbers.highest() + count <= reserved {
            let last = numbers.highest.fetch_add(count, Ordering::SeqCst) + count;
            if last <= reserved {
                return Ok(last - count + 1);
            }
        }
        self.reserve(numbers, count)
    }

    /// A number of what is declared, that nothing holds: `is_held` asks the tables. As the extension's owner.
    pub fn draw_free(&self, is_held: &Plan) -> Result<i32> {
        loop {
            let drawn = self.draw(1)? as i32;
            let is_held = spi::connect(|spi| spi.run(is_held, params![drawn]).row(0).bool(1));
            if !is_held {
                return Ok(drawn);
            }
        }
    }

    /// Sets the sequence ahead, one process at a time.
    #[cold]
    fn reserve(&self, numbers: &Numbers, count: i64) -> Result<i64> {
        identity::as_owner(|| {
            let sequence = identity::expect_relation(self.sequence)?;
            object_lock::briefly(sequence, || {
                let stored = sequence::last(sequence);
                let reserved = numbers.reserved.load(Ordering::SeqCst);
                if stored != reserved {
                    self.find_out(numbers, reserved, stored)?;
                }
                let last = numbers.highest.fetch_add(count, Ordering::SeqCst) + count;
                if last > reserved || stored != reserved {
                    let ahead = last + self.ahead;
                    sequence::set(sequence, ahead);
                    numbers.reserved.store(ahead, Ordering::SeqCst);
                }
                Ok(last - count + 1)
            })
        })
    }

    /// The sequence is not as it was left: nobody has looked at it since the server started, or somebody has set it.
    fn find_out(&self, numbers: &Numbers, reserved: i64, stored: i64) -> Result<()> {
        numbers.pass_over((self.kept)()?);
        let known = numbers.highest();
        let followed = self.followed[usize::from(reserved == 0)];
        if stored >= known && stored - known < followed {
            numbers.pass_over(stored);
            return Ok(());
        }
        if reserved == 0 {
            numbers.pass_over(known + self.jump);
        }
        say_set(self.sequence, stored, numbers.highest());
        Ok(())
    }

    /// Without the preload nothing is in memory.
    #[cold]
    fn draw_from_sequence(&self, count: i64) -> Result<i64> {
        identity::as_owner(|| {
            let sequence = identity::expect_relation(self.sequence)?;
            object_lock::briefly(sequence, || {
                let before = sequence::last(sequence);
                sequence::set(sequence, before + count);
                Ok(before + 1)
            })
        })
    }
}

/// What a query of the highest number says.
pub fn highest_in(plan: &Plan) -> Result<i64> {
    Ok(spi::connect(|spi| spi.run(plan, &[]).row(0).i64(1)))
}

static HERE: PerProcess<std::cell::Cell<Option<&'static DatabaseSlot>>> =
    PerProcess::new(std::cell::Cell::new(None));

/// This database's slot.
pub fn here() -> Option<&'static DatabaseSlot> {
    let oid = database::current();
    if let Some(slot) = HERE.get().filter(|slot| slot.oid() == oid) {
        return Some(slot);
    }
    let slot = shared::get()?.ensure_database(oid);
    HERE.set(slot);
    slot
}

/// The sequence that each kind is kept in, by the numbers in memory.
pub fn all(slot: &DatabaseSlot) -> [(&'static str, &Numbers); 4] {
    [
        ("position_seq", &slot.positions),
        ("queue_id_seq", &slot.queue_numbers),
        ("watch_id_seq", &slot.watch_numbers),
        ("subscription_id_seq", &slot.subscription_numbers),
    ]
}

/// The new sequences go on behind the numbers that the extension gave out here before, because shared memory knows queues, watches
/// and jobs by them, and the transaction that makes them, or a savepoint of it, may be rolled back.
pub fn number_on(slot: &DatabaseSlot) -> Result<()> {
    for (sequence, numbers) in all(slot) {
        if numbers.highest() > 0 {
            sequence::set(identity::expect_relation(sequence)?, numbers.highest());
        }
        numbers.forget_sequence();
    }
    Ok(())
}

fn say_set(sequence: &str, stored: i64, highest: i64) {
    ereport::log(
        &Error::new(
            SqlState::WARNING,
            format!("sequence pushy_internal.{sequence} was set by somebody, to {stored} or so: numbers go on behind {highest}"),
        )
        .hint("A role with pg_write_all_data may set every sequence of the database: take it from whom you do not trust."),
    );
}
