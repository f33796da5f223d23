//! Removes what dropped queues have left among finished jobs, failures, logs and checkpoints.

use crate::errors::Result;
use crate::job::history;
use crate::job::rotation::{self, Deleted};

/// The tables to be gone through, each with its column of the moment that a row is of; a checkpoint has none, and of a queue that is
/// gone nobody goes on from one. As the extension's owner, as is the next.
pub fn tables() -> Result<Vec<(String, Option<&'static str>)>> {
    let finished = history::tables()?;
    let finished = finished
        .into_iter()
        .map(|table| (table, Some("finished_at")));
    let beside = [
        ("failure", Some("failed_at")),
        ("job_log", Some("said_at")),
        ("checkpoint", None),
    ];
    let beside = beside.map(|(table, at)| (table.to_owned(), at));
    Ok(finished.chain(beside).collect())
}

/// Removes rows of dropped queues from some pages, but for what came after the drop: that has an end of its own.
pub fn delete_some(table: &str, at: Option<&str>, from: i64) -> Deleted {
    let from_before = at.map_or_else(String::new, |at| {
        format!(" AND d.dropped_at OPERATOR(pg_catalog.>=) l.{at}")
    });
    let of_dropped = format!(
        "EXISTS (SELECT FROM pushy_internal.dropped_queue d \
                  WHERE d.queue_id OPERATOR(pg_catalog.=) l.queue_id{from_before})"
    );
    rotation::delete_pages(table, from, &of_dropped)
}
