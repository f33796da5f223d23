//! What the settings of the database say of its gateway: read by the scheduler, because the launcher is connected to no database.

use std::sync::atomic::Ordering;

use pushy_core::fnv;

use crate::errors::Result;
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::{transaction, BuiltinOid};
use crate::shared;
use crate::shared::database::DatabaseSlot;

use BuiltinOid::TEXTOID;

// Of the database, and of no role; an empty address is none.
static SAID: Plan = Plan::new(
    "SELECT pg_catalog.string_agg(c.said, E'\\n' ORDER BY c.said) \
       FROM pg_catalog.pg_db_role_setting s CROSS JOIN LATERAL pg_catalog.unnest(s.setconfig) AS c (said) \
      WHERE s.setdatabase OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()) \
        AND s.setrole OPERATOR(pg_catalog.=) 0::pg_catalog.oid \
        AND pg_catalog.starts_with(c.said, $1) \
     HAVING pg_catalog.bool_or(pg_catalog.starts_with(c.said, $2) AND c.said OPERATOR(pg_catalog.<>) $2)",
    &[TEXTOID, TEXTOID],
);

/// Reads them when a scheduler begins, and when they may have changed.
pub(super) fn read(database_slot: &DatabaseSlot, is_first: bool) -> Result<()> {
    if !database_slot.settings_unread.swap(false, Ordering::SeqCst) && !is_first {
        return Ok(());
    }
    let said = transaction::run(|| {
        spi::connect(|spi| {
            let said = spi.run(&SAID, params!["pushy.gateway_", "pushy.gateway_listen="]);
            Ok(said.first().and_then(|row| row.opt_bytes(1)))
        })
    });
    let said = match said {
        Ok(said) => said,
        Err(failure) => {
            database_slot.settings_unread.store(true, Ordering::SeqCst);
            return Err(failure);
        }
    };
    let now = said.map_or(0, |said| fnv::hash(&said).max(1));
    if database_slot.gateway_settings.swap(now, Ordering::SeqCst) != now {
        // One that is there leaves, and another comes.
        database_slot.gateway().wake();
        shared::expect().call_launcher();
    }
    Ok(())
}
