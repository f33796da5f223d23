//! ATTACH PARTITION: the server gives the partition a copy of each row trigger of its new parent, and fails where one of
//! that name is there. Two watches of one name are meant, so that is said.

use crate::errors::{quote_literal, Error, Result, SqlState};
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::utility::{self, Hooks, RelationName, Statement};
use crate::pg::{ereport, identity, text, BuiltinOid, Oid};
use crate::watch::table::WatchedTable;
use crate::watch::triggers_there::is_ours;

static HOOKS: Hooks = Hooks {
    before,
    after: |_| {},
    skips: utility::skip_none,
};

/// Once, while preloading.
pub fn init() {
    utility::install(&HOOKS);
}

fn before(statement: &Statement) {
    if let Statement::AttachPartition { parent, partition } = statement {
        if let Err(error) = refuse_namesakes(parent, partition) {
            ereport::raise(&error);
        }
    }
}

// A trigger of the parent that is copied, and one of the same name on the partition or below it.
static NAMESAKES: Plan = Plan::new(
    concat!(
        "WITH RECURSIVE below(oid) AS ( \
            SELECT $2 \
            UNION \
            SELECT i.inhrelid FROM below JOIN pg_catalog.pg_inherits i ON i.inhparent OPERATOR(pg_catalog.=) below.oid) \
         SELECT t.tgrelid, t.tgargs \
           FROM pg_catalog.pg_trigger p, below JOIN pg_catalog.pg_trigger t ON t.tgrelid OPERATOR(pg_catalog.=) below.oid \
          WHERE p.tgrelid OPERATOR(pg_catalog.=) $1 AND p.tgname OPERATOR(pg_catalog.=) t.tgname \
            AND (p.tgtype::pg_catalog.int4 OPERATOR(pg_catalog.&) 1) OPERATOR(pg_catalog.=) 1 \
            AND p.tgfoid OPERATOR(pg_catalog.=) t.tgfoid AND ",
        is_ours!(),
        " ORDER BY t.oid LIMIT 1"
    ),
    &[BuiltinOid::OIDOID, BuiltinOid::OIDOID],
);

fn refuse_namesakes(parent: &RelationName, partition: &RelationName) -> Result<()> {
    let (Some(parent), Some(partition)) = (parent.find(), partition.find()) else {
        // The server says so.
        return Ok(());
    };
    // The server refuses whoever does not own the table, and the names of its watches are not for everybody.
    let owner = identity::owner_of(parent);
    if owner.is_none_or(|owner| !identity::has_rights_of(identity::current_user(), owner)) {
        return Ok(());
    }
    match namesake(parent, partition)? {
        Some((relation, watch)) => Err(clash(
            &WatchedTable::look_up(parent)?.qualified,
            relation,
            &watch,
        )?),
        None => Ok(()),
    }
}

/// The table at or below `partition` that has a watch of a name which the parent's watches have too.
fn namesake(parent: Oid, partition: Oid) -> Result<Option<(Oid, String)>> {
    if identity::extension_oid().is_none() {
        return Ok(None);
    }
    identity::as_owner(|| {
        Ok(spi::connect(|spi| {
            let found = spi.run(&NAMESAKES, params![parent, partition]);
            found.first().map(|row| {
                let arguments = row.opt_bytes(2).unwrap_or_default();
                let name = arguments.split(|byte| *byte == 0).nth(1);
                (row.oid(1), text::shown(name.unwrap_or_default()))
            })
        }))
    })
}

fn clash(parent: &str, relation: Oid, watch: &str) -> Result<Error> {
    let table = WatchedTable::look_up(relation)?.qualified;
    Ok(Error::new(
        SqlState::DUPLICATE_OBJECT,
        format!("tables {parent} and {table} both have a watch \"{watch}\""),
    )
    .detail("A watch of a partitioned table watches its partitions too.")
    .hint(format!(
        "End the partition's: SELECT pushy.unwatch({}, {}). Or declare one of them under another name.",
        quote_literal(&table),
        quote_literal(watch)
    )))
}
