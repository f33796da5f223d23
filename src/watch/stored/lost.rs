//! Watches whose table was dropped are forgotten, unless it came back by a restore.

use crate::errors::Result;
use crate::params;
use crate::pg::home::Home;
use crate::pg::spi::{self, Plan};
use crate::pg::BuiltinOid::{BOOLOID, INT8OID, OIDOID};
use crate::watch::counts;
use crate::watch::triggers_there::{arguments, from_ours, is_ours};

// Where a watch may have gone is asked only if a trigger of it is here, or a table of its name: that looks through the triggers of all
// watches, and thousands may have lost their tables at once. A thousand are forgotten by one call, because the caller is not always
// whose they were; the next one goes on. Those that somebody else forgets at this moment are let be: his transaction may be open for long.
static FORGET_LOST: Plan = Plan::new(
    concat!(
        "WITH away AS MATERIALIZED ( \
            SELECT w.watch_id, w.relation_name, ",
        arguments!(),
        " AS args FROM pushy_internal.watch w \
             WHERE ($4 OR w.home_system OPERATOR(pg_catalog.=) $1 AND w.home_database OPERATOR(pg_catalog.=) $2 \
                          AND w.home_extension OPERATOR(pg_catalog.=) $3) \
               AND NOT pushy_internal.is_home(w.home_system, w.home_database, w.home_extension, w.relation)), \
         here AS MATERIALIZED (SELECT pg_catalog.substring(t.tgargs, 1, 37) AS args",
        from_ours!(),
        "), \
         gone AS MATERIALIZED ( \
            SELECT a.watch_id FROM away a \
             WHERE CASE WHEN a.args OPERATOR(pg_catalog.=) ANY (SELECT h.args FROM here h) OR pg_catalog.to_regclass(a.relation_name) IS NOT NULL \
                        THEN pushy_internal.watch_elsewhere(a.watch_id) IS NULL ELSE true END \
             LIMIT CASE WHEN NOT $4 THEN 1000 END), \
         lost AS MATERIALIZED ( \
            SELECT w.watch_id FROM gone g JOIN pushy_internal.watch w ON w.watch_id OPERATOR(pg_catalog.=) g.watch_id \
               FOR UPDATE OF w SKIP LOCKED) \
         DELETE FROM pushy_internal.watch w USING lost l \
          WHERE w.watch_id OPERATOR(pg_catalog.=) l.watch_id \
         RETURNING w.watch_id, pg_catalog.format('%s on %s', w.name, w.relation_name), \
                   (w.home_system, w.home_database, w.home_extension) OPERATOR(pg_catalog.=) ($1, $2, $3)"
    ),
    &[INT8OID, OIDOID, OIDOID, BOOLOID],
);

/// Removes watches whose table was dropped, and did not come back by a restore; `all`: also those that a restore has brought without
/// their table. Answers these by name.
pub fn forget_lost(all: bool) -> Result<Vec<String>> {
    let here = Home::here();
    spi::connect(|spi| {
        let params = params![here.system, here.database, here.extension, all];
        let lost = spi.run(&FORGET_LOST, params);
        let mut brought = Vec::new();
        for row in lost.rows() {
            counts::end(row.i32(1));
            if !row.bool(3) {
                brought.push(row.text(2)?);
            }
        }
        Ok(brought)
    })
}
