//! What a claim waits for: another call of the same worker, whoever has locked what that worker holds, those who change how
//! the queue's jobs are claimed, and who looks at what is ready just now. After each wait the queue may be another: it is looked at again, and no time is taken before.
//! `core/tests/claim_enter_model/` walks every interleaving.

use std::rc::Rc;

use crate::errors::{Error, Result};
use crate::job::lease::leased_job;
use crate::job::live::{self, Live};
use crate::pg::object_lock::{self, LockMode, Number};
use crate::pg::{identity, random, Oid};
use crate::queue::alter;
use crate::queue::cache::{self, CachedQueue};
use crate::queue::leased;
use crate::queue::privilege::{self, Privilege};

/// A queue whose jobs the caller may claim now, and as long as its transaction goes on nobody gives it a handler. Nobody else outside
/// looks at what is ready there until the caller has let go of that: `leased::end_look`.
pub(super) struct Entered {
    pub known: Rc<CachedQueue>,
    /// What the worker of this name holds already, the rows locked: its last call was answered, and the answer was lost.
    pub held: Vec<Live>,
}

pub(super) fn enter(name: &str, worker: Option<&str>, most: usize) -> Result<Entered> {
    let caller = identity::current_user();
    let mut known = cache::get(name)?;
    // Before any wait too: whoever may not claim waits for nobody, and holds up nobody.
    require(&known, caller)?;
    let queue_id = known.definition.queue_id;
    let held = match worker {
        Some(worker) => identity::as_owner(|| lock_held(queue_id, caller, worker, most))?,
        None => Vec::new(),
    };
    // Bounded: by the changes of the queue that others commit meanwhile; who waits for the lock looks at interrupts.
    loop {
        // Where leases are limited one claim comes after the other: what the one before has leased is counted by the next.
        let mode = match known.definition.concurrency {
            Some(_) => LockMode::Alone,
            None => LockMode::Shared,
        };
        identity::as_owner(|| {
            leased::lock(queue_id, mode)?;
            leased::begin_look(queue_id)
        })?;
        // By its number: its name may be another queue's by now.
        known = cache::get_of_many(queue_id)?.ok_or_else(|| Error::no_such_queue(name))?;
        require(&known, caller)?;
        if mode == LockMode::Alone || known.definition.concurrency.is_none() {
            return Ok(Entered { known, held });
        }
        identity::as_owner(|| {
            leased::end_look(queue_id);
            leased::unlock(queue_id, mode);
            Ok(())
        })?;
    }
}

fn require(known: &CachedQueue, caller: Oid) -> Result<()> {
    let queue = &known.definition;
    privilege::require(queue, &known.grants, caller, Privilege::Claim)?;
    queue.require_outside()?;
    alter::require_home(queue)
}

/// Who asks again waits for the call of which it had no answer: that may be about to lease jobs to it. Another role of the same
/// name is another worker.
fn lock_held(queue_id: i32, caller: Oid, worker: &str, most: usize) -> Result<Vec<Live>> {
    // Others of the queue wait with it whose names have the same number, which is a secret of the cluster.
    let mut name = caller.to_u32().to_be_bytes().to_vec();
    name.extend_from_slice(worker.as_bytes());
    let part = (random::keyed_hash(&name) % u64::from(u16::MAX)) as u16 + 1;
    let number = Number(queue_id as u32, part);
    object_lock::lock("lease", number, LockMode::Alone, || Ok(()))?;
    let held = leased_job::of_worker(queue_id, caller, worker, most)?;
    // By their numbers, as settlements lock them: each would wait for the other, where a job had a delay.
    let mut by_number = held.clone();
    by_number.sort_unstable();
    let mut locked = Vec::new();
    for job in by_number {
        locked.extend(live::lock(job)?);
    }
    locked.sort_by_key(|live: &Live| held.iter().position(|job| *job == live.job.id));
    Ok(locked)
}
