//! Rows of a dump that somebody with the rights of the tables' owner loads: into a new database, or beside what is here.
//!
//! What a dump says of elsewhere, or of yesterday, is not to run before somebody says so, and never as a part of what is
//! here. So a loaded row comes in changed: its queue gets a number that is no queue's here, the same in every table, and its home
//! is nowhere, until pushy.resume_after_restore or queue_resume makes this database its home.
//!
//! | a loaded row | becomes |
//! | --- | --- |
//! | of a queue, a watch, a channel, a subscription | one that came from elsewhere |
//! | with the number of a queue (jobs, leases, failures, logs, checkpoints, grants, watches, subscriptions) | that of the loaded queue, which may not be here: then nothing reads it |
//! | of a job, a failure, a lease, a log, a checkpoint, a promise to cancel | that of the loaded job, which may have another number (loading/job_number.rs) |
//! | of what is here already, the same: of a job that has finished here, or is here (here_already.rs) | passed over |
//! | of a queue or a subscription of whose name there is one here | passed over |
//! | of a channel that is granted here, and of who reads it | passed over |
//! | of one that was loaded before, and of who reads it | what the last dump says |
//! | of who reads another channel | a grant from now on, that counts with a channel of the same dump only |
//! | of a watch that is here, or whose table has one of its name that was declared here | passed over |
//! | of another watch, and of a subscription | one with a number of its own |

use std::ffi::CStr;

use crate::errors::Result;
use crate::installation::here_already::{self, Placed};
use crate::installation::loading;
use crate::installation::passed_over::{pass_over, Why};
use crate::pg::spi::{self, Plan};
use crate::pg::table_guard::{Arriving, Becomes};
use crate::pg::{home, identity, transaction, BuiltinOid, Datum, Oid};
use crate::{params, NUMBERS};

static IS_GRANTED: Why = Why {
    why: "their channels are granted here already",
    hint: "Grant what is missing with pushy.channel_grant.",
};
static IS_NAMED: Why = Why {
    why: "others of their names are here",
    hint: "Nothing need be done. To have one as the dump has it, rename or drop the one that is here, and load the table of the dump again.",
};
static IS_WATCHED: Why = Why {
    why: "these watches are here, or their tables have others of their names",
    hint: "Nothing need be done. To have a watch as the dump has it, declare it with pushy.watch.",
};

/// The row as it comes in; of somebody who has the rights of the table's owner.
pub(super) fn take_in(row: Arriving) -> Result<Becomes> {
    let table = row.table();
    let mut columns = Vec::new();
    if let Some(queue) = row.int4(c"queue_id") {
        let placed = loading::with(|loading| here_already::place(row, &table, queue, loading))?;
        match placed {
            Placed::Here(why) => return pass_over(row, why),
            Placed::As(those) => columns = those,
        }
    }
    match table.as_str() {
        "watch" if is_watched_here(row)? => return pass_over(row, &IS_WATCHED),
        "watch" => {
            let number = identity::as_owner(NUMBERS.watch)?;
            columns.push((c"home_database", NOWHERE));
            columns.push((c"watch_id", Datum::from(number)));
        }
        "queue" if is_named_here(row, c"queue", &QUEUE_HERE)? => {
            return pass_over(row, &IS_NAMED);
        }
        "queue" => columns.push((c"home_database", NOWHERE)),
        "channel" | "channel_acl" if is_granted_here(row)? => {
            return pass_over(row, &IS_GRANTED);
        }
        "channel" => {
            replace_channel(row)?;
            columns.push((c"home_database", NOWHERE));
        }
        "channel_acl" => {
            replace_grant(row)?;
            columns.push((c"home_database", NOWHERE));
            // Its place is of another server's WAL, or of a time that is undone.
            let now = Datum::from(transaction::wal_position());
            columns.push((c"granted_lsn", now));
        }
        "subscription" if is_named_here(row, c"name", &SUBSCRIPTION_HERE)? => {
            return pass_over(row, &IS_NAMED);
        }
        "subscription" => {
            let number = identity::as_owner(NUMBERS.subscription)?;
            columns.push((c"home_database", NOWHERE));
            columns.push((c"subscription_id", Datum::from(number)));
        }
        _ => {}
    }
    Ok(if columns.is_empty() {
        row.let_in()
    } else {
        row.with(&columns)
    })
}

/// No database has this number.
const NOWHERE: Datum = Datum::null();

static CHANNEL_HERE: Plan = Plan::new(
    "SELECT EXISTS (SELECT FROM pushy_internal.channel c WHERE c.channel OPERATOR(pg_catalog.=) $1 \
                       AND c.home_system OPERATOR(pg_catalog.=) $2 AND c.home_database OPERATOR(pg_catalog.=) $3)",
    &[
        BuiltinOid::TEXTOID,
        BuiltinOid::INT8OID,
        BuiltinOid::OIDOID,
    ],
);

