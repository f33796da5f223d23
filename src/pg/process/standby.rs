//! Whether a standby serves queries, for whose sake tables are emptied in place.
//!
//! TRUNCATE takes a lock that keeps everybody out, and a standby takes it too, when it comes to that place in the WAL: it
//! waits for its readers then, or ends them after max_standby_streaming_delay. A pg_dump from a standby has locked every
//! table until it ends, and the tables of Pushy's history and log are emptied each few minutes.

use crate::params;
use crate::pg::spi::{self, Plan};

// A base backup counts, and so does a logical subscriber: emptying in place costs them nothing. A physical slot is of a
// standby that comes back.
static MAY_BE_THERE: Plan = Plan::new(
    "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_stat_get_wal_senders() w WHERE w.pid IS NOT NULL) \
         OR EXISTS (SELECT 1 FROM pg_catalog.pg_get_replication_slots() r WHERE r.slot_type OPERATOR(pg_catalog.=) 'physical')",
    &[],
);

/// Whether a standby is connected, or known by its slot. One that lives on the archive alone is not known here. As the
/// extension's owner.
pub fn may_be_there() -> bool {
    spi::connect(|spi| spi.run(&MAY_BE_THERE, params![]).row(0).bool(1))
}
