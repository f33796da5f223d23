//! Numbers of jobs, queues, watches and subscriptions, of which no two at a time have the same: counted upwards in shared memory, and kept in
//! a sequence for the next life of the server. What is declared has an int, so its numbers begin again at 1 after the last one, and
//! those that something holds are passed over.
//!
//! Not drawn by nextval(), for two reasons. It makes its sequence the session's last one, so that lastval() after a write of a
//! watched table would be of a sequence that is not the caller's. And a role with pg_write_all_data may set any sequence, which has
//! no trigger to keep it out: a number that comes again would be that of somebody's job, queue or watch. A restore sets them too.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use pushy_core::loaded::GIVEN_OUT;

use super::database::DatabaseSlot;
use crate::errors::{Error, Result, SqlState};
use crate::pg::per_process::PerProcess;
use crate::pg::spi::{self, Plan};
use crate::pg::{database, ereport, identity, object_lock, sequence, transaction};
use crate::{params, shared};

/// Numbers of one kind in a database.
#[derive(Default)]
pub struct Numbers {
    /// The highest that was given out, or passed over: how far was counted, where numbers begin again.
    highest: AtomicI64,
    /// What the sequence was set to: numbers up to it are given out from memory. Or one of the two below.
    reserved: AtomicI64,
    /// The first that was given out here, or may have been: none below was. Or `NEVER`, `UNKNOWN` or `JUST_NOW`. `Numbered::first` keeps it
    /// for the next life of the server, because what a load has called its jobs before it must go on to call them.
    drawn_from: AtomicI64,
    /// That the sequence is not followed was said in this life of the server.
    said_left: AtomicBool,
}

/// The sequence has not been looked at in this life of the server.
const UNSEEN: i64 = 0;
/// The sequence may be another than the one that was looked at.
const FORGOTTEN: i64 = -1;

/// Nobody has looked in this life of the server.
const UNKNOWN: i64 = 0;
/// The first is being given out, by who holds the lock of `reserve`.
const JUST_NOW: i64 = -1;
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
    fn forget_sequence(&self) {
        if self.reserved.load(Ordering::SeqCst) != UNSEEN {
            self.reserved.store(FORGOTTEN, Ordering::SeqCst);
        }
    }
}

/// What is numbered, and how.
pub struct Numbered {
    sequence: &'static str,
    /// Where it is kept which number was the first that was given out here, if anybody asks.
    first: Option<&'static str>,
    of: fn(&DatabaseSlot) -> &Numbers,
    /// The highest number that a table holds; as the extension's owner.
    kept: fn() -> Result<i64>,
    /// Numbers that the sequence is ahead, so that few draws write it.
    ahead: i64,
    /// The last number: the one after it is 1.
    most: i64,
    /// How far a sequence that is not as it was left is followed.
    followed: Followed,
    /// What is passed over at the first look where the sequence may have been set back, because transactions that are prepared may
    /// have drawn it.
    jump: i64,
}

/// Never beyond `FURTHEST`, so that nobody who sets a sequence again and again uses all numbers up.
struct Followed {
    /// While the server runs, and its memory knows better.
    running: i64,
    /// At the first look of its life, beyond what the tables hold.
    first: i64,
    /// Then, where they hold nothing: a sequence may begin anywhere.
    empty: i64,
}

