//! The table that a watch is about.

use crate::errors::{Error, Result, SqlState};
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::{catalog_type, identifier, text, BuiltinOid, Oid};
use crate::watch::triggers_there::is_ours;

pub struct WatchedTable {
    pub oid: Oid,
    pub owner: Oid,
    /// In the server's encoding, as the name of a channel may be.
    pub raw_name: Vec<u8>,
    /// `schema.table`, quoted where need be.
    pub qualified: String,
    /// relkind and relpersistence of pg_class.
    kind: u8,
    persistence: u8,
    is_ours: bool,
    has_children: bool,
    has_row_security: bool,
    has_key: bool,
    columns: Vec<Column>,
}

struct Column {
    name: String,
    type_oid: Oid,
}

static TABLE: Plan = Plan::new(
    "SELECT c.relowner, c.relname::pg_catalog.text, n.nspname::pg_catalog.text, c.relkind, c.relpersistence, \
            n.nspname OPERATOR(pg_catalog.=) ANY (ARRAY['pushy'::pg_catalog.name, 'pushy_internal'::pg_catalog.name]), \
            c.relkind OPERATOR(pg_catalog.=) 'r' AND EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhparent OPERATOR(pg_catalog.=) c.oid), \
            c.relrowsecurity, \
            EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid OPERATOR(pg_catalog.=) c.oid \
                       AND i.indisvalid AND (i.indisprimary OR i.indisreplident)) \
       FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
      WHERE c.oid OPERATOR(pg_catalog.=) $1",
    &[BuiltinOid::OIDOID],
);

static UNWATCHED: Plan = Plan::new(
    concat!(
        "WITH RECURSIVE below(oid) AS ( \
            SELECT i.inhrelid FROM pg_catalog.pg_inherits i WHERE i.inhparent OPERATOR(pg_catalog.=) $1 \
            UNION \
            SELECT i.inhrelid FROM below JOIN pg_catalog.pg_inherits i ON i.inhparent OPERATOR(pg_catalog.=) below.oid) \
         SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) \
           FROM below JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) below.oid \
           JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
          WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid OPERATOR(pg_catalog.=) c.oid AND ",
        is_ours!(),
        ") ORDER BY 1"
    ),
    &[BuiltinOid::OIDOID],
);

static COLUMNS: Plan = Plan::new(
    "SELECT a.attname::pg_catalog.text, a.atttypid FROM pg_catalog.pg_attribute a \
      WHERE a.attrelid OPERATOR(pg_catalog.=) $1 AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped \
      ORDER BY a.attnum",
    &[BuiltinOid::OIDOID],
);

impl WatchedTable {
    /// What the catalogs say of a table; an error when there is none of this number.
    pub fn look_up(oid: Oid) -> Result<Self> {
        spi::connect(|spi| {
            let found = spi.run(&TABLE, params![oid]);
            let row = found.first().ok_or_else(|| {
                Error::new(
                    SqlState::UNDEFINED_TABLE,
                    format!("relation with OID {} does not exist", oid.to_u32()),
                )
                .hint("Pass the name of a table.")
            })?;
            let columns = spi.run(&COLUMNS, params![oid]);
            let (schema, name) = (row.text(3)?, row.text(2)?);
            Ok(Self {
                oid,
                owner: row.oid(1),
                raw_name: row.opt_bytes(2).unwrap_or_default(),
                qualified: format!(
                    "{}.{}",
                    match row.byte(5) {
                        // Whichever number the session has.
                        b't' => "pg_temp".to_owned(),
                        _ => identifier::quoted(&schema),
                    },
                    identifier::quoted(&name)
                ),
                kind: row.byte(4),
                persistence: row.byte(5),
                is_ours: row.bool(6),
                has_children: row.bool(7),
                has_row_security: row.bool(8),
                has_key: row.bool(9),
                columns: columns
                    .rows()
                    .map(|row| {
                        Ok(Column {
                            name: row.text(1)?,
                            type_oid: row.oid(2),
                        })
                    })
                    .collect::<Result<_>>()?,
            })
        })
    }

    pub fn is_partitioned(&self) -> bool {
        self.kind == b'p'
    }

    /// Tables that inherit from it fire no triggers of it: those that have no watch of their own.
    pub fn unwatched_children(&self) -> Result<Vec<String>> {
        if !self.has_children {
            return Ok(Vec::new());
        }
        spi::connect(|spi| {
            let found = spi.run(&UNWATCHED, params![self.oid]);
            found.rows().map(|row| row.text(1)).collect()
        })
    }

