//! How a queue's jobs run, as queue_register and queue_alter are asked: read, checked, applied.

use crate::pg::Oid;
use pushy_core::backoff::Backoff;

use crate::errors::{Error, Result, SqlState};
use crate::pg::ereport;
use crate::pg::function::Call;
use crate::pg::value::interval::shown_length;
use crate::queue::definition::QueueDefinition;
use crate::queue::lease_length::read_lease;
use crate::settings;

/// What was said; None is 'not said'. Both functions take them in the same places, behind the queue.
pub struct Options {
    pub handler: Option<String>,
    pub run_as: Option<Oid>,
    /// 0: as many as there are executors.
    pub concurrency: Option<i32>,
    pub priority: Option<i32>,
    pub max_attempts: Option<i32>,
    pub backoff: Option<Backoff>,
    pub retry_delay_us: Option<i64>,
    pub max_retry_delay_us: Option<i64>,
    pub timeout_us: Option<i64>,
    pub keep_completed_us: Option<i64>,
    pub keep_discarded_us: Option<i64>,
    pub batch: Option<bool>,
    /// 0: until the session ends that has claimed the job.
    pub lease_us: Option<i64>,
    /// For queue_alter only.
    pub owner: Option<Oid>,
}

const SECOND_US: i64 = 1_000_000;
const TIMEOUT_US: i64 = 60 * SECOND_US;
const LEASE_US: i64 = 60 * SECOND_US;
const HOUR_US: i64 = 3_600 * SECOND_US;
const DAY_US: i64 = 24 * HOUR_US;

pub const DEFAULT_KEEP_DISCARDED_US: i64 = 30 * DAY_US;

/// What an omitted argument of queue_register means; sql/queues.sql says the same.
pub fn defaults(name: String) -> QueueDefinition {
    QueueDefinition {
        queue_id: 0,
        name,
        owner: Oid::INVALID,
        owner_name: String::new(),
        run_as: Oid::INVALID,
        run_as_name: String::new(),
        handler_oid: Oid::INVALID,
        handler: String::new(),
        handler_owner: Oid::INVALID,
        handler_owner_name: String::new(),
        concurrency: None,
        priority: 5,
        max_attempts: 25,
        backoff: Backoff::Exponential,
        retry_delay_us: SECOND_US,
        max_retry_delay_us: DAY_US,
        timeout_us: TIMEOUT_US,
        keep_completed_us: HOUR_US,
        keep_discarded_us: DEFAULT_KEEP_DISCARDED_US,
        batch: true,
        lease_us: LEASE_US,
        paused: false,
        parked: None,
        home_system: 0,
        home_database: 0,
    }
}

impl Options {
    /// Those of queue_register.
    pub fn read(call: Call) -> Result<Self> {
        Self::read_with_lease(call, 13)
    }

    /// Those of queue_alter, which has one more.
    pub fn read_with_owner(call: Call) -> Result<Self> {
        Ok(Self {
            owner: call.opt_oid(13),
            ..Self::read_with_lease(call, 14)?
        })
    }

    fn read_with_lease(call: Call, lease: usize) -> Result<Self> {
        Ok(Self {
            handler: call.opt_text(1)?,
            run_as: call.opt_oid(2),
            concurrency: in_range(
                "concurrency",
                call.opt_i32(3),
                0..=i32::MAX,
                "1 or more (1 is strict order), or 0 for no limit",
            )?,
            priority: in_range("priority", call.opt_i32(4), 0..=9, "0 (first) to 9 (last)")?,
            max_attempts: in_range("max_attempts", call.opt_i32(5), 1..=i32::MAX, "1 or more")?,
            backoff: call.opt_text(6)?.map(parse_backoff).transpose()?,
            retry_delay_us: length(call, "retry_delay", 7)?,
            max_retry_delay_us: length(call, "max_retry_delay", 8)?,
            timeout_us: timeout(call)?,
            keep_completed_us: length(call, "keep_completed", 10)?,
            keep_discarded_us: length(call, "keep_discarded", 11)?,
            batch: call.opt_bool(12),
            lease_us: read_lease(call, "lease", lease)?,
            owner: None,
        })
    }

    /// Puts what was said into a definition; handler and role are the callers' to resolve.
    pub fn apply_to(&self, queue: &mut QueueDefinition) {
        if let Some(concurrency) = self.concurrency {
            queue.concurrency = (concurrency > 0).then_some(concurrency);
        }
        put(&mut queue.priority, self.priority);
        put(&mut queue.max_attempts, self.max_attempts);
        put(&mut queue.backoff, self.backoff);
        put(&mut queue.retry_delay_us, self.retry_delay_us);
        put(&mut queue.max_retry_delay_us, self.max_retry_delay_us);
        put(&mut queue.timeout_us, self.timeout_us);
        put(&mut queue.keep_completed_us, self.keep_completed_us);
        put(&mut queue.keep_discarded_us, self.keep_discarded_us);
        put(&mut queue.batch, self.batch);
        put(&mut queue.lease_us, self.lease_us);
    }
}

/// A NOTICE to the client of a delay that the longest one cuts short, because whoever says both has meant something else.
pub fn notice_delays(queue: &QueueDefinition) {
    // 0 is none: nothing cuts delays short.
    if queue.max_retry_delay_us == 0 || queue.retry_delay_us <= queue.max_retry_delay_us {
        return;
    }
    ereport::notice(
        &Error::new(
            SqlState::SUCCESSFUL_COMPLETION,
            format!(
                "queue \"{}\" waits {} after each failed attempt, its max_retry_delay, because its retry_delay of {} is longer",
                queue.name,
                shown_length(queue.max_retry_delay_us),
                shown_length(queue.retry_delay_us)
            ),
        )
        .hint("Pass max_retry_delay as well: no attempt is put off longer than that."),
    );
}

fn put<T>(place: &mut T, said: Option<T>) {
    if let Some(value) = said {
        *place = value;
    }
}

fn in_range(
    name: &str,
    value: Option<i32>,
    range: std::ops::RangeInclusive<i32>,
    allowed: &str,
) -> Result<Option<i32>> {
    match value {
        Some(value) if !range.contains(&value) => Err(Error::out_of_range(name, value, allowed)),
        value => Ok(value),
    }
}

fn parse_backoff(word: String) -> Result<Backoff> {
    Backoff::parse(&word).ok_or_else(|| {
        Error::out_of_range(
            "backoff",
            format!("\"{word}\""),
            "'exponential', 'linear', 'fixed'",
        )
    })
}

/// The default is accepted where it is too long, because whoever says nothing asks for nothing: it is cut short then.
fn timeout(call: Call) -> Result<Option<i64>> {
    let timeout_us = length(call, "timeout", 9)?;
    if let Some(said) = timeout_us.filter(|said| *said != TIMEOUT_US) {
        settings::check_timeout(said)?;
    }
    Ok(timeout_us)
}

fn length(call: Call, name: &str, index: usize) -> Result<Option<i64>> {
    let length_us = call.opt_interval_us(name, index)?;
    match length_us {
        Some(us) if us < 0 => Err(Error::out_of_range(
            name,
            call.shown_interval(index),
            match name {
                "lease" => "an interval above 0, or 0 for claims that end with their session",
                _ => "an interval of 0 (none) or more",
            },
        )),
        length_us => Ok(length_us),
    }
}
