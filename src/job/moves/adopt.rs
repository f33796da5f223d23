//! Jobs that came with a restore or a copy of the database: in a new cluster the roles that enqueued them have other numbers,
//! and no commit has announced them.

use crate::pg::BuiltinOid;
use pushy_core::job_state::{JobEvent, JobState};
use pushy_core::loaded::GIVEN_OUT;

use super::discard::LEASES_OF_QUEUE;
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::value::Char;
use crate::queue::definition::QueueDefinition;
use crate::shared::{self, pending};

macro_rules! find_roles {
    ($table:literal, $role:literal) => {
        concat!(
            "UPDATE pushy_internal.",
            $table,
            " j SET ",
            $role,
            " = COALESCE( \
                (SELECT r.oid FROM pg_catalog.pg_roles r JOIN \
                   (SELECT q.owner, q.owner_name FROM pushy_internal.queue q WHERE q.queue_id OPERATOR(pg_catalog.=) $1 \
                    UNION SELECT q.run_as, q.run_as_name FROM pushy_internal.queue q WHERE q.queue_id OPERATOR(pg_catalog.=) $1 \
                    UNION SELECT a.grantee, a.grantee_name FROM pushy_internal.queue_acl a WHERE a.queue_id OPERATOR(pg_catalog.=) $1) \
                   AS there (role, name) ON there.name OPERATOR(pg_catalog.=) r.rolname \
                  WHERE there.role OPERATOR(pg_catalog.=) j.",
            $role,
            "), \
                0::pg_catalog.oid) \
              WHERE j.queue_id OPERATOR(pg_catalog.=) $1 AND j.",
            $role,
            " OPERATOR(pg_catalog.<>) 10::pg_catalog.oid"
        )
    };
}

static FIND_ENQUEUERS: [Plan; 3] = [
    Plan::new(
        find_roles!("live_job", "enqueued_by"),
        &[BuiltinOid::INT4OID],
    ),
    Plan::new(
        find_roles!("finished_job", "enqueued_by"),
        &[BuiltinOid::INT4OID],
    ),
    Plan::new(find_roles!("lease", "claimed_by"), &[BuiltinOid::INT4OID]),
];

/// In a new cluster, who enqueued the jobs, and who has claimed them: the roles that the queue still knows by their old number and
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

macro_rules! of_others {
    ($table:literal) => {
        concat!(
            "DELETE FROM pushy_internal.",
            $table,
            " x WHERE x.queue_id OPERATOR(pg_catalog.<) 0 AND x.queue_id OPERATOR(pg_catalog.<>) $1 AND EXISTS ( \
                SELECT FROM pushy_internal.live_job j WHERE j.id OPERATOR(pg_catalog.=) x.job_id AND j.queue_id OPERATOR(pg_catalog.=) $1 \
                UNION ALL \
                SELECT FROM pushy_internal.finished_job f WHERE f.id OPERATOR(pg_catalog.=) x.job_id AND f.queue_id OPERATOR(pg_catalog.=) $1)"
        )
    };
}

// One of 0.1.0 does not say which job of its number it means, as copies of a database have several: then it is of none.
static KEEP_PROMISES: Plan = Plan::new(
    "UPDATE pushy_internal.promised_cancel p SET job_id = l.id FROM pushy_internal.live_job l \
      WHERE p.queue_id OPERATOR(pg_catalog.=) $1 AND p.job_id OPERATOR(pg_catalog.<) 0 \
        AND l.id OPERATOR(pg_catalog.=) OPERATOR(pg_catalog.-) p.job_id AND l.queue_id OPERATOR(pg_catalog.=) $1 \
        AND CASE WHEN p.enqueued_at IS NOT NULL THEN p.enqueued_at OPERATOR(pg_catalog.=) l.enqueued_at \
                 ELSE NOT EXISTS (SELECT FROM pushy_internal.live_job o WHERE o.queue_id OPERATOR(pg_catalog.=) $1 AND o.id OPERATOR(pg_catalog.<>) l.id \
                                     AND (o.id OPERATOR(pg_catalog.&) $2) OPERATOR(pg_catalog.=) (l.id OPERATOR(pg_catalog.&) $2)) END",
    &[BuiltinOid::INT4OID, BuiltinOid::INT8OID],
);