impl Numbered {
    /// Jobs, and positions in the order of ready jobs.
    pub const fn jobs(kept: fn() -> Result<i64>) -> Self {
        Self {
            sequence: "position_seq",
            first: Some("first_position_seq"),
            of: |slot| &slot.positions,
            kept,
            ahead: 256,
            most: i64::MAX,
            followed: Followed {
                running: 1 << 40,
                first: FURTHEST,
                empty: FURTHEST,
            },
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
            first: None,
            of,
            kept,
            ahead: 0,
            most: LAST_DECLARED,
            followed: Followed {
                running: 0,
                first: 1 << 20,
                empty: 1 << 30,
            },
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
            let drawn = within(self.draw(1)?, self.most) as i32;
            let is_held = transaction::with_latest_snapshot(|| {
                spi::connect(|spi| {
                    let held = spi.run_in_active_snapshot(is_held, params![drawn]);
                    held.row(0).bool(1)
                })
            });
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
                let is_as_left = reserved > UNSEEN && stored == within(reserved, self.most);
                if !is_as_left {
                    self.find_out(numbers, reserved, stored)?;
                }
                self.begin(numbers);
                let last = numbers.highest.fetch_add(count, Ordering::SeqCst) + count;
                if last > reserved || !is_as_left {
                    let ahead = last + self.ahead;
                    sequence::set(sequence, within(ahead, self.most));
                    numbers.reserved.store(ahead, Ordering::SeqCst);
                }
                Ok(last - count + 1)
            })
        })
    }

    /// Numbers are given out from now on, or were before the server started. Who loads passes over the number of a row first and looks
    /// here then, so in between it is to wait: what was passed over is below. With the lock of `reserve`.
    fn begin(&self, numbers: &Numbers) {
        let known = numbers.drawn_from.load(Ordering::SeqCst);
        if !matches!(known, UNKNOWN | NEVER) {
            return;
        }
        let kept_in = self.first.and_then(identity::internal_relation);
        let before = match kept_in {
            Some(sequence) if known == UNKNOWN => sequence::last(sequence),
            _ => 0,
        };
        numbers.drawn_from.store(JUST_NOW, Ordering::SeqCst);
        let next = numbers.highest() + 1;
        // Not believed where somebody has set it behind.
        let first = if before > 0 { before.min(next) } else { next };
        numbers.drawn_from.store(first, Ordering::SeqCst);
        if let Some(sequence) = kept_in.filter(|_| before == 0) {
            sequence::set(sequence, first);
        }
    }

    /// The sequence is not as it was left: nobody has looked at it since the server started, it is another, or somebody has set it.
    fn find_out(&self, numbers: &Numbers, reserved: i64, stored: i64) -> Result<()> {
        // Asked before the tables, which have the numbers of one that commits meanwhile.
        let may_be_drawn = reserved == UNSEEN && is_any_prepared();
        if reserved == UNSEEN {
            // Afterwards memory knows, of what is loaded too.
            numbers.pass_over((self.kept)()?.min(HIGHEST_BELIEVED));
        }
        let known = numbers.highest();
        let followed = match (reserved, known) {
            (UNSEEN, 0) => self.followed.empty,
            (UNSEEN, _) => self.followed.first,
            _ => self.followed.running,
        };
        let is_followed = stored >= known && stored - known < followed && stored < FURTHEST;
        if is_followed {
            numbers.pass_over(stored);
        }
        if may_be_drawn || (reserved == UNSEEN && !is_followed) {
            numbers.pass_over(numbers.highest() + self.jump);
        }
        // Numbers went on in the sequence that was forgotten.
        if !is_followed && reserved != FORGOTTEN && !numbers.said_left.swap(true, Ordering::SeqCst)
        {
            say_left(self.sequence, stored, within(numbers.highest(), self.most));
        }
        Ok(())
    }

    /// From which number on they may have been given out here, or `NEVER`; and the highest that anything has. `has_any`: whether anything
    /// has one, as the tables say. For who loads: numbers below are free of ours, and stay so.
    pub fn drawn_from(&self, has_any: fn() -> Result<bool>) -> Result<(i64, i64)> {
        let Some(numbers) = here().map(self.of) else {
            return identity::as_owner(|| {
                let kept = (self.kept)()?.min(HIGHEST_BELIEVED);
                Ok((if has_any()? { kept + 1 } else { NEVER }, kept))
            });
        };
        let known = numbers.drawn_from.load(Ordering::SeqCst);
        if known > UNKNOWN {
            return Ok((known, numbers.highest()));
        }
        let known = self.find_first(numbers, has_any)?;
        Ok((known, numbers.highest()))
    }

    #[cold]
    fn find_first(&self, numbers: &Numbers, has_any: fn() -> Result<bool>) -> Result<i64> {
        identity::as_owner(|| {
            let sequence = identity::expect_relation(self.sequence)?;
            object_lock::briefly(sequence, || {
                if numbers.drawn_from.load(Ordering::SeqCst) == UNKNOWN {
                    let kept_in = self.first.and_then(identity::internal_relation);
                    let was_begun = kept_in.is_some_and(|sequence| sequence::last(sequence) > 0);
                    let is_begun = was_begun || is_any_prepared() || has_any()?;
                    numbers.pass_over((self.kept)()?.min(HIGHEST_BELIEVED));
                    if is_begun {
                        self.begin(numbers);
                    } else {
                        numbers.drawn_from.store(NEVER, Ordering::SeqCst);
                    }
                }
                Ok(numbers.drawn_from.load(Ordering::SeqCst))
            })
        })
    }

    /// Without the preload nothing is in memory.
    #[cold]
    fn draw_from_sequence(&self, count: i64) -> Result<i64> {
        identity::as_owner(|| {
            let sequence = identity::expect_relation(self.sequence)?;
            object_lock::briefly(sequence, || {
                let kept = (self.kept)()?.min(HIGHEST_BELIEVED);
                let stored = sequence::last(sequence);
                let before = kept.max(if stored < FURTHEST { stored } else { 0 });
                sequence::set(sequence, within(before + count, self.most));
                Ok(before + 1)
            })
        })
    }
}

