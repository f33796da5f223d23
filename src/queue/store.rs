//! Writing pushy_internal.queue; as the extension's owner.

use crate::pg::{BuiltinOid, Oid};

use super::definition::QueueDefinition;
use super::dropped;
use crate::errors::Result;
use crate::params;
use crate::pg::function::Answer;
use crate::pg::spi::{self, Plan};
use crate::shared::numbers::{self, Numbered};

use BuiltinOid::{BOOLOID, INT4OID, INT8OID, OIDOID, TEXTOID};

/// Nobody who registers the same name at the same time gets a unique violation: one inserts, the others
/// find its row.
static INSERT: Plan = Plan::new(
    "INSERT INTO pushy_internal.queue (queue, owner, owner_name, run_as, run_as_name, handler_oid, handler, \
         concurrency, priority, max_attempts, backoff, retry_delay_us, max_retry_delay_us, timeout_us, \
         keep_completed_us, keep_discarded_us, batch, paused, parked, home_system, home_database, \
         handler_owner, handler_owner_name, queue_id, lease_us) \
     VALUES ($1, $2, $3::pg_catalog.name, $4, $5::pg_catalog.name, $6, $7, $8, $9, $10, $11, $12, $13, \
         $14, $15, $16, $17, $18, $19, $20, $21, $22, $23::pg_catalog.name, $24, $25) \
     ON CONFLICT DO NOTHING RETURNING queue_id",
    &COLUMNS,
);

static UPDATE: Plan = Plan::new(
    "UPDATE pushy_internal.queue SET owner = $2, owner_name = $3::pg_catalog.name, run_as = $4, \
         run_as_name = $5::pg_catalog.name, handler_oid = $6, handler = $7, concurrency = $8, \
         priority = $9, max_attempts = $10, backoff = $11, retry_delay_us = $12, \
         max_retry_delay_us = $13, timeout_us = $14, keep_completed_us = $15, \
         keep_discarded_us = $16, batch = $17, paused = $18, parked = $19, home_system = $20, \
         home_database = $21, handler_owner = $22, handler_owner_name = $23::pg_catalog.name, lease_us = $25, \
         changed_at = pg_catalog.clock_timestamp() \
      WHERE queue_id OPERATOR(pg_catalog.=) $24 AND queue OPERATOR(pg_catalog.=) $1",
    &COLUMNS,
);

const COLUMNS: [BuiltinOid; 25] = [
    TEXTOID, OIDOID, TEXTOID, OIDOID, TEXTOID, OIDOID, TEXTOID, INT4OID, INT4OID, INT4OID, TEXTOID,
    INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, BOOLOID, BOOLOID, TEXTOID, INT8OID, OIDOID,
    OIDOID, TEXTOID, INT4OID, INT8OID,
];

fn values(queue: &QueueDefinition) -> [Answer; 25] {
    *params![
        queue.name.as_str(),
        queue.owner,
        queue.owner_name.as_str(),
        queue.run_as,
        queue.run_as_name.as_str(),
        queue.handler_oid,
        queue.handler.as_str(),
        queue.concurrency,
        queue.priority,
        queue.max_attempts,
        queue.backoff.as_str(),
        queue.retry_delay_us,
        queue.max_retry_delay_us,
        queue.timeout_us,
        queue.keep_completed_us,
        queue.keep_discarded_us,
        queue.batch,
        queue.paused,
        queue.parked.as_deref(),
        queue.home_system,
        Oid::from(queue.home_database),
        queue.handler_owner,
        queue.handler_owner_name.as_str(),
        queue.queue_id,
        queue.lease_us,
    ]
}

// All that holds a queue by its number, whether or not the queue is there: jobs that wait for their time too, for which there is no index.
static HIGHEST_KEPT: Plan = Plan::new(
    "SELECT COALESCE(GREATEST((SELECT pg_catalog.max(q.queue_id) FROM pushy_internal.queue q), \
                              (SELECT pg_catalog.max(d.queue_id) FROM pushy_internal.dropped_queue d), \
                              (SELECT pg_catalog.max(a.queue_id) FROM pushy_internal.queue_acl a), \
                              (SELECT pg_catalog.max(w.queue_id) FROM pushy_internal.watch w), \
                              (SELECT pg_catalog.max(s.queue_id) FROM pushy_internal.subscription s), \
                              (SELECT pg_catalog.max(j.queue_id) FROM pushy_internal.live_job j), 0))::pg_catalog.int8",
    &[],
);

static NUMBERS: Numbered = Numbered::new(&numbers::QUEUES, || numbers::highest_in(&HIGHEST_KEPT));

// A restore of some tables and not of others may have left what holds a number that comes next.
static IS_HELD: Plan = Plan::new(
    "SELECT EXISTS (SELECT FROM pushy_internal.queue q WHERE q.queue_id OPERATOR(pg_catalog.=) $1) \
         OR EXISTS (SELECT FROM pushy_internal.dropped_queue d WHERE d.queue_id OPERATOR(pg_catalog.=) $1) \
         OR EXISTS (SELECT FROM pushy_internal.queue_acl a WHERE a.queue_id OPERATOR(pg_catalog.=) $1) \
         OR EXISTS (SELECT FROM pushy_internal.watch w WHERE w.queue_id OPERATOR(pg_catalog.=) $1) \
         OR EXISTS (SELECT FROM pushy_internal.subscription s WHERE s.queue_id OPERATOR(pg_catalog.=) $1) \
         OR EXISTS (SELECT FROM pushy_internal.lease l WHERE l.queue_id OPERATOR(pg_catalog.=) $1) \
         OR EXISTS (SELECT FROM pushy_internal.live_job j WHERE j.queue_id OPERATOR(pg_catalog.=) $1 AND j.position IS NOT NULL)",
    &[INT4OID],
);

/// Adds a queue and answers its number; None when the name is taken, or the number meanwhile.
pub fn insert(queue: &QueueDefinition) -> Result<Option<i32>> {
    let numbered = QueueDefinition {
        queue_id: NUMBERS.draw_free(&IS_HELD)?,
        ..queue.clone()
    };
    Ok(spi::connect(|spi| {
        spi.run(&INSERT, &values(&numbered))
            .first()
            .map(|row| row.i32(1))
    }))
}

/// Writes all of a queue that is there.
pub fn update(queue: &QueueDefinition) {
    spi::run(&UPDATE, &values(queue));
}

/// A statement that removes something of one queue.
const fn removal(sql: &'static str) -> Plan {
    Plan::new(sql, &[INT4OID])
}

static DELETE_GRANTS: Plan =
    removal("DELETE FROM pushy_internal.queue_acl a WHERE a.queue_id OPERATOR(pg_catalog.=) $1");
static DELETE_QUEUE: Plan =
    removal("DELETE FROM pushy_internal.queue q WHERE q.queue_id OPERATOR(pg_catalog.=) $1");

/// Removes a queue with its grants, and leaves its history, failures, logs and checkpoints to the scheduler; its live jobs are
/// the caller's business.
pub fn delete(queue: &QueueDefinition) {
    dropped::leave(queue.queue_id);
    for plan in [&DELETE_GRANTS, &DELETE_QUEUE] {
        spi::run(plan, params![queue.queue_id]);
    }
}
