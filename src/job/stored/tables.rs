//! The columns of the tables that are read and written without SQL, as sql/schema.sql has them: numbers
//! count from 1.

/// Columns that a job takes along, as they are, from one table of jobs to the other.
#[macro_export]
macro_rules! kept_columns {
    () => {
        "id, enqueued_at, timeout_us, caused_by, queue_id, enqueued_by, priority, depth, unique_key, args"
    };
}

pub mod live_job {
    use std::sync::atomic::AtomicU64;

    /// The table, and the generation of its definition, whose columns were found to be these.
    pub static CHECKED: AtomicU64 = AtomicU64::new(0);
    crate::columns! {
        ID "id",
        POSITION "position",
        RUN_AT "run_at",
        ENQUEUED_AT "enqueued_at",
        TIMEOUT_US "timeout_us",
        CAUSED_BY "caused_by",
        QUEUE_ID "queue_id",
        ENQUEUED_BY "enqueued_by",
        ATTEMPT "attempt",
        MAX_ATTEMPTS "max_attempts",
        PRIORITY "priority",
        DEPTH "depth",
        GIVE_BACKS "give_backs",
        STATE "state",
        SUSPICIONS "suspicions",
        UNIQUE_KEY "unique_key",
        BESIDE "beside",
        ARGS "args",
        SNOOZES "snoozes",
        LEASED "leased",
    }
}

pub mod finished_job {
    use std::sync::atomic::AtomicU64;

    /// The table, and the generation of its definition, whose columns were found to be these.
    pub static CHECKED: AtomicU64 = AtomicU64::new(0);
    crate::columns! {
        ID "id",
        EXPIRES_AT "expires_at",
        RUN_AT "run_at",
        ENQUEUED_AT "enqueued_at",
        STARTED_AT "started_at",
        FINISHED_AT "finished_at",
        TIMEOUT_US "timeout_us",
        CAUSED_BY "caused_by",
        QUEUE_ID "queue_id",
        ENQUEUED_BY "enqueued_by",
        ATTEMPT "attempt",
        MAX_ATTEMPTS "max_attempts",
        PRIORITY "priority",
        DEPTH "depth",
        STATE "state",
        UNIQUE_KEY "unique_key",
        ARGS "args",
        RESULT "result",
    }
}

pub use crate::queue::leased::table as lease;

pub mod failure {
    use std::sync::atomic::AtomicU64;

    /// The table, and the generation of its definition, whose columns were found to be these.
    pub static CHECKED: AtomicU64 = AtomicU64::new(0);
    crate::columns! {
        JOB_ID "job_id",
        ATTEMPT "attempt",
        QUEUE_ID "queue_id",
        STARTED_AT "started_at",
        FAILED_AT "failed_at",
        SQLSTATE "sqlstate",
        MESSAGE "message",
        DETAIL "detail",
        HINT "hint",
        CONTEXT "context",
        ENQUEUED_AT "enqueued_at",
    }
}

pub mod checkpoint {
    use std::sync::atomic::AtomicU64;

    /// The table, and the generation of its definition, whose columns were found to be these.
    pub static CHECKED: AtomicU64 = AtomicU64::new(0);
    crate::columns! {
        JOB_ID "job_id",
        QUEUE_ID "queue_id",
        STATE "state",
        ENQUEUED_AT "enqueued_at",
    }
}

pub mod job_log {
    use std::sync::atomic::AtomicU64;

    /// The table, and the generation of its definition, whose columns were found to be these.
    pub static CHECKED: AtomicU64 = AtomicU64::new(0);
    crate::columns! {
        JOB_ID "job_id",
        LINE "line",
        ATTEMPT "attempt",
        QUEUE_ID "queue_id",
        SAID_AT "said_at",
        LEVEL "level",
        MESSAGE "message",
        ENQUEUED_AT "enqueued_at",
    }
}

pub mod rotation {
    use std::sync::atomic::AtomicU64;

    /// The table, and the generation of its definition, whose columns were found to be these.
    pub static CHECKED: AtomicU64 = AtomicU64::new(0);
    crate::columns! {
        POOL "pool",
        MEMBER "member",
        REMOVES_AFTER "removes_after",
        IS_FREE "is_free",
    }
}
