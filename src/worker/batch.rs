//! One transaction of an executor: claim, run, record, commit (DESIGN.md, decision 1).

use std::ffi::CString;
use std::sync::atomic::Ordering;

use pushy_core::batch::{self, AfterJob};
use pushy_core::histogram;
use pushy_core::state::JobState;

use super::recorder::Recorder;
use super::verdict::SINGLE_US;
use super::{run_job, solitude};
use crate::errors::{Error, Result, SqlState};
use crate::job::claimed::Claimed;
use crate::job::current::Current;
use crate::job::finish::{self, Done, Verdict, MOST_STRIKES};
use crate::job::{claim, failure, live};
use crate::pg::function::Timestamp;
use crate::pg::handler::Callable;
use crate::pg::memory::{self, Context};
use crate::pg::subtransaction::CallError;
use crate::pg::transaction::{self, Failure};
use crate::pg::{clock, identity, interrupts, session, timeout, worker};
use crate::queue::definition::Definition;
use crate::queue::fitness::{self, Handler};
use crate::shared::queue_slot::{QueueSlot, Tally, NOTHING, PRIORITIES};
use crate::shared::{self, pending, Shared};

/// A queue as an executor works it.
pub struct Work {
    pub queue: Definition,
    pub name: std::rc::Rc<str>,
    pub slot: usize,
    /// Jobs of the last batch, and whether it ran all it had asked for.
    previous: u32,
    previous_full: bool,
}

impl Work {
    pub fn new(queue: Definition, slot: usize) -> Self {
        Self {
            name: queue.name.as_str().into(),
            queue,
            slot,
            previous: 0,
            previous_full: false,
        }
    }
}

/// How a batch ended.
#[derive(Debug)]
pub enum Ended {
    /// Jobs were run, or given back; there may be more.
    Worked,
    /// Nothing was ready.
    Empty,
    /// One of the jobs may be that of an executor whose end is still to be judged: whoever is told that it
    /// was sets our latch.
    Unsettled,
    /// The queue cannot run: it is parked now.
    Parked,
    /// The server lacks something: try again later.
    Failed(Failure),
}

/// What an executor brings to each of its batches.
pub struct Bench {
    pub me: usize,
    pub recorder: &'static Recorder,
    /// Jobs' arguments and results.
    batch_memory: Context,
    /// What a handler allocates.
    job_memory: Context,
}

/// What came of the jobs of a batch so far.
#[derive(Default)]
struct Results {
    started: usize,
    done: Vec<Done>,
    failed: Vec<Failed>,
    given_back: Vec<usize>,
    cancelled: Vec<usize>,
    /// The next one met a lock: it comes again as a batch of one, where it may wait.
    put_off: bool,
    /// When the jobs were through, and what they had deferred began.
    through_at: Option<Timestamp>,
}

struct Failed {
    index: usize,
    started_at: Timestamp,
    at: Timestamp,
    error: CallError,
}

/// From when to when something ran, and whether its deadline had passed.
struct Span {
    started_at: Timestamp,
    at: Timestamp,
    timed_out: bool,
}

/// Who is to blame for an error.
enum Blame {
    Job(CallError),
    /// Its cancel was asked for.
    Cancel,
    /// Somebody cancelled the executor, not the job.
    Nobody,
}

/// Counts of a batch, for the statistics after its commit.
#[derive(Default)]
struct Counts {
    retried: u64,
    discarded: u64,
}

/// So long the first job of a batch waits for a lock while others are claimed behind it: longer than a
/// batch of another executor holds its locks. Put off, it comes again with nobody behind it, and may wait.
const FIRST_LOCK_TIMEOUT_MS: i32 = 200;
/// Later jobs of a batch wait so long for a lock before they are put off: their own batch holds locks.
const LATER_LOCK_TIMEOUT_MS: i32 = 50;

impl Bench {
    pub fn new(me: usize, recorder: &'static Recorder) -> Self {
        Self {
            me,
            recorder,
            batch_memory: Context::new(c"pushy batch"),
            job_memory: Context::new(c"pushy job"),
        }
    }

