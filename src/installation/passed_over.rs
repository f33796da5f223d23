//! Rows of a dump that are not let in: said once for a statement, and kept for who restores.

use std::cell::RefCell;

use crate::errors::{Error, Result, SqlState};
use crate::params;
use crate::pg::per_process::PerProcess;
use crate::pg::spi::{self, Plan};
use crate::pg::table_guard::{Arriving, Becomes};
use crate::pg::value::Timestamp;
use crate::pg::{clock, database, ereport, identity, BuiltinOid};

/// Why rows are passed over: as the WARNING says it, and what is to be done.
pub(super) struct Why {
    pub(super) why: &'static str,
    pub(super) hint: &'static str,
}

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
