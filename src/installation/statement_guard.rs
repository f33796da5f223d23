//! Statements that would change what the extension has made: nobody renames the schema, or what is in it, gives it away or changes what it
//! does, but by a script of the extension. Only how and where rows are kept is their owner's business. And nobody else puts a trigger on a
//! table there, whatever was granted: it would run as the owner.

use std::ffi::CStr;

use crate::errors::{Error, SqlState};
use crate::pg::utility::{self, Hooks, MovedObject, RelationName, Statement};
use crate::pg::{ereport, identity, script, worker, Oid};

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
