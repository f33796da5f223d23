//! queue_explain: in words why jobs of a queue do not run now, and the statement that changes it.

mod executors;
mod jobs;

use executors::{at_its_limit, of_executors, working_on};
use jobs::Jobs;

use pushy_core::gate::{Closed, Facts};

use crate::errors::{quote_literal, Result};
use crate::obstacle::{self, blocked, lacks_worker_slot, reloading, said, Finding};
use crate::pg::{clock, identity};
use crate::queue::cache;
use crate::queue::definition::{self, QueueDefinition};
use crate::queue::eligibility::{self, Ineligible};
use crate::queue::privilege::{self, Privilege};
use crate::queue::restore;
use crate::queue::row_holders;
use crate::shared::{self};
use crate::{row, settings, sql_function};

sql_function!(pushy_queue_explain_v1, |call| {
    let name = call.text("queue", 0)?;
    let queue = find(&name)?;
    let findings = explain(&queue)?;
    call.answer_rows(|rows| {
        for finding in findings {
            rows.put(row![finding.reason, finding.fix]);
        }
        Ok(())
    })
});

fn find(name: &str) -> Result<QueueDefinition> {
    let (queue, grants) = identity::as_owner(|| {
        let queue = definition::get(name)?;
        let grants = privilege::grants(queue.queue_id)?;
        Ok((queue, grants))
    })?;
    privilege::require(
        &queue,
        &grants,
        identity::current_user(),
        Privilege::Monitor,
    )?;
    Ok(queue)
}

/// What keeps every job of the queue from running until somebody acts.
pub fn standing_findings(queue: &QueueDefinition) -> Vec<Finding> {
    let mut findings = server(queue);
    findings.extend(of_definition(queue));
    findings
}

/// What is known, the things that block everything first.
fn explain(queue: &QueueDefinition) -> Result<Vec<Finding>> {
    let mut findings = standing_findings(queue);
    let mut stands_still = !findings.is_empty();
    let mut names_holders = false;
    let jobs = identity::as_owner(|| Jobs::count(queue))?;
    if let (true, Some(shared)) = (findings.is_empty(), shared::get()) {
        let is_outside = queue.is_outside();
        if (jobs.ready > 0 && !is_outside) || jobs.overdue || jobs.over > 0 {
            findings.extend(lacks_worker_slot(shared));
            stands_still = !findings.is_empty();
        }
        if jobs.ready > 0 && is_outside {
            let held = identity::as_owner(|| row_holders::find(queue))?;
            names_holders = !held.findings.is_empty();
            findings.extend(held.findings);
            if held.ready < jobs.ready {
                findings.extend(jobs.of_workers_outside(queue, shared));
            }
        } else if jobs.ready > 0 {
            findings.extend(of_executors(queue, shared, jobs.ready));
        }
        if (jobs.ready > 0 || jobs.overdue) && findings.is_empty() {
            findings = identity::as_owner(|| row_holders::find(queue))?.findings;
            names_holders = !findings.is_empty();
        }
    }
    // Where something is in the way, the scheduler is about to do nothing.
    let stands_still = stands_still || jobs.overdue && !findings.is_empty();
    findings.extend(jobs.explain(queue, stands_still, names_holders));
    findings.extend(identity::as_owner(|| jobs::discarded(queue))?);
    if findings.is_empty() {
        findings.push(said(
            "nothing is in the way: ready jobs start as soon as an executor looks",
        ));
    }
    Ok(findings)
}

/// The gate's answer, for whoever acts on it: as this session has read the settings, and with the queue's definition as the
/// caller sees it.
fn facts(queue: &QueueDefinition) -> Facts {
    let of_database = obstacle::facts();
    let shared = shared::get();
    let slot = shared.and_then(|shared| shared.find_queue(queue.key()));
    let of_queue = shared.zip(slot).map(|(shared, slot)| shared.facts(slot));
    Facts {
        enabled: of_database.enabled,
        served: of_database.served,
        quiesced: of_database.quiesced,
        standing: queue.standing(),
        ..of_queue.unwrap_or(Facts::OPEN)
    }
}

