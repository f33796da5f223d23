//! A scheduler's due jobs: made ready for a while, between the other steps of a round, until none is left.

use std::cell::Cell;

use pushy_core::turns::Turns;

use super::scheduler::{after_look, repeat, Scheduler};
use crate::errors::Result;
use crate::job::moves::promote;
use crate::pg::value::Timestamp;
use crate::pg::{clock, identity, interrupts, transaction};
use crate::queue::definition::QueueDefinition;
use crate::shared::database::NEVER;
use crate::worker::retention;

/// Rows per transaction: a scheduler never holds many locks, nor a snapshot for long.
const ROWS: usize = 1000;

/// So long (µs) due jobs are made ready, one after another, before the rest of a round has its turn.
const STRETCH_US: i64 = 100_000;

impl Scheduler {
    /// Answers when something is due next, and whether the jobs that are due by now are to be tried again.
    pub(super) fn keep_time(&self) -> (Option<i64>, bool) {
        let has_failed = Cell::new(false);
        let make_ready = || {
            let made = self.make_ready();
            let failed = made.as_ref().is_err_and(|failure| !failure.is_busy());
            has_failed.set(has_failed.get() || failed);
            self.pass_over(made).flatten()
        };
        let waiting = make_ready();
        if has_failed.get() {
            self.make_ready_by_queue();
        }
        self.pass_over(retention::assign_wanted(self.database_slot));
        // Retention is put off, never jobs: they are looked for between two of its transactions.
        let due = Cell::new(waiting);
        let keep_on = || {
            if !has_failed.get() && self.are_jobs_due() {
                due.set(make_ready());
            }
            Ok(())
        };
        let removal = self.pass_over(retention::remove(self.database_slot, &self.purge, &keep_on));
        let again = || Some(clock::now().plus_us(retention::AGAIN_US).0);
        let removal = removal.unwrap_or_else(again);
        let nexts = due.get().into_iter().chain(removal);
        let next = nexts.chain(self.keep_leases()).min();
        (next, has_failed.get())
    }

    /// What could not be made ready together is made ready queue by queue, so that the jobs of one do not keep those of others
    /// waiting; for a while, then it goes on in the next round, until all queues had their turn. All stay announced.
    #[cold]
    fn make_ready_by_queue(&self) {
        let began = clock::now();
        let all = self.queues.len();
        let (mut next, left) = self.by_queue.take().unwrap_or((0, all));
        let mut left = left.min(all);
        while left > 0 {
            let queue = &self.queues[next % all];
            let is_over = || clock::now().since_us(began) as i64 > STRETCH_US;
            let mut has_more = false;
            let made = repeat(&|| Ok(()), || {
                has_more = promote_unheld_of(queue)?;
                Ok(has_more && !is_over())
            });
            self.pass_over(made);
            next += 1;
            // One that has more has another turn.
            left = if has_more { all } else { left - 1 };
            interrupts::check();
            if is_over() && left > 0 {
                self.by_queue.set(Some((next, left)));
                self.database_slot.announce_due(clock::now().0);
                return;
            }
        }
    }

    pub(super) fn are_jobs_due(&self) -> bool {
        self.has_turns() || self.database_slot.has_waiting_by(clock::now().0)
    }

    pub(super) fn has_turns(&self) -> bool {
        let turns = self.turns.take();
        let has = turns.is_some();
        self.turns.set(turns);
        has
    }

    /// Makes due jobs ready, for a while; answers when the next are due.
    fn make_ready(&self) -> Result<Option<i64>> {
        let began = clock::now();
        let mut turns = self.turns.take();
        self.hear_of_waiting(&mut turns);
        let Some(mut turns) = turns else {
            return Ok(None);
        };
        let kept = loop {
            match promote_some(&self.queues, &mut turns) {
                Ok(Some(true)) => {}
                Ok(_) => {
                    let from = turns.from;
                    break transaction::run(|| first_waiting(from));
                }
                Err(failure) => break Err(failure),
            }
            interrupts::check();
            let mut heard = Some(turns);
            self.hear_of_waiting(&mut heard);
            if clock::now().since_us(began) as i64 > STRETCH_US {
                self.turns.set(heard);
                return Ok(Some(began.0));
            }
            turns = heard.expect("what is there stays");
        };
        let waiting = kept.as_ref().map_or(Some(turns.from), |first| *first);
        self.database_slot
            .announce_waiting(waiting.unwrap_or(NEVER));
        Ok(kept?.map(|next| after_look(began, next)))
    }

    /// Takes the time from which on jobs wait that have come since. Before any snapshot: a job that commits too late for the
    /// snapshot announces its time after this.
    fn hear_of_waiting(&self, turns: &mut Option<Turns>) {
        let from = self.database_slot.take_waiting();
        if from == NEVER {
            return;
        }
        match turns {
            Some(turns) => turns.hear_of(from),
            None => *turns = Some(promote::turns_from(from)),
        }
    }
}

/// Makes some of the due jobs ready, whose turn it is; false when there are no more. None: somebody holds what it needs.
fn promote_some(queues: &[QueueDefinition], turns: &mut Turns) -> Result<Option<bool>> {
    transaction::run_unless_busy(|| identity::as_owner(|| promote::promote(queues, turns)))
}

/// Makes some of the due jobs of one queue ready; true when there may be more.
fn promote_unheld_of(queue: &QueueDefinition) -> Result<bool> {
    identity::as_owner(|| promote::promote_unheld_of(queue, clock::now(), ROWS))
}

/// The time for which the first job waits, `from` or later; None: not before one is enqueued.
fn first_waiting(from: i64) -> Result<Option<i64>> {
    let first = identity::as_owner(|| promote::first_waiting(Timestamp(from)))?;
    Ok(first.map(|first| first.0))
}
