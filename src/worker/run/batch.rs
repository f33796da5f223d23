//! One transaction of an executor: claim, run, record, commit (docs/design.md).

use std::sync::atomic::Ordering;

use pushy_core::batch::{self, BatchPlan};

use crate::errors::{Error, Result};
use crate::job::claimed::Claimed;
use crate::job::moves::claim::{self, ClaimLimit};
use crate::job::moves::give_back::release;
use crate::job::{checkpoint, log};
use crate::pg::catch::caught;
use crate::pg::memory::{self, Context};
use crate::pg::{clock, identity, interrupts, session, timeout, worker};
use crate::pg::{snapshot, transaction};
use crate::queue::park;
use crate::shared::{self, pending, Shared};
use crate::worker::cancels;
use crate::worker::executor_process;
use crate::worker::held_rows::HeldRows;
use crate::worker::hold;
use crate::worker::outcomes::{self, Outcomes};
use crate::worker::quarantine::Quarantine;
use crate::worker::recorder::Recorder;
use crate::worker::wake_another::WakeAnother;
use crate::worker::work::{still_eligible, Work};

/// How a batch ended.
#[derive(Debug)]
pub enum Ended {
    /// Jobs were run, or given back; there may be more.
    Worked,
    /// Nothing was ready.
    Empty,
    /// One of the jobs, or one before them in a queue that keeps its order, may have a verdict that is not given or not
    /// carried out: the launcher, or the scheduler, sets this executor's latch when it has done so.
    AwaitsVerdict,
    /// Another executor runs a suspected job alone, or waits to: it sets this executor's latch when that is over.
    Alone,
    /// The queue cannot run: it is parked now.
    Parked,
    /// Nothing could be done, because somebody holds the queue's row: try again in a moment.
    Busy,
    /// The role has lost its LOGIN or its way into the database, or its session has rights that it has not: this executor
    /// may not stay.
    NoSession,
    /// The server lacks something: try again later.
    Failed(Error),
}

/// What an executor brings to each of its batches.
pub struct BatchRunner {
    pub me: usize,
    pub recorder: &'static Recorder,
    wake_another: WakeAnother,
    quarantine: Quarantine,
    /// Jobs' arguments and results.
    pub(in crate::worker) batch_memory: Context,
    /// What a handler allocates.
    pub(in crate::worker) job_memory: Context,
}

/// Memory that stays between batches: given back and asked for again, it cost 4 % of a batch.
const BATCH_BYTES: usize = 256 * 1024;

impl BatchRunner {
    pub fn new(me: usize, recorder: &'static Recorder) -> Self {
        Self {
            me,
            recorder,
            wake_another: WakeAnother::new(),
            quarantine: Quarantine::new(recorder.note(me)),
            batch_memory: Context::keeping(c"pushy batch", BATCH_BYTES),
            job_memory: Context::new(c"pushy job"),
        }
    }

    /// Runs one batch of a queue whose permit the caller holds. `is_current`: whether its definition is
    /// still the one that `work` has.
    pub fn run(&self, work: &mut Work, is_current: &dyn Fn() -> bool) -> Ended {
        let shared = shared::expect();
        let mut claimed = Vec::new();
        let mut outcomes = Outcomes::default();
        log::forget();
        checkpoint::forget();
        let outcome = caught(|| {
            let _held = interrupts::hold_cancels();
            memory::around_transaction(|| {
                let _bookkeeping = transaction::begin();
                self.batch_memory.reset();
                self.batch_memory
                    .enter(|| self.work(shared, work, is_current, &mut claimed, &mut outcomes))
            })
        });
        let ended = match outcome {
            Ok(Ok(ended)) if outcomes.hold.is_none() => ended,
            Ok(Ok(_)) => self.run_procedure(work, &claimed, &mut outcomes),
            Ok(Err(error)) => self.fail(work, &claimed, &outcomes, error),
            Err(failure) => self.fail(work, &claimed, &outcomes, failure),
        };
        self.recorder.note(self.me).leave();
        let me = &shared.executors[self.me];
        me.claiming.store(false, Ordering::SeqCst);
        me.leave_job();
        me.clear_batch();
        if outcomes.hold.is_some() {
            hold::let_go(shared, me);
        }
        self.quarantine.end(shared, self.me);
        let left = outcomes.left.iter().map(|index| &claimed[*index]);
        announce_left(shared, work, left);
        match cancels::cancel_all_of(shared, &claimed, &outcomes) {
            Ok(()) => ended,
            Err(failure) => Ended::Failed(failure),
        }
    }