/// What stops every queue of the server or the database.
fn server(queue: &QueueDefinition) -> Vec<Finding> {
    let mut findings = obstacle::of_workers();
    if shared::get().is_some() && settings::max_executors() == 0 && !queue.is_outside() {
        findings.push(blocked(
            "pushy.max_executors is 0",
            reloading("pushy.max_executors = 2"),
        ));
    }
    findings.extend(of_gate(queue, Closed::Elsewhere));
    if cache::is_placeless(queue) {
        findings.push(blocked(
            format!("{}, and this queue found none", cache::all_taken()),
            format!(
                "Run ALTER SYSTEM SET pushy.max_queues = {}, and restart the server; or drop queues no longer used",
                2 * settings::max_queues()
            ),
        ));
    }
    findings
}

/// One reason of the gate in words, if it is one now.
fn of_gate(queue: &QueueDefinition, asked: Closed) -> Option<Finding> {
    let now = clock::now().0;
    let is_asked =
        |closed: &Closed| std::mem::discriminant(closed) == std::mem::discriminant(&asked);
    let closed = facts(queue).reasons(now).find(is_asked)?;
    let seconds_until = |time: i64| (time - now) as f64 / 1e6;
    match closed {
        Closed::Elsewhere => Some(blocked(
            "the queue came here by a restore or a copy of the database, and does not run by itself (pushy.resume_after_restore() resumes all that came along)",
            let_it_run_here(queue),
        )),
        Closed::Paused => Some(blocked("the queue is paused", resume(queue))),
        Closed::Unknown => Some(said(
            "nobody has looked into the database since the server started; the scheduler is about to",
        )),
        Closed::SuspendedUntil(until) => Some(said(format!(
            "the server lacked something when jobs were to be run; they are tried again in {:.1} s, and the server's log says why",
            seconds_until(until)
        ))),
        Closed::AtItsLimit { limit, .. } => {
            Some(at_its_limit(queue, limit, &working_on(queue, shared::get()?)))
        }
        Closed::Quarantined => Some(said(
            "a job that may have crashed the server runs alone; the others wait for it, some 10 to 70 seconds at most",
        )),
        // Said by `obstacle`, or of a queue that nobody can explain; why it is parked is in `of_definition`.
        Closed::Disabled
        | Closed::NotServed
        | Closed::Absent
        | Closed::Incompatible
        | Closed::Quiesced
        | Closed::Dropped
        | Closed::Unborn
        | Closed::Parked
        | Closed::Outside => None,
    }
}

fn resume(queue: &QueueDefinition) -> String {
    format!("SELECT pushy.queue_resume({})", quote_literal(&queue.name))
}

/// For a queue that came here by a restore or a copy: maybe without its roles.
fn let_it_run_here(queue: &QueueDefinition) -> String {
    match restore::find_roles(&mut queue.clone()) {
        Ok(()) => resume(queue),
        Err(ineligible) => ineligible.fix(),
    }
}

/// What the queue itself says, and whether its role may run its handler.
fn of_definition(queue: &QueueDefinition) -> Vec<Finding> {
    let mut findings = Vec::new();
    let paused = of_gate(queue, Closed::Paused);
    let resume = resume(queue);
    if !queue.is_home() {
        // Numbers of roles mean nothing here yet.
        return paused.into_iter().collect();
    }
    let ineligible = eligibility::check_declared(queue).err();
    match (&queue.parked, ineligible) {
        (None, None) => {}
        (None, Some(ineligible)) => findings.push(blocked(ineligible.reason(), ineligible.fix())),
        (Some(why), None) => findings.push(blocked(
            format!("the queue was parked, because {why}; that is mended"),
            resume.as_str(),
        )),
        (Some(_), Some(ineligible)) => findings.push(blocked(
            format!("the queue is parked: {}", ineligible.reason()),
            then_resume(&ineligible, &resume),
        )),
    }
    // Behind, because what is ineligible cannot be resumed.
    findings.extend(paused);
    findings
}

fn then_resume(ineligible: &Ineligible, resume: &str) -> String {
    let fix = ineligible.fix();
    if fix.contains(resume) {
        fix
    } else if ineligible.is_of_handler() {
        format!("{fix}; then run {resume}")
    } else if ineligible.may_be_meant() || ineligible.is_mended_by_a_statement() {
        format!("{fix}; {resume}")
    } else {
        fix
    }
}
