//! A job as an executor holds it, and as SQL sees it.

use crate::pg::Oid;

use crate::errors::{Error, Result, SqlState};
use crate::job::current::{self, Current, Earlier};
use crate::pg::function::Answer;
use crate::pg::spi::Tid;
use crate::pg::value::Timestamp;
use crate::pg::{composite, function_catalog};

/// A job whose row this transaction has locked. `args` lives in the batch's memory.
#[derive(Clone)]
pub struct Claimed {
    pub id: i64,
    pub position: i64,
    pub tid: Tid,
    pub run_at: Timestamp,
    pub enqueued_at: Timestamp,
    /// None: the queue's.
    pub timeout_us: Option<i64>,
    pub caused_by: Option<i64>,
    pub enqueued_by: Oid,
    /// Attempts charged so far.
    pub attempt: i32,
    /// None: the queue's.
    pub max_attempts: Option<i32>,
    pub priority: i16,
    pub depth: i32,
    /// Times it was given back uncharged.
    pub give_backs: i16,
    /// How often it was suspected after a crash: if ever, it runs with no other job in the cluster.
    pub suspicions: i16,
    pub unique_key: Option<String>,
    /// A handler has put it off, or a log or a checkpoint is kept of it.
    pub noted: bool,
    pub args: Answer,
    pub args_bytes: usize,
}

/// The job as a value of type pushy.job.
pub fn composite(current: &Current, earlier: &Earlier) -> Result<Answer> {
    let type_oid = function_catalog::job_type().ok_or_else(|| {
        Error::new(SqlState::UNDEFINED_OBJECT, "type pushy.job does not exist")
            .hint("Run: CREATE EXTENSION pushy")
    })?;
    Ok(Answer::Datum(composite::form(
        type_oid,
        &current::columns(current, earlier),
    )))
}
