//! Executors that a queue would want: in use, of others, or not to be started.

use super::of_gate;
use crate::errors::quote_literal;
use crate::obstacle::{blocked, reloading, said, Finding};
use crate::pg::{clock, database, identifier, identity};
use crate::queue::definition::QueueDefinition;
use crate::queue::row_holders;
use crate::settings;
use crate::shared::executor::{ExecutorSlot, ExecutorState};
use crate::shared::queue_slot::QueueSlot;
use crate::shared::Shared;
use pushy_core::gate::Closed;
use std::sync::atomic::Ordering;

/// Why ready jobs of a queue that could run are not all running.
pub(super) fn of_executors(queue: &QueueDefinition, shared: &Shared, ready: i64) -> Vec<Finding> {
    let Some(index) = shared.find_queue(queue.key()) else {
        return Vec::new();
    };
    let slot = &shared.queues()[index];
    let workers = working_on(queue, shared);
    if !workers.is_empty() && ready <= workers.len() as i64 {
        return vec![running(&workers)];
    }
    if let Some(full) = of_gate(
        queue,
        Closed::AtItsLimit {
            running: 0,
            limit: 0,
        },
    ) {
        return vec![full];
    }
    let mut findings = Vec::new();
    if !workers.is_empty() {
        findings.push(running(&workers));
    }
    findings.extend(of_those_that_wait(queue, slot, shared).or_else(|| {
        let behind =
            "the others wait behind them in their batches, or start as soon as an executor looks";
        (!workers.is_empty()).then(|| said(behind))
    }));
    findings
}

fn running(workers: &[String]) -> Finding {
    said(format!("jobs are running: {}", workers.join(", ")))
}

/// Why no executor takes those that nobody runs.
fn of_those_that_wait(
    queue: &QueueDefinition,
    slot: &QueueSlot,
    shared: &Shared,
) -> Option<Finding> {
    if executors_of(queue, shared).any(|executor| executor.state().is_coming()) {
        return Some(said("an executor is being started"));
    }
    for closed in [Closed::Unknown, Closed::SuspendedUntil(0)] {
        if let Some(finding) = of_gate(queue, closed) {
            return Some(finding);
        }
    }
    let now = clock::now().0;
    let seconds_until = |time: i64| (time > now).then(|| (time - now) as f64 / 1e6);
    if let Some(seconds) = seconds_until(slot.start_retry_at.load(Ordering::SeqCst)) {
        return Some(said(format!(
            "executors that were started for role {} did not come up; the next is tried in {seconds:.1} s, and the server's log says why",
            identifier::quoted(&queue.run_as_name)
        )));
    }
    if let Some(finding) = of_gate(queue, Closed::Quarantined) {
        return Some(finding);
    }
    if is_looked_at(queue, shared) {
        return None;
    }
    if let Some(at_its_share) = role_at_its_share(queue, shared) {
        return Some(at_its_share);
    }
    let in_use = shared.executors_in_use();
    if in_use < settings::max_executors() {
        return None;
    }
    // None of them is idle for this queue.
    let gives_way = |executor: &&ExecutorSlot| {
        matches!(
            executor.state(),
            ExecutorState::Idle | ExecutorState::Stopping
        )
    };
    let idle = self::in_use(shared).filter(gives_way).count();
    Some(if idle > 0 && in_use == 1 {
        said("the only executor is idle for another role or database: it leaves, and one is started for this queue in its place")
    } else if idle > 0 {
        said(format!(
            "all {in_use} executors are in use, but {idle} of them {} for other roles or databases: one leaves, and an executor is started for this queue in its place",
            if idle == 1 { "is idle" } else { "are idle" }
        ))
    } else {
        blocked(
            all_are_busy(queue, shared, in_use),
            reloading(&format!(
                "pushy.max_executors = {}",
                settings::max_executors() + 1
            )),
        )
    })
}

