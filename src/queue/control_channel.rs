//! Channel pushy_control: what somebody did to a queue or a job, as JSON, at commit.

use std::cell::RefCell;
use std::sync::atomic::Ordering;

use pushy_core::channel::{self, CONTROL};
use serde::Serialize;

use crate::queue::definition::{self, QueueDefinition};
use crate::queue::gateway_event;

use crate::errors::Result;
use crate::notice::buffer::{self, Item, Route};
use crate::notice::repeats::Repeat;
use crate::obstacle;
use crate::pg::heap;
use crate::pg::per_process::PerProcess;
use crate::pg::{clock, database, identity, notify, text, transaction, Oid};
use crate::shared::database::{DatabaseSlot, NEVER};
use crate::shared::listened::ListenerCounter;
use crate::shared::unpublished::{self, Left};
use crate::shared::{self, pending};

/// What was done. The words are part of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ControlEvent {
    Register,
    Alter,
    /// Published with the name that the queue had before.
    Rename,
    Pause,
    Resume,
    Drop,
    /// The queue cannot run, as an executor or resume_after_restore has found.
    Park,
    /// One job, published with its id; as those that follow.
    Cancel,
    Retry,
    /// It failed for the last time, was enqueued beyond pushy.max_depth, or its queue is gone.
    Discard,
}

#[derive(Serialize)]
struct Message<'a> {
    /// Version of this form.
    v: u32,
    event: ControlEvent,
    /// None: the job's queue was dropped, and with it went its name.
    queue: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    was: Option<&'a str>,
    #[serde(rename = "job_id", skip_serializing_if = "Option::is_none")]
    job: Option<i64>,
    /// Events of this kind that were left out before this one.
    #[serde(skip_serializing_if = "is_zero")]
    left_out: u64,
    /// The role that did it.
    by: String,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl<'a> Message<'a> {
    fn new(event: ControlEvent, queue: Option<&'a str>, job: Option<i64>, by: Oid) -> Self {
        Self {
            v: 1,
            event,
            queue,
            was: None,
            job,
            left_out: 0,
            by: identity::role_name(by),
        }
    }

    /// In the server's encoding.
    fn payload(&self) -> Vec<u8> {
        let json = serde_json::to_string(self).expect("plain strings and numbers");
        text::encode_lossy(&json).into_owned()
    }
}

/// Publishes a change of a queue, when this transaction commits.
pub fn publish(event: ControlEvent, queue: &str) -> Result<()> {
    if !is_heard() {
        return Ok(());
    }
    let by = identity::current_user();
    publish_message(&Message::new(event, Some(queue), None, by))
}

/// Publishes that a queue has another name, when this transaction commits.
pub fn publish_renamed(was: &str, queue: &str) -> Result<()> {
    if !is_heard() {
        return Ok(());
    }
    let by = identity::current_user();
    publish_message(&Message {
        was: Some(was),
        ..Message::new(ControlEvent::Rename, Some(queue), None, by)
    })
}

/// Publishes what somebody did to a job, when this transaction commits.
pub fn publish_of_job(event: Of, queue: &QueueDefinition, job: i64) -> Result<()> {
    if !is_heard() {
        return Ok(());
    }
    publish_few(event, Some(queue), job, identity::current_user())
}

/// Whether a session listens, or a subscription may read it: for nobody no relay is started, which would take one of the
/// server's few slots for workers in each database where a queue is registered.
fn is_heard() -> bool {
    let Some(shared) = shared::get() else {
        return true;
    };
    let counter = ListenerCounter::of(database::current(), channel::hash(CONTROL));
    shared.listened.has(counter)
        || identity::as_owner(|| heap::has_rows("subscription")).unwrap_or(true)
}

/// Publishes through the event log, because a transaction that has said NOTIFY cannot be prepared, and because an executor's
/// commit waits for no other and does not fail when the server's queue of notices is full. Where no relay can come NOTIFY
/// publishes.
fn publish_message(message: &Message<'_>) -> Result<()> {
    if !obstacle::a_relay_can_come() {
        pending::unlogged();
        notify::send(CONTROL, &message.payload());
        return Ok(());
    }
    publish_logged(CONTROL, message.payload())
}

/// Through the event log.
pub(super) fn publish_logged(channel: &[u8], payload: Vec<u8>) -> Result<()> {
    buffer::add(Item::Notice {
        channel: channel.into(),
        topic: None,
        payload,
        delivery: Route::Relay {
            merge: false,
            cause: None,
        },
        repeat: Repeat::Follows,
    })
}

pub fn parked(queue: &str) -> Result<()> {
    let by = identity::session_user();
    publish_message(&Message::new(ControlEvent::Park, Some(queue), None, by))
}

/// Events of a kind that one process publishes of single jobs in a second, because a role may cause any number of them. What is more
/// is counted by the commit, and a scheduler publishes the last of them a second later, with how many there were.
const MOST_OF_A_KIND: u32 = 10;

/// What is published of a single job, and later than it is known of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    Cancel,
    Retry,
    Discard,
    /// Of a queue whose role may have no session: the launcher has found that, which publishes nothing itself.
    Park,
}

