//! Every setting: name, default, unit, who may change it.

use std::ffi::CString;

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};
use pushy_core::capacity::{Limits, MOST_AS_A_RULE, MOST_RESERVED};

use crate::errors::{Error, Result};

static ENABLED: GucSetting<bool> = GucSetting::<bool>::new(true);
static DATABASES: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"*"));
static MAX_EXECUTORS_SETTING: GucSetting<i32> = GucSetting::<i32>::new(2);
static RESERVED_EXECUTORS: GucSetting<i32> = GucSetting::<i32>::new(2);
static MAX_EXECUTORS_PER_ROLE: GucSetting<i32> = GucSetting::<i32>::new(0);
static MAX_JOB_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(0);
static MAX_QUEUES_PER_ROLE: GucSetting<i32> = GucSetting::<i32>::new(0);
static MAX_CHANNELS_PER_ROLE: GucSetting<i32> = GucSetting::<i32>::new(10_000);
static MAX_TICKETS_PER_ROLE: GucSetting<i32> = GucSetting::<i32>::new(10_000);
static GATEWAY_LISTEN: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static GATEWAY_OPTIONS: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static GATEWAY_PROGRAM: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static GATEWAY_MEMORY: GucSetting<i32> = GucSetting::<i32>::new(1024);
static EXECUTOR_LINGER: GucSetting<i32> = GucSetting::<i32>::new(60);
static MAX_DEPTH: GucSetting<i32> = GucSetting::<i32>::new(16);
static SYNCHRONOUS_COMMIT: GucSetting<bool> = GucSetting::<bool>::new(false);
static MAX_NOTICES: GucSetting<i32> = GucSetting::<i32>::new(100_000);
static MAX_PAYLOAD: GucSetting<i32> = GucSetting::<i32>::new(256 << 10);
static NOTICE_KEEP: GucSetting<i32> = GucSetting::<i32>::new(3600);
static LOG_KEEP: GucSetting<i32> = GucSetting::<i32>::new(3600);
static LOG_MAX_SIZE: GucSetting<i32> = GucSetting::<i32>::new(256);
static LOG_MAX_SIZE_PER_ROLE: GucSetting<i32> = GucSetting::<i32>::new(0);
static MAX_QUEUES: GucSetting<i32> = GucSetting::<i32>::new(4096);

