//! Watches: a table's changes become notices, or jobs.

mod counts;
mod declare;
mod definition;
mod fire;
mod options;
mod statistics;
mod stored;

use declare::follow::{altered, attached};
use declare::{
    arguments, orphans, restore, side_effects, table, trigger_texts, triggers, triggers_there,
    warnings,
};
pub use definition::{CHANNEL_USERS, DEPENDENTS};
use fire::{cache, content, notice_json, partition_move, publish, statement};
pub use number::next_id as next_number;
use stored::{changes, find, lost, number, write};

use crate::errors::Result;
use crate::pg::invalidation;
use crate::pg::transaction;
use crate::pg::transaction_end::{self, Before, End, Observer, SavepointEnd};

static OBSERVER: Observer = Observer {
    before: Some(before),
    at_end,
    at_savepoint_end,
};

/// Once, while preloading: ALTER TABLE is followed.
pub fn init_statements() {
    altered::init();
    attached::init();
}

/// Once, at load; before the buffer of notices, which takes what is published before a commit.
pub fn init() {
    invalidation::init();
    transaction_end::observe(&OBSERVER);
}

/// Publishes what is left. A look at a queue wants a snapshot, and a commit has none.
#[cfg_attr(target_os = "linux", link_section = "commit_path")]
fn before(_what: Before) -> Result<()> {
    if partition_move::is_empty() && statement::is_empty() {
        return Ok(());
    }
    transaction::with_snapshot(|| {
        partition_move::end_all()?;
        statement::end_all()
    })
}

/// Publishes what is left of the current savepoint, before the transaction ends.
pub fn publish_rest() -> Result<()> {
    partition_move::end_here()?;
    statement::end_here()
}

#[cfg_attr(target_os = "linux", link_section = "commit_path")]
fn at_end(end: End) {
    if end == End::Commit {
        counts::announce();
    }
    partition_move::forget(0);
    statement::forget(0);
    counts::forget(0);
    altered::forget(0);
}

fn at_savepoint_end(end: SavepointEnd, level: i32) {
    match end {
        SavepointEnd::Release => {
            partition_move::raise(level);
            statement::raise(level);
            counts::raise(level);
        }
        SavepointEnd::Rollback => {
            partition_move::forget(level);
            statement::forget(level);
            counts::forget(level);
            altered::forget(level);
        }
    }
}
