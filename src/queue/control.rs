//! Channel pushy_control: what somebody did to a queue or a job, as JSON, at commit.

use std::cell::RefCell;

use pushy_core::channel;
use serde::Serialize;

use crate::errors::Result;
use crate::notice::buffer::{self, Delivery, Item};
use crate::notice::repeats::Repeat;
use crate::pg::per_process::PerProcess;
use crate::pg::spi::{self, Plan};
use crate::pg::{clock, database, identity, notify, text, transaction, Oid};
use crate::shared;
use crate::shared::listened::Counter;

const CHANNEL: &[u8] = b"pushy_control";

/// What was done. The words are part of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    Register,
    Alter,
    Pause,
    Resume,
    Drop,
    /// The queue cannot run, as an executor or resume_after_restore has found.
    Park,
    /// One job, told with its id; as those that follow.
    Cancel,
    Retry,
    /// It failed for the last time, was enqueued beyond pushy.max_depth, or its queue is gone.
    Discard,
}

#[derive(Serialize)]
struct Message<'a> {
    /// Version of this form.
    v: u32,
    event: Event,
    /// None: the job's queue was dropped, and with it went its name.
    queue: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<i64>,
    /// Events of this kind that this process left out since its last message of the kind.
    #[serde(skip_serializing_if = "is_zero")]
    left_out: u64,
    /// The role that did it.
    by: String,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl<'a> Message<'a> {
    fn new(event: Event, queue: Option<&'a str>, job: Option<i64>, by: Oid) -> Self {
        Self {
            v: 1,
            event,
            queue,
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

/// Tells of a change of a queue, when this transaction commits.
pub fn tell(event: Event, queue: &str) -> Result<()> {
    if !is_heard() {
        return Ok(());
    }
    let by = identity::current_user();
    log(&Message::new(event, Some(queue), None, by))
}

/// Tells what somebody did to a job, when this transaction commits.
pub fn tell_of_job(event: Of, queue: &str, job: i64) -> Result<()> {
    if !is_heard() {
        return Ok(());
    }
    tell_few(event, Some(queue), job, identity::current_user())
}

static HAS_READERS: Plan = Plan::new("SELECT EXISTS (SELECT FROM pushy.subscription)", &[]);

/// Whether a session listens, or a subscription may read it: for nobody no relay is started, which would take one of the
/// server's few slots for workers in each database where a queue is registered.
fn is_heard() -> bool {
    let Some(shared) = shared::get() else {
        return true;
    };
    let counter = Counter::of(database::current(), channel::hash(CHANNEL));
    shared.listened.has(counter)
        || identity::as_owner(|| {
            Ok(spi::connect(|spi| {
                spi.run(&HAS_READERS, &[]).row(0).bool(1)
            }))
        })
        .unwrap_or(true)
}

/// Tells through the event log, because a transaction that has said NOTIFY cannot be prepared, and because an executor's
/// commit waits for no other and does not fail when the server's queue of notices is full. Without the preload no relay
/// comes: NOTIFY tells then.
fn log(message: &Message<'_>) -> Result<()> {
    if shared::get().is_none() {
        notify::send(CHANNEL, &message.payload());
        return Ok(());
    }
    buffer::add(Item::Notice {
        channel: CHANNEL.into(),
        payload: message.payload(),
        delivery: Delivery::Relay {
            merge: false,
            cause: None,
        },
        repeat: Repeat::Follows,
    })
}

pub fn parked(queue: &str) -> Result<()> {
    let by = identity::session_user();
    log(&Message::new(Event::Park, Some(queue), None, by))
}

/// Events of a kind that one process tells of single jobs in a second, because a role may cause any number of them; what is
/// more is counted, and said with the next one told. The last of them is kept, and told once a worker has nothing else to do.
const MOST_OF_A_KIND: u32 = 10;

/// What is told of a single job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    Cancel,
    Retry,
    Discard,
}

const KINDS: [Of; 3] = [Of::Cancel, Of::Retry, Of::Discard];

impl From<Of> for Event {
    fn from(of: Of) -> Self {
        match of {
            Of::Cancel => Self::Cancel,
            Of::Retry => Self::Retry,
            Of::Discard => Self::Discard,
        }
    }
}

struct Told {
    second: i64,
    told: u32,
    left_out: u64,
    /// The newest of those left out: its queue, its number and who did it.
    kept: Option<(Option<String>, i64, Oid)>,
}

static TOLD: PerProcess<RefCell<[Told; KINDS.len()]>> = PerProcess::new(RefCell::new(
    [const {
        Told {
            second: 0,
            told: 0,
            left_out: 0,
            kept: None,
        }
    }; KINDS.len()],
));

fn tell_few(event: Of, queue: Option<&str>, job: i64, by: Oid) -> Result<()> {
    let second = clock::now().0 / 1_000_000;
    let left_out = TOLD.with_borrow_mut(|all| {
        let told = &mut all[event as usize];
        if told.second != second {
            told.second = second;
            told.told = 0;
        }
        if told.told == MOST_OF_A_KIND {
            told.left_out += 1;
            told.kept = Some((queue.map(str::to_owned), job, by));
            return None;
        }
        told.told += 1;
        told.kept = None;
        Some(std::mem::take(&mut told.left_out))
    });
    let Some(left_out) = left_out else {
        return Ok(());
    };
    log(&Message {
        left_out,
        ..Message::new(event.into(), queue, Some(job), by)
    })
}

/// A job is discarded; `queue` is None when its queue is gone.
#[cold]
pub fn discarded(queue: Option<&str>, job: i64) -> Result<()> {
    tell_few(Of::Discard, queue, job, identity::session_user())
}

/// Tells the last of each kind that was left out, if nothing has told of its kind since: how many there were is known even
/// when none comes after them. A worker calls it when it has nothing to do, outside a transaction.
pub fn tell_kept() {
    if TOLD.with_borrow(|all| all.iter().all(|told| told.kept.is_none())) {
        return;
    }
    // Untold, it is missed by nobody but who listens: the history has them all.
    let _ = transaction::run(|| {
        for event in KINDS {
            let taken = TOLD.with_borrow_mut(|all| {
                let told = &mut all[event as usize];
                let kept = told.kept.take()?;
                Some((kept, std::mem::take(&mut told.left_out) - 1))
            });
            let Some(((queue, job, by), left_out)) = taken else {
                continue;
            };
            log(&Message {
                left_out,
                ..Message::new(event.into(), queue.as_deref(), Some(job), by)
            })?;
        }
        Ok(())
    });
}