    /// Runs one batch of a queue whose permit the caller holds.
    pub fn run(&self, work: &mut Work) -> Ended {
        let shared = shared::expect();
        let mut claimed = Vec::new();
        let mut results = Results::default();
        let outcome = transaction::catch(|| {
            let _held = interrupts::hold_cancels();
            memory::around_transaction(|| {
                transaction::begin();
                self.batch_memory.reset();
                self.batch_memory
                    .enter(|| self.work(shared, work, &mut claimed, &mut results))
            })
        });
        let ended = match outcome {
            Ok(Ok(ended)) => ended,
            Ok(Err(error)) => self.fail(work, &claimed, &results, Failure::from(error)),
            Err(failure) => self.fail(work, &claimed, &results, failure),
        };
        self.recorder.note(self.me).leave();
        shared.executors[self.me].leave_job();
        let cancels = shared.executors[self.me].close_batch();
        solitude::end(shared, self.me);
        match cancel_rest(work, &cancels) {
            Ok(()) => ended,
            Err(failure) => Ended::Failed(failure),
        }
    }

    fn work(
        &self,
        shared: &Shared,
        work: &mut Work,
        claimed: &mut Vec<Claimed>,
        results: &mut Results,
    ) -> Result<Ended> {
        let handler = match fitness::check(&work.queue) {
            Ok(handler) => handler,
            Err(unfit) => {
                park(work, &unfit.reason())?;
                transaction::commit();
                return Ok(Ended::Parked);
            }
        };
        let began = clock::now();
        let slot = &shared.queues()[work.slot];
        let single = !work.queue.batch || slot.single_until.load(Ordering::Relaxed) > began.0;
        let mean = slot.mean_ns.load(Ordering::Relaxed);
        let most = if single {
            1
        } else {
            batch::claim_size(mean, work.previous, work.previous_full)
        };
        *claimed = self.claim(shared, work, most)?;
        if claimed.is_empty() {
            transaction::commit();
            return Ok(Ended::Empty);
        }
        if self
            .recorder
            .is_unsettled(shared, work.queue.key().database)
        {
            give_up(work, claimed);
            transaction::commit();
            return Ok(Ended::Unsettled);
        }
        let me = &shared.executors[self.me];
        me.set_batch(claimed.iter().map(|job| job.id));
        if claimed[0].alone {
            if !solitude::seek(shared, self.me) {
                give_up(work, claimed);
                transaction::commit();
                return Ok(Ended::Worked);
            }
            self.recorder.note(self.me).set_alone(true);
        }
        self.run_all(work, &handler, single, began, claimed, results)?;
        let note = self.recorder.note(self.me);
        note.enter_commit(results.started as u32);
        self.run_deferred(work, claimed, results)?;
        let counts = identity::as_owner(|| record(work, claimed, results))?;
        let ran = results.started;
        give_up(work, &claimed[ran..]);
        let used_temporary = session::used_temporary_objects();
        transaction::commit();
        note.leave();
        note.set_alone(false);
        work.previous = if results.put_off { 0 } else { ran as u32 };
        work.previous_full = ran == claimed.len() && ran as u32 == most;
        self.count(shared, work, claimed, results, &counts);
        if used_temporary {
            transaction::begin();
            session::drop_temporary_objects();
            transaction::commit();
        }
        worker::report_statistics();
        Ok(Ended::Worked)
    }

