//! Who may write Pushy's tables by SQL: who has the rights of their owner, and nobody by a privilege.
//!
//! Workers act on what the tables say, so whoever writes them runs code as anybody. The predefined role
//! pg_write_all_data may write every table; only a trigger keeps it out. Pushy's own statements run as the owner; its
//! direct writes fire no triggers. The database's owner, who dumps these tables, loads such a dump without an error, and
//! without its rows: a row that was written into a dump is as good as one written here. Nobody else puts a trigger there, whatever was granted: it would run as the owner.
//! And nobody renames the schema, or what is in it, gives it away or changes what it does, but by a script of the extension: only how
//! and where rows are kept is their owner's business.

use std::cell::RefCell;
use std::ffi::CStr;

use super::loaded;
use crate::errors::{Error, Result, SqlState};
use crate::params;
use crate::pg::per_process::PerProcess;
use crate::pg::spi::{self, Plan};
use crate::pg::trigger::{Arriving, Becomes, Guarded};
use crate::pg::utility::{self, Hooks, MovedObject, RelationName, Statement};
use crate::pg::value::Timestamp;
use crate::pg::{clock, database, ereport, identity, script, worker, BuiltinOid, Oid};
use crate::{sql_function, trigger_function};

static HOOKS: Hooks = Hooks {
    before: refuse,
    after: |_| {},
    skips,
};

/// Once, while preloading.
pub fn init() {
    utility::install(&HOOKS);
}

fn refuse(statement: &Statement) {
    match statement {
        Statement::CreateTrigger { relation } => refuse_trigger(relation),
        Statement::RenameSchema { name } => refuse_rename(name),
        Statement::MoveObject { object } => refuse_move(object),
        Statement::AlterObject { object } if is_kept() && is_ours(object.extension()) => {
            ereport::raise(&stays("this"));
        }
        Statement::DropMember if is_kept() => ereport::raise(&stays("what is in it")),
        Statement::AlterRelation {
            relation,
            is_storage,
        } => refuse_other_rules(relation, *is_storage),
        Statement::AlterColumns { relation, .. } | Statement::RenameColumn { relation, .. } => {
            refuse_other_columns(relation);
        }
        Statement::SwitchTriggers {
            relation,
            is_all: false,
        } => {
            if let Some(stay) = triggers_stay(relation) {
                ereport::raise(&stay);
            }
        }
        _ => {}
    }
}

/// Triggers of watches and all that calls Pushy say the schema's name: under another every write of a watched table would
/// fail. Whoever may not rename it gets the server's own error.
fn refuse_rename(schema: &CStr) {
    if !identity::is_schema_of_pushy(schema) || !identity::owns_extension(identity::current_user())
    {
        return;
    }
    let name = schema.to_string_lossy();
    ereport::raise(
        &Error::new(
            SqlState::FEATURE_NOT_SUPPORTED,
            format!("schema \"{name}\" cannot be renamed: extension pushy is found by this name"),
        )
        .hint("Leave it, or drop the extension first: DROP EXTENSION pushy."),
    );
}

/// What the extension has made is found by its name: by triggers, by what a script of its next version says, and by all who call it.
/// Whoever may not move it gets the server's own error.
fn refuse_move(object: &MovedObject) {
    if is_kept() && is_ours(object.extension()) {
        ereport::raise(
            &Error::new(
                SqlState::FEATURE_NOT_SUPPORTED,
                "what extension pushy has made keeps its name and its schema",
            )
            .detail("Triggers of watches, workers and scripts of updates find it by them.")
            .hint("Leave it, and make a function or a view of your own that calls it."),
        );
    }
}

/// Whether what the extension has made is kept from who runs this; whoever may not alter it gets the server's own error.
fn is_kept() -> bool {
    !script::is_running()
        && !worker::is_binary_upgrade()
        && identity::owns_extension(identity::current_user())
}

fn is_ours(extension: Option<Oid>) -> bool {
    extension.is_some() && extension == identity::extension_oid()
}

/// A table with another constraint, default or owner, and a view that shows others' rows, are not what Pushy works with.
fn refuse_other_rules(relation: &RelationName, is_storage: bool) {
    let is_ours = || {
        let ours = relation
            .find_table()
            .filter(|oid| identity::is_in_pushy(*oid))?;
        is_ours(MovedObject::extension_of_relation(ours)).then_some(ours)
    };
    if is_storage && !relation.is_view() || !is_kept() {
        return;
    }
    if let Some(ours) = is_ours() {
        ereport::raise(&stays(&identity::relation_name(ours)));
    }
}

fn stays(what: &str) -> Error {
    Error::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("extension pushy keeps {what} as its script has made it"),
    )
    .detail("Only how and where the rows of its tables are stored may be changed: tablespace, storage parameters, statistics, replica identity.")
    .hint("ALTER EXTENSION pushy UPDATE changes it where need be; a function, a view or a table of your own may be as you like.")
}

/// Rows are read and written by the places of their columns. Whoever may not alter the table gets the server's own error.
fn refuse_other_columns(relation: &RelationName) {
    let ours = relation.find().filter(|oid| identity::is_in_pushy(*oid));
    let Some(ours) = ours.filter(|_| is_kept()) else {
        return;
    };
    let name = identity::relation_name(ours);
    ereport::raise(
        &Error::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("columns of {name} cannot be changed: it is a table of extension pushy"),
        )
        .detail("Pushy reads and writes it by the columns that the extension's script made.")
        .hint("Keep what is yours in a table of your own, by the job's number. ALTER EXTENSION pushy UPDATE changes this one where need be."),
    );
}

