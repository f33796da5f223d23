//! queue_drop.

use crate::pg::object_lock::prepared_locks;
use crate::pg::{ereport, transaction, BuiltinOid};

use crate::errors::{quote_literal, Error, Result, SqlState};
use crate::params;
use crate::pg::identity;
use crate::pg::spi::{self, Plan};
use crate::queue::alter::find_owned;
use crate::queue::cache;
use crate::queue::control_channel::{self, ControlEvent};
use crate::queue::definition::QueueDefinition;
use crate::queue::dependents::Dependent;
use crate::queue::explain;
use crate::queue::store;
use crate::shared::pending;
use crate::{sql_function, JOBS_OF_QUEUES, ON_QUEUES};

sql_function!(pushy_queue_drop_v1, |call| {
    transaction::require_writable(c"pushy.queue_drop()");
    let name = call.text("queue", 0)?;
    let force = call.opt_bool(1).unwrap_or(false);
    drop_queue(&name, force)
});

/// A watch or a subscription that feeds the queue would have nowhere to put its jobs.
fn refuse_feeding(queue: &QueueDefinition) -> Result<()> {
    let mut feeding = Vec::new();
    let mut counts = Vec::new();
    for kind in &ON_QUEUES {
        let those = (kind.of_queue)(queue)?;
        counts.extend(counted(those.len(), kind.kind));
        feeding.extend(those);
    }
    let Some(Dependent {
        what: first,
        end: end_it,
    }) = feeding.first()
    else {
        return Ok(());
    };
    let (detail, and_the_others) = match feeding.len() {
        1 => (format!("It is {first}."), ""),
        _ => (
            format!("The first is {first}."),
            " and so on for the others",
        ),
    };
    Err(Error::new(
        SqlState::DEPENDENT_OBJECTS_STILL_EXIST,
        format!(
            "queue \"{}\" is fed by {}",
            queue.name,
            counts.join(" and ")
        ),
    )
    .detail(detail)
    .hint(format!(
        "{end_it}{and_the_others}, or pass force => true: their notices make no jobs then."
    )))
}

fn counted(count: usize, [one, many]: [&str; 2]) -> Option<String> {
    (count > 0).then(|| format!("{count} {}", if count == 1 { one } else { many }))
}

static COUNT_LIVE: Plan = Plan::new(
    "SELECT pg_catalog.count(*), \
            CASE WHEN pg_catalog.count(*) OPERATOR(pg_catalog.=) pg_catalog.count(*) FILTER (WHERE j.position IS NULL AND j.state OPERATOR(pg_catalog.<>) 'x'::pg_catalog.\"char\") \
                 THEN pg_catalog.min(j.run_at) FILTER (WHERE j.run_at OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp())::pg_catalog.text END \
       FROM pushy_internal.live_job j WHERE j.queue_id OPERATOR(pg_catalog.=) $1",
    &[BuiltinOid::INT4OID],
);

static WRITERS: Plan = Plan::new(
    "SELECT DISTINCT j.xmin::pg_catalog.text::pg_catalog.int8 \
       FROM (SELECT l.xmin FROM pushy_internal.live_job l WHERE l.queue_id OPERATOR(pg_catalog.=) $1 LIMIT 10000) j",
    &[BuiltinOid::INT4OID],
);

/// Whether this transaction has enqueued some of them.
fn has_own_jobs(queue: &QueueDefinition) -> bool {
    spi::connect(|spi| {
        let writers = spi.run(&WRITERS, params![queue.queue_id]);
        let is_own = writers
            .rows()
            .any(|row| transaction::is_own(row.i64(1) as u32));
        is_own
    })
}

fn drop_queue(name: &str, force: bool) -> Result<()> {
    let queue = find_owned(name)?;
    if (JOBS_OF_QUEUES.is_running_of)(queue.queue_id) {
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
            refuse_feeding(&queue)?;
        }
        if force {
            (JOBS_OF_QUEUES.delete_with_queue)(&queue);
        } else {
            refuse_live_jobs(&queue)?;
        }
        notice_prepared(&queue)?;
        for kind in &ON_QUEUES {
            (kind.forget_lost)(false)?;
        }
        store::delete(&queue);
        Ok(())
    })?;
    control_channel::publish(ControlEvent::Drop, name)
}

// Who has written jobs keeps its lock of their table until its end.
static PREPARED: Plan = Plan::new(
    concat!(
        "SELECT DISTINCT x.gid",
        prepared_locks!(),
        " AND l.locktype OPERATOR(pg_catalog.=) 'relation'::pg_catalog.text \
          AND l.mode OPERATOR(pg_catalog.=) 'RowExclusiveLock'::pg_catalog.text \
          AND l.relation OPERATOR(pg_catalog.=) 'pushy_internal.live_job'::pg_catalog.regclass::pg_catalog.oid"
    ),
    &[],
);

/// A prepared transaction may have jobs of the queue, which nobody sees: its COMMIT PREPARED discards them. That is said and does
/// not keep the queue, because nobody can tell whose jobs they are, and a stranger's transaction may stay prepared for ever.
fn notice_prepared(queue: &QueueDefinition) -> Result<()> {
    let gids = spi::connect(|spi| {
        let found = spi.run(&PREPARED, params![]);
        let gids = found.rows().map(|row| Ok(quote_literal(&row.text(1)?)));
        gids.collect::<Result<Vec<_>>>()
    })?;
    if !gids.is_empty() {
        let gids = gids.join(", ");
        ereport::notice(
            &Error::new(
                SqlState::SUCCESSFUL_COMPLETION,
                format!(
                    "queue \"{}\" may have jobs of prepared transactions that nobody sees yet: {gids}",
                    queue.name
                ),
            )
            .hint("Jobs of it that COMMIT PREPARED brings are discarded, and published on pushy_control."),
        );
    }
    Ok(())
}

fn refuse_live_jobs(queue: &QueueDefinition) -> Result<()> {
    let (live, first_due) = spi::connect(|spi| {
        let found = spi.run(&COUNT_LIVE, params![queue.queue_id]);
        Ok((found.row(0).i64(1), found.row(0).opt_text(2)?))
    })?;
    if live == 0 {
        return Ok(());
    }
    let name = quote_literal(&queue.name);
    let stands_still = explain::standing_findings(queue).into_iter().next();
    let them = if live == 1 { "it" } else { "them" };
    // Where none of them would end soon, waiting is no way out.
    let wait = match (stands_still, first_due) {
        (Some(why), _) => format!(
            "{} not run: {}. Delete {them}",
            if live == 1 { "It does" } else { "They do" },
            why.reason
        ),
        (None, Some(due)) => match live {
            1 => format!("It is due at {due}. Delete it"),
            _ => format!("The first is due at {due}. Delete them"),
        },
        (None, None) if has_own_jobs(queue) => {
            format!(
                "This transaction has enqueued some: commit it before you wait, or delete {them}"
            )
        }
        (None, None) => {
            format!("Wait for {them} with CALL pushy.jobs_wait({name}), or delete {them}")
        }
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
