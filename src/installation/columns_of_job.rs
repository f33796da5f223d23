//! Tables of others with a column of type pushy.job. The server refuses a composite type another attribute while values of it are stored,
//! in the middle of the update script and without a word of what to do.

use crate::errors::{Error, Result, SqlState};
use crate::params;
use crate::pg::identity;
use crate::pg::spi::{self, Plan};

// While the type has not all of its attributes yet. Tables OF the type get the attribute with it.
static COLUMNS: Plan = Plan::new(
    "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), pg_catalog.format('%I', a.attname), c.relkind \
       FROM pg_catalog.pg_type t \
       JOIN pg_catalog.pg_namespace tn ON tn.oid OPERATOR(pg_catalog.=) t.typnamespace \
       JOIN pg_catalog.pg_attribute a ON a.atttypid OPERATOR(pg_catalog.=) ANY (ARRAY[t.oid, t.typarray]) \
       JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) a.attrelid \
       JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
      WHERE tn.nspname OPERATOR(pg_catalog.=) 'pushy' AND t.typname OPERATOR(pg_catalog.=) 'job' \
        AND c.relkind OPERATOR(pg_catalog.=) ANY ('{r,m,p}'::pg_catalog.\"char\"[]) AND NOT a.attisdropped \
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute k WHERE k.attrelid OPERATOR(pg_catalog.=) t.typrelid \
                                AND k.attname OPERATOR(pg_catalog.=) 'checkpoint') \
      ORDER BY c.oid, a.attnum LIMIT 1",
    &[],
);

/// Before an update script changes anything.
pub fn require_none() -> Result<()> {
    let found = identity::as_owner_in_script(|| {
        spi::connect(|spi| {
            let found = spi.run(&COLUMNS, params![]);
            let first = found.first();
            first
                .map(|row| Ok((row.text(1)?, row.text(2)?, row.byte(3) == b'm')))
                .transpose()
        })
    })?;
    let Some((relation, column, is_materialized)) = found.flatten() else {
        return Ok(());
    };
    let hint = if is_materialized {
        format!(
            "Drop materialized view {relation} before the update, and create it again after it."
        )
    } else {
        format!(
            "Give it another type before the server is restarted with the new library, which takes no ALTER TABLE before the update: \
             ALTER TABLE {relation} ALTER COLUMN {column} TYPE jsonb USING to_jsonb({column}), and this one again after the update, with \
             jsonb_populate_record(NULL::pushy.job, {column})."
        )
    };
    Err(Error::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("column {column} of {relation} has type pushy.job, to which the update adds an attribute"),
    )
    .hint(hint))
}
