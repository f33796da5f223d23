//! The process of an executor: how it comes, and what it leaves in order when it goes.

use std::cell::Cell;
use std::sync::atomic::Ordering;

use pushy_core::capacity::ExecutorKey;
use pushy_core::standing::Standing;

use crate::errors::{Error, SqlState};
use crate::pg::per_process::PerProcess;
use crate::pg::worker::WorkerProcess;
use crate::pg::{catalog_changes, ereport, insistence, shmem, signals, worker};
use crate::shared::database::DatabaseSlot;
use crate::shared::executor::{self, ExecutorSlot, ExecutorStart, ExecutorState};
use crate::shared::queue_slot::QueueKey;
use crate::shared::{self, pending};
use crate::worker::cancels;
use crate::worker::executor::{follow_settings, Executor};
use crate::worker::hold;
use crate::worker::quarantine;
use crate::worker::recorder;
use crate::worker_entry;

pub const PROCESS: WorkerProcess = WorkerProcess {
    name: "pushy executor",
    entry: "pushy_executor_main",
};

worker_entry!(pushy_executor_main, executor);

/// `arg`: which start it is, of the slot that the launcher reserved.
fn executor(arg: usize) {
    let shared = shared::expect();
    let start = ExecutorStart::of_arg(arg);
    let slot = start.slot;
    let me = &shared.executors[slot];
    if !me.enter(start, worker::my_pid()) {
        return;
    }
    executor::set_mine(Some(slot));
    shmem::at_exit(leave);

    let recorder = recorder::open();
    let note = recorder.note(slot);
    signals::mark_in(&note.mark, &me.stop_requested);
    if !insistence::init(&me.job, &me.cancelled) {
        ereport::raise(
            &Error::new(
                SqlState::INTERNAL_ERROR,
                "the system has no timer for an executor",
            )
            .hint("Raise the limit of pending signals (ulimit -i) of the server's user."),
        );
    }
    signals::init_executor();

    let ExecutorKey { database, role } = me.executor_key();
    let database_slot = shared.find_database(database);
    if database_slot.is_none_or(DatabaseSlot::is_quiesced) {
        return;
    }
    worker::connect(database, Some(role));
    shmem::before_exit(stop);
    follow_settings();
    catalog_changes::watch();
    me.came_up.store(true, Ordering::SeqCst);
    me.set_state(ExecutorState::Busy);
    // The launcher puts off its looks into databases while an executor is on its way.
    shared.launcher.wake();
    Executor::new(
        shared,
        slot,
        database_slot.expect("checked above"),
        recorder,
    )
    .live();
}

/// At exit, before the transaction is rolled back: an executor that then finds the row of this one's job free must see that
/// this end is still to be judged.
fn stop() {
    if let (Some(shared), Some(slot)) = (shared::get(), executor::mine()) {
        let me = &shared.executors[slot];
        if STOPPED.replace(true) {
            return;
        }
        me.let_go();
        if signals::has_overrun() {
            log_overrun(me);
        }
        me.set_state(ExecutorState::Stopping);
        shared.endings.fetch_add(1, Ordering::SeqCst);
    }
}

/// `stop` has run.
static STOPPED: PerProcess<Cell<bool>> = PerProcess::new(Cell::new(false));

/// `stop` was asked for again.
static STOPS_FIRST: PerProcess<Cell<bool>> = PerProcess::new(Cell::new(false));

/// After a commit that may have made the session's first temporary object: from then on the server removes those at exit, and
/// rolls back before it does so. What was asked for last runs first.
pub(in crate::worker) fn stop_before_temporary_objects_go() {
    if !STOPS_FIRST.replace(true) {
        shmem::before_exit(stop);
    }
}

fn log_overrun(me: &ExecutorSlot) {
    let job = me.job.load(Ordering::SeqCst);
    let what = if job == 0 {
        "what the jobs of a batch had deferred to its end".to_owned()
    } else {
        format!("job {job}")
    };
    ereport::log(
        &Error::new(
            SqlState::QUERY_CANCELED,
            format!("{what} did not stop when told: its executor is ended"),
        )
        .hint("A handler that catches query_canceled, or every error, raises it again."),
    );
}

/// At exit, once the transaction is rolled back and its locks are gone.
fn leave() {
    let (Some(shared), Some(slot)) = (shared::get(), executor::mine()) else {
        return;
    };
    signals::mark_if_orphaned();
    quarantine::leave_for_good();
    let me = &shared.executors[slot];
    // Before the permit is returned: who takes it next puts the job back first.
    hold::let_go(shared, me);
    if let Some(queue) = PERMIT.get() {
        let queue_slot = &shared.queues()[queue.0];
        queue_slot.return_permit(queue.1);
        shared.set_ready(queue.0);
        if queue_slot.standing().has(Standing::OUTSIDE) {
            shared.wake_for(queue.0);
        }
        if !queue_slot.is(queue.1) {
            // The queue was dropped while this executor had rows of its jobs locked: queue_drop has passed over those.
            pending::ask_for_orphans(shared, queue.1.database);
        }
    }
    // Cancels of jobs of the batch that ends with this process.
    me.clear_batch();
    cancels::leave(shared);
    let database_slot = shared.find_database(me.database.load(Ordering::SeqCst));
    executor::set_mine(None);
    me.release();
    if let Some(database_slot) = database_slot {
        database_slot.worker_left.broadcast();
    }
    shared.call_launcher();
}

/// The queue slot whose permit this process holds.
pub(super) static PERMIT: PerProcess<Cell<Option<(usize, QueueKey)>>> =
    PerProcess::new(Cell::new(None));
