//! What the triggers of a watch say, as the server has them: their expressions, their definitions, and a fingerprint by which it is seen
//! whether they are still what the watch has made.

use pushy_core::trigger_text;

use crate::errors::Result;
use crate::pg::spi::{self, Plan};
use crate::pg::{identity, BuiltinOid, Oid};
use crate::watch::definition::WatchDefinition;
use crate::{params, sql_function};

static CONDITION: Plan = Plan::new(
    "SELECT t.tgqual::pg_catalog.text FROM pg_catalog.pg_trigger t WHERE t.oid OPERATOR(pg_catalog.=) $1",
    &[BuiltinOid::OIDOID],
);

static TEXT: Plan = Plan::new(
    "SELECT pg_catalog.pg_get_triggerdef($1)",
    &[BuiltinOid::OIDOID],
);

/// The expressions as the server writes them now, with the names that columns and functions have: what
/// [`make_expressions`] has put around them is part of them. None where they are gone.
pub fn texts(trigger: Oid) -> Result<Option<Vec<String>>> {
    spi::connect(|spi| {
        let found = spi.run(&TEXT, params![trigger]);
        let text = found.first().map_or(Ok(None), |row| row.opt_text(1))?;
        let items = text.as_deref().and_then(trigger_text::expressions);
        Ok(items.map(|items| items.into_iter().map(str::to_owned).collect()))
    })
}

/// The condition of a trigger, as pg_trigger has it; None where it is gone.
pub fn condition_of(trigger: Oid) -> Result<Option<String>> {
    spi::connect(|spi| {
        let found = spi.run(&CONDITION, params![trigger]);
        found.first().map_or(Ok(None), |row| row.opt_text(1))
    })
}

// Without the names of trigger and table, which may be others by now. The order is that of the texts.
static WORDS: Plan = Plan::new(
    "SELECT w.text FROM (SELECT ROW(t.tgtype, t.tgattr, t.tgdeferrable, t.tginitdeferred, t.tgoldtable, t.tgnewtable)::pg_catalog.text \
                                OPERATOR(pg_catalog.||) pg_catalog.substr(d.text, pg_catalog.strpos(d.text, ' FOR EACH ')) AS text \
                           FROM pg_catalog.pg_trigger t, LATERAL (SELECT pg_catalog.pg_get_triggerdef(t.oid) AS text) d \
                          WHERE t.oid OPERATOR(pg_catalog.=) ANY ($1)) w \
      ORDER BY w.text COLLATE pg_catalog.\"C\"",
    &[BuiltinOid::OIDARRAYOID],
);

/// What its triggers say, as the server writes it: the expressions, and then each trigger.
pub fn of_watch(watch: &WatchDefinition) -> Result<Vec<String>> {
    let mut said = match watch.expressions {
        Some(trigger) => texts(trigger)?.unwrap_or_default(),
        None => Vec::new(),
    };
    let triggers = crate::pg::array::of_oids(&watch.triggers);
    spi::connect(|spi| {
        for row in spi.run(&WORDS, params![triggers]).rows() {
            said.push(row.text(1)?);
        }
        Ok(said)
    })
}

// All but what ALTER TABLE and ALTER TRIGGER may change, which only the table's owner does.
static PRINT: Plan = Plan::new(
    "SELECT pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to( \
                COALESCE(pg_catalog.string_agg(ROW(t.oid, t.tgfoid, t.tgtype, t.tgisinternal, t.tgparentid, t.tgconstraint, t.tgdeferrable, \
                                                   t.tginitdeferred, t.tgattr, pg_catalog.encode(t.tgargs, 'hex'), t.tgqual::pg_catalog.text, \
                                                   t.tgoldtable, t.tgnewtable)::pg_catalog.text, ' ' ORDER BY t.oid), ''), \
                pg_catalog.getdatabaseencoding())), 'hex') \
       FROM pg_catalog.pg_trigger t \
      WHERE t.tgrelid OPERATOR(pg_catalog.=) $1 AND t.oid OPERATOR(pg_catalog.=) ANY ($2)",
    &[BuiltinOid::OIDOID, BuiltinOid::OIDARRAYOID],
);

/// A fingerprint of triggers. CREATE OR REPLACE TRIGGER, for which the privilege TRIGGER is enough, puts something else in
/// the place of one and leaves it its number, so a number alone does not say whose words it holds.
pub fn print(relation: Oid, triggers: &[Oid]) -> Result<String> {
    let triggers = crate::pg::array::of_oids(triggers);
    spi::connect(|spi| spi.run(&PRINT, params![relation, triggers]).row(0).text(1))
}

/// Whether all triggers of a watch at home are there, as it has made them.
pub fn are_unchanged(watch: &WatchDefinition) -> Result<bool> {
    Ok(print(watch.relation, &watch.triggers)? == watch.print)
}

sql_function!(pushy_watch_is_whole_v1, |call| {
    let relation = call.opt_oid(0).unwrap_or(Oid::INVALID);
    let triggers = call.datum(1).map_or_else(Vec::new, crate::pg::array::oids);
    let now = identity::as_owner(|| print(relation, &triggers))?;
    Result::Ok(Some(now) == call.opt_text(2)?)
});
