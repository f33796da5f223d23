//! What came of the jobs of a batch: written down in its transaction, counted after it.

use std::sync::atomic::{AtomicU64, Ordering};

use pushy_core::job_state::JobState;
use pushy_core::{batch, histogram};

use crate::errors::{Error, Result};
use crate::job::claimed::Claimed;
use crate::job::moves::cancel::cancel;
use crate::job::moves::claim::claimed_in;
use crate::job::moves::complete::{complete, Completed};
use crate::job::moves::give_back::give_back;
use crate::job::moves::retry_or_discard::{fail, Attempt, Next};
use crate::job::moves::snooze::snooze;
use crate::job::words::Word;
use crate::job::{checkpoint, log, promise};
use crate::pg::value::Timestamp;
use crate::shared;
use crate::shared::cancels::Asked;
use crate::worker::hold::Hold;
use crate::worker::work::Work;

/// What came of the jobs of a batch so far.
#[derive(Default)]
pub(in crate::worker) struct Outcomes {
    pub(in crate::worker) started: usize,
    pub(in crate::worker) done: Vec<Completed>,
    pub(in crate::worker) failed: Vec<Failed>,
    pub(in crate::worker) given_back: Vec<usize>,
    /// Put off by their handlers, which have done what they did: since when each ran, and until when it waits.
    pub(in crate::worker) snoozed: Vec<Snoozed>,
    /// Each with when it began, if it did.
    pub(in crate::worker) cancelled: Vec<(usize, Option<Timestamp>)>,
    /// As they were: their cancel was asked for by a transaction that has not ended yet.
    pub(in crate::worker) left: Vec<usize>,
    /// The one job is a procedure's, held by a lease that has this number.
    pub(in crate::worker) hold: Option<Hold>,
    /// The next one met a lock: it comes again as a batch of one, where it may wait.
    pub(in crate::worker) put_off: bool,
    /// So many of the started ones have nothing deferred to the commit any more.
    pub(in crate::worker) deferred_ran_of: usize,
    /// When the jobs were through, and what they had deferred began.
    pub(in crate::worker) through_at: Option<Timestamp>,
    /// That is through too: what fails from here on is no code of a user's.
    pub(in crate::worker) deferred_ran: bool,
}

impl Outcomes {
    /// A handler has returned and put its job off.
    #[cold]
    pub(in crate::worker) fn put_off_by(
        &mut self,
        index: usize,
        started_at: Timestamp,
        word: Option<Word>,
    ) {
        if let Some(Word::Snooze(due)) = word {
            self.snoozed.push(Snoozed {
                index,
                started_at,
                due,
            });
        }
    }

    /// A job makes way for its cancel.
    pub(in crate::worker) fn give_way(
        &mut self,
        index: usize,
        asked: Asked,
        started_at: Option<Timestamp>,
    ) {
        match asked {
            Asked::Committed => self.cancelled.push((index, started_at)),
            Asked::Open => self.left.push(index),
        }
    }

    /// When the job at this place of the batch began, as far as that is known.
    pub(in crate::worker) fn started_at(&self, index: usize) -> Option<Timestamp> {
        let done = self.done.iter().find(|done| done.of == index);
        let failed = self.failed.iter().find(|failed| failed.index == index);
        done.map(|done| done.started_at)
            .or(failed.map(|failed| failed.started_at))
            .or_else(|| {
                let snoozed = self.snoozed.iter().find(|one| one.index == index);
                snoozed.map(|one| one.started_at)
            })
            .or_else(|| self.cancelled.iter().find(|one| one.0 == index)?.1)
    }

    /// Whether what the started jobs may have deferred to the commit is not as deep as this.
    #[inline]
    pub(in crate::worker) fn are_of_another_depth(&self, claimed: &[Claimed], depth: i32) -> bool {
        self.deferred_ran_of < self.started && claimed[self.deferred_ran_of].depth != depth
    }

    /// Whether what the jobs have deferred runs just now.
    pub(in crate::worker) fn is_running_deferred(&self) -> bool {
        self.through_at.is_some() && !self.deferred_ran
    }
}