fn role_at_its_share(queue: &QueueDefinition, shared: &Shared) -> Option<Finding> {
    let share = settings::max_executors_per_role();
    let role = queue.run_as.to_u32();
    let of_role = in_use(shared).filter(|executor| executor.role.load(Ordering::SeqCst) == role);
    (share != 0 && of_role.count() >= share).then(|| {
        blocked(
            format!(
                "role {} has as many executors as pushy.max_executors_per_role allows, {share}, and none of them is free",
                identifier::quoted(&queue.run_as_name)
            ),
            reloading(&format!("pushy.max_executors_per_role = {}", share + 1)),
        )
    })
}

/// What holds the executors, in numbers: whose jobs they run is not for everybody to know.
fn all_are_busy(queue: &QueueDefinition, shared: &Shared, count: usize) -> String {
    let most = settings::max_executors();
    let mut said = match most {
        1 => "the only executor is busy (pushy.max_executors)".to_owned(),
        _ => format!("all {most} executors are busy (pushy.max_executors)"),
    };
    if count > most {
        let beyond = count - most;
        said += &format!(", and {beyond} of the reserve (pushy.reserved_executors)");
    }
    let others = count - executors_of(queue, shared).count().min(count);
    said += &match others {
        0 if count == 1 => ": it works for this role".to_owned(),
        0 => ": all of them work for this role".to_owned(),
        1 if count == 1 => ": it works for another role or database".to_owned(),
        1 => ": 1 of them works for another role or database".to_owned(),
        _ => format!(": {others} of them work for other roles or databases"),
    };
    let began = in_use(shared).map(|executor| executor.batch_began.load(Ordering::SeqCst));
    if let Some(longest) = began.filter(|began| *began != 0).min() {
        let seconds = (clock::now().0 - longest) as f64 / 1e6;
        said += &format!(", and one has been on the same batch for {seconds:.1} s");
    }
    said
}

fn in_use(shared: &Shared) -> impl Iterator<Item = &ExecutorSlot> {
    let executors = shared.executors.iter();
    executors.filter(|executor| executor.state() != ExecutorState::Free)
}

pub(super) fn at_its_limit(queue: &QueueDefinition, limit: u32, workers: &[String]) -> Finding {
    let who = if workers.is_empty() {
        String::new()
    } else {
        format!(": {}", workers.join(", "))
    };
    if limit == 1 {
        // More would be out of order: nothing to mend.
        return said(format!(
            "jobs of the queue run one after the other, as its concurrency of 1 says{who}; the others wait for their turn"
        ));
    }
    blocked(
        format!("as many executors work on the queue as its concurrency of {limit} allows{who}; the others wait for one of these to end"),
        format!(
            "SELECT pushy.queue_alter({}, concurrency => {})",
            quote_literal(&queue.name),
            limit + 1
        ),
    )
}

fn executors_of<'a>(
    queue: &'a QueueDefinition,
    shared: &'a Shared,
) -> impl Iterator<Item = &'a ExecutorSlot> {
    in_use(shared)
        .filter(move |executor| executor.serves(database::current(), queue.run_as.to_u32()))
}

/// The executors that run a job of the queue, in words.
pub(super) fn working_on(queue: &QueueDefinition, shared: &Shared) -> Vec<String> {
    executors_of(queue, shared)
        .filter(|executor| executor.queue_id.load(Ordering::SeqCst) == queue.queue_id)
        .filter_map(|executor| {
            let job = executor.job.load(Ordering::SeqCst);
            let pid = executor.pid.load(Ordering::SeqCst);
            let waits = |pid| {
                let blockers = identity::as_owner(|| Ok(row_holders::blockers(pid)));
                let blockers = blockers.ok().flatten();
                blockers.map_or_else(String::new, |blockers| {
                    format!(", which waits for a lock that {blockers}")
                })
            };
            (job != 0).then(|| format!("job {job} in process {pid}{}", waits(pid)))
        })
        .collect()
}

fn is_looked_at(queue: &QueueDefinition, shared: &Shared) -> bool {
    executors_of(queue, shared).any(|executor| match executor.state() {
        ExecutorState::Idle => true,
        // Between two batches: it looks for work just now.
        ExecutorState::Busy => executor.batch_began.load(Ordering::SeqCst) == 0,
        _ => false,
    })
}
