//! job_claim_wait: sleeps until there is something to claim, holding no snapshot, and asks nobody again and again.

use std::time::{Duration, Instant};

use crate::errors::Result;
use crate::job::lease::ready::{free_leases, is_any_ready, note_asked};
use crate::pg::function::{Answer, Call};
use crate::pg::installed::Installed;
use crate::pg::{clock, identity, transaction};
use crate::queue::cache::{self, CachedQueue};
use crate::queue::privilege::{self, Privilege};
use crate::shared::queue_slot::QueueKey;
use crate::{row, shared, sql_function};

/// How long it waits where nothing is said; as sql/leases.sql has it.
const USUAL: Duration = Duration::from_secs(60);

sql_function!(pushy_job_claim_wait_v1, |call| claim_wait(call));

/// Whether there is something to claim.
fn claim_wait(call: Call) -> Result<Answer> {
    let name = call.text("queue", 0)?;
    let timeout = call.timeout("timeout", 1, USUAL)?;
    transaction::require_nonatomic(call.is_nonatomic_call(), "pushy.job_claim_wait")?;
    let deadline = Instant::now() + timeout;
    let installed = Installed::find()?;
    let mut told = None;
    // Bounded: by the deadline; who sleeps looks at interrupts.
    loop {
        // Each look is a transaction of its own, because the queue may change; between looks no snapshot is held.
        transaction::commit_in_procedure()?;
        installed.require()?;
        let version = cache::version();
        let known = cache::get(&name)?;
        let queue = &known.definition;
        privilege::require(
            queue,
            &known.grants,
            identity::current_user(),
            Privilege::Claim,
        )?;
        queue.require_outside()?;
        let slot = match known.slot {
            Some(slot) => slot,
            None => cache::slot_or_reason(queue).map_err(|why| why.error(queue))?,
        };
        note_asked(&known, clock::now());
        // Before the leases are counted: one that ends from here on is a signal more.
        let signals = shared::expect().queues()[slot].signals();
        let noted = shared::expect().queues()[slot].noted();
        let has_room = identity::as_owner(|| free_leases(queue, Some(slot), false))? > 0;
        if !has_room {
            // A lease that ends from here on is another note: until then nobody need be woken in the place of this one.
            shared::expect().queues()[slot].forget_claimer(noted);
        }
        let is_open = || shared::expect().lets_in_outside(slot, clock::now().0);
        let is_ready = has_room && is_open() && identity::as_owner(|| is_any_ready(queue, slot))?;
        told.take().into_iter().for_each(Told::has_looked);
        if is_ready {
            return Ok(call.answer_row(row![true]));
        }
        transaction::commit_in_procedure()?;
        let seen = Seen {
            version,
            signals,
            has_room,
        };
        told = Some(Told {
            slot,
            key: queue.key(),
        });
        let left = deadline.saturating_duration_since(Instant::now());
        if !sleep(&known, slot, &seen, left) {
            return Ok(call.answer_row(row![false]));
        }
    }
}

/// Somebody sleeps, or was woken, who is to look at what is ready: another does where this one does not get there, because its right was
/// taken back, say, or its time is up.
struct Told {
    slot: usize,
    key: QueueKey,
}

impl Told {
    fn has_looked(self) {
        std::mem::forget(self);
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        shared::expect().hand_on(self.slot, self.key);
    }
}

/// What the last look has found.
struct Seen {
    version: Option<u64>,
    signals: u64,
    /// Fewer jobs are leased than the queue's concurrency allows.
    has_room: bool,
}

/// Sleeps until the queue may have something ready; where its leases are at their limit, until something changes. False: the time
/// is up.
fn sleep(known: &CachedQueue, slot: usize, seen: &Seen, left: Duration) -> bool {
    let shared = shared::expect();
    let queue = &shared.queues()[slot];
    let key = known.definition.key();
    let look = || {
        let is_another = !queue.is(key) || cache::version() != seen.version;
        let may_claim = if seen.has_room {
            shared.is_ready(slot) && shared.lets_in_outside(slot, clock::now().0)
        } else {
            queue.signals() != seen.signals
        };
        (is_another || may_claim).then_some(())
    };
    queue.claimable.wait_until(left, look).is_some()
}
