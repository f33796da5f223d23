//! The triggers of watches that use a column of a table, or of those that have its columns from it.

use crate::errors::Result;
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::utility::RelationName;
use crate::pg::{array, identity, text, BuiltinOid, Oid};
use crate::watch::triggers_there::is_ours;

// The table, those that inherit its columns, and those whose type it is.
macro_rules! affected {
    () => {
        "WITH RECURSIVE altered(oid) AS ( \
            SELECT $1 \
            UNION \
            SELECT n.oid FROM altered, LATERAL ( \
               SELECT i.inhrelid AS oid FROM pg_catalog.pg_inherits i WHERE i.inhparent OPERATOR(pg_catalog.=) altered.oid \
               UNION ALL \
               SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_type y ON y.oid OPERATOR(pg_catalog.=) c.reloftype \
                WHERE y.typrelid OPERATOR(pg_catalog.=) altered.oid) n)"
    };
}

static USERS: Plan = Plan::new(
    concat!(
        affected!(),
        " SELECT t.oid, t.tgrelid, a.attname::pg_catalog.text, t.tgargs \
            FROM altered JOIN pg_catalog.pg_trigger t ON t.tgrelid OPERATOR(pg_catalog.=) altered.oid AND ",
        is_ours!(),
        " JOIN pg_catalog.pg_depend d ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_trigger'::pg_catalog.regclass::pg_catalog.oid \
             AND d.objid OPERATOR(pg_catalog.=) t.oid AND d.refobjid OPERATOR(pg_catalog.=) t.tgrelid \
             AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid \
            JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) d.refobjid \
             AND a.attnum::pg_catalog.int4 OPERATOR(pg_catalog.=) d.refobjsubid \
           WHERE a.attname OPERATOR(pg_catalog.=) ANY ($2) ORDER BY t.tgrelid, t.oid"
    ),
    &[BuiltinOid::OIDOID, BuiltinOid::NAMEARRAYOID],
);

/// A trigger that uses one of the columns.
pub(super) struct User {
    pub(super) trigger: Oid,
    pub(super) relation: Oid,
    pub(super) column: String,
    /// The watch's name, as the trigger's arguments have it.
    pub(super) watch: String,
}

pub(super) fn users_of(relation: Oid, columns: &[String]) -> Result<Vec<User>> {
    identity::as_owner(|| {
        spi::connect(|spi| {
            let names = array::of_names(columns.iter().map(String::as_str));
            let found = spi.run(&USERS, params![relation, names]);
            let read = |row: spi::Row<'_>| {
                let arguments = row.opt_bytes(4).unwrap_or_default();
                let watch = arguments.split(|byte| *byte == 0).nth(1);
                Ok(User {
                    trigger: row.oid(1),
                    relation: row.oid(2),
                    column: row.text(3)?,
                    watch: text::shown(watch.unwrap_or_default()),
                })
            };
            found.rows().map(read).collect()
        })
    })
}

/// The statement's table, where there may be watches and the caller may alter it.
pub(super) fn target(relation: &RelationName) -> Option<Oid> {
    identity::extension_owner()?;
    // Pushy's own have no watches, and an update script alters them before they fit the library.
    let oid = relation.find().filter(|oid| !identity::is_in_pushy(*oid))?;
    let owner = identity::owner_of(oid)?;
    identity::has_rights_of(identity::current_user(), owner).then_some(oid)
}