/// Of jobs that have not come, or have finished.
static FORGET_PROMISES: Plan = Plan::new(
    "DELETE FROM pushy_internal.promised_cancel p WHERE p.queue_id OPERATOR(pg_catalog.=) $1 AND p.job_id OPERATOR(pg_catalog.<) 0",
    &[BuiltinOid::INT4OID],
);

/// Of attempts that another dump says of a job, which had not made them where it came from, or with another end: the job is as it came.
static FORGET_FAILURES: Plan = Plan::new(
    "DELETE FROM pushy_internal.failure f WHERE f.queue_id OPERATOR(pg_catalog.=) $1 AND EXISTS ( \
        SELECT FROM pushy_internal.live_job l WHERE l.id OPERATOR(pg_catalog.=) f.job_id AND l.queue_id OPERATOR(pg_catalog.=) $1 \
           AND f.attempt OPERATOR(pg_catalog.>) l.attempt \
        UNION ALL \
        SELECT FROM pushy_internal.finished_job j WHERE j.id OPERATOR(pg_catalog.=) f.job_id AND j.queue_id OPERATOR(pg_catalog.=) $1 \
           AND CASE WHEN j.state OPERATOR(pg_catalog.=) 'c'::pg_catalog.\"char\" THEN f.attempt OPERATOR(pg_catalog.>=) j.attempt \
                    ELSE f.attempt OPERATOR(pg_catalog.>) j.attempt END)",
    &[BuiltinOid::INT4OID],
);

/// Nobody goes on with a job that is completed.
static FORGET_CHECKPOINTS: Plan = Plan::new(
    "DELETE FROM pushy_internal.checkpoint c WHERE c.queue_id OPERATOR(pg_catalog.=) $1 AND EXISTS ( \
        SELECT FROM pushy_internal.finished_job j WHERE j.id OPERATOR(pg_catalog.=) c.job_id AND j.queue_id OPERATOR(pg_catalog.=) $1 \
           AND j.state OPERATOR(pg_catalog.=) 'c'::pg_catalog.\"char\")",
    &[BuiltinOid::INT4OID],
);

/// A job knows whether a log or a checkpoint is kept of it, which another dump may have brought.
static NOTE_KEPT: Plan = Plan::new(
    "UPDATE pushy_internal.live_job l SET snoozes = 0 WHERE l.queue_id OPERATOR(pg_catalog.=) $1 AND l.snoozes IS NULL \
        AND l.id OPERATOR(pg_catalog.=) ANY (ARRAY( \
            SELECT g.job_id FROM pushy_internal.job_log g WHERE g.queue_id OPERATOR(pg_catalog.=) $1 \
            UNION SELECT c.job_id FROM pushy_internal.checkpoint c WHERE c.queue_id OPERATOR(pg_catalog.=) $1))",
    &[BuiltinOid::INT4OID],
);

/// A dump of later may have been loaded beside.
static FORGET_FINISHED: Plan = Plan::new(
    "DELETE FROM pushy_internal.live_job j WHERE j.queue_id OPERATOR(pg_catalog.=) $1 \
        AND EXISTS (SELECT FROM pushy_internal.finished_job f WHERE f.id OPERATOR(pg_catalog.=) j.id \
                       AND f.enqueued_at OPERATOR(pg_catalog.=) j.enqueued_at) RETURNING j.id",
    &[BuiltinOid::INT4OID],
);

/// Leased where they come from, by a lease that was not loaded: ready again, where they stood first.
static RELEASE_UNLEASED: Plan = Plan::new(
    "UPDATE pushy_internal.live_job j SET state = $2, leased = NULL, position = j.id OPERATOR(pg_catalog.&) $4 \
      WHERE j.queue_id OPERATOR(pg_catalog.=) $1 AND j.state OPERATOR(pg_catalog.=) $3 \
        AND NOT EXISTS (SELECT FROM pushy_internal.lease l WHERE l.job_id OPERATOR(pg_catalog.=) j.id \
                           AND l.queue_id OPERATOR(pg_catalog.=) $1)",
    &[
        BuiltinOid::INT4OID,
        BuiltinOid::CHAROID,
        BuiltinOid::CHAROID,
        BuiltinOid::INT8OID,
    ],
);

