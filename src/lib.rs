//! Pushy makes PostgreSQL push: a change becomes a notice, a notice or a call becomes a job, and jobs
//! run inside the server. This file is the table of contents.
//!
//! Functions that are marked `link_section = "commit_path"` run in a commit with a notice and lie side by side in the library:
//! with many sessions on few cores none finds the code of the one before it in the processor's caches, so what a commit costs is
//! how many pages it touches. To see which: valgrind --tool=callgrind --dump-instr=yes postgres --single, with a procedure that
//! inserts and commits.

mod channel;
mod errors;
mod gateway;
mod gateway_worker;
mod installation;
mod job;
mod log;
mod notice;
mod obstacle;
mod pg;
mod queue;
mod queue_run;
mod relay;
mod settings;
mod shared;
mod watch;
mod worker;

/// What hangs on queues. Subscriptions are the last, because they want their queues and channels.
static ON_QUEUES: [queue::dependents::Dependents; 3] = [
    watch::DEPENDENTS,
    channel::DEPENDENTS,
    log::subscription::users::DEPENDENTS,
];
static JOBS_OF_QUEUES: queue::dependents::Jobs = job::OF_QUEUES;
/// Numbers that a dump has are not given out.
static NUMBERS: installation::NumbersGiven = installation::NumbersGiven {
    drawn_from: job::position::drawn_from,
    pass_over: job::position::pass_over,
    subscription: log::subscription::next_number,
    watch: watch::next_number,
};
/// What names channels.
static ON_CHANNELS: [channel::users::Users; 2] = [
    watch::CHANNEL_USERS,
    log::subscription::users::CHANNEL_USERS,
];
/// What the end of a transaction asks of jobs and queues.
static ABOVE_PENDING: shared::pending::Above = shared::pending::Above {
    queue_name: queue::cache::name_of,
    cancel_to_prepare: job::moves::cancel::cancel_to_prepare,
    publish_left_out: queue::control_channel::publish_left_out,
    leave_marker: log::leave_marker,
};

pgrx::extension_sql_file!("../sql/schema.sql", name = "schema", bootstrap);
pgrx::extension_sql_file!(
    "../sql/channel.sql",
    name = "channel",
    requires = ["schema"]
);
pgrx::extension_sql_file!("../sql/queues.sql", name = "queues", requires = ["channel"]);
pgrx::extension_sql_file!("../sql/jobs.sql", name = "jobs", requires = ["queues"]);
pgrx::extension_sql_file!("../sql/leases.sql", name = "leases", requires = ["jobs"]);
pgrx::extension_sql_file!(
    "../sql/watches.sql",
    name = "watches",
    requires = ["leases"]
);
pgrx::extension_sql_file!("../sql/log.sql", name = "log", requires = ["watches"]);
pgrx::extension_sql_file!("../sql/views.sql", name = "views", requires = ["log"]);
pgrx::extension_sql_file!("../sql/gateway.sql", name = "gateway", requires = ["views"]);
pgrx::extension_sql_file!(
    "../sql/write_guard.sql",
    name = "write_guard",
    requires = ["gateway"]
);
pgrx::extension_sql_file!(
    "../sql/installation.sql",
    name = "installation",
    requires = ["write_guard"]
);
pgrx::extension_sql_file!("../sql/grants.sql", name = "grants", finalize);

/// Called when the library is loaded: by the postmaster (preload), or by one backend.
#[pgrx::pg_guard]
pub extern "C-unwind" fn _PG_init() {
    pg::panics::init();
    let preloading = pg::shmem::is_preloading();
    settings::init(preloading);
    watch::init();
    notice::buffer::init();
    // The last of those that act before a commit: the others may enqueue.
    shared::pending::init();
    if preloading {
        shared::request();
        worker::init();
        notice::listening::init();
        watch::init_statements();
        installation::init();
    }
}