    /// Takes the watermarks and locks up to `most` jobs, from the first priority on. Whatever happens to
    /// this transaction but its commit puts the watermarks back.
    fn claim(&self, shared: &Shared, work: &Work, most: u32) -> Result<Vec<Claimed>> {
        let key = work.queue.key();
        let slot = &shared.queues()[work.slot];
        let mut claimed: Vec<Claimed> = Vec::with_capacity(most as usize);
        shared.clear_ready(work.slot);
        for priority in 0..PRIORITIES {
            let from = shared.take_low(work.slot, priority);
            if from == NOTHING {
                continue;
            }
            pending::claimed(work.slot, key, priority, from);
            let room = most - claimed.len() as u32;
            let more = claim::claim(
                work.queue.queue_id,
                priority,
                from,
                room,
                &self.batch_memory,
            )?;
            let full = more.len() as u32 == room;
            if let Some(last) = more.last().filter(|_| full) {
                shared.announce(work.slot, key, priority, last.position as u64 + 1);
            }
            claimed.extend(more);
            if full {
                break;
            }
        }
        if slot.may_be_ready() {
            shared.set_ready(work.slot);
            if is_worth_helping(slot, claimed.len()) {
                shared.wake_for(work.slot);
            }
        }
        Ok(claimed)
    }

    fn run_all(
        &self,
        work: &Work,
        handler: &Handler,
        single: bool,
        began: Timestamp,
        claimed: &[Claimed],
        results: &mut Results,
    ) -> Result<()> {
        let shared = shared::expect();
        let me = &shared.executors[self.me];
        let callable = Callable::new(
            handler.oid,
            handler.takes != fitness::Takes::Nothing,
            handler.returns,
            &self.batch_memory,
        );
        let is_only = claimed.len() == 1;
        let mut is_later = false;
        let mut lock_patience =
            (!is_only).then(|| timeout::bound_lock_waits(FIRST_LOCK_TIMEOUT_MS));
        for (index, job) in claimed.iter().enumerate() {
            if index > 0 && (job.alone || me.stop_requested.load(Ordering::SeqCst)) {
                break;
            }
            if results.started > 0 && !is_later {
                is_later = true;
                drop(lock_patience.take());
                lock_patience = Some(timeout::bound_lock_waits(LATER_LOCK_TIMEOUT_MS));
            }
            let started_at = clock::now();
            let Some(ran) = self.run_one(work, handler, &callable, job, started_at)? else {
                results.started = index + 1;
                results.cancelled.push(index);
                continue;
            };
            let now = clock::now();
            let sqlstate = ran.result.as_ref().err().map(|e| e.sqlstate.clone());
            match ran.result {
                Ok(result) => {
                    results.done.push(Done {
                        of: index,
                        started_at,
                        finished_at: now,
                        result,
                    });
                }
                Err(error) if !batch::is_charged(&error.sqlstate, is_only) => {
                    results.put_off = true;
                    break;
                }
                Err(error) => {
                    let span = Span {
                        started_at,
                        at: now,
                        timed_out: ran.timed_out,
                    };
                    match self.blame(work, job, error, &span) {
                        Blame::Job(error) => results.failed.push(Failed {
                            index,
                            started_at,
                            at: now,
                            error,
                        }),
                        Blame::Cancel => results.cancelled.push(index),
                        Blame::Nobody => results.given_back.push(index),
                    }
                }
            }
            results.started = index + 1;
            let after = AfterJob {
                alone: single || job.alone,
                elapsed_us: now.since_us(began),
                jobs: index as u32 + 1,
                subxids: transaction::subtransaction_ids(),
                had_key: job.unique_key.is_some(),
                used_temporary: session::used_temporary_objects(),
                set_constraints: session::take_constraints_set(),
                failure: sqlstate.as_deref(),
            };
            if batch::ends_batch(&after).is_some() {
                break;
            }
        }
        drop(lock_patience);
        for (index, job) in claimed.iter().enumerate().skip(results.started) {
            if me.is_cancel_requested(job.id) {
                results.cancelled.push(index);
            }
        }
        Ok(())
    }

