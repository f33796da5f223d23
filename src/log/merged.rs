//! Equal notices of a tick, of which a reader gets one.

use std::collections::HashMap;

use super::events::EventFetcher;
use super::filter::{Filter, Share};
use super::parts;
use super::read::{Equal, Notice};
use super::tick::Tick;
use crate::errors::Result;

/// A set of equal notices of a tick that are to be merged.
pub(super) struct Merged {
    /// Where in the tick the last of them is: only that one is handed over, so that a reader ends with the last notice
    /// wherever in the tick it begins.
    pub(super) last: i32,
    /// The least deep of their causes, because the one that is handed over stands for all of them: with another's, the job of
    /// a change that nothing had caused would be discarded for the depth of a stranger's. Circles end all the same: what is
    /// handed over is as deep as one of them is, and a job says so many only.
    pub(super) cause: Option<(i64, i32)>,
}

/// Which notices of a tick are merged, of all that the reader gets, also of those before its cursor.
pub(super) fn merged_in(
    log: &EventFetcher<'_>,
    tick: &Tick,
    filter: &Filter,
) -> Result<HashMap<Equal, Merged>> {
    let mut merged: HashMap<Equal, Merged> = HashMap::new();
    log.events(&tick.runs, 0, |n, row| {
        if !row.bool(parts::log::MERGE) {
            return Ok(true);
        }
        let channel = row.opt_bytes(parts::log::CHANNEL).unwrap_or_default();
        let topic = row.opt_bytes(parts::log::TOPIC);
        let share = filter.share(&channel, topic.as_deref(), row.i64(parts::log::LSN))?;
        if share == Share::Notice {
            let notice = Notice::of_topic(&row, tick.cursor(n), tick.at, channel, topic);
            let cause = notice.cause;
            let all = merged
                .entry(notice.equal())
                .or_insert(Merged { last: n, cause });
            all.last = n;
            all.cause = less_deep(all.cause, cause);
        }
        Ok(true)
    })?;
    Ok(merged)
}

/// Of two causes the one that is less deep: none, or that of the job of lesser depth.
fn less_deep(one: Option<(i64, i32)>, other: Option<(i64, i32)>) -> Option<(i64, i32)> {
    let depth = |cause: Option<(i64, i32)>| cause.map_or(-1, |(_, depth)| depth);
    if depth(other) < depth(one) {
        other
    } else {
        one
    }
}
