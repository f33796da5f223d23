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
    use std::sync::atomic::AtomicU32;

    /// OID of the table whose columns were found to be these.
    pub static CHECKED: AtomicU32 = AtomicU32::new(0);
    pub const COLUMNS: &[&str] = &[
        "id",
        "position",
        "run_at",
        "enqueued_at",
        "timeout_us",
        "caused_by",
        "queue_id",
        "enqueued_by",
        "attempt",
        "max_attempts",
        "priority",
        "depth",
        "strikes",
        "state",
        "alone",
        "unique_key",
        "args",
    ];
    pub const ID: i32 = 1;
    pub const POSITION: i32 = 2;
    pub const RUN_AT: i32 = 3;
    pub const ENQUEUED_AT: i32 = 4;
    pub const TIMEOUT_US: i32 = 5;
    pub const CAUSED_BY: i32 = 6;
    pub const ENQUEUED_BY: i32 = 8;
    pub const ATTEMPT: i32 = 9;
    pub const MAX_ATTEMPTS: i32 = 10;
    pub const DEPTH: i32 = 12;
    pub const STRIKES: i32 = 13;
    pub const ALONE: i32 = 15;
    pub const UNIQUE_KEY: i32 = 16;
    pub const ARGS: i32 = 17;
}

pub mod finished_job {
    use std::sync::atomic::AtomicU32;

    /// OID of the table whose columns were found to be these.
    pub static CHECKED: AtomicU32 = AtomicU32::new(0);
    pub const COLUMNS: &[&str] = &[
        "id",
        "expires_at",
        "run_at",
        "enqueued_at",
        "started_at",
        "finished_at",
        "timeout_us",
        "caused_by",
        "queue_id",
        "enqueued_by",
        "attempt",
        "max_attempts",
        "priority",
        "depth",
        "state",
        "unique_key",
        "args",
        "result",
    ];
}
