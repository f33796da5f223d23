//! What the view pushy.watches shows of a watch beside its row: the counts in shared memory, and what is in the way
//! of its jobs.

use std::sync::atomic::{AtomicU64, Ordering};

use super::definition::WatchDefinition;
use super::restore;
use crate::errors::Result;
use crate::pg::function::{Answer, Call};
use crate::pg::home::Home;
use crate::pg::{catalog_trigger, identity, Oid};
use crate::shared::{self, watch_slot};
use crate::watch::find;
use crate::{row, sql_function};

sql_function!(pushy_watch_counts_v1, |call| watch_counts(call));

/// NULLs of a watch that the caller may not see, or that there is not.
fn watch_counts(call: Call) -> Result<Answer> {
    let watch_id = call.opt_i32(0).unwrap_or_default();
    let Some(watch) = visible(watch_id)? else {
        let no = None::<i64>;
        return Ok(call.answer_row(row![no, no, no, no, no, None::<&str>]));
    };
    let obstacle = match &watch.queue {
        Some(queue) if watch.is_home() => queue.obstacle(watch.owner, "pushy.watch")?,
        _ => None,
    };
    let slot = shared::get().and_then(|shared| shared.find_watch(watch_id));
    let count = |of: fn(&watch_slot::WatchSlot) -> &AtomicU64| {
        slot.map_or(0, |slot| of(slot).load(Ordering::Relaxed) as i64)
    };
    Ok(call.answer_row(row![
        count(|slot| &slot.notices),
        count(|slot| &slot.jobs),
        count(|slot| &slot.errors),
        slot.and_then(|slot| watch_slot::time(&slot.last_fired_at)),
        slot.and_then(|slot| watch_slot::time(&slot.last_error_at)),
        obstacle.and_then(|finding| finding.fix),
    ]))
}

/// The watch, if the caller has made it or could make one of its table.
fn visible(watch_id: i32) -> Result<Option<WatchDefinition>> {
    let Some(watch) = identity::as_owner(|| find::by_id(watch_id))? else {
        return Ok(None);
    };
    let relation = if watch.is_home() {
        Some(watch.relation)
    } else {
        identity::as_owner(|| Ok(restore::table_elsewhere(watch.watch_id)))?
    };
    let may = watch.is_made_by(identity::current_user())
        || relation.is_some_and(catalog_trigger::may_create_on);
    Ok(may.then_some(watch))
}

sql_function!(pushy_is_home_v1, |call| {
    let system = call.opt_i64(0).unwrap_or_default();
    let [database, extension, relation] =
        [1, 2, 3].map(|index| call.opt_oid(index).unwrap_or(Oid::INVALID));
    let home = Home {
        system,
        database,
        extension,
    };
    Result::Ok(home.is_here() && identity::owner_of(relation).is_some())
});