const LEFT_OUT: [Of; unpublished::LEFT_OUT_KINDS] = [Of::Cancel, Of::Retry, Of::Discard, Of::Park];

impl From<Of> for ControlEvent {
    fn from(of: Of) -> Self {
        match of {
            Of::Cancel => Self::Cancel,
            Of::Retry => Self::Retry,
            Of::Discard => Self::Discard,
            Of::Park => Self::Park,
        }
    }
}

struct Published {
    second: i64,
    published: u32,
}

static PUBLISHED: PerProcess<RefCell<[Published; LEFT_OUT.len()]>> = PerProcess::new(RefCell::new(
    [const {
        Published {
            second: 0,
            published: 0,
        }
    }; LEFT_OUT.len()],
));

/// Whether one more event of the kind may be published in this second. Those that are rolled back count.
fn may_publish(event: Of) -> bool {
    let second = clock::now().0 / 1_000_000;
    PUBLISHED.with_borrow_mut(|all| {
        let published = &mut all[event as usize];
        if published.second != second {
            *published = Published {
                second,
                published: 0,
            };
        }
        published.published += 1;
        published.published <= MOST_OF_A_KIND
    })
}

fn publish_few(event: Of, queue: Option<&QueueDefinition>, job: i64, by: Oid) -> Result<()> {
    // Without the preload nothing is logged, and there is no scheduler.
    if shared::get().is_some() && !may_publish(event) {
        let queue_id = queue.map_or(0, |queue| queue.queue_id);
        pending::left_out(event as usize, Left::one(job, queue_id, by.to_u32()));
        return Ok(());
    }
    let name = queue.map(|queue| queue.name.as_str());
    publish_message(&Message::new(event.into(), name, Some(job), by))
}

/// A job is discarded; `queue` is None when its queue is gone.
#[cold]
pub fn discarded(queue: Option<&QueueDefinition>, job: i64) -> Result<()> {
    publish_few(Of::Discard, queue, job, identity::session_user())
}

/// A queue of a role that may have no session waits, as the launcher has found: published in a second, by the scheduler.
pub fn waits_for_session(
    shared: &shared::Shared,
    database_slot: &DatabaseSlot,
    queue_id: i32,
    role: u32,
) {
    database_slot.unpublished[Of::Park as usize].add(Left::one(0, queue_id, role));
    shared.announce_unpublished(database_slot);
}

/// Publishes the last of those that were left out.
fn publish_last(event: Of, left: &Left) -> Result<()> {
    let queue = identity::as_owner(|| definition::find_by_id(left.queue_id))?;
    let name = queue.as_ref().map(|queue| queue.name.as_str());
    let job = (left.job != 0).then_some(left.job);
    publish_message(&Message {
        left_out: left.count - 1,
        ..Message::new(event.into(), name, job, left.by.into())
    })
}

/// Before a transaction is prepared: publishes what it has left out, because nobody counts it at COMMIT PREPARED.
pub fn publish_left_out() -> Result<()> {
    let all = pending::take_left_out();
    let is_unsaid_to_gateways = pending::take_unsaid_to_gateways();
    if all.is_empty() && !is_unsaid_to_gateways {
        return Ok(());
    }
    transaction::with_snapshot(|| {
        if is_unsaid_to_gateways {
            gateway_event::ask_again()?;
        }
        all.iter()
            .try_for_each(|(kind, left)| publish_last(LEFT_OUT[*kind], left))?;
        buffer::flush_early()
    })
}

/// Publishes what committed transactions have left out in this database, if its time has come; answers when it comes. In a scheduler.
pub fn publish_late(database_slot: &DatabaseSlot) -> Result<Option<i64>> {
    let due = database_slot.unpublished_due.load(Ordering::SeqCst);
    if due > clock::now().0 {
        return Ok((due != NEVER).then_some(due));
    }
    database_slot.unpublished_due.store(NEVER, Ordering::SeqCst);
    let of_gateways = publish_to_gateways(database_slot);
    let take = |event: Of| Some((event, database_slot.unpublished[event as usize].take()?));
    let taken: Vec<(Of, Left)> = LEFT_OUT.into_iter().filter_map(take).collect();
    let published = transaction::run(|| {
        if !is_heard() {
            return Ok(());
        }
        taken
            .iter()
            .try_for_each(|(event, left)| publish_last(*event, left))
    });
    if published.is_err() {
        for (event, left) in taken {
            database_slot.unpublished[event as usize].put_back(left);
        }
        shared::expect().announce_unpublished(database_slot);
    }
    of_gateways.and(published).map(|()| None)
}

/// What transactions have changed that had begun before the first gateway came.
fn publish_to_gateways(database_slot: &DatabaseSlot) -> Result<()> {
    let again = &database_slot.gateway_is_to_ask_again;
    if !again.swap(false, Ordering::SeqCst) {
        return Ok(());
    }
    let published = transaction::run(gateway_event::ask_again);
    if published.is_err() {
        again.store(true, Ordering::SeqCst);
        shared::expect().announce_unpublished(database_slot);
    }
    published
}