/// Registers the settings. `preloading`: those that need a restart exist only then.
pub fn init(preloading: bool) {
    GucRegistry::define_bool_guc(
        c"pushy.enabled",
        c"Runs jobs; off stops all executors after their running job.",
        c"Enqueueing works all the same; what goes by relay waits in the event log.",
        &ENABLED,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"pushy.databases",
        c"Databases in which jobs run: names separated by commas, or * for all.",
        c"Other databases can hold the extension; their jobs wait.",
        &DATABASES,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"pushy.max_executors",
        c"Executors at a time in the whole cluster.",
        c"Each takes a slot of max_worker_processes; one more each for the launcher, a scheduler at work and a relay.",
        &MAX_EXECUTORS_SETTING,
        0,
        MOST_AS_A_RULE as i32,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"pushy.reserved_executors",
        c"Executors beyond pushy.max_executors for roles that have none, while long jobs of others hold as many.",
        c"Each takes a slot of max_worker_processes while it is there. A role gets one of them at most.",
        &RESERVED_EXECUTORS,
        0,
        MOST_RESERVED as i32,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"pushy.max_executors_per_role",
        c"Executors at a time of one role, in all databases; 0: no bound but pushy.max_executors.",
        c"Its further jobs wait.",
        &MAX_EXECUTORS_PER_ROLE,
        0,
        MOST_AS_A_RULE as i32,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"pushy.max_job_timeout",
        c"The longest timeout that a job may have; 0: none is too long.",
        c"A longer one is refused where it is declared; jobs and queues that have one already are cut short after this time.",
        &MAX_JOB_TIMEOUT,
        0,
        i32::MAX,
        GucContext::Suset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"pushy.max_queues_per_role",
        c"Queues that a role may own in the whole cluster; 0: one for four that are free in it.",
        c"That share is the bound in any case, but for superusers, who have none. Counted are those of databases in which Pushy has worked since the server started.",
        &MAX_QUEUES_PER_ROLE,
        0,
        1_000_000,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"pushy.max_channels_per_role",
        c"Channels that the subscriptions of a role in a database may name, one without a list counting as one, and channels that it may own; 0: no bound.",
        c"The relay and each reader go through them. Superusers have no such bound.",
        &MAX_CHANNELS_PER_ROLE,
        0,
        i32::MAX,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"pushy.max_tickets_per_role",
        c"Tickets of a role that were not redeemed yet; 0: no bound.",
        c"Superusers have no such bound.",
        &MAX_TICKETS_PER_ROLE,
        0,
        i32::MAX,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"pushy.gateway_listen",
        c"Where the gateway of a database listens, such as 127.0.0.1:8432; empty: there is none.",
        c"Set it by ALTER DATABASE: it counts there only, at once.",
        &GATEWAY_LISTEN,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"pushy.gateway_options",
        c"Settings of that gateway, such as origins=https://app.example.com, with spaces between them.",
        c"Set it by ALTER DATABASE. pushy-gateway --help lists them.",
        &GATEWAY_OPTIONS,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"pushy.gateway_memory",
        c"The most memory that the program of that gateway may have.",
        c"One that wants more ends, and is started again.",
        &GATEWAY_MEMORY,
        64,
        1 << 20,
        GucContext::Suset,
        GucFlags::UNIT_MB,
    );
    GucRegistry::define_string_guc(
        c"pushy.gateway_program",
        c"The file of the program; empty: pushy-gateway beside the server's own.",
        c"The server runs it as the account that it runs as itself.",
        &GATEWAY_PROGRAM,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"pushy.executor_linger",
        c"How long an executor without work stays, so that the next job starts at once.",
        c"0 ends it when nothing is left to do.",
        &EXECUTOR_LINGER,
        0,
        86_400,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_int_guc(
        c"pushy.max_depth",
        c"How many jobs may cause each other in a row before the next is discarded.",
        c"A handler that enqueues is one step.",
        &MAX_DEPTH,
        1,
        1_000,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"pushy.max_notices",
        c"Notices that watches send by NOTIFY in one transaction.",
        c"The server keeps them in memory until the commit; past this many one last notice per channel, \"op\":\"resync\", says how many were left out.",
        &MAX_NOTICES,
        1,
        i32::MAX,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"pushy.max_payload",
        c"The longest payload that a watch makes of a change.",
        c"A longer one is left out: its notice, or its job, says so and has the key.",
        &MAX_PAYLOAD,
        8,
        // With its header it must be less than 1 GB.
        (1 << 20) - 1,
        GucContext::Suset,
        GucFlags::UNIT_KB,
    );
    GucRegistry::define_int_guc(
        c"pushy.notice_keep",
        c"How long pushy.notice() can read the payload of a notice that was too long for NOTIFY.",
        c"Counts from the change.",
        &NOTICE_KEEP,
        1,
        i32::MAX / 2,
        GucContext::Suset,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_bool_guc(
        c"pushy.synchronous_commit",
        c"Waits for the disk when a batch of jobs commits.",
        c"Off loses nothing: after a crash the effects of a job and its completion are both there or both not, and in that case it runs again.",
        &SYNCHRONOUS_COMMIT,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"pushy.log_keep",
        c"How long notices delivered by relay can be read again.",
        c"Subscriptions that come later are to resync.",
        &LOG_KEEP,
        10,
        31_536_000,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_int_guc(
        c"pushy.log_max_size",
        c"Size of a database's event log at which its oldest part is emptied, read or not.",
        c"While the relay may not run, the part that is written to can grow to that size too; then notices are not logged, and all readers are to resync.",
        &LOG_MAX_SIZE,
        1,
        1_048_576,
        GucContext::Sighup,
        GucFlags::UNIT_MB,
    );
    GucRegistry::define_int_guc(
        c"pushy.log_max_size_per_role",
        c"How much of a database's event log the notices of one role may fill; 0: no bound.",
        c"Past it the role's notices by the relay are refused until the log's oldest part is emptied, so that they push out nobody else's. Superusers have no such bound.",
        &LOG_MAX_SIZE_PER_ROLE,
        0,
        1_048_576,
        GucContext::Suset,
        GucFlags::UNIT_MB,
    );
    if preloading {
        GucRegistry::define_int_guc(
            c"pushy.max_queues",
            c"Queues in the whole cluster that shared memory has slots for.",
            c"About 1.9 kB each.",
            &MAX_QUEUES,
            64,
            1_000_000,
            GucContext::Postmaster,
            GucFlags::default(),
        );
    }
    crate::pg::guc::reserve_prefix(c"pushy");
}

pub fn enabled() -> bool {
    ENABLED.get()
}

/// Whether jobs run in the database of this name.
pub fn runs_in(database: &str) -> bool {
    let Some(list) = DATABASES.get() else {
        return false;
    };
    list.to_bytes()
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .any(|name| name == b"*" || name == database.as_bytes())
}

/// The setting as written, for messages.
pub fn databases() -> String {
    DATABASES
        .get()
        .map_or_else(String::new, |list| list.to_string_lossy().into_owned())
}

/// What bounds executors, for `pushy_core::capacity`.
pub fn capacity() -> Limits {
    Limits {
        most: max_executors(),
        reserve: reserved_executors(),
        per_role: max_executors_per_role(),
    }
}

pub fn max_executors() -> usize {
    MAX_EXECUTORS_SETTING.get() as usize
}

pub fn reserved_executors() -> usize {
    RESERVED_EXECUTORS.get() as usize
}

/// 0: no bound.
pub fn max_executors_per_role() -> usize {
    MAX_EXECUTORS_PER_ROLE.get() as usize
}

/// 0: none.
pub fn max_job_timeout_us() -> i64 {
    i64::from(MAX_JOB_TIMEOUT.get()) * 1000
}

/// A timeout, 0 being none, as pushy.max_job_timeout lets it be.
pub fn capped_timeout_us(timeout_us: i64) -> i64 {
    match (timeout_us, max_job_timeout_us()) {
        (_, 0) => timeout_us,
        (0, most) => most,
        (_, most) => timeout_us.min(most),
    }
}

/// Refuses a timeout that pushy.max_job_timeout does not allow.
pub fn check_timeout(timeout_us: i64) -> Result<()> {
    if capped_timeout_us(timeout_us) == timeout_us {
        Ok(())
    } else {
        Err(Error::timeout_too_long(timeout_us, max_job_timeout_us()))
    }
}

/// 0: no bound but the share that is free.
pub fn max_queues_per_role() -> i64 {
    i64::from(MAX_QUEUES_PER_ROLE.get())
}

fn text_of(setting: &GucSetting<Option<CString>>) -> String {
    let text = setting.get();
    text.map(|text| text.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// Where the gateway of this database listens; empty: nowhere.
pub fn gateway_listen() -> String {
    text_of(&GATEWAY_LISTEN)
}

pub fn gateway_options() -> String {
    text_of(&GATEWAY_OPTIONS)
}

/// Its file; empty: beside the server's own.
pub fn gateway_program() -> String {
    text_of(&GATEWAY_PROGRAM)
}

/// In bytes.
pub fn gateway_memory() -> u64 {
    (GATEWAY_MEMORY.get() as u64) << 20
}

/// Tickets of a role that wait to be redeemed; 0: any number.
pub fn max_tickets_per_role() -> i64 {
    i64::from(MAX_TICKETS_PER_ROLE.get())
}

/// 0: no bound.
pub fn max_channels_per_role() -> i64 {
    i64::from(MAX_CHANNELS_PER_ROLE.get())
}

pub fn executor_linger() -> std::time::Duration {
    std::time::Duration::from_secs(EXECUTOR_LINGER.get() as u64)
}

pub fn max_depth() -> i32 {
    MAX_DEPTH.get()
}

pub fn synchronous_commit() -> bool {
    SYNCHRONOUS_COMMIT.get()
}

pub fn max_notices() -> usize {
    MAX_NOTICES.get() as usize
}

/// Bytes.
pub fn max_payload() -> usize {
    (MAX_PAYLOAD.get() as usize) << 10
}

pub fn notice_keep_us() -> i64 {
    i64::from(NOTICE_KEEP.get()) * 1_000_000
}

pub fn log_keep() -> std::time::Duration {
    std::time::Duration::from_secs(LOG_KEEP.get() as u64)
}

/// Bytes.
pub fn log_max_size() -> i64 {
    i64::from(LOG_MAX_SIZE.get()) << 20
}

/// Bytes; 0: no bound.
pub fn log_max_size_per_role() -> i64 {
    i64::from(LOG_MAX_SIZE_PER_ROLE.get()) << 20
}

pub fn max_queues() -> i32 {
    MAX_QUEUES.get()
}
