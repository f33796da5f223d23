//! Watches whose table was dropped are forgotten, unless it came back by a restore.

use crate::errors::Result;
use crate::params;
use crate::pg::home::Home;
use crate::pg::spi::{self, Plan};
use crate::pg::BuiltinOid::{BOOLOID, INT8OID, OIDOID};
use crate::watch::counts;

// Only of watches without a table is it asked where they may have gone, because that reads every trigger of the database. Those that
// somebody else forgets at this moment are let be: his transaction may be open for long.
static FORGET_LOST: Plan = Plan::new(
    "WITH away AS MATERIALIZED ( \
        SELECT w.watch_id FROM pushy_internal.watch w \
         WHERE ($4 OR w.home_system OPERATOR(pg_catalog.=) $1 AND w.home_database OPERATOR(pg_catalog.=) $2 \
                      AND w.home_extension OPERATOR(pg_catalog.=) $3) \
           AND NOT pushy_internal.is_home(w.home_system, w.home_database, w.home_extension, w.relation)), \
     lost AS MATERIALIZED ( \
        SELECT w.watch_id FROM pushy_internal.watch w JOIN away a ON a.watch_id OPERATOR(pg_catalog.=) w.watch_id \
         WHERE pushy_internal.watch_elsewhere(w.watch_id) IS NULL FOR UPDATE OF w SKIP LOCKED) \
     DELETE FROM pushy_internal.watch w USING lost l \
      WHERE w.watch_id OPERATOR(pg_catalog.=) l.watch_id \
     RETURNING w.watch_id, pg_catalog.format('%s on %s', w.name, w.relation_name), \
               (w.home_system, w.home_database, w.home_extension) OPERATOR(pg_catalog.=) ($1, $2, $3)",
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