    fn work(
        &self,
        shared: &Shared,
        work: &mut Work,
        is_current: &dyn Fn() -> bool,
        claimed: &mut Vec<Claimed>,
        outcomes: &mut Outcomes,
    ) -> Result<Ended> {
        let handler = match work.handler() {
            Ok(handler) => handler,
            Err(ineligible) if ineligible.refuses_sessions() => {
                transaction::commit();
                return Ok(Ended::NoSession);
            }
            Err(_) => {
                let is_parked = park::park(work.queue.queue_id)?;
                transaction::commit();
                return Ok(if is_parked {
                    Ended::Parked
                } else {
                    Ended::Busy
                });
            }
        };
        if work.queue.concurrency == Some(1)
            && self.recorder.order_awaits_verdict(shared, work.queue.key())
        {
            transaction::commit();
            return Ok(Ended::AwaitsVerdict);
        }
        let began = clock::now();
        let me = &shared.executors[self.me];
        // From then on the launcher counts how long it takes.
        me.batch_began.store(began.0, Ordering::SeqCst);
        let slot = &shared.queues()[work.slot];
        let single = handler.is_procedure
            || !work.queue.batch
            || slot.single_until.load(Ordering::Relaxed) > began.0;
        let mean = slot.mean_ns.load(Ordering::Relaxed);
        let most = if single {
            1
        } else {
            batch::claim_size(mean, work.previous, work.previous_full)
        };
        let shares = most > 1 && shared.has_idle_for(work.slot, began.0);
        let asked = if shares {
            batch::share_of_claim(mean, most)
        } else {
            most
        };
        me.claiming.store(true, Ordering::SeqCst);
        let mut met = HeldRows::default();
        *claimed = self.claim(shared, work, asked, &mut met)?;
        me.set_batch(work.queue.queue_id, claimed.iter().map(|job| job.id));
        me.claiming.store(false, Ordering::SeqCst);
        if !met.are_none() {
            met.note(shared, me, work.slot, work.queue.key());
        }
        if claimed.is_empty() {
            self.commit();
            return Ok(Ended::Empty);
        }
        if !is_current() {
            // A pause or another change has committed before these jobs were taken.
            release(&work.queue, work.slot, claimed);
            self.commit();
            return Ok(Ended::Worked);
        }
        let Some(handler) = still_eligible(shared, work, claimed)? else {
            release(&work.queue, work.slot, claimed);
            self.commit();
            return Ok(Ended::Worked);
        };
        let ids = claimed.iter().map(|job| job.id);
        if self.recorder.awaits_verdict(shared, work.queue.key(), ids) {
            release(&work.queue, work.slot, claimed);
            self.commit();
            return Ok(Ended::AwaitsVerdict);
        }
        let times = claimed[0].suspicions;
        if times > 0 && !self.quarantine.enter(shared, self.me, times) {
            release(&work.queue, work.slot, claimed);
            self.commit();
            return Ok(Ended::Worked);
        }
        if handler.is_procedure && claimed.len() > 1 {
            // It has come since the claim.
            release(&work.queue, work.slot, claimed);
            self.commit();
            return Ok(Ended::Worked);
        }
        if handler.is_procedure {
            return self.hold(work, handler, claimed, outcomes);
        }
        self.run_all(work, &handler, single, began, claimed, outcomes)?;
        let note = self.recorder.note(self.me);
        note.enter_commit(outcomes.started as u32);
        self.run_deferred(work, claimed, outcomes)?;
        identity::as_owner(|| outcomes::record(work, claimed, outcomes))?;
        let ran = outcomes.started;
        release(&work.queue, work.slot, &claimed[ran..]);
        let used_temporary = session::used_temporary_objects();
        {
            // Handlers may have notified: then COMMIT takes NOTIFY's lock, after all who notify just now.
            let _handlers_wait = timeout::bound_lock_waits(timeout::NO_BOUND);
            self.commit();
        }
        note.leave();
        note.set_in_quarantine(false);
        if !shares || outcomes.put_off {
            work.previous = if outcomes.put_off { 0 } else { ran as u32 };
            work.previous_full = ran == claimed.len() && ran as u32 == most;
        }
        outcomes::measure(work, claimed, outcomes);
        me.jobs_done.fetch_add(ran as u64, Ordering::Relaxed);
        if used_temporary {
            executor_process::stop_before_temporary_objects_go();
            let _bookkeeping = transaction::begin();
            session::drop_temporary_objects();
            transaction::commit();
        }
        worker::report_statistics();
        Ok(Ended::Worked)
    }

    /// Commits a batch that has claimed jobs.
    fn commit(&self) {
        shared::expect().executors[self.me].let_go();
        transaction::commit();
    }

    /// Takes the watermarks and locks up to `most` jobs (fewer if their arguments are big), priority 0 first. Unless this
    /// transaction commits, the watermarks are put back.
    /// `met`: rows that somebody else holds.
    fn claim(
        &self,
        shared: &Shared,
        work: &Work,
        most: u32,
        met: &mut HeldRows,
    ) -> Result<Vec<Claimed>> {
        let key = work.queue.key();
        let slot = &shared.queues()[work.slot];
        let limit = ClaimLimit {
            jobs: most,
            bytes: BatchPlan::MAX_ARGS_BYTES,
        };
        let mut claimed: Vec<Claimed> = Vec::with_capacity(most as usize);
        for (priority, from) in pending::take_watermarks(shared, work.slot, key) {
            let memory = &self.batch_memory;
            let held = |job, position| met.meet(shared, key.database, priority, job, position);
            let more = claim::claim(
                work.queue.queue_id,
                priority,
                from,
                limit.less(&claimed),
                &snapshot::take(),
                memory,
                held,
            )?;
            if more.passed_over {
                slot.pass_over();
            }
            if let Some(last) = more.rows.last().filter(|_| more.is_enough) {
                shared.announce(work.slot, key, priority, last.position as u64 + 1);
            }
            claimed.extend(more.rows);
            if more.is_enough {
                break;
            }
        }
        if slot.may_be_ready() {
            shared.set_ready(work.slot);
            self.wake_another
                .for_rest_of_claim(shared, work.slot, claimed.len());
        }
        Ok(claimed)
    }
}

/// Announces jobs left to a caller that cancels them, if that caller ended before this batch let go of their rows;
/// otherwise its end announces them.
fn announce_left<'a>(shared: &Shared, work: &Work, left: impl Iterator<Item = &'a Claimed>) {
    let key = work.queue.key();
    for job in left {
        shared.queues()[work.slot].pass_over();
        if shared.cancels.asked(key.database, job.id).is_none() {
            let position = job.position as u64;
            shared.announce(work.slot, key, job.priority as usize, position);
            shared.wake_for(work.slot);
        }
    }
}