/// pg_restore --disable-triggers wants no triggers on a table that it loads, and by them Pushy knows that it is loaded: without them
/// jobs of elsewhere would run here. None where they may be switched; whoever may not alter the table gets the server's own error.
fn triggers_stay(relation: &RelationName) -> Option<Error> {
    if script::is_running() || worker::is_binary_upgrade() {
        return None;
    }
    let ours = relation.find().filter(|oid| identity::is_in_pushy(*oid))?;
    if !identity::owns_extension(identity::current_user()) {
        return None;
    }
    let name = identity::relation_name(ours);
    let stay = Error::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("triggers of {name} stay as they are: it is a table of extension pushy"),
    );
    Some(
        stay.detail("By them Pushy knows what a dump has brought, which is not to run before somebody says so.")
            .hint("Nothing need be done; what is loaded waits for pushy.resume_after_restore()."),
    )
}

/// A statement that does nothing but switch triggers of a table of Pushy's does nothing.
fn skips(statement: &Statement) -> bool {
    let Statement::SwitchTriggers { relation, .. } = statement else {
        return false;
    };
    let stay = triggers_stay(relation);
    if let Some(stay) = &stay {
        ereport::warning(stay);
    }
    stay.is_some()
}

fn refuse_trigger(relation: &RelationName) {
    let found = relation.find();
    let is_ours = found.is_some_and(identity::is_in_pushy);
    if is_ours && !identity::owns_extension(identity::current_user()) {
        ereport::raise(
            &Error::new(
                SqlState::INSUFFICIENT_PRIVILEGE,
                "Pushy's tables take no triggers of others",
            )
            .detail("It would run with the rights of their owner.")
            .hint("pushy.watch(table) is for your own tables; channel pushy_control says what becomes of queues and jobs."),
        );
    }
}

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
        pass_over(row, &NO_RIGHTS)
    }
);

fn may_write(write: Guarded) -> bool {
    have_rights_of(write.owner())
}

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

/// Why rows are passed over: as the WARNING says it, and what is to be done.
pub(super) struct Why {
    pub(super) why: &'static str,
    pub(super) hint: &'static str,
}

static NO_RIGHTS: Why = Why {
    why: "only the owner of the extension loads them, because workers act on what they say",
    hint: "Restore the dump as a superuser to have its queues, jobs, watches and subscriptions, or declare them again; jobs that were not finished are lost.",
};

/// Of which statement, by when it began, and of which table the last WARNING was.
static LAST_WARNED: PerProcess<RefCell<Option<(Timestamp, String)>>> =
    PerProcess::new(RefCell::new(None));

/// The row is not inserted, which is said once for a statement.
#[cold]
pub(super) fn pass_over(row: Arriving, why: &Why) -> Result<Becomes> {
    let warned = Some((clock::statement_start(), row.table()));
    if LAST_WARNED.replace(warned.clone()) == warned {
        return Ok(row.pass_over());
    }
    let role = identity::role_name(identity::current_user());
    let reason = format!("{}: {}", why.why, why.hint);
    identity::as_owner(|| {
        spi::run(&NOTE, params![row.table(), role, clock::now(), reason]);
        Ok(())
    })?;
    ereport::warning(
        &Error::new(
            SqlState::WARNING,
            format!("rows of pushy_internal.{} are passed over", row.table()),
        )
        .detail(format!("The reason: {}.", why.why))
        .hint(why.hint),
    );
    Ok(row.pass_over())
}

static NOTE: Plan = Plan::new(
    "INSERT INTO pushy_internal.passed_over (table_name, role_name, at, why) VALUES ($1::pg_catalog.name, $2::pg_catalog.name, $3, $4) \
     ON CONFLICT (table_name, why) DO UPDATE SET role_name = excluded.role_name, at = excluded.at",
    &[
        BuiltinOid::TEXTOID,
        BuiltinOid::TEXTOID,
        BuiltinOid::TIMESTAMPTZOID,
        BuiltinOid::TEXTOID,
    ],
);

static TAKE: Plan = Plan::new(
    "WITH told AS (DELETE FROM pushy_internal.passed_over p RETURNING p.table_name, p.role_name, p.at, p.why) \
     SELECT t.table_name::pg_catalog.text, pg_catalog.format('rows of pushy_internal.%s were passed over when role %I loaded a dump at %s, because %s', t.table_name, t.role_name, t.at, t.why) \
       FROM told t ORDER BY 1",
    &[],
);

/// What was passed over since this was asked last, for who owns the extension or the database: tables, and when.
pub fn take_passed_over() -> Result<Vec<(String, String)>> {
    let caller = identity::current_user();
    if !identity::owns_extension(caller) && !database::is_owner(database::current(), caller) {
        return Ok(Vec::new());
    }
    identity::as_owner(|| {
        spi::connect(|spi| {
            let warned = spi.run(&TAKE, params![]);
            let read = |row: spi::Row<'_>| Ok((row.text(1)?, row.text(2)?));
            warned.rows().map(read).collect()
        })
    })
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
