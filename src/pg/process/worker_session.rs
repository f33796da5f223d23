//! What the session of a worker must be, of whatever kind, over what the configuration, ALTER SYSTEM, ALTER DATABASE and
//! ALTER ROLE say. `worker::connect` sets it up: no kind of worker can forget it.

use std::cell::Cell;
use std::ffi::{CStr, CString};

use pgrx::pg_sys::{BuiltinOid, Oid};

use crate::errors::Result;
use crate::params;
use crate::pg::per_process::PerProcess;
use crate::pg::spi::{self, Plan};
use crate::pg::{database, ereport, guc, identity, major, transaction};

/// Settings that every worker forces, and why.
const FORCED: &[(&CStr, &str)] = &[
    // The session's role is the queue's; who owns a database may say another for all who connect to it.
    (c"role", "none"),
    // An error that is caught would end the process.
    (c"exit_on_error", "off"),
    // A claim needs READ COMMITTED: in REPEATABLE READ a SKIP LOCKED claim fails with 'could not serialize access'.
    (c"default_transaction_isolation", "read committed"),
    // Bookkeeping writes.
    (c"default_transaction_read_only", "off"),
    // A deferrable transaction waits for others to end.
    (c"default_transaction_deferrable", "off"),
    // A policy must not hide rows from a statement that does not say so.
    (c"row_security", "on"),
];

/// Deadlines are Pushy's: a job's timeout, and the bound of bookkeeping on locks.
const DEADLINES: &[&CStr] = &[
    c"statement_timeout",
    c"lock_timeout",
    c"idle_in_transaction_session_timeout",
];

/// Before the session connects: connecting is a transaction, which the configuration's deadlines would end.
pub(in crate::pg) fn take_deadlines() {
    for name in DEADLINES.iter().chain(major::DEADLINES) {
        guc::force(name, "0");
    }
}

/// Sets up the session of this process, which has just connected.
pub(in crate::pg) fn set_up() {
    for (name, value) in FORCED {
        guc::force(name, value);
    }
    guc::force(c"client_encoding", &database::encoding_name());
}

/// Settings that decide which code a statement of somebody else's runs, and that no superuser is needed to set: who
/// owns a database may say them for all who connect to it. Others of the kind reach no worker (local_preload_libraries,
/// session_preload_libraries) or are for superusers (dynamic_library_path, jit_provider, plperl's and pltcl's); an access
/// method and a template of a text search dictionary are made by superusers only.
const DECIDE_CODE: &[&CStr] = &[
    c"search_path",
    // A text that a statement is built from may end its literal where the one who built it saw no end.
    c"standard_conforming_strings",
    c"backslash_quote",
    // Functions that a language of another extension runs first.
    c"plv8.start_proc",
    c"plcoffee.start_proc",
    c"plls.start_proc",
];

/// What the configuration says of them: before the session is connected nothing else has been said.
pub(in crate::pg) fn configured() -> Vec<(&'static CStr, Option<CString>)> {
    let said = |name: &&'static CStr| (*name, guc::value(name));
    DECIDE_CODE.iter().map(said).collect()
}

static OF_ALL: Plan = Plan::new(
    "SELECT pg_catalog.substr(c.said, pg_catalog.length($1) OPERATOR(pg_catalog.+) 2) \
       FROM pg_catalog.pg_db_role_setting s CROSS JOIN LATERAL pg_catalog.unnest(s.setconfig) AS c (said) \
      WHERE s.setdatabase OPERATOR(pg_catalog.=) 0::pg_catalog.oid AND s.setrole OPERATOR(pg_catalog.=) 0::pg_catalog.oid \
        AND pg_catalog.starts_with(c.said, $1 OPERATOR(pg_catalog.||) '='::pg_catalog.text)",
    &[BuiltinOid::TEXTOID],
);

/// What ALTER ROLE ALL says of a setting.
fn said_of_all(name: &CStr) -> Option<CString> {
    let name = name.to_str().expect("ours");
    let said = spi::connect(|spi| {
        let found = spi.run(&OF_ALL, params![name]);
        found.first().and_then(|row| row.opt_bytes(1))
    });
    said.and_then(|value| CString::new(value).ok())
}

/// Takes what decides which code runs from the role and the configuration alone, unless the database's owner may become
/// the role anyway: else the owner would run code with the rights of all whose jobs run in the database. True: it may, and
/// what it says stands. Outside a transaction.
fn distrust_database(
    database: u32,
    role: Oid,
    configured: &[(&'static CStr, Option<CString>)],
) -> bool {
    // By values, not by rows of pg_db_role_setting: they may be others by now than those that the session has taken.
    let said: Vec<_> = configured
        .iter()
        .filter(|(name, value)| guc::value(name) != *value)
        .collect();
    if said.is_empty() {
        return false;
    }
    let to_set = transaction::run(|| {
        if owner_may_become(database, role) {
            return Ok(None);
        }
        let of_all = |name| match identity::extension_owner() {
            Some(_) => identity::as_owner(|| Ok(said_of_all(name))),
            None => Ok(None),
        };
        let to_set = said.iter().map(|(name, value)| {
            let value = of_all(name)?.or_else(|| value.clone());
            Ok((*name, value.unwrap_or_default()))
        });
        to_set.collect::<Result<Vec<_>>>().map(Some)
    });
    match to_set {
        Ok(Some(to_set)) => {
            for (name, value) in &to_set {
                guc::set_for_database(name, value);
            }
            false
        }
        Ok(None) => true,
        Err(failure) => ereport::raise(&failure),
    }
}

fn owner_may_become(database: u32, role: Oid) -> bool {
    database::owner(database).is_some_and(|owner| identity::may_become(owner, role))
}

/// What the session of a role was given when it connected, and keeps whatever becomes of role and database since. What is not
/// here is looked up when it is used (docs/security.md lists all).
#[derive(Clone, Copy)]
struct Given {
    role: Oid,
    /// SET SESSION AUTHORIZATION asks what the role was then.
    superuser: bool,
    /// Settings that decide which code runs stand as the database's owner has said them.
    trusts_owner: bool,
}

static GIVEN: PerProcess<Cell<Option<Given>>> = PerProcess::new(Cell::new(None));

/// Sets up the session of a role, which has just connected, and notes what it was given. Outside a transaction.
pub(in crate::pg) fn set_up_for_role(
    database: u32,
    role: Oid,
    configured: &[(&'static CStr, Option<CString>)],
) {
    set_up();
    // As the server has set it from the look at the role with which the session began; before, it is said of the role that a
    // setting of the role or the database has put in its place.
    let superuser = guc::value(c"is_superuser").as_deref() == Some(c"on");
    GIVEN.set(Some(Given {
        role,
        superuser,
        trusts_owner: distrust_database(database, role, configured),
    }));
}

/// Whether this session was given what its role would not be given now, or the other way round: its worker leaves, and
/// another comes. In a transaction.
pub(in crate::pg) fn is_outdated() -> bool {
    let Some(given) = GIVEN.get() else {
        return false;
    };
    identity::role(given.role).is_some_and(|role| role.superuser != given.superuser)
        || (given.trusts_owner && !owner_may_become(database::current(), given.role))
}