/// By others than the dump says, or by the same since: whom they have taken a grant from does not get it back.
fn is_granted_here(row: Arriving) -> Result<bool> {
    let Some(channel) = row.text(c"channel")? else {
        return Ok(false);
    };
    let home::Home {
        system, database, ..
    } = home::Home::here();
    identity::as_owner(|| {
        Ok(spi::connect(|spi| {
            let params = params![channel, system, database];
            spi.run(&CHANNEL_HERE, params).row(0).bool(1)
        }))
    })
}

static REPLACE_CHANNEL: Plan = Plan::new(
    "WITH gone AS (DELETE FROM pushy_internal.channel c WHERE c.channel OPERATOR(pg_catalog.=) $1 RETURNING c.channel) \
     DELETE FROM pushy_internal.channel_acl a USING gone WHERE a.channel OPERATOR(pg_catalog.=) gone.channel",
    &[BuiltinOid::TEXTOID],
);
static REPLACE_GRANT: Plan = Plan::new(
    "DELETE FROM pushy_internal.channel_acl a WHERE a.channel OPERATOR(pg_catalog.=) $1 \
        AND a.grantee OPERATOR(pg_catalog.=) $2 AND a.privilege OPERATOR(pg_catalog.=) $3",
    &[BuiltinOid::TEXTOID, BuiltinOid::OIDOID, BuiltinOid::TEXTOID],
);

/// What was loaded before and would be in the row's way goes: the last dump says how a channel is that waits, and whom it lets in.
fn replace_channel(row: Arriving) -> Result<()> {
    let channel = row.text(c"channel")?;
    identity::as_owner(|| {
        spi::run(&REPLACE_CHANNEL, params![channel]);
        Ok(())
    })
}

fn replace_grant(row: Arriving) -> Result<()> {
    let (channel, privilege) = (row.text(c"channel")?, row.text(c"privilege")?);
    let grantee = Oid::from(row.int4(c"grantee").unwrap_or_default() as u32);
    identity::as_owner(|| {
        spi::run(&REPLACE_GRANT, params![channel, grantee, privilege]);
        Ok(())
    })
}

static QUEUE_HERE: Plan = Plan::new(
    "SELECT EXISTS (SELECT FROM pushy_internal.queue q WHERE q.queue OPERATOR(pg_catalog.=) $1)",
    &[BuiltinOid::TEXTOID],
);
static SUBSCRIPTION_HERE: Plan = Plan::new(
    "SELECT EXISTS (SELECT FROM pushy_internal.subscription s WHERE s.name OPERATOR(pg_catalog.=) $1)",
    &[BuiltinOid::TEXTOID],
);

/// A name that is taken would end the whole COPY.
fn is_named_here(row: Arriving, column: &CStr, plan: &Plan) -> Result<bool> {
    let name = row.text(column)?;
    identity::as_owner(|| {
        Ok(spi::connect(|spi| {
            spi.run(plan, params![name]).row(0).bool(1)
        }))
    })
}

static WATCH_HERE: Plan = Plan::new(
    "SELECT EXISTS (SELECT FROM pushy_internal.watch w WHERE w.token OPERATOR(pg_catalog.=) $1) \
         OR EXISTS (SELECT FROM pushy_internal.watch w \
                     WHERE w.name OPERATOR(pg_catalog.=) $2 AND w.relation OPERATOR(pg_catalog.=) pg_catalog.to_regclass($3)::pg_catalog.oid \
                       AND pushy_internal.is_home(w.home_system, w.home_database, w.home_extension, w.relation))",
    &[
        BuiltinOid::UUIDOID,
        BuiltinOid::TEXTOID,
        BuiltinOid::TEXTOID,
    ],
);

/// The watch itself, or one of the same table and name that lives.
fn is_watched_here(row: Arriving) -> Result<bool> {
    let Some(token) = row.uuid(c"token") else {
        return Ok(false);
    };
    let (name, relation) = (row.text(c"name")?, row.text(c"relation_name")?);
    identity::as_owner(|| {
        Ok(spi::connect(|spi| {
            let params = params![token, name, relation];
            spi.run(&WATCH_HERE, params).row(0).bool(1)
        }))
    })
}

/// What a load asks of numbers, in the rooms above.
pub struct NumbersGiven {
    /// From which on jobs may have been given theirs here, and the highest that one has.
    pub drawn_from: fn() -> Result<(i64, i64)>,
    /// A loaded job has this one, or it is a position.
    pub pass_over: fn(i64),
    /// A new one for a subscription, or a watch.
    pub subscription: fn() -> Result<i32>,
    pub watch: fn() -> Result<i32>,
}
