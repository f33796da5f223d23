//! Removes what dropped queues have left among finished jobs and failures.

use crate::errors::Result;
use crate::job::history;
use crate::job::rotation::{self, Deleted};

/// The tables to be gone through, each with its column of the moment that a row is of. As the extension's owner, as is the next.
pub fn tables() -> Result<Vec<(String, &'static str)>> {
    let finished = history::tables()?;
    let finished = finished.into_iter().map(|table| (table, "finished_at"));
    Ok(finished
        .chain([("failure".to_owned(), "failed_at")])
        .collect())
}

/// Removes rows of dropped queues from some pages, but for what came after the drop: that has an end of its own.
pub fn delete_some(table: &str, at: &str, from: i64) -> Deleted {
    let of_dropped = format!(
        "EXISTS (SELECT FROM pushy_internal.dropped_queue d WHERE d.queue_id OPERATOR(pg_catalog.=) l.queue_id \
                    AND d.dropped_at OPERATOR(pg_catalog.>=) l.{at})"
    );
    rotation::delete_pages(table, from, &of_dropped)
}
