//! Background workers: registering, starting, connecting.

use std::ffi::CStr;
use std::time::Duration;

use pgrx::pg_sys;

use crate::pg::{major, worker_session};

/// A process that is a worker: its name in pg_stat_activity and its C entry point.
pub struct WorkerProcess {
    pub name: &'static str,
    pub entry: &'static str,
}

/// Defines the C entry point of a worker's process: `fn body(arg: usize)`.
#[macro_export]
macro_rules! worker_entry {
    ($symbol:ident, $body:path) => {
        #[no_mangle]
        pub extern "C-unwind" fn $symbol(arg: pgrx::pg_sys::Datum) {
            // SAFETY: at the edge; nothing here is left to drop.
            unsafe { $crate::pg::panics::edge(move || $body(arg.value())) }
        }
    };
}

fn copy(target: &mut [std::ffi::c_char], value: &str) {
    let room = target.len() - 1;
    for (cell, byte) in target[..room].iter_mut().zip(value.bytes()) {
        *cell = byte as std::ffi::c_char;
    }
}

fn describe(process: &WorkerProcess, title: &str, arg: usize) -> pg_sys::BackgroundWorker {
    // SAFETY: plain data; zero is valid for each field.
    let mut worker: pg_sys::BackgroundWorker = unsafe { std::mem::zeroed() };
    copy(&mut worker.bgw_name, title);
    copy(&mut worker.bgw_type, process.name);
    copy(&mut worker.bgw_library_name, "pushy");
    copy(&mut worker.bgw_function_name, process.entry);
    worker.bgw_flags =
        (pg_sys::BGWORKER_SHMEM_ACCESS | pg_sys::BGWORKER_BACKEND_DATABASE_CONNECTION) as i32;
    // Not on a standby before it is promoted.
    worker.bgw_start_time = pg_sys::BgWorkerStartTime::BgWorkerStart_RecoveryFinished;
    worker.bgw_restart_time = pg_sys::BGW_NEVER_RESTART;
    worker.bgw_main_arg = pg_sys::Datum::from(arg);
    worker
}

/// Registers a worker that lives as long as the server; while preloading. `restart`: after which time
/// it is started again if it failed.
pub fn register_static(process: &WorkerProcess, title: &str, restart: Duration) {
    let mut worker = describe(process, title, 0);
    worker.bgw_restart_time = restart.as_secs() as i32;
    // SAFETY: the structure is copied.
    unsafe { pg_sys::RegisterBackgroundWorker(&mut worker) }
}

/// A worker started by this process.
pub struct Handle(*mut pg_sys::BackgroundWorkerHandle);

/// Where a started worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    NotYetStarted,
    Started,
    Stopped,
}

/// Starts a worker; this process's latch is set when it starts and stops. None: no slot is free.
pub fn start(process: &WorkerProcess, title: &str, arg: usize) -> Option<Handle> {
    let mut worker = describe(process, title, arg);
    let mut handle = std::ptr::null_mut();
    // SAFETY: the structure is copied; the handle is palloc'd in a context that lives as long as the
    // process, and freed by Drop.
    unsafe {
        worker.bgw_notify_pid = pg_sys::MyProcPid;
        let context = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
        let started = pg_sys::RegisterDynamicBackgroundWorker(&mut worker, &mut handle);
        pg_sys::MemoryContextSwitchTo(context);
        (started && !handle.is_null()).then(|| Handle(handle))
    }
}

impl Handle {
    pub fn status(&self) -> Status {
        let mut pid = 0;
        // SAFETY: a live handle.
        match unsafe { pg_sys::GetBackgroundWorkerPid(self.0, &mut pid) } {
            pg_sys::BgwHandleStatus::BGWH_STARTED => Status::Started,
            pg_sys::BgwHandleStatus::BGWH_NOT_YET_STARTED => Status::NotYetStarted,
            _ => Status::Stopped,
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: palloc'd by RegisterDynamicBackgroundWorker, and not used after this.
        unsafe { pg_sys::pfree(self.0.cast()) }
    }
}

/// Connects to no database: shared catalogs only.
pub fn connect_shared() {
    worker_session::take_deadlines();
    // SAFETY: once, at the start of a worker.
    unsafe {
        pg_sys::BackgroundWorkerInitializeConnection(std::ptr::null(), std::ptr::null(), 0);
    }
    worker_session::set_up();
}

/// Connects to a database as `role`, or as the bootstrap superuser (None). A failure is FATAL.
pub fn connect(database: u32, role: Option<u32>) {
    let configured = worker_session::configured();
    worker_session::take_deadlines();
    // SAFETY: once, at the start of a worker.
    unsafe {
        pg_sys::BackgroundWorkerInitializeConnectionByOid(
            pg_sys::Oid::from(database),
            pg_sys::Oid::from(role.unwrap_or(0)),
            major::BYPASS_ROLELOGINCHECK,
        );
    }
    match role {
        Some(role) => {
            worker_session::set_up_for_role(database, pg_sys::Oid::from(role), &configured);
        }
        None => worker_session::set_up(),
    }
}

/// Whether this worker's session has rights from its connect that its role would not be given now. In a transaction.
pub fn is_outdated() -> bool {
    worker_session::is_outdated()
}

/// Whether this process applies changes of another server, or copies a table from there (logical replication).
pub fn is_logical() -> bool {
    extern "C-unwind" {
        /// Without the guard of the bindings: it raises nothing, and is asked for each row.
        fn IsLogicalWorker() -> bool;
    }
    // SAFETY: reads a variable of the process.
    unsafe { IsLogicalWorker() }
}

/// Shows what a worker does in pg_stat_activity; None: idle.
pub fn show_activity(activity: Option<&CStr>) {
    use pg_sys::BackendState::{STATE_IDLE, STATE_RUNNING};
    extern "C-unwind" {
        fn pgstat_report_activity(state: pg_sys::BackendState::Type, text: *const std::ffi::c_char);
    }
    // SAFETY: the text is copied into shared memory; raises nothing: no guard.
    unsafe {
        match activity {
            Some(text) => pgstat_report_activity(STATE_RUNNING, text.as_ptr()),
            // Without a text the last one would stand there.
            None => pgstat_report_activity(STATE_IDLE, c"".as_ptr()),
        }
    }
}

/// Sends this process's counts of rows written to the statistics, so that autovacuum learns of them.
/// Outside a transaction. The server takes them once a second: answers when to come again with those that it has not taken.
pub fn report_statistics() -> Option<Duration> {
    // SAFETY: outside a transaction.
    let left_ms = unsafe { pg_sys::pgstat_report_stat(false) };
    (left_ms > 0).then_some(Duration::from_secs(1))
}

/// The same, whatever the server has taken lately: its clock stands still between transactions.
pub fn report_all_statistics() {
    // SAFETY: outside a transaction.
    unsafe { pg_sys::pgstat_report_stat(true) };
}

/// True while pg_upgrade runs the server.
pub fn is_binary_upgrade() -> bool {
    // SAFETY: reads a global.
    unsafe { pg_sys::IsBinaryUpgrade }
}

pub fn my_pid() -> i32 {
    // SAFETY: reads a global.
    unsafe { pg_sys::MyProcPid }
}
