//! The four sequences of a database that keep how far its numbers were counted, one for each kind.

use std::sync::atomic::Ordering;

use pushy_core::loaded::GIVEN_OUT;

use super::counted::{Numbers, NEVER, UNKNOWN};
use crate::errors::Result;
use crate::pg::{identity, sequence};
use crate::shared::database::DatabaseSlot;

/// A kind of numbers: what keeps them, and how they go on.
pub struct Sequence {
    pub(super) name: &'static str,
    /// Where it is kept which number was the first that was given out here, if anybody asks.
    pub(super) first: Option<&'static str>,
    pub(super) of: fn(&DatabaseSlot) -> &Numbers,
    /// Numbers that the sequence is ahead, so that few draws write it.
    pub(super) ahead: i64,
    /// The last number: the one after it is 1.
    pub(super) most: i64,
    /// How far it is followed where it is not as it was left.
    pub(super) followed: Followed,
    /// What is passed over at the first look where the sequence may have been set back, because transactions that are prepared may
    /// have drawn it.
    pub(super) jump: i64,
}

/// Never beyond `FURTHEST`, so that nobody who sets a sequence again and again uses all numbers up.
pub(super) struct Followed {
    /// While the server runs, and its memory knows better.
    pub(super) running: i64,
    /// At the first look of its life, beyond what the tables hold.
    pub(super) first: i64,
    /// Then, where they hold nothing: a sequence may begin anywhere.
    pub(super) empty: i64,
}

/// A sequence that somebody has set is followed up to here: behind it come as many again before those of loaded jobs.
pub(super) const FURTHEST: i64 = GIVEN_OUT;

/// Jobs, and positions in the order of ready jobs.
pub static JOBS: Sequence = Sequence {
    name: "position_seq",
    first: Some("first_position_seq"),
    of: |slot| &slot.positions,
    ahead: 256,
    most: i64::MAX,
    followed: Followed {
        running: 1 << 40,
        first: FURTHEST,
        empty: FURTHEST,
    },
    jump: 100_000,
};

pub static QUEUES: Sequence = declared("queue_id_seq", |slot| &slot.queue_numbers);
pub static WATCHES: Sequence = declared("watch_id_seq", |slot| &slot.watch_numbers);
pub static SUBSCRIPTIONS: Sequence =
    declared("subscription_id_seq", |slot| &slot.subscription_numbers);

/// What is declared: the columns of its numbers are of type int.
const fn declared(name: &'static str, of: fn(&DatabaseSlot) -> &Numbers) -> Sequence {
    Sequence {
        name,
        first: None,
        of,
        ahead: 0,
        most: i32::MAX as i64,
        followed: Followed {
            running: 0,
            first: 1 << 20,
            empty: 1 << 30,
        },
        jump: 1_000,
    }
}

impl Sequence {
    /// The number that is as far as this was counted: after `most` comes 1.
    pub(super) fn within(&self, counted: i64) -> i64 {
        (counted - 1) % self.most + 1
    }
}

/// Each with its numbers in memory.
fn all(slot: &DatabaseSlot) -> [(&'static Sequence, &Numbers); 4] {
    [&JOBS, &QUEUES, &WATCHES, &SUBSCRIPTIONS].map(|sequence| (sequence, (sequence.of)(slot)))
}

/// For another database.
pub fn reset(slot: &DatabaseSlot) {
    for (_, numbers) in all(slot) {
        numbers.reset();
    }
}

/// A script that has made the sequences anew was rolled back: those from before are here again. At the end of a transaction or a savepoint.
pub fn forget_sequences(slot: &DatabaseSlot) {
    for (_, numbers) in all(slot) {
        numbers.forget_sequence();
        numbers.drawn_from.store(UNKNOWN, Ordering::SeqCst);
    }
}

/// The new sequences go on behind the numbers that the extension gave out here before, because shared memory knows queues, watches
/// and jobs by them, and the transaction that makes them, or a savepoint of it, may be rolled back.
pub fn number_on(slot: &DatabaseSlot) -> Result<()> {
    for (kept_in, numbers) in all(slot) {
        if numbers.highest() > 0 {
            let relation = identity::expect_relation(kept_in.name)?;
            sequence::set(relation, kept_in.within(numbers.highest()));
        }
        numbers.forget_sequence();
        // Its tables are empty, and nobody else sees them yet.
        numbers.drawn_from.store(NEVER, Ordering::SeqCst);
    }
    Ok(())
}
