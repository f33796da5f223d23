//! Pushy's processes, as shared memory has them: the view `workers`.

use std::sync::atomic::Ordering;

use crate::pg::Oid;

use crate::errors::Result;
use crate::pg::function::{Answer, Call, IntoAnswer};
use crate::pg::value::Timestamp;
use crate::pg::{database, identity};
use crate::queue::definition;
use crate::shared::executor::{ExecutorSlot, ExecutorState};
use crate::shared::{self, Shared};
use crate::worker::launcher::kinds::KINDS;
use crate::{row, sql_function};

sql_function!(pushy_worker_rows_v1, |call| worker_rows(call));

/// All for who may read all statistics; else the executors whose role's rights the caller has.
fn worker_rows(call: Call) -> Result<Answer> {
    call.answer_rows(|rows| {
        let Some(shared) = shared::get() else {
            return Ok(());
        };
        let caller = identity::current_user();
        let sees_all = identity::reads_all_statistics(caller);
        if sees_all {
            for columns in workers(shared) {
                rows.put(&columns);
            }
        }
        for executor in &shared.executors {
            let role = Oid::from(executor.role.load(Ordering::SeqCst));
            let seen = executor.state() != ExecutorState::Free
                && (sees_all || identity::has_rights_of(caller, role));
            if seen {
                rows.put(&of_executor(executor, role)?);
            }
        }
        Ok(())
    })
}

/// The launcher, and the workers of which each database has one at most.
fn workers(shared: &Shared) -> Vec<[Answer; 11]> {
    let launcher = shared.launcher.pid().map(|pid| {
        let mut columns = worker("launcher", pid, 0);
        let closed = shared.closed.load(Ordering::SeqCst);
        columns[4] = if closed { "off" } else { "on" }.into_answer();
        columns
    });
    let of_databases = KINDS.iter().flat_map(|kind| {
        let taken = shared
            .databases
            .iter()
            .filter(|database_slot| database_slot.oid() != 0);
        let there = taken.filter(|database_slot| kind.of(database_slot).is_entered());
        there.map(|database_slot| {
            let mut columns = worker(kind.name, kind.of(database_slot).pid(), database_slot.oid());
            let (state, since) = kind.shown(database_slot);
            columns[4] = state.into_answer();
            columns[5] = since.into_answer();
            columns
        })
    });
    launcher.into_iter().chain(of_databases).collect()
}

fn worker(kind: &str, pid: i32, of: u32) -> [Answer; 11] {
    let nothing = Answer::Null;
    *row![
        kind,
        pid,
        database::name(of),
        nothing,
        nothing,
        nothing,
        nothing,
        nothing,
        nothing,
        nothing,
        nothing
    ]
}

fn of_executor(executor: &ExecutorSlot, role: Oid) -> Result<[Answer; 11]> {
    let job = executor.job.load(Ordering::SeqCst);
    let queue_id = executor.queue_id.load(Ordering::SeqCst);
    let of = executor.database.load(Ordering::SeqCst);
    let pid = executor.pid.load(Ordering::SeqCst);
    let progress = executor.progress();
    let (job, since) = if job == 0 {
        (None, &executor.started_at)
    } else {
        (Some(job), &executor.job_started_at)
    };
    // Names of queues are in their own database.
    let queue = if job.is_some() && of == database::current() {
        identity::as_owner(|| definition::find_by_id(queue_id))?.map(|queue| queue.name)
    } else {
        None
    };
    Ok(*row![
        "executor",
        (pid != 0).then_some(pid),
        database::name(of),
        identity::role_name(role),
        word(executor.state()),
        Timestamp(since.load(Ordering::SeqCst)),
        executor.jobs_done.load(Ordering::SeqCst) as i64,
        queue,
        job,
        progress.fraction,
        (!progress.message.is_empty()).then_some(progress.message),
    ])
}

fn word(state: ExecutorState) -> &'static str {
    match state {
        ExecutorState::Free => "free",
        ExecutorState::Starting | ExecutorState::Connecting => "starting",
        ExecutorState::Busy => "busy",
        ExecutorState::Idle => "idle",
        ExecutorState::Stopping => "stopping",
    }
}
