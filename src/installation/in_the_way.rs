//! What others have made that an update script cannot go past. The server would say so in the middle of the script, of one at a time and
//! without a word of what to do. docs/operations.md has the query for those who look before they restart the server.

use crate::errors::{Error, Result, SqlState};
use crate::params;
use crate::pg::identity;
use crate::pg::spi::{self, Plan};

// While the type has not all of its attributes yet. A column of the type, of any relation, is no obstacle: its values lack the attribute, and
// the server reads NULL there. Tables OF the type get the attribute as a column, and so do the tables that inherit from them: one that has a
// column of that name and another type, or no room for one, refuses it, and nobody alters a temporary table of another session.
static OF_JOB: Plan = Plan::new(
    "WITH RECURSIVE type AS ( \
       SELECT t.oid FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) t.typnamespace \
        WHERE n.nspname OPERATOR(pg_catalog.=) 'pushy' AND t.typname OPERATOR(pg_catalog.=) 'job' \
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute k WHERE k.attrelid OPERATOR(pg_catalog.=) t.typrelid \
                                  AND k.attname OPERATOR(pg_catalog.=) 'checkpoint')), \
     taker AS ( \
       SELECT c.oid, c.oid AS typed FROM pg_catalog.pg_class c JOIN type t ON t.oid OPERATOR(pg_catalog.=) c.reloftype \
        UNION \
       SELECT i.inhrelid, t.typed FROM taker t JOIN pg_catalog.pg_inherits i ON i.inhparent OPERATOR(pg_catalog.=) t.oid) \
     SELECT pg_catalog.format('table %I.%I of %I', n.nspname, c.relname, pg_catalog.pg_get_userbyid(c.relowner)), \
            CASE WHEN k.atttypid OPERATOR(pg_catalog.<>) 'pg_catalog.jsonb'::pg_catalog.regtype::pg_catalog.oid \
                 THEN pg_catalog.format('its column checkpoint has type %s, and table %I.%I OF pushy.job gets one of type jsonb', \
                                        pg_catalog.format_type(k.atttypid, k.atttypmod), tn.nspname, tc.relname) \
                 WHEN k.attname IS NULL AND c.relnatts OPERATOR(pg_catalog.>=) 1600::pg_catalog.int2 \
                 THEN pg_catalog.format('it has no room for column checkpoint, which table %I.%I OF pushy.job gets', tn.nspname, tc.relname) \
                 ELSE pg_catalog.format('it is a temporary one of another session, and table %I.%I OF pushy.job gets column checkpoint', tn.nspname, tc.relname) END, \
            CASE WHEN c.relpersistence OPERATOR(pg_catalog.=) 't'::pg_catalog.\"char\" THEN pg_catalog.format('DROP TABLE %I.%I', n.nspname, c.relname) \
                 ELSE pg_catalog.format('ALTER TABLE %I.%I NOT OF', tn.nspname, tc.relname) END \
       FROM taker t \
       JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.oid \
       JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
       JOIN pg_catalog.pg_class tc ON tc.oid OPERATOR(pg_catalog.=) t.typed \
       JOIN pg_catalog.pg_namespace tn ON tn.oid OPERATOR(pg_catalog.=) tc.relnamespace \
       LEFT JOIN pg_catalog.pg_attribute k ON k.attrelid OPERATOR(pg_catalog.=) c.oid AND k.attname OPERATOR(pg_catalog.=) 'checkpoint' \
      WHERE k.atttypid OPERATOR(pg_catalog.<>) 'pg_catalog.jsonb'::pg_catalog.regtype::pg_catalog.oid \
         OR k.attname IS NULL AND c.relnatts OPERATOR(pg_catalog.>=) 1600::pg_catalog.int2 \
         OR c.relpersistence OPERATOR(pg_catalog.=) 't'::pg_catalog.\"char\" \
            AND c.relnamespace OPERATOR(pg_catalog.<>) pg_catalog.pg_my_temp_schema() \
      ORDER BY 1",
    &[],
);

// An index that the script of 0.2.0 makes anew; it makes the table of leases too. A view, say, that has its number in a constant hangs on it.
static OF_INDEX: Plan = Plan::new(
    "SELECT DISTINCT pg_catalog.pg_describe_object(d.classid, d.objid, 0) \
       FROM pg_catalog.pg_class i \
       JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) i.relnamespace \
       JOIN pg_catalog.pg_depend d ON d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid \
                                  AND d.refobjid OPERATOR(pg_catalog.=) i.oid AND d.deptype OPERATOR(pg_catalog.=) 'n'::pg_catalog.\"char\" \
      WHERE n.nspname OPERATOR(pg_catalog.=) 'pushy_internal' AND i.relname OPERATOR(pg_catalog.=) 'live_job_due' \
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_class l WHERE l.relnamespace OPERATOR(pg_catalog.=) n.oid AND l.relname OPERATOR(pg_catalog.=) 'lease') \
      ORDER BY 1",
    &[],
);

/// Before an update script changes anything.
pub fn require_nothing() -> Result<()> {
    let found = identity::as_owner_in_script(|| {
        spi::connect(|spi| {
            let mut found: Vec<(String, Option<String>)> = Vec::new();
            for row in spi.run(&OF_JOB, params![]).rows() {
                let said = format!("{}: {}", row.text(1)?, row.text(2)?);
                found.push((said, Some(row.text(3)?)));
            }
            for row in spi.run(&OF_INDEX, params![]).rows() {
                let said = format!(
                    "{}: it names index pushy_internal.live_job_due, which the update makes anew",
                    row.text(1)?
                );
                found.push((said, None));
            }
            Ok(found)
        })
    })?;
    let found = found.unwrap_or_default();
    if found.is_empty() {
        return Ok(());
    }
    let mut statements: Vec<String> = found.iter().filter_map(|(_, fix)| fix.clone()).collect();
    statements.sort();
    statements.dedup();
    let mut hint = String::new();
    if !statements.is_empty() {
        hint = format!("Run, and the update again: {};", statements.join("; "));
    }
    if found.iter().any(|(_, fix)| fix.is_none()) {
        let blank = if hint.is_empty() { "" } else { " " };
        hint += &format!("{blank}Drop what names the index, and make it again without.");
    }
    let count = found.len();
    let said: Vec<String> = found.into_iter().map(|(said, _)| said).collect();
    Err(Error::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        if count == 1 {
            format!("the update cannot go past {}", said[0])
        } else {
            format!("the update cannot go past {count} objects of others")
        },
    )
    .detail(said.join("\n"))
    .hint(hint))
}
