//! Jobs that came with a restore or a copy of the database: in a new cluster the roles that enqueued them have other numbers,
//! and no commit has announced them.

use crate::pg::BuiltinOid;

use crate::params;
use crate::pg::spi::{self, Plan};
use crate::queue::definition::QueueDefinition;
use crate::shared::{self, pending};

macro_rules! find_enqueuers {
    ($table:literal) => {
        concat!(
            "UPDATE pushy_internal.",
            $table,
            " j SET enqueued_by = COALESCE( \
                (SELECT r.oid FROM pg_catalog.pg_roles r JOIN \
                   (SELECT q.owner, q.owner_name FROM pushy_internal.queue q WHERE q.queue_id OPERATOR(pg_catalog.=) $1 \
                    UNION SELECT q.run_as, q.run_as_name FROM pushy_internal.queue q WHERE q.queue_id OPERATOR(pg_catalog.=) $1 \
                    UNION SELECT a.grantee, a.grantee_name FROM pushy_internal.queue_acl a WHERE a.queue_id OPERATOR(pg_catalog.=) $1) \
                   AS there (role, name) ON there.name OPERATOR(pg_catalog.=) r.rolname \
                  WHERE there.role OPERATOR(pg_catalog.=) j.enqueued_by), \
                0::pg_catalog.oid) \
              WHERE j.queue_id OPERATOR(pg_catalog.=) $1 AND j.enqueued_by OPERATOR(pg_catalog.<>) 10::pg_catalog.oid"
        )
    };
}

static FIND_ENQUEUERS: [Plan; 2] = [
    Plan::new(find_enqueuers!("live_job"), &[BuiltinOid::INT4OID]),
    Plan::new(find_enqueuers!("finished_job"), &[BuiltinOid::INT4OID]),
];

/// In a new cluster, who enqueued the jobs: the roles that the queue still knows by their old number and
/// their name, and the bootstrap superuser, who is number 10 everywhere. Of others only a number is left,
/// which means nobody here, or a stranger. As the extension's owner, before the queue's roles are written.
pub fn find_enqueuers(queue: &QueueDefinition) {
    for plan in &FIND_ENQUEUERS {
        spi::run(plan, params![queue.queue_id]);
    }
}

/// The jobs of a queue that was not at home are looked at when this transaction ends: nobody has announced them, and executors
/// skip what `find_enqueuers` has locked.
pub fn announce_all(queue: &QueueDefinition) {
    if let Some(slot) = shared::get().and_then(|shared| shared.find_queue(queue.key())) {
        pending::all_locked(slot, queue.key());
    }
    pending::waiting_from(0);
}
