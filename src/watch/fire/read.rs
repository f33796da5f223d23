//! All that a firing wants to know of a watch, read from the catalogs at once.

use super::cache::Found;
use super::cached_watch::{ByRole, CachedWatch};
use crate::errors::{Error, Result, SqlState};
use crate::params;
use crate::pg::invalidation::{self, Row};
use crate::pg::memory::Context;
use crate::pg::per_process::PerProcess;
use crate::pg::slot::{OwnSlot, RowType};
use crate::pg::spi::{self, Plan};
use crate::pg::trigger::Firing;
use crate::pg::{array, ereport, identity, BuiltinOid};
use crate::shared;
use crate::watch::definition::{Payload, Residence, WatchDefinition};
use crate::watch::find;
use crate::watch::notice_json::{PayloadKind, Shape};
use crate::watch::trigger_texts;
use rustc_hash::{FxBuildHasher, FxHashSet};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

static FACTS: Plan = Plan::new(
    "SELECT n.nspname::pg_catalog.text, c.relname::pg_catalog.text, c.relkind OPERATOR(pg_catalog.=) 'p', \
            (SELECT pg_catalog.array_agg(k.number ORDER BY k.place) \
               FROM (SELECT i.indkey::pg_catalog.int2[] AS numbers, i.indnkeyatts FROM pg_catalog.pg_index i \
                      WHERE i.indrelid OPERATOR(pg_catalog.=) c.oid AND i.indisvalid AND (i.indisprimary OR i.indisreplident) \
                      ORDER BY i.indisprimary DESC LIMIT 1) i, \
                    LATERAL pg_catalog.unnest(i.numbers) WITH ORDINALITY k(number, place) \
              WHERE k.place OPERATOR(pg_catalog.<=) i.indnkeyatts) \
       FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
      WHERE c.oid OPERATOR(pg_catalog.=) $1",
    &[BuiltinOid::OIDOID],
);

/// As the extension's owner: a writer may have lost the right to look at catalogs.
pub(super) fn read(token: &str) -> Result<Found> {
    let Some(definition) = find::by_token(token)? else {
        return Ok(Found::Nobodys);
    };
    invalidation::depend_on(definition.relation);
    match definition.residence {
        // Its table is gone: triggers that carry its token came with another.
        Residence::Bereft => return Ok(Found::Nobodys),
        Residence::Home if !definition.paused => {}
        Residence::Home | Residence::Elsewhere => return Ok(Found::Silent),
    }
    let relation = definition.relation;
    if !trigger_texts::are_unchanged(&definition)? {
        // With one missing the others would publish changes that its condition excluded, or of some events only; one that
        // was replaced has the words of somebody else, who has not the rights of the watch's maker.
        log_broken(&definition);
        return Ok(Found::Silent);
    }
    let expressions = match definition.expressions {
        Some(trigger) => trigger_texts::condition_of(trigger)?,
        None => None,
    };
    // Notices name the schema; whether a superuser declared the watch decides what counts it.
    let owner = definition.owner;
    invalidation::depend_on_row(Row::schema_of(relation));
    invalidation::depend_on_row(Row::role(owner));
    let context = Context::new(c"pushy watch");
    let row_type = RowType::of_table(relation, &context);
    let (shape, is_partitioned) = spi::connect(|spi| {
        let found = spi.run(&FACTS, params![relation]);
        let row = found.row(0);
        let key = row.datum(4).map_or_else(Vec::new, array::int2s);
        let (schema, table) = (row.opt_bytes(1), row.opt_bytes(2));
        let shape = Shape::new(
            &schema.unwrap_or_default(),
            &table.unwrap_or_default(),
            row_type.columns(),
            &key,
        );
        (shape, row.bool(3))
    });
    Ok(Found::Watch(Rc::new(CachedWatch {
        channel: definition.channel.as_deref().map(Rc::from),
        kind: match definition.payload {
            Payload::None => PayloadKind::None,
            Payload::Key | Payload::Expression => PayloadKind::Key,
            Payload::Row => PayloadKind::Row,
            Payload::Diff => PayloadKind::Diff,
        },
        shape,
        is_partitioned,
        counter: shared::get().and_then(|shared| {
            let is_bounded = !identity::is_superuser(owner);
            shared.ensure_watch(definition.watch_id, owner.to_u32(), is_bounded)
        }),
        expressions,
        evaluators: ByRole::default(),
        virtual_columns: match definition.payload {
            Payload::Row | Payload::Diff => row_type.virtual_columns(),
            Payload::None | Payload::Key | Payload::Expression => Vec::new(),
        },
        generators: ByRole::default(),
        layouts: RefCell::default(),
        trusted: RefCell::default(),
        request: RefCell::new(None),
        last_logged: Cell::new(i64::MIN),
        last_length: Cell::new(0),
        nulls: OwnSlot::new(row_type, &context),
        row_type,
        context,
        definition,
    })))
}

/// Once a session and declaration, because the watch is read anew after each change of a definition.
#[cold]
fn log_broken(watch: &WatchDefinition) {
    static LOGGED: PerProcess<RefCell<FxHashSet<(i32, String)>>> =
        PerProcess::new(RefCell::new(FxHashSet::with_hasher(FxBuildHasher)));
    let declaration = (watch.watch_id, watch.token.clone());
    if !LOGGED.with_borrow_mut(|logged| logged.insert(declaration)) {
        return;
    }
    ereport::log(
        &Error::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!(
                "watch \"{}\" on {} is broken and makes no notices and no jobs: a trigger of it was dropped, by hand or with what it used, or replaced",
                watch.name, watch.relation_name
            ),
        )
        .hint("Declare it again with pushy.watch, or end it with pushy.unwatch."),
    );
}

#[cold]
pub fn not_ours(firing: Firing) -> Error {
    let (trigger, table) = firing.names();
    Error::new(
        SqlState::INSUFFICIENT_PRIVILEGE,
        format!("trigger {trigger} on table {table} was not made by pushy.watch"),
    )
    .hint(format!(
        "Drop it, DROP TRIGGER {trigger} ON {table}, and declare the watch with pushy.watch."
    ))
}

pub(super) static PARENT: Plan = Plan::new(
    "SELECT t.tgparentid FROM pg_catalog.pg_trigger t WHERE t.oid OPERATOR(pg_catalog.=) $1",
    &[BuiltinOid::OIDOID],
);