    pub fn has_row_security(&self) -> bool {
        self.has_row_security
    }

    /// Whether its rows can be told apart: by a primary key, or a replica identity.
    pub fn has_key(&self) -> bool {
        self.has_key
    }

    /// Refuses what cannot be watched, with the reason.
    pub fn require_watchable(&self) -> Result<()> {
        let refused = |what: &str, reason: &str, hint: &str| {
            Err(Error::new(
                SqlState::WRONG_OBJECT_TYPE,
                format!("cannot watch {what} {}", self.qualified),
            )
            .detail(reason)
            .hint(hint))
        };
        const TABLES_BEHIND: &str = "Watch the tables that it reads.";
        const FIRST_NORMAL_OID: u32 = 16384;
        match self.kind {
            b'r' | b'p' => {}
            b'v' => {
                return refused(
                    "view",
                    "A view has no rows of its own that could change.",
                    TABLES_BEHIND,
                )
            }
            b'm' => {
                return refused(
                    "materialized view",
                    "REFRESH replaces its rows without firing triggers.",
                    TABLES_BEHIND,
                )
            }
            b'f' => {
                return refused(
                    "foreign table",
                    "Its rows change elsewhere, without firing triggers here.",
                    "Watch the table on the server that holds it.",
                )
            }
            _ => {
                return refused(
                    "relation",
                    "It is not a table.",
                    "Pass the name of a table.",
                )
            }
        }
        if self.is_ours {
            return refused(
                "table",
                "It is one of Pushy's own.",
                "What becomes of jobs is said by pushy.job_wait, pushy.jobs_wait and channel pushy_control.",
            );
        }
        if self.oid.to_u32() < FIRST_NORMAL_OID {
            return refused(
                "system catalog",
                "Catalogs have no triggers.",
                "Event triggers are called for DDL.",
            );
        }
        if self.persistence == b't' {
            return refused(
                "temporary table",
                "It goes with its session, and nobody else sees its rows.",
                "Send what others should hear with pushy.notify(channel, payload).",
            );
        }
        Ok(())
    }

    /// SQL that is true when one of these columns differs between OLD and NEW.
    pub fn columns_changed(&self, columns: &[String]) -> Result<String> {
        let mut terms = Vec::with_capacity(columns.len());
        for name in columns {
            let column = self
                .columns
                .iter()
                .find(|column| column.name == *name)
                .ok_or_else(|| self.no_such_column(name))?;
            terms.push(differs(&identifier::quoted(name), column.type_oid));
        }
        Ok(terms.join(" OR "))
    }

    /// Whether that comparison cannot fail.
    pub fn compares_safely(&self, columns: &[String]) -> bool {
        self.columns
            .iter()
            .filter(|column| columns.contains(&column.name))
            .all(|column| catalog_type::is_of_server(column.type_oid))
    }

    fn no_such_column(&self, name: &str) -> Error {
        let names: Vec<&str> = self.columns.iter().map(|c| c.name.as_str()).collect();
        Error::new(
            SqlState::UNDEFINED_COLUMN,
            format!(
                "column \"{name}\" of table {} does not exist",
                self.qualified
            ),
        )
        .hint(format!("Its columns are: {}.", text::listed(&names)))
    }
}

/// SQL for OLD.column IS DISTINCT FROM NEW.column, which would take the `=` from the search path: that of the
/// maker now, and none when a dump is restored.
fn differs(column: &str, type_oid: Oid) -> String {
    let (operator, cast) = match catalog_type::equality(type_oid) {
        Some(found) => (found.operator, found.cast),
        // A type without equality (json, point) is compared as text.
        None => (
            "OPERATOR(pg_catalog.=)".to_owned(),
            Some("pg_catalog.text".to_owned()),
        ),
    };
    let cast = cast.map_or_else(String::new, |cast| format!("::{cast}"));
    let one_is_there = if catalog_type::is_row(type_oid) {
        format!("pg_catalog.num_nulls(OLD.{column}, NEW.{column}) OPERATOR(pg_catalog.<) 2")
    } else {
        format!("(OLD.{column} IS NOT NULL OR NEW.{column} IS NOT NULL)")
    };
    format!("(OLD.{column}{cast} {operator} NEW.{column}{cast}) IS NOT TRUE AND {one_is_there}")
}
