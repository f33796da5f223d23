//! A unique key swallows no change: whatever `enqueue` answers, a run of that key starts after the enqueueing transaction
//! has committed.
//!
//! So a transaction that is answered a waiting job locks that job's row in share mode until it ends: claims pass over the
//! row, and the transaction's end announces it. A job whose row is locked exclusively runs, as a rule, with an older
//! snapshot: it does not count, and a new job comes beside it. The unique index is over the key and the newest job of that
//! key that was found: of transactions that find the same jobs one inserts; the others wait for it and look again.
//! `core/tests/key_model/` walks every interleaving.

use std::sync::atomic::Ordering;

use pushy_core::gate::Asker;
use pushy_core::job_state::JobState;

use crate::errors::Result;
use crate::job::current;
use crate::job::moves::rise;
use crate::job::tables::live_job;
use crate::pg::heap::{self, Key, ShareLock, Table};
use crate::pg::spi::Tid;
use crate::pg::value::Timestamp;
use crate::pg::{clock, interrupts};
use crate::queue::definition::QueueDefinition;
use crate::shared::{self, executor, pending};

/// What a key stands for at this moment.
pub enum KeyHolder {
    /// A job that waits, and starts after this transaction has ended.
    Waiting(i64),
    /// No job of the key waits; `beside`: its newest job, 0: there is none.
    Free { beside: i64 },
}

/// A job of the key that is not finished.
struct Job {
    id: i64,
    tid: Tid,
    /// This transaction has written its row: nobody else sees it yet.
    is_own: bool,
    /// A worker outside has claimed it: it counts as started.
    is_leased: bool,
    position: Option<i64>,
    priority: usize,
    run_at: Timestamp,
    depth: i32,
}

/// Looks for a job of the key that waits, and makes it as deep as what would have been enqueued if it is deeper: it stands for
/// both, and a stranger's long chain of causes must not have the jobs of another's change discarded. `depth` and `caused_by` are
/// those of what would be enqueued. As the extension's owner.
pub fn find(
    queue: &QueueDefinition,
    slot: Option<usize>,
    unique_key: &str,
    depth: i32,
    caused_by: Option<i64>,
) -> Result<KeyHolder> {
    let table = heap::open("live_job")?;
    heap::check_columns(&table, live_job::COLUMNS, &live_job::CHECKED)?;
    loop {
        let jobs = read(&table, queue.queue_id, unique_key)?;
        let Some((newest, others)) = jobs.split_first() else {
            return Ok(KeyHolder::Free { beside: 0 });
        };
        let beside = newest.id;
        let is_last = !others.iter().any(|other| other.position.is_some());
        if is_last && newest.is_starving(slot) {
            return Ok(KeyHolder::Free { beside });
        }
        match lock_one(&table, queue, slot, &jobs, depth, caused_by)? {
            ShareAttempt::KeyHolder(id) => return Ok(KeyHolder::Waiting(id)),
            ShareAttempt::AllHeld => return Ok(KeyHolder::Free { beside }),
            ShareAttempt::Changed => interrupts::check(),
        }
    }
}

/// The unfinished jobs of a key, the newest first.
fn read(table: &Table, queue_id: i32, unique_key: &str) -> Result<Vec<Job>> {
    let keys = [
        Key::int4_equals(1, queue_id),
        Key::text_equals(2, unique_key),
    ];
    let mut jobs = Vec::new();
    table.read_present("live_job_unique", &keys, |row, tid, is_own| {
        jobs.push(Job {
            id: row.i64(live_job::ID),
            tid,
            is_own,
            is_leased: row.byte(live_job::STATE) == JobState::Running.code(),
            position: row.opt_i64(live_job::POSITION),
            priority: row.i16(live_job::PRIORITY) as usize,
            run_at: row.timestamp(live_job::RUN_AT),
            depth: i32::from(row.i16(live_job::DEPTH)),
        });
        Ok(())
    })?;
    jobs.sort_by_key(|job| std::cmp::Reverse(job.id));
    Ok(jobs)
}

enum ShareAttempt {
    KeyHolder(i64),
    AllHeld,
    /// A job's row has changed since it was read: read again.
    Changed,
}

fn lock_one(
    table: &Table,
    queue: &QueueDefinition,
    slot: Option<usize>,
    jobs: &[Job],
    depth: i32,
    caused_by: Option<i64>,
) -> Result<ShareAttempt> {
    // A job that this session itself has claimed counts as started.
    let waits = |job: &&Job| !job.is_leased && !is_claimed_here(job.id);
    for job in jobs.iter().filter(waits) {
        let is_fit =
            || -> Result<bool> { Ok(job.depth <= depth || rise::rise(job.id, depth, caused_by)?) };
        if job.is_own {
            if is_fit()? {
                return Ok(ShareAttempt::KeyHolder(job.id));
            }
            continue;
        }
        match table.lock_shared(job.tid) {
            ShareLock::Locked => {
                if let Some(slot) = slot {
                    job.announce_at_end(queue, slot);
                }
                if is_fit()? {
                    return Ok(ShareAttempt::KeyHolder(job.id));
                }
            }
            ShareLock::Held => {}
            ShareLock::Changed => return Ok(ShareAttempt::Changed),
        }
    }
    Ok(ShareAttempt::AllHeld)
}

/// Whether this very session runs the job, or has it in its batch: its own lock would not stop it.
fn is_claimed_here(id: i64) -> bool {
    let in_batch = || Some(shared::get()?.executors[executor::mine()?].holds(id));
    current::id() == Some(id) || in_batch() == Some(true)
}

/// So long a job may be due and kept from starting before others come beside it.
const PATIENCE_US: i64 = 1_000_000;

impl Job {
    fn announce_at_end(&self, queue: &QueueDefinition, slot: usize) {
        let key = queue.key();
        pending::promises(slot, key);
        match self.position {
            Some(position) => pending::locked(slot, key, self.priority, position),
            None => pending::locked_waiting(self.run_at.0),
        }
    }

    /// Whether the waiting job has been due for long, and its queue could start it. Callers that enqueue its key again and
    /// again, each before the transaction of the one before has ended, keep its row locked and keep it from starting. Such a
    /// caller enqueues another job instead and does not lock this one.
    fn is_starving(&self, slot: Option<usize>) -> bool {
        let Some((shared, slot)) = shared::get().zip(slot) else {
            return false;
        };
        let queue = &shared.queues()[slot];
        let is_reached =
            |position: i64| queue.low[self.priority].load(Ordering::SeqCst) >= position as u64;
        let now = clock::now();
        !self.is_own
            && now.since_us(self.run_at) as i64 > PATIENCE_US
            && self.position.is_some_and(is_reached)
            && shared.lets_in(slot, now.0, Asker::Anybody)
    }
}
