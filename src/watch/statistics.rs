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

sql_function!(pushy_watch_visible_v1, |call| is_visible(call));

/// The filter of the view. A row of the view's snapshot says what most callers may not see; of what they may, and of what is not at home,
/// the watch of now decides.
fn is_visible(call: Call) -> Result<bool> {
    let watch_id = call.opt_i32(0).unwrap_or_default();
    let oid = |index| call.opt_oid(index).unwrap_or(Oid::INVALID);
    let (relation, owner) = (oid(4), oid(5));
    // At home the number of a role decides who it is.
    let is_home = home_of(call, 1).is_here() && identity::owner_of(relation).is_some();
    if is_home
        && !catalog_trigger::may_create_on(relation)
        && !identity::has_rights_of(identity::current_user(), owner)
    {
        return Ok(false);
    }
    Ok(visible(watch_id)?.is_some())
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
    let relation = call.opt_oid(3).unwrap_or(Oid::INVALID);
    Result::Ok(home_of(call, 0).is_here() && identity::owner_of(relation).is_some())
});

/// Three arguments from this one on.
fn home_of(call: Call, first: usize) -> Home {
    let oid = |index| call.opt_oid(index).unwrap_or(Oid::INVALID);
    Home {
        system: call.opt_i64(first).unwrap_or_default(),
        database: oid(first + 1),
        extension: oid(first + 2),
    }
}
