//! Jobs that workers say are done: each is found, locked and compared by itself, and those of one queue are written together.

use std::rc::Rc;

use pushy_core::job_state::JobState;

use crate::errors::{Error, Result};
use crate::job::claimed::Claimed;
use crate::job::lease::leased_job::{self, Lease};
use crate::job::live;
use crate::job::moves::complete::Completed;
use crate::job::moves::lease;
use crate::job::tables::{lease as table, live_job};
use crate::pg::function::Answer;
use crate::pg::heap;
use crate::pg::memory::Context;
use crate::pg::value::Uuid;
use crate::pg::{clock, identity, interrupts};
use crate::queue::cache::{self, CachedQueue};

/// What a worker says of a job.
pub(super) struct Done {
    pub job: i64,
    pub token: Uuid,
    pub result: Answer,
}

/// An error, and of which of them it is, if of one.
pub(super) struct Wrong {
    pub of: Option<usize>,
    pub error: Error,
}

impl From<Error> for Wrong {
    fn from(error: Error) -> Self {
        Self { of: None, error }
    }
}

/// Jobs of a queue that are done.
struct OfQueue {
    known: Rc<CachedQueue>,
    jobs: Vec<Claimed>,
    leases: Vec<Lease>,
    results: Vec<Answer>,
}

/// Bytes of arguments that are in memory at once, about: what is found by then is written before more is looked for.
const MOST_BYTES: usize = 16 << 20;

/// Completes jobs, each of another number, and answers of how many the caller holds the lease. Their rows are locked in this order; who has one
/// is waited for. What is told of each is what `leased_job::find` would find at its time.
pub(super) fn complete_all(done: &[Done]) -> std::result::Result<usize, Wrong> {
    let memory = memory();
    let mut of_queues = Vec::new();
    let mut seen = see(done, &mut of_queues)?;
    let (mut at, mut settled) = (0, 0);
    // Bounded: by what the caller has said; `lock` looks at interrupts for each.
    while at < done.len() {
        memory.reset();
        let found_in = lock(done, &mut seen, &mut at, &mut of_queues, memory)?;
        for of_queue in &mut of_queues {
            if of_queue.jobs.is_empty() {
                continue;
            }
            settled += of_queue.jobs.len();
            identity::as_owner(|| write(of_queue, found_in))?;
            of_queue.jobs.clear();
            of_queue.leases.clear();
            of_queue.results.clear();
        }
    }
    // A session that sleeps keeps nobody's arguments.
    memory.reset();
    Ok(settled)
}

/// For the arguments of the jobs of one call.
fn memory() -> &'static Context {
    thread_local! {
        // For the life of the session, because an error may jump out while it is used.
        static OF_DONE: &'static Context = Box::leak(Box::new(Context::new(c"pushy jobs done")));
    }
    OF_DONE.with(|context| *context)
}

/// A lease with the token that was said, before its job is locked: of which queue of those that are collected.
struct Seen {
    of_queue: usize,
    lease: Lease,
}

/// The leases as they are now, and whether the caller may do jobs of their queues: before any lock, because whoever comes late shall not wait for
/// those who work on the job.
fn see(
    done: &[Done],
    of_queues: &mut Vec<OfQueue>,
) -> std::result::Result<Vec<Option<Seen>>, Wrong> {
    let caller = identity::current_user();
    let jobs = done.iter().map(|done| done.job);
    let leases = identity::as_owner(|| leased_job::leases_of(jobs))?;
    // Of queues that are gone.
    let mut gone: Vec<i32> = Vec::new();
    let mut seen = Vec::with_capacity(done.len());
    for (at, (done, lease)) in done.iter().zip(leases).enumerate() {
        let Some(lease) = lease.filter(|lease| lease.token == done.token) else {
            seen.push(None);
            continue;
        };
        let queue_id = lease.queue_id;
        let is_it = |of_queue: &OfQueue| of_queue.known.definition.queue_id == queue_id;
        let of_queue = match of_queues.iter().position(is_it) {
            Some(of_queue) => Some(of_queue),
            None if gone.contains(&queue_id) => None,
            None => {
                let wrong = |error| Wrong {
                    of: Some(at),
                    error,
                };
                match leased_job::known_to(queue_id, caller).map_err(wrong)? {
                    Some(known) => {
                        of_queues.push(OfQueue {
                            known,
                            jobs: Vec::new(),
                            leases: Vec::new(),
                            results: Vec::new(),
                        });
                        Some(of_queues.len() - 1)
                    }
                    None => {
                        gone.push(queue_id);
                        None
                    }
                }
            }
        };
        seen.push(of_queue.map(|of_queue| Seen { of_queue, lease }));
    }
    Ok(seen)
}

/// Locks the jobs from `at` on, and collects those whose leases are still the ones that were seen, up to the one that fills the memory. Answers
/// the file of the table where they are.
fn lock(
    done: &[Done],
    seen: &mut [Option<Seen>],
    at: &mut usize,
    of_queues: &mut [OfQueue],
    memory: &Context,
) -> std::result::Result<u32, Wrong> {
    let table = heap::open("live_job")?;
    heap::check_columns(&table, live_job::COLUMNS, &live_job::CHECKED)?;
    let leases = heap::open("lease")?;
    heap::check_columns(&leases, table::COLUMNS, &table::CHECKED)?;
    let mut jobs = table.finder("live_job_pkey")?;
    let mut ends = leases.finder("lease_pkey")?;
    let mut bytes = 0;
    while *at < done.len() && bytes < MOST_BYTES {
        let (of, done) = (*at, &done[*at]);
        *at += 1;
        let Some(Seen { of_queue, lease }) = seen[of].take() else {
            continue;
        };
        interrupts::check();
        let locked = jobs.lock(done.job, |row, tid| live::read_with_args(row, tid, memory))?;
        locked.iter().for_each(live::announce_at_end);
        let is_running = |live: &live::Live| live.state == JobState::Running;
        // Who changes a lease has locked the job before.
        let found = match locked.filter(is_running) {
            Some(live) if ends.is_as_found(lease.tid) => Some((live.job, lease)),
            // Somebody has, or had, the row, or has extended the lease.
            _ => find_again(done, memory).map_err(|error| Wrong {
                of: Some(of),
                error,
            })?,
        };
        if let Some((job, lease)) = found {
            bytes += job.args_bytes;
            let of_queue = &mut of_queues[of_queue];
            of_queue.jobs.push(job);
            of_queue.leases.push(lease);
            of_queue.results.push(done.result);
        }
    }
    Ok(table.file())
}

/// The slow way: waits for who has the job.
#[cold]
fn find_again(done: &Done, memory: &Context) -> Result<Option<(Claimed, Lease)>> {
    let Some(leased) = leased_job::find(done.job, done.token)? else {
        return Ok(None);
    };
    let mut job = leased.job;
    (job.args, job.args_bytes) = identity::as_owner(|| live::args(job.id, memory))?;
    Ok(Some((job, leased.lease)))
}

fn write(of_queue: &OfQueue, found_in: u32) -> Result<()> {
    let queue = &of_queue.known.definition;
    let slot = of_queue.known.slot.or_else(|| cache::slot_of(queue));
    let finished_at = clock::now();
    let done: Vec<Completed> = of_queue
        .leases
        .iter()
        .zip(&of_queue.results)
        .enumerate()
        .map(|(of, (lease, result))| Completed {
            of,
            started_at: lease.leased_at,
            finished_at,
            result: *result,
        })
        .collect();
    lease::complete(
        queue,
        slot,
        &of_queue.jobs,
        &of_queue.leases,
        found_in,
        &done,
    )
}