/// What is declared has a number of type int.
const LAST_DECLARED: i64 = i32::MAX as i64;

/// A row that was loaded leaves numbers for others, whatever it says.
const HIGHEST_BELIEVED: i64 = i64::MAX / 2;

/// A sequence that somebody has set is followed up to here: behind it come as many again before those of loaded jobs.
const FURTHEST: i64 = GIVEN_OUT;

/// The number that is as far as this was counted: after `most` comes 1.
fn within(counted: i64, most: i64) -> i64 {
    (counted - 1) % most + 1
}

static IS_ANY_PREPARED: Plan = Plan::new(
    "SELECT EXISTS (SELECT FROM pg_catalog.pg_prepared_xacts x WHERE x.database OPERATOR(pg_catalog.=) pg_catalog.current_database())",
    &[],
);

/// What a transaction has written that is prepared, nobody sees.
fn is_any_prepared() -> bool {
    spi::connect(|spi| spi.run(&IS_ANY_PREPARED, &[]).row(0).bool(1))
}

/// What a query of the highest number says, of all that is committed by now.
pub fn highest_in(plan: &Plan) -> Result<i64> {
    Ok(transaction::with_latest_snapshot(|| {
        spi::connect(|spi| spi.run_in_active_snapshot(plan, &[]).row(0).i64(1))
    }))
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

/// The sequence that each kind is kept in, its last number, and the numbers in memory.
fn all(slot: &DatabaseSlot) -> [(&'static str, i64, &Numbers); 4] {
    [
        ("position_seq", i64::MAX, &slot.positions),
        ("queue_id_seq", LAST_DECLARED, &slot.queue_numbers),
        ("watch_id_seq", LAST_DECLARED, &slot.watch_numbers),
        (
            "subscription_id_seq",
            LAST_DECLARED,
            &slot.subscription_numbers,
        ),
    ]
}

/// For another database.
pub fn reset(slot: &DatabaseSlot) {
    for (_, _, numbers) in all(slot) {
        numbers.reset();
    }
}

/// A script that has made the sequences anew was rolled back: those from before are here again. At the end of a transaction or a savepoint.
pub fn forget_sequences(slot: &DatabaseSlot) {
    for (_, _, numbers) in all(slot) {
        numbers.forget_sequence();
        numbers.drawn_from.store(UNKNOWN, Ordering::SeqCst);
    }
}

/// The new sequences go on behind the numbers that the extension gave out here before, because shared memory knows queues, watches
/// and jobs by them, and the transaction that makes them, or a savepoint of it, may be rolled back.
pub fn number_on(slot: &DatabaseSlot) -> Result<()> {
    for (sequence, most, numbers) in all(slot) {
        if numbers.highest() > 0 {
            let sequence = identity::expect_relation(sequence)?;
            sequence::set(sequence, within(numbers.highest(), most));
        }
        numbers.forget_sequence();
        // Its tables are empty, and nobody else sees them yet.
        numbers.drawn_from.store(NEVER, Ordering::SeqCst);
    }
    Ok(())
}

fn say_left(sequence: &str, stored: i64, highest: i64) {
    ereport::log(
        &Error::new(
            SqlState::WARNING,
            format!("sequence pushy_internal.{sequence} is at {stored}, where numbers do not go on: they do behind {highest}"),
        )
        .hint("A restore sets it, and numbers of queues, watches and subscriptions begin again after 2^31: then nothing need be done. Else it was a role with pg_write_all_data, which may set every sequence of the database: take it from whom you do not trust."),
    );
}
