//! queue_drop.

use crate::pg::{transaction, BuiltinOid};

use super::alter::find_owned;
use super::cache;
use super::control::{self, Event};
use super::definition::Definition;
use super::explain;
use super::store;
use crate::errors::{quote_literal, Error, Result, SqlState};
use crate::job::current;
use crate::job::moves::discard;
use crate::log::subscription::table::{self, Subscription};
use crate::params;
use crate::pg::identity;
use crate::pg::spi::{self, Plan};
use crate::shared::pending;
use crate::{sql_function, watch};

sql_function!(pushy_queue_drop_v1, |call| {
    transaction::require_writable(c"pushy.queue_drop()");
    let name = call.text("queue", 0)?;
    let force = call.opt_bool(1).unwrap_or(false);
    drop_queue(&name, force)
});

/// A watch that feeds the queue would have nowhere to put its jobs.
fn refuse_watches(held: &Definition) -> Result<()> {
    let queue = &held.name;
    let watches = watch::of_queue(held)?;
    let Some(first) = watches.first() else {
        return Ok(());
    };
    Err(Error::new(
        SqlState::DEPENDENT_OBJECTS_STILL_EXIST,
        format!("queue \"{queue}\" is fed by watches: {}", watches.len()),
    )
    .detail(format!(
        "One of them is \"{}\" on {}.",
        first.name, first.relation_name
    ))
    .hint(format!(
        "SELECT pushy.unwatch({}, {}), or pass force => true: their changes make no jobs then.",
        quote_literal(&first.relation_name),
        quote_literal(&first.name)
    )))
}

/// Nor would the notices of a subscription have a queue to become jobs of.
fn refuse_subscriptions(queue: &Definition) -> Result<()> {
    let all = table::all()?;
    let feeds = |known: &&Subscription| known.queue.as_ref().is_some_and(|held| held.is(queue));
    let Some(first) = all.iter().find(feeds) else {
        return Ok(());
    };
    Err(Error::new(
        SqlState::DEPENDENT_OBJECTS_STILL_EXIST,
        format!("queue \"{}\" is fed by subscriptions", queue.name),
    )
    .detail(format!("One of them is \"{}\".", first.name))
    .hint(format!(
        "SELECT pushy.subscription_drop({}), or pass force => true: its notices make no jobs then.",
        quote_literal(&first.name)
    )))
}

static COUNT_LIVE: Plan = Plan::new(
    "SELECT pg_catalog.count(*), \
            CASE WHEN pg_catalog.count(*) OPERATOR(pg_catalog.=) pg_catalog.count(*) FILTER (WHERE j.position IS NULL) \
                 THEN pg_catalog.min(j.run_at) FILTER (WHERE j.run_at OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp())::pg_catalog.text END \
       FROM pushy_internal.live_job j WHERE j.queue_id OPERATOR(pg_catalog.=) $1",
    &[BuiltinOid::INT4OID],
);

fn drop_queue(name: &str, force: bool) -> Result<()> {
    let queue = find_owned(name)?;
    if current::is_of(name) {
        return Err(Error::new(
            SqlState::OBJECT_IN_USE,
            format!("queue \"{name}\" cannot be dropped by one of its own jobs"),
        )
        .hint("Drop it from another session, or from a job of another queue."));
    }
    // Who enqueues commits before this, and is found below, or fails; it wants the queue's place for that.
    let _ = cache::slot_of(&queue);
    if pending::dropped(queue.key(), force) && !force {
        return Err(Error::new(
            SqlState::OBJECT_IN_USE,
            format!("jobs of queue \"{name}\" are being committed at this moment"),
        )
        .hint("Wait for them with CALL pushy.jobs_wait, or pass force => true: they are deleted then."));
    }
    identity::as_owner(|| {
        if !force {
            refuse_watches(&queue)?;
            refuse_subscriptions(&queue)?;
        }
        if force {
            discard::delete_with_queue(&queue);
        } else {
            refuse_live_jobs(&queue)?;
        }
        store::delete(&queue);
        Ok(())
    })?;
    control::tell(Event::Drop, name)
}

fn refuse_live_jobs(queue: &Definition) -> Result<()> {
    let (live, first_due) = spi::connect(|spi| {
        let found = spi.run(&COUNT_LIVE, params![queue.queue_id]);
        Ok((found.row(0).i64(1), found.row(0).opt_text(2)?))
    })?;
    if live == 0 {
        return Ok(());
    }
    let name = quote_literal(&queue.name);
    let stands_still = explain::standing(queue).into_iter().next();
    // Where none of them would end soon, waiting is no way out.
    let wait = match (stands_still, first_due) {
        (Some(why), _) => format!("They do not run: {}. Delete them", why.reason),
        (None, Some(due)) => format!("The first is due at {due}. Delete them"),
        (None, None) => format!("Wait for them with CALL pushy.jobs_wait({name}), or delete them"),
    };
    Err(Error::new(
        SqlState::OBJECT_IN_USE,
        format!(
            "queue \"{}\" has {live} unfinished {}",
            queue.name,
            if live == 1 { "job" } else { "jobs" }
        ),
    )
    .hint(format!(
        "{wait}: SELECT pushy.queue_drop({name}, force => true)."
    )))
}