pub(in crate::worker) struct Failed {
    pub(in crate::worker) index: usize,
    pub(in crate::worker) started_at: Timestamp,
    pub(in crate::worker) at: Timestamp,
    pub(in crate::worker) error: Error,
    /// What its handler wants to be next.
    pub(in crate::worker) next: Option<Next>,
}

pub(in crate::worker) struct Snoozed {
    pub(in crate::worker) index: usize,
    pub(in crate::worker) started_at: Timestamp,
    pub(in crate::worker) due: Timestamp,
}

/// Writes down what came of the jobs, which the commit counts; as the extension's owner.
pub(in crate::worker) fn record(
    work: &Work,
    claimed: &[Claimed],
    outcomes: &Outcomes,
) -> Result<()> {
    let (queue, slot, from) = (&work.queue, Some(work.slot), JobState::Running);
    complete(queue, slot, claimed, claimed_in(), &outcomes.done)?;
    for failed in &outcomes.failed {
        let attempt = Attempt {
            started_at: Some(failed.started_at),
            ended_at: failed.at,
            error: &failed.error,
            next: failed.next,
        };
        fail(queue, slot, from, &claimed[failed.index], &attempt)?;
    }
    for snoozed in &outcomes.snoozed {
        snooze(queue, slot, from, &claimed[snoozed.index], snoozed.due)?;
    }
    for index in &outcomes.given_back {
        give_back(queue, slot, from, &claimed[*index])?;
    }
    for (index, started_at) in &outcomes.cancelled {
        let job = &claimed[*index];
        if promise::forget(job.id)? {
            cancel(queue, slot, from, job, *started_at)?;
        } else {
            // It was cancelled before, and made to run again since.
            give_back(queue, slot, from, job)?;
        }
    }
    if checkpoint::is_any() {
        let put_off = |index: usize| outcomes.snoozed.iter().any(|one| one.index == index);
        let ended = (0..outcomes.started).filter(|index| !put_off(*index));
        checkpoint::remove_unless_put_off(ended.map(|index| &claimed[index]))?;
    }
    if log::is_any() {
        write_log(work, claimed, outcomes)?;
    }
    Ok(())
}

/// What was said by those that have ended and are kept.
#[cold]
fn write_log(work: &Work, claimed: &[Claimed], outcomes: &Outcomes) -> Result<()> {
    let is_kept = |index: &usize| {
        let is_done = || outcomes.done.iter().any(|done| done.of == *index);
        !(outcomes.given_back.contains(index)
            || outcomes.left.contains(index)
            || (work.queue.keep_completed_us == 0 && is_done()))
    };
    let ended = (0..outcomes.started).filter(is_kept);
    log::write(work.queue.queue_id, ended.map(|index| &claimed[index]))
}

/// Measures the batch, once its transaction has committed: how long its jobs waited and ran.
pub(in crate::worker) fn measure(work: &Work, claimed: &[Claimed], outcomes: &Outcomes) {
    let shared = shared::expect();
    let slot = &shared.queues()[work.slot];
    if !slot.is(work.queue.key()) {
        // The queue was dropped, and another one may have its place.
        return;
    }
    let statistics = shared.statistics_of(work.slot);
    let add = |counter: &AtomicU64, value: u64| {
        if value > 0 {
            counter.fetch_add(value, Ordering::Relaxed);
        }
    };
    let mut run_us = 0;
    for done in &outcomes.done {
        let job = &claimed[done.of];
        let wait = done.started_at.since_us(job.run_at);
        let run = done.finished_at.since_us(done.started_at);
        run_us += run;
        statistics.wait.0[histogram::bucket(wait)].fetch_add(1, Ordering::Relaxed);
        statistics.run.0[histogram::bucket(run)].fetch_add(1, Ordering::Relaxed);
    }
    let done = outcomes.done.len() as u64;
    if let Some(sample_ns) = (run_us * 1000).checked_div(done) {
        let mean = slot.mean_ns.load(Ordering::Relaxed);
        let mean = batch::fold_mean(mean, sample_ns.max(1));
        slot.mean_ns.store(mean, Ordering::Relaxed);
    }
    add(&statistics.batches, 1);
    add(&statistics.run_us, run_us);
}