    /// What the jobs have deferred to the commit: user code still, so it has a deadline, can be cancelled
    /// (when it is one job's) and leaves nothing in the session.
    fn run_deferred(&self, work: &Work, claimed: &[Claimed], results: &mut Results) -> Result<()> {
        let me = &shared::expect().executors[self.me];
        let started = &claimed[..results.started];
        let timeouts = started.iter().map(|job| self.timeout_us(work, job));
        let timeout_us = if timeouts.clone().any(|timeout_us| timeout_us == 0) {
            0
        } else {
            timeouts.max().unwrap_or(0)
        };
        let now = clock::now();
        results.through_at = Some(now);
        if let ([job], [done]) = (started, &results.done[..]) {
            interrupts::forget_cancel();
            let started_at = done.started_at;
            me.enter_job(work.queue.queue_id, job.id, job.attempt, started_at.0);
            if me.is_cancel_requested(job.id) {
                return Err(Error::new(
                    SqlState::QUERY_CANCELED,
                    "the job was cancelled",
                ));
            }
        }
        let is_only = claimed.len() == 1;
        let lock_patience = (!is_only).then(|| timeout::bound_lock_waits(LATER_LOCK_TIMEOUT_MS));
        let cancels = interrupts::release_cancels();
        run_job::run_deferred(timeout_us);
        drop(cancels);
        drop(lock_patience);
        me.leave_job();
        Ok(())
    }

    /// Who is to blame for an error of a job.
    fn blame(&self, work: &Work, job: &Claimed, error: CallError, ran: &Span) -> Blame {
        let me = &shared::expect().executors[self.me];
        if error.sqlstate != SqlState::QUERY_CANCELED.0 {
            Blame::Job(error)
        } else if me.is_cancel_requested(job.id) {
            Blame::Cancel
        } else if ran.timed_out {
            let timeout_us = self.timeout_us(work, job);
            Blame::Job(run_job::timeout_error(timeout_us, ran.started_at, ran.at))
        } else if job.strikes < MOST_STRIKES {
            Blame::Nobody
        } else {
            Blame::Job(error)
        }
    }

    fn timeout_us(&self, work: &Work, job: &Claimed) -> i64 {
        job.timeout_us.unwrap_or(work.queue.timeout_us)
    }

    /// Runs a job; None when its cancel was asked for before it began.
    fn run_one(
        &self,
        work: &Work,
        handler: &Handler,
        callable: &Callable,
        job: &Claimed,
        started_at: Timestamp,
    ) -> Result<Option<run_job::Ran>> {
        let shared = shared::expect();
        let me = &shared.executors[self.me];
        let last_error = if job.attempt > 0 && handler.takes == fitness::Takes::Job {
            identity::as_owner(|| failure::last_message(job.id))?
        } else {
            None
        };
        let current = Current {
            queue: std::rc::Rc::clone(&work.name),
            max_attempts: job.max_attempts.unwrap_or(work.queue.max_attempts),
            started_at,
            job: job.clone(),
        };
        show(&work.name, job.id);
        let note = self.recorder.note(self.me);
        note.enter(
            work.queue.key().database,
            work.queue.queue_id,
            job.id,
            job.attempt,
        );
        // Whoever asks for a cancel writes it down and looks then who runs; we say who runs and look then
        // what is written down: one of the two sees the other.
        interrupts::forget_cancel();
        me.enter_job(work.queue.queue_id, job.id, job.attempt, started_at.0);
        if me.is_cancel_requested(job.id) {
            me.leave_job();
            note.leave();
            return Ok(None);
        }
        let cancels = interrupts::release_cancels();
        let ran = run_job::run(
            callable,
            handler.takes,
            &current,
            last_error.as_deref(),
            self.timeout_us(work, job),
            &self.job_memory,
            &self.batch_memory,
        );
        drop(cancels);
        me.leave_job();
        note.leave();
        Ok(Some(ran))
    }

