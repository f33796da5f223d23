//! queue_explain: in words why jobs of a queue do not run now, and the statement that changes it.

use std::sync::atomic::Ordering;

use crate::pg::BuiltinOid;

use pushy_core::gate::{Closed, Facts};

use super::cache;
use super::definition::{self, Definition};
use super::eligibility::{self, Unfit};
use super::privilege::{self, Privilege};
use super::restore;
use super::row_holders;
use crate::errors::{quote_literal, Error, Result};
use crate::pg::spi::{self, Plan};
use crate::pg::{clock, database, identifier, identity};
use crate::shared::executor::{Executor, ExecutorState};
use crate::shared::obstacle::{self, blocked, reloading, said, starved, Finding};
use crate::shared::queue_slot::QueueSlot;
use crate::shared::{self, Shared};
use crate::{params, row, settings, sql_function};

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

fn find(name: &str) -> Result<Definition> {
    let (queue, grants) = identity::as_owner(|| {
        let queue = definition::find(name)?.ok_or_else(|| Error::no_such_queue(name))?;
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
pub fn standing(queue: &Definition) -> Vec<Finding> {
    let mut findings = server(queue);
    findings.extend(of_definition(queue));
    findings
}

/// What is known, the things that block everything first.
fn explain(queue: &Definition) -> Result<Vec<Finding>> {
    let mut findings = standing(queue);
    let stands_still = !findings.is_empty();
    let jobs = identity::as_owner(|| Jobs::count(queue))?;
    if let (true, Some(shared)) = (findings.is_empty(), shared::get()) {
        if jobs.ready > 0 || jobs.overdue {
            findings.extend(starved(shared));
        }
        if jobs.ready > 0 {
            findings.extend(of_executors(queue, shared, jobs.ready));
        }
        if (jobs.ready > 0 || jobs.overdue) && findings.is_empty() {
            findings = identity::as_owner(|| row_holders::find(queue))?;
        }
    }
    // Where something is in the way, the scheduler is about to do nothing.
    let stands_still = stands_still || jobs.overdue && !findings.is_empty();
    findings.extend(jobs.explain(queue, stands_still));
    if findings.is_empty() {
        findings.push(said(
            "nothing is in the way: ready jobs start as soon as an executor looks",
        ));
    }
    Ok(findings)
}

/// The gate's answer, for whoever acts on it: as this session has read the settings, and with the queue's definition as the
/// caller sees it.
fn facts(queue: &Definition) -> Facts {
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
fn server(queue: &Definition) -> Vec<Finding> {
    let mut findings = obstacle::of_workers();
    if shared::get().is_some() && settings::max_executors() == 0 {
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
                "ALTER SYSTEM SET pushy.max_queues = {}; then restart the server. Or drop queues no longer used",
                2 * settings::max_queues()
            ),
        ));
    }
    findings
}

/// One reason of the gate in words, if it is one now.
fn of_gate(queue: &Definition, asked: Closed) -> Option<Finding> {
    let now = clock::now().0;
    let is_asked =
        |closed: &Closed| std::mem::discriminant(closed) == std::mem::discriminant(&asked);
    let closed = facts(queue).reasons(now).find(is_asked)?;
    let seconds_until = |time: i64| (time - now) as f64 / 1e6;
    match closed {
        Closed::Elsewhere => Some(blocked(
            "the queue was registered in another database or cluster: a restore or a copy does not run by itself (pushy.resume_after_restore() resumes all that came along)",
            let_it_run_here(queue),
        )),
        Closed::Paused => Some(blocked("the queue is paused", resume(queue))),
        Closed::Unknown => Some(said(
            "nobody has looked into the database since the server started; the scheduler is about to",
        )),
        Closed::HeldUntil(until) => Some(said(format!(
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
        | Closed::Unfit
        | Closed::Quiesced
        | Closed::Dropped
        | Closed::Unborn
        | Closed::Parked => None,
    }
}

fn resume(queue: &Definition) -> String {
    format!("SELECT pushy.queue_resume({})", quote_literal(&queue.name))
}

/// For a queue that came here by a restore or a copy: maybe without its roles.
fn let_it_run_here(queue: &Definition) -> String {
    match restore::find_roles(&mut queue.clone()) {
        Ok(()) => resume(queue),
        Err(unfit) => unfit.fix(),
    }
}

/// What the queue itself says, and whether its role may run its handler.
fn of_definition(queue: &Definition) -> Vec<Finding> {
    let mut findings = Vec::new();
    let paused = of_gate(queue, Closed::Paused);
    let resume = resume(queue);
    if !queue.is_home() {
        // Numbers of roles mean nothing here yet.
        return paused.into_iter().collect();
    }
    let unfit = eligibility::check(queue)
        .and_then(|_| eligibility::check_session(queue))
        .err();
    match (&queue.parked, unfit) {
        (None, None) => {}
        (None, Some(unfit)) => findings.push(blocked(unfit.reason(), unfit.fix())),
        (Some(why), None) => findings.push(blocked(
            format!("the queue was parked, because {why}; that is mended"),
            resume.as_str(),
        )),
        (Some(_), Some(unfit)) => findings.push(blocked(
            format!("the queue is parked: {}", unfit.reason()),
            then_resume(&unfit, &resume),
        )),
    }
    // Behind, because what is unfit cannot be resumed.
    findings.extend(paused);
    findings
}

fn then_resume(unfit: &Unfit, resume: &str) -> String {
    let fix = unfit.fix();
    if fix.contains(resume) {
        fix
    } else if unfit.may_be_meant() || unfit.is_mended_by_a_statement() {
        format!("{fix}; {resume}")
    } else {
        fix
    }
}

/// Why ready jobs of a queue that could run are not all running.
fn of_executors(queue: &Definition, shared: &Shared, ready: i64) -> Vec<Finding> {
    let Some(index) = shared.find_queue(queue.key()) else {
        return Vec::new();
    };
    let slot = &shared.queues()[index];
    if let Some(full) = of_gate(
        queue,
        Closed::AtItsLimit {
            running: 0,
            limit: 0,
        },
    ) {
        return vec![full];
    }
    let workers = working_on(queue, shared);
    let mut findings = Vec::new();
    if !workers.is_empty() {
        findings.push(said(format!("jobs are running: {}", workers.join(", "))));
        if ready <= workers.len() as i64 {
            return findings;
        }
    }
    findings.extend(of_those_that_wait(queue, slot, shared).or_else(|| {
        let behind =
            "the others wait behind them in their batches, or start as soon as an executor looks";
        (!workers.is_empty()).then(|| said(behind))
    }));
    findings
}

/// Why no executor takes those that nobody runs.
fn of_those_that_wait(queue: &Definition, slot: &QueueSlot, shared: &Shared) -> Option<Finding> {
    if executors_of(queue, shared).any(|executor| executor.state().is_coming()) {
        return Some(said("an executor is being started"));
    }
    for closed in [Closed::Unknown, Closed::HeldUntil(0)] {
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
    let gives_way = |executor: &&Executor| {
        matches!(
            executor.state(),
            ExecutorState::Idle | ExecutorState::Stopping
        )
    };
    let idle = self::in_use(shared).filter(gives_way).count();
    Some(if idle > 0 {
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

fn role_at_its_share(queue: &Definition, shared: &Shared) -> Option<Finding> {
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
fn all_are_busy(queue: &Definition, shared: &Shared, count: usize) -> String {
    let most = settings::max_executors();
    let mut said = format!("all {most} executors are busy (pushy.max_executors)");
    if count > most {
        let beyond = count - most;
        said += &format!(", and {beyond} of the reserve (pushy.reserved_executors)");
    }
    let others = count - executors_of(queue, shared).count().min(count);
    said += &format!(": {others} of them work for other roles or databases");
    let began = in_use(shared).map(|executor| executor.batch_began.load(Ordering::SeqCst));
    if let Some(longest) = began.filter(|began| *began != 0).min() {
        let seconds = (clock::now().0 - longest) as f64 / 1e6;
        said += &format!(", and one has been on the same batch for {seconds:.1} s");
    }
    said
}

fn in_use(shared: &Shared) -> impl Iterator<Item = &Executor> {
    let executors = shared.executors.iter();
    executors.filter(|executor| executor.state() != ExecutorState::Free)
}

fn at_its_limit(queue: &Definition, limit: u32, workers: &[String]) -> Finding {
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
    queue: &'a Definition,
    shared: &'a Shared,
) -> impl Iterator<Item = &'a Executor> {
    in_use(shared)
        .filter(move |executor| executor.serves(database::current(), queue.run_as.to_u32()))
}

/// The executors that run a job of the queue, in words.
fn working_on(queue: &Definition, shared: &Shared) -> Vec<String> {
    executors_of(queue, shared)
        .filter(|executor| executor.queue_id.load(Ordering::SeqCst) == queue.queue_id)
        .filter_map(|executor| {
            let job = executor.job.load(Ordering::SeqCst);
            let pid = executor.pid.load(Ordering::SeqCst);
            (job != 0).then(|| format!("job {job} in process {pid}"))
        })
        .collect()
}

fn is_looked_at(queue: &Definition, shared: &Shared) -> bool {
    executors_of(queue, shared).any(|executor| match executor.state() {
        ExecutorState::Idle => true,
        // Between two batches: it looks for work just now.
        ExecutorState::Busy => executor.batch_began.load(Ordering::SeqCst) == 0,
        _ => false,
    })
}

/// How many unfinished jobs wait for what.
struct Jobs {
    ready: i64,
    scheduled: i64,
    retryable: i64,
    /// When the first of those that wait is due, as this session writes a time.
    next_due: Option<String>,
    overdue: bool,
    /// Names of prepared transactions of this database, which may hold jobs that nobody sees.
    prepared: Option<String>,
}

static COUNT: Plan = Plan::new(
    "SELECT pg_catalog.count(*) FILTER (WHERE j.state OPERATOR(pg_catalog.=) 'a'::pg_catalog.\"char\"), \
            pg_catalog.count(*) FILTER (WHERE j.state OPERATOR(pg_catalog.=) 's'::pg_catalog.\"char\"), \
            pg_catalog.count(*) FILTER (WHERE j.state OPERATOR(pg_catalog.=) 'r'::pg_catalog.\"char\"), \
            pg_catalog.min(j.run_at) FILTER (WHERE j.position IS NULL)::pg_catalog.text, \
            COALESCE(pg_catalog.min(j.run_at) FILTER (WHERE j.position IS NULL) \
                     OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp(), false), \
            (SELECT pg_catalog.string_agg(x.gid, ', ') FROM pg_catalog.pg_prepared_xacts x \
              WHERE x.database OPERATOR(pg_catalog.=) pg_catalog.current_database()) \
       FROM pushy_internal.live_job j WHERE j.queue_id OPERATOR(pg_catalog.=) $1",
    &[BuiltinOid::INT4OID],
);

impl Jobs {
    fn count(queue: &Definition) -> Result<Self> {
        spi::connect(|spi| {
            let table = spi.run(&COUNT, params![queue.queue_id]);
            let row = table.row(0);
            Ok(Self {
                ready: row.i64(1),
                scheduled: row.i64(2),
                retryable: row.i64(3),
                next_due: row.opt_text(4)?,
                overdue: row.bool(5),
                prepared: row.opt_text(6)?,
            })
        })
    }

    fn explain(&self, queue: &Definition, stands_still: bool) -> Vec<Finding> {
        let mut findings = Vec::new();
        let next = self.next_due.as_deref().unwrap_or("never");
        if self.ready + self.scheduled + self.retryable == 0 {
            findings.push(said("no unfinished job is in the queue"));
        }
        if self.overdue {
            let who = if stands_still {
                ""
            } else {
                "; the scheduler is about to take them up"
            };
            findings.push(said(format!("jobs have been due since {next}{who}")));
        } else if self.retryable > 0 {
            findings.push(blocked(
                format!(
                    "{} failed and {} next attempt; the first waiting job is due at {next}",
                    jobs(self.retryable),
                    if self.retryable == 1 {
                        "waits for its"
                    } else {
                        "wait for their"
                    }
                ),
                format!(
                    // for people to run
                    "SELECT pushy.job_retry(id) FROM pushy.jobs WHERE queue = {} AND state = 'retryable'",
                    quote_literal(&queue.name)
                ),
            ));
        } else if self.scheduled > 0 {
            findings.push(said(format!(
                "{} not due yet, the first at {next}",
                if self.scheduled == 1 {
                    "1 job is".to_owned()
                } else {
                    format!("{} jobs are", self.scheduled)
                }
            )));
        }
        if let (0, Some(prepared)) = (self.ready, &self.prepared) {
            findings.push(said(format!(
                "jobs of prepared transactions are not seen before COMMIT PREPARED; open here: {prepared}"
            )));
        }
        findings
    }
}

fn jobs(count: i64) -> String {
    if count == 1 {
        "1 job".to_owned()
    } else {
        format!("{count} jobs")
    }
}