/// What was loaded under the number of a job of the queue, of another job: that one had to have another number.
static FORGET_OTHERS: [Plan; 3] = [
    Plan::new(of_others!("lease"), &[BuiltinOid::INT4OID]),
    Plan::new(of_others!("job_log"), &[BuiltinOid::INT4OID]),
    Plan::new(of_others!("checkpoint"), &[BuiltinOid::INT4OID]),
];

/// A session of this number there is none of, and the session that the dump means has claimed nothing here, even if it goes on.
static FORGET_SESSIONS: Plan = Plan::new(
    "UPDATE pushy_internal.lease l SET session = -1 WHERE l.queue_id OPERATOR(pg_catalog.=) $1 AND l.session IS NOT NULL",
    &[BuiltinOid::INT4OID],
);

/// What a job's number says of that: `loaded::position`.
const FIRST_POSITION: i64 = GIVEN_OUT - 1;

const LEASED: JobState = JobState::Available.after(JobEvent::Claim);
const FREE: JobState = LEASED.after(JobEvent::Release);

/// A loaded queue is at home from here on: promises to cancel its jobs count, and what has finished does not run. As the
/// extension's owner.
pub fn adopted(queue_id: i32) {
    spi::run(&FORGET_FINISHED, params![queue_id]);
    spi::run(&KEEP_PROMISES, params![queue_id, FIRST_POSITION]);
    for plan in [
        &FORGET_PROMISES,
        &FORGET_FAILURES,
        &FORGET_CHECKPOINTS,
        &NOTE_KEPT,
        &LEASES_OF_QUEUE,
        &FORGET_SESSIONS,
    ] {
        spi::run(plan, params![queue_id]);
    }
    for plan in &FORGET_OTHERS {
        spi::run(plan, params![queue_id]);
    }
    let (free, leased) = (Char(FREE.code()), Char(LEASED.code()));
    spi::run(
        &RELEASE_UNLEASED,
        params![queue_id, free, leased, FIRST_POSITION],
    );
}

macro_rules! without_queue {
    ($row:literal) => {
        concat!(
            $row, ".queue_id OPERATOR(pg_catalog.<) 0 \
             AND NOT EXISTS (SELECT FROM pushy_internal.queue q WHERE q.queue_id OPERATOR(pg_catalog.=) ", $row, ".queue_id) \
             AND NOT EXISTS (SELECT FROM pushy_internal.loaded_queue h WHERE h.queue_id OPERATOR(pg_catalog.=) ", $row, ".queue_id AND h.number_there IS NULL)"
        )
    };
}

static COUNT_REST: Plan = Plan::new(
    concat!(
        "SELECT pg_catalog.count(*) FROM pushy_internal.live_job j WHERE ",
        without_queue!("j")
    ),
    &[],
);

/// Unfinished jobs that were loaded without their queue. As the extension's owner, as is the next one.
pub fn count_rest() -> i64 {
    spi::connect(|spi| spi.run(&COUNT_REST, &[]).row(0).i64(1))
}

static DROP_REST: [Plan; 8] = [
    Plan::new(concat!("DELETE FROM pushy_internal.live_job j WHERE ", without_queue!("j")), &[]),
    Plan::new(concat!("DELETE FROM pushy_internal.finished_job j WHERE ", without_queue!("j")), &[]),
    Plan::new(concat!("DELETE FROM pushy_internal.failure f WHERE ", without_queue!("f")), &[]),
    Plan::new(concat!("DELETE FROM pushy_internal.lease l WHERE ", without_queue!("l")), &[]),
    Plan::new(concat!("DELETE FROM pushy_internal.job_log l WHERE ", without_queue!("l")), &[]),
    Plan::new(concat!("DELETE FROM pushy_internal.checkpoint c WHERE ", without_queue!("c")), &[]),
    Plan::new(concat!("DELETE FROM pushy_internal.queue_acl a WHERE ", without_queue!("a")), &[]),
    Plan::new(
        "DELETE FROM pushy_internal.promised_cancel p WHERE p.job_id OPERATOR(pg_catalog.<) 0 \
            AND NOT EXISTS (SELECT FROM pushy_internal.live_job j WHERE j.id OPERATOR(pg_catalog.=) OPERATOR(pg_catalog.-) p.job_id)",
        &[],
    ),
];

/// Removes all that was loaded without its queue.
pub fn drop_rest() {
    for plan in &DROP_REST {
        spi::run(plan, &[]);
    }
}