    fn count(
        &self,
        shared: &Shared,
        work: &Work,
        claimed: &[Claimed],
        results: &Results,
        counts: &Counts,
    ) {
        let slot = &shared.queues()[work.slot];
        let statistics = &slot.statistics;
        let add = |counter: &std::sync::atomic::AtomicU64, value: u64| {
            if value > 0 {
                counter.fetch_add(value, Ordering::Relaxed);
            }
        };
        let mut run_us = 0;
        for done in &results.done {
            let job = &claimed[done.of];
            let wait = done.started_at.since_us(job.run_at);
            let run = done.finished_at.since_us(done.started_at);
            run_us += run;
            statistics.wait.0[histogram::bucket(wait)].fetch_add(1, Ordering::Relaxed);
            statistics.run.0[histogram::bucket(run)].fetch_add(1, Ordering::Relaxed);
        }
        let done = results.done.len() as u64;
        if let Some(sample_ns) = (run_us * 1000).checked_div(done) {
            let mean = slot.mean_ns.load(Ordering::Relaxed);
            let mean = batch::fold_mean(mean, sample_ns.max(1));
            slot.mean_ns.store(mean, Ordering::Relaxed);
        }
        add(&statistics.completed, done);
        add(&statistics.failed, results.failed.len() as u64);
        add(&statistics.retried, counts.retried);
        add(&statistics.discarded, counts.discarded);
        add(&statistics.cancelled, results.cancelled.len() as u64);
        add(&statistics.batches, 1);
        add(&statistics.run_us, run_us);
        let finished = done + counts.discarded + results.cancelled.len() as u64;
        if finished > 0 {
            let second = clock::now().0 as u64 / 1_000_000;
            statistics.count_finished(second, finished);
            slot.finished.broadcast();
        }
        shared.executors[self.me]
            .jobs_done
            .fetch_add(results.started as u64, Ordering::Relaxed);
    }

    /// The transaction failed outside of any handler: at COMMIT, or in our own statements. Nobody pays
    /// for another: a larger batch is run again one by one, a batch of one is its job's failure.
    fn fail(
        &self,
        work: &mut Work,
        claimed: &[Claimed],
        results: &Results,
        failure: Failure,
    ) -> Ended {
        transaction::abort();
        // What no abort undoes: prepared statements, session locks.
        session::clean_between_jobs();
        self.recorder.note(self.me).leave();
        self.recorder.note(self.me).set_alone(false);
        work.previous = 0;
        work.previous_full = false;
        if finish::is_infrastructure(&failure.sqlstate) || results.started == 0 {
            return Ended::Failed(failure);
        }
        if results.started > 1 || !batch::is_charged(&failure.sqlstate, claimed.len() == 1) {
            let until = clock::now().plus_us(SINGLE_US).0;
            let slot = &shared::expect().queues()[work.slot];
            slot.single_until.store(until, Ordering::Relaxed);
            return Ended::Worked;
        }
        let job = &claimed[0];
        let at = clock::now();
        let through_at = results.through_at.unwrap_or(at);
        let timeout_us = self.timeout_us(work, job);
        let span = Span {
            started_at: through_at,
            at,
            timed_out: timeout_us > 0 && at.since_us(through_at) as i64 >= timeout_us,
        };
        let blame = self.blame(work, job, CallError::from(failure), &span);
        let started_at = results.done.first().map(|done| done.started_at);
        let recorded = transaction::run(|| {
            identity::as_owner(|| {
                let Some(now_there) = live::lock_if_free(job.id)? else {
                    return Ok(None);
                };
                if now_there.job.attempt != job.attempt {
                    return Ok(None);
                }
                let slot = Some(work.slot);
                match &blame {
                    Blame::Job(error) => {
                        finish::fail(&work.queue, slot, &now_there.job, started_at, at, error)
                            .map(Some)
                    }
                    Blame::Nobody => {
                        finish::give_back(&work.queue, slot, &now_there.job).map(|()| None)
                    }
                    // Carried out when the batch is closed.
                    Blame::Cancel => Ok(None),
                }
            })
        });
        match recorded {
            Ok(verdict) => {
                let slot = &shared::expect().queues()[work.slot];
                let statistics = &slot.statistics;
                if verdict.is_some() {
                    statistics.failed.fetch_add(1, Ordering::Relaxed);
                }
                match verdict {
                    Some(Verdict::Retry) => {
                        statistics.retried.fetch_add(1, Ordering::Relaxed);
                    }
                    Some(Verdict::Discard) => {
                        statistics.discarded.fetch_add(1, Ordering::Relaxed);
                        slot.finished.broadcast();
                    }
                    None => {}
                }
                Ended::Worked
            }
            Err(failure) => Ended::Failed(failure),
        }
    }
}

