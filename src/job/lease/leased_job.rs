//! A job that the caller says it holds: found by its number, locked, and compared with the token of its lease.

use std::rc::Rc;
use std::sync::atomic::AtomicU64;

use pushy_core::job_state::JobState;

use crate::errors::Result;
use crate::job::claimed::Claimed;
use crate::job::live;
use crate::job::tables::lease as table;
use crate::pg::heap::{self, Key};
use crate::pg::spi::{Row, Tid};
use crate::pg::value::{Timestamp, Uuid};
use crate::pg::{identity, interrupts, Oid};
use crate::queue::cache::{self, CachedQueue};
use crate::queue::definition::QueueDefinition;
use crate::queue::privilege::{self, Privilege};

/// A leased job whose row this transaction has locked.
pub struct LeasedJob {
    pub queue: QueueDefinition,
    pub slot: Option<usize>,
    pub job: Claimed,
    pub lease: Lease,
}

/// The lease of a job.
pub struct Lease {
    /// Where its row is, as long as the job's row is locked and nothing was written to it; the table is locked against who rewrites it.
    pub tid: Tid,
    pub queue_id: i32,
    pub token: Uuid,
    pub until: Timestamp,
    pub leased_at: Timestamp,
    /// When it was said until when it lasts.
    pub said_at: Timestamp,
    pub position: i64,
    pub claimed_by: Oid,
    pub worker: Option<String>,
    /// The session whose end ends it.
    pub session: Option<i64>,
    /// An executor's.
    pub inside: bool,
}

impl Lease {
    /// How long it was said to last, of one that ends with no session.
    pub fn length_us(&self) -> i64 {
        self.until.0.saturating_sub(self.said_at.0)
    }
}

const SHAPE: (&[&str], &AtomicU64) = (table::COLUMNS, &table::CHECKED);

fn read(row: Row<'_>, tid: Tid) -> Result<Lease> {
    Ok(Lease {
        tid,
        token: row.uuid(table::TOKEN),
        until: row.timestamp(table::UNTIL),
        leased_at: row.timestamp(table::LEASED_AT),
        said_at: row.timestamp(table::SAID_AT),
        position: row.i64(table::POSITION),
        claimed_by: row.oid(table::CLAIMED_BY),
        worker: row.opt_text(table::WORKER)?,
        session: row.opt_i64(table::SESSION),
        inside: row.bool(table::INSIDE),
        queue_id: row.i32(table::QUEUE_ID),
    })
}

/// The lease of a job, as it is at this moment; as the extension's owner, as are the next three.
pub fn lease_of(job: i64) -> Result<Option<Lease>> {
    let mut lease = None;
    let keys = [Key::int8_equals(1, job)];
    heap::read_to_change("lease", SHAPE, "lease_pkey", &keys, |row, tid| {
        lease = Some(read(row, tid)?);
        Ok(false)
    })?;
    Ok(lease)
}

/// The same of several jobs.
pub fn leases_of(jobs: impl Iterator<Item = i64>) -> Result<Vec<Option<Lease>>> {
    // Their places are kept: the lock is not given back before the transaction ends.
    let leases = heap::open("lease")?;
    heap::check_columns(&leases, SHAPE.0, SHAPE.1)?;
    let mut finder = leases.finder("lease_pkey")?;
    jobs.map(|job| {
        interrupts::check();
        finder.find(job, read)
    })
    .collect()
}

/// The queue of a job whose token the caller has said; None: it is gone. An error without privilege claim: who has the token knows of the
/// job, and would take a claim that is lost for one whose time is over.
pub fn known_to(queue_id: i32, caller: Oid) -> Result<Option<Rc<CachedQueue>>> {
    let known = cache::get_of_many(queue_id)?;
    if let Some(known) = &known {
        identity::accept_changes();
        privilege::require(&known.definition, &known.grants, caller, Privilege::Claim)?;
    }
    Ok(known)
}

/// The jobs of a queue that a role holds under this worker's name, in their order, so many at most.
pub fn of_worker(queue_id: i32, role: Oid, worker: &str, most: usize) -> Result<Vec<i64>> {
    let mut held = Vec::new();
    let keys = [Key::int4_equals(1, queue_id), Key::text_equals(2, worker)];
    heap::read_now("lease", SHAPE, "lease_worker", &keys, |row| {
        if row.oid(table::CLAIMED_BY) == role {
            held.push((row.i64(table::POSITION), row.i64(table::JOB_ID)));
        }
        Ok(true)
    })?;
    held.sort_unstable();
    held.truncate(most);
    Ok(held.into_iter().map(|(_, job)| job).collect())
}

/// The job, its row locked, if the caller knows the token of its claim. None where there is no such job, or no longer: told as a claim that
/// is lost.
pub fn find(job: i64, token: Uuid) -> Result<Option<LeasedJob>> {
    let caller = identity::current_user();
    let Some(seen) = identity::as_owner(|| lease_of(job))? else {
        return Ok(None);
    };
    // Before the lock: whoever comes late shall not wait for those who work on the job now.
    if seen.token != token || known_to(seen.queue_id, caller)?.is_none() {
        return Ok(None);
    }
    let locked = identity::as_owner(|| {
        let Some(live) = live::lock(job)?.filter(|live| live.state == JobState::Running) else {
            return Ok(None);
        };
        let lease = lease_of(job)?.filter(|lease| lease.token == token);
        Ok(lease.map(|lease| (live.job, lease)))
    })?;
    let Some((job, lease)) = locked else {
        return Ok(None);
    };
    // Again, because it may have waited.
    let Some(known) = known_to(lease.queue_id, caller)? else {
        return Ok(None);
    };
    let queue = &known.definition;
    Ok(Some(LeasedJob {
        slot: known.slot.or_else(|| cache::slot_of(queue)),
        queue: queue.clone(),
        job,
        lease,
    }))
}
