//! The order of ready jobs: values of one sequence.
//!
//! A number never comes twice while the server runs, also where somebody has set the sequence: pg_write_all_data may, and a
//! sequence has no trigger to keep it out. Jobs with the number of one that is kept could not complete.

use std::sync::atomic::Ordering;

use crate::errors::{Error, Result, SqlState};
use crate::job::history;
use crate::pg::per_process::PerProcess;
use crate::pg::{database, ereport, identity, sequence, Oid};
use crate::shared;
use crate::shared::database::DatabaseSlot;

/// More than are drawn between two looks; what is further ahead was set.
const LEAP: i64 = 1 << 40;
/// The same for the first look of a server's life, when the numbers of jobs that are kept are all that is known.
const FIRST_LEAP: i64 = 1 << 53;
/// How far a sequence that was set is put ahead, to pass over numbers that others have drawn and not published yet.
const JUMP: i64 = 100_000;

/// The next position, which is also the number of a new job. Drawn anew whenever a job becomes ready,
/// so that it goes behind those already waiting.
pub fn next() -> Result<i64> {
    let sequence = identity::expect_relation("position_seq")?;
    let Some(database_slot) = here() else {
        // Without the preload no job runs, and no number can come twice to a running one.
        return Ok(sequence::next(sequence));
    };
    let before = database_slot.highest_position.load(Ordering::SeqCst);
    let drawn = sequence::next(sequence);
    if before > 0 && is_next(before, drawn, LEAP) {
        database_slot
            .highest_position
            .fetch_max(drawn, Ordering::SeqCst);
        return Ok(drawn);
    }
    draw_past_kept(sequence, database_slot)
}

/// What was drawn after `before` was known to be taken.
fn is_next(before: i64, drawn: i64, leap: i64) -> bool {
    drawn > before && drawn - before < leap
}

static HERE: PerProcess<std::cell::Cell<Option<&'static DatabaseSlot>>> =
    PerProcess::new(std::cell::Cell::new(None));

fn here() -> Option<&'static DatabaseSlot> {
    let oid = database::current();
    if let Some(database_slot) = HERE
        .get()
        .filter(|database_slot| database_slot.oid() == oid)
    {
        return Some(database_slot);
    }
    let database_slot = shared::get()?.ensure_database(oid);
    HERE.set(database_slot);
    database_slot
}

/// The first draw since the server started, or one that cannot follow those before.
#[cold]
fn draw_past_kept(sequence: Oid, database_slot: &DatabaseSlot) -> Result<i64> {
    identity::as_owner(|| {
        let kept = history::highest_id()?;
        loop {
            let highest = database_slot.highest_position.load(Ordering::SeqCst);
            let leap = if highest > 0 { LEAP } else { FIRST_LEAP };
            // After both: what they know of was drawn before it.
            let drawn = sequence::next(sequence);
            if is_next(highest.max(kept), drawn, leap) {
                database_slot
                    .highest_position
                    .fetch_max(drawn, Ordering::SeqCst);
                return Ok(drawn);
            }
            database_slot
                .highest_position
                .fetch_max(kept, Ordering::SeqCst);
            let ahead = database_slot
                .highest_position
                .fetch_add(JUMP, Ordering::SeqCst)
                + JUMP;
            sequence::set(sequence, ahead);
            say_set(drawn, ahead);
        }
    })
}

fn say_set(drawn: i64, ahead: i64) {
    ereport::log(
        &Error::new(
            SqlState::WARNING,
            format!("sequence pushy_internal.position_seq was set by somebody, to {drawn} or so: numbers of jobs go on behind {ahead}"),
        )
        .hint("A role with pg_write_all_data may set every sequence of the database: take it from whom you do not trust."),
    );
}
