//! Who may write Pushy's tables by SQL: who has the rights of their owner, and nobody by a privilege.
//!
//! Workers act on what the tables say, so whoever writes them runs code as anybody. The predefined role
//! pg_write_all_data may write every table; only a trigger keeps it out. Pushy's own statements run as the owner; its
//! direct writes fire no triggers. The database's owner, who dumps these tables, loads such a dump without an error, and
//! without its rows: a row that was written into a dump is as good as one written here.

use super::loaded;
use super::passed_over::{pass_over, Why};
use crate::errors::{Error, Result, SqlState};
use crate::pg::table_guard::{Arriving, Guarded};
use crate::pg::{database, identity, script, worker, Oid};
use crate::{sql_function, trigger_function};

trigger_function!(
    pushy_refuse_write_v1,
    "pushy_internal.refuse_write()",
    Guarded,
    |write| if may_write(write) || is_load(write) {
        Ok(())
    } else {
        Err(refused(&write.table()))
    }
);

trigger_function!(
    pushy_pass_over_row_v1,
    "pushy_internal.pass_over_row()",
    Arriving,
    |row| if identity::is_owner_acting() || script::is_running() || worker::is_binary_upgrade() {
        Ok(row.let_in())
    } else if have_rights_of(row.owner()) {
        loaded::take_in(row)
    } else if worker::is_logical() {
        Err(refused(&row.table()))
    } else {
        let is_of_channels = row.table().starts_with("channel");
        pass_over(
            row,
            if is_of_channels {
                &STAYS_OPEN
            } else {
                &NO_RIGHTS
            },
        )
    }
);

fn may_write(write: Guarded) -> bool {
    have_rights_of(write.owner())
}

static NO_RIGHTS: Why = Why {
    why: "only the owner of the extension loads them, because workers act on what they say",
    hint: "Restore the dump as a superuser to have its queues, jobs, watches and subscriptions, or declare them again; jobs that were not finished are lost.",
};

static STAYS_OPEN: Why = Why {
    why: "only the owner of the extension loads them, and until they are granted again the channels stand open to every role that may use Pushy",
    hint: "Restore the dump as a superuser to have its grants of channels, or grant them again with pushy.channel_grant before anybody publishes there.",
};

/// Whether those who write have the rights of the tables' owner. A worker that applies a subscription is, from 16 on, the
/// table's owner whoever owns the subscription, which is whose session it is; and a trigger there is whoever wrote it. So both
/// must, but where a function of Pushy's writes: that has checked its caller, and is the owner.
fn have_rights_of(owner: Oid) -> bool {
    let is_apply_worker = worker::is_logical() && !identity::is_owner_acting();
    identity::has_rights_of(identity::current_user(), owner)
        && (!is_apply_worker || identity::has_rights_of(identity::session_user(), owner))
}

/// The database's owner loads a dump, or does what looks like it: the trigger for each row, which the tables of a dump have,
/// lets none in.
fn is_load(write: Guarded) -> bool {
    write.is_insert()
        && !worker::is_logical()
        && write.has_argument(c"dumped")
        && database::is_owner(database::current(), identity::current_user())
}

sql_function!(pushy_is_apply_worker_v1, |_call| Result::Ok(
    worker::is_logical()
));

#[cold]
fn refused(table: &str) -> Error {
    Error::new(
        SqlState::INSUFFICIENT_PRIVILEGE,
        format!("permission denied for table {table}"),
    )
    .detail("Only its owner writes it by SQL: workers act on what it says. No privilege and no predefined role is enough.")
    .hint("Call the functions of schema pushy: they check what you may do. \\df+ pushy.* lists them.")
}