/// Whether another executor should be woken for what this one left: not when it will be back sooner than
/// the other is up. (Else each single short job would wake two.)
fn is_worth_helping(slot: &QueueSlot, claimed: usize) -> bool {
    const SOON_NS: u64 = 1_000_000;
    const MANY: usize = 16;
    let mean = slot.mean_ns.load(Ordering::Relaxed);
    mean == 0 || claimed >= MANY || mean.saturating_mul(claimed as u64) >= SOON_NS
}

/// Writes down what came of the jobs; as the extension's owner.
fn record(work: &Work, claimed: &[Claimed], results: &Results) -> Result<Counts> {
    let mut counts = Counts::default();
    let slot = Some(work.slot);
    finish::complete(&work.queue, claimed, &results.done)?;
    for failed in &results.failed {
        let job = &claimed[failed.index];
        let started_at = Some(failed.started_at);
        match finish::fail(&work.queue, slot, job, started_at, failed.at, &failed.error)? {
            Verdict::Retry => counts.retried += 1,
            Verdict::Discard => counts.discarded += 1,
        }
    }
    for index in &results.given_back {
        finish::give_back(&work.queue, slot, &claimed[*index])?;
    }
    for index in &results.cancelled {
        let job = &claimed[*index];
        let now = clock::now();
        finish::end_as(
            &work.queue,
            job.id,
            JobState::Cancelled,
            job.attempt,
            None,
            now,
        )?;
    }
    Ok(counts)
}

/// Cancels of jobs of a batch that is over: one that was given up, put off or rolled back with the batch
/// must not run after all. Those that are finished are gone from the table.
fn cancel_rest(work: &Work, jobs: &[i64]) -> std::result::Result<(), Failure> {
    if jobs.is_empty() {
        return Ok(());
    }
    transaction::run(|| {
        identity::as_owner(|| {
            for id in jobs {
                if let Some(free) = live::lock_if_free(*id)? {
                    let now = clock::now();
                    let attempt = free.job.attempt;
                    finish::end_as(&work.queue, *id, JobState::Cancelled, attempt, None, now)?;
                    let cancelled = Tally {
                        cancelled: 1,
                        ..Tally::default()
                    };
                    pending::ended(work.slot, cancelled);
                } else if live::look(*id)?.is_some() {
                    // Another executor has it by now.
                    pending::cancel(*id);
                }
            }
            Ok(())
        })
    })
}

/// Jobs claimed and not run are free again when the transaction ends.
fn give_up(work: &Work, unrun: &[Claimed]) {
    for job in unrun {
        let key = work.queue.key();
        pending::ready(work.slot, key, job.priority as usize, job.position, 0);
    }
}

/// Parks the queue: no executor tries it again before somebody has looked.
fn park(work: &Work, reason: &str) -> Result<()> {
    use crate::params;
    use crate::pg::spi::{self, Plan};
    use pgrx::pg_sys::BuiltinOid;

    static PARK: Plan = Plan::new(
        "UPDATE pushy.queue SET parked = $2 WHERE queue_id OPERATOR(pg_catalog.=) $1",
        &[BuiltinOid::INT4OID, BuiltinOid::TEXTOID],
    );
    identity::as_owner(|| {
        spi::run(&PARK, params![work.queue.queue_id, reason]);
        Ok(())
    })?;
    let mut facts = work.queue.facts();
    facts.runnable = false;
    pending::defined(facts);
    let error = crate::errors::Error::new(
        crate::errors::SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("queue \"{}\" is parked: {reason}", work.queue.name),
    )
    .hint("pushy.queue_explain tells what to do; then run pushy.queue_resume.");
    crate::pg::ereport::log(&error);
    Ok(())
}

/// Shows queue and job in pg_stat_activity; never arguments.
fn show(queue: &str, job: i64) {
    if let Ok(text) = CString::new(format!("pushy queue {queue}: job {job}")) {
        worker::show_activity(Some(&text));
    }
}
