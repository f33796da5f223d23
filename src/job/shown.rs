//! What the view pushy.jobs shows of a job beside its row. Read by an index, because a planner that reckons two looks at other tables
//! for each job of everybody compiles (jit) what takes milliseconds.

use crate::errors::Result;
use crate::job::tables::{checkpoint, failure};
use crate::pg::function::{Answer, Call};
use crate::pg::heap::{self, Key};
use crate::pg::{identity, snapshot};
use crate::queue::privilege::Privilege;
use crate::queue::visible;
use crate::sql_function;

sql_function!(pushy_job_last_error_v1, |call| shown(
    call,
    "failure",
    (failure::COLUMNS, &failure::CHECKED),
    |job, queue_id| vec![Key::int8_equals(1, job), Key::int4_equals(2, queue_id)],
    (failure::QUEUE_ID, failure::MESSAGE),
));

sql_function!(pushy_job_checkpoint_of_v1, |call| shown(
    call,
    "checkpoint",
    (checkpoint::COLUMNS, &checkpoint::CHECKED),
    |job, _| vec![Key::int8_equals(1, job)],
    (checkpoint::QUEUE_ID, checkpoint::STATE),
));

/// The text, or document, of the last row that a table's primary key has of a job, under the snapshot of the caller's statement. NULL
/// where there is none, and where the caller may not monitor the queue.
fn shown(
    call: Call,
    table: &str,
    (columns, checked): (&[&str], &std::sync::atomic::AtomicU64),
    keys: fn(i64, i32) -> Vec<Key>,
    (queue, shown): (i32, i32),
) -> Result<Answer> {
    let (Some(job), Some(queue_id)) = (call.opt_i64(0), call.opt_i32(1)) else {
        return Ok(Answer::Null);
    };
    if visible::queue(queue_id, &[Privilege::Monitor])?.is_none() {
        return Ok(Answer::Null);
    }
    let snapshot = snapshot::of_statement();
    identity::as_owner(|| {
        let mut answer = Answer::Null;
        let index = format!("{table}_pkey");
        let table = heap::open_for_reading(table)?;
        heap::check_columns(&table, columns, checked)?;
        table.read_in_order(&index, &keys(job, queue_id), &snapshot, true, |row| {
            if row.i32(queue) == queue_id {
                answer = row.answer_copied(shown);
            }
            Ok(false)
        })?;
        Ok(answer)
    })
}
