//! Signals of workers: what each does, and who sent it.

use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

use pgrx::pg_sys;

use crate::pg::insistence::{self, Interruption};
use crate::pg::major::pqsignal;

// Declared here for their addresses: the bindings wrap functions in a guard that a handler must not use.
extern "C-unwind" {
    fn die(signal: c_int);
    fn StatementCancelHandler(signal: c_int);
    fn SignalHandlerForConfigReload(signal: c_int);
}

/// Why a worker's process ended, as its signal handlers know it. Zero: it does not know, so whatever
/// it ran is the suspect.
pub const MARK_NONE: u32 = 0;
/// The server took it down: another process crashed, an immediate or fast stop, a request of ours.
pub const MARK_BYSTANDER: u32 = 1;
/// pg_terminate_backend or kill from outside.
pub const MARK_TERMINATED: u32 = 2;
/// It did not stop when told, and was ended for that.
pub const MARK_OVERRAN: u32 = 3;

/// Where the handlers of this process leave their mark; null: nowhere.
static MARK: AtomicPtr<AtomicU32> = AtomicPtr::new(std::ptr::null_mut());
/// Set when Pushy itself asked this process to leave: SIGTERM is charged to no job then.
static EXPECTED: AtomicPtr<AtomicBool> = AtomicPtr::new(std::ptr::null_mut());

/// Lets the handlers mark `mark`, and see in `expected` whether a SIGTERM was asked for by Pushy. Both
/// stay mapped for the life of the process.
pub fn mark_in(mark: &'static AtomicU32, expected: &'static AtomicBool) {
    EXPECTED.store(std::ptr::from_ref(expected).cast_mut(), Ordering::SeqCst);
    MARK.store(std::ptr::from_ref(mark).cast_mut(), Ordering::SeqCst);
}

fn is_expected() -> bool {
    let cell = EXPECTED.load(Ordering::SeqCst);
    // SAFETY: mark_in took a static reference.
    !cell.is_null() && unsafe { (*cell).load(Ordering::SeqCst) }
}

fn leave_mark(value: u32) {
    let cell = MARK.load(Ordering::SeqCst);
    if !cell.is_null() {
        // SAFETY: mark_in took a static reference. Nothing but an atomic store: may run in a handler.
        unsafe { (*cell).store(value, Ordering::SeqCst) };
    }
}

/// Whether this process was ended because what it ran did not stop when told.
pub fn has_overrun() -> bool {
    let cell = MARK.load(Ordering::SeqCst);
    // SAFETY: as above.
    !cell.is_null() && unsafe { (*cell).load(Ordering::SeqCst) == MARK_OVERRAN }
}

/// For a process that leaves because the postmaster is gone: no signal says so.
pub fn mark_if_orphaned() {
    extern "C-unwind" {
        fn PostmasterIsAliveInternal() -> bool;
    }
    // SAFETY: reads a pipe of this process.
    if unsafe { !PostmasterIsAliveInternal() } {
        leave_mark(MARK_BYSTANDER);
    }
}

unsafe extern "C" fn on_terminate(
    signal: c_int,
    info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    // A handler of a job that ends its own session is charged; the postmaster's SIGTERM is not.
    let sender = (*info).si_pid();
    if sender == libc::getpid() {
        // Nobody's wish but the job's, also where it was to leave anyway.
    } else if sender == pg_sys::PostmasterPid || is_expected() {
        leave_mark(MARK_BYSTANDER);
    } else {
        leave_mark(MARK_TERMINATED);
    }
    die(signal);
}

unsafe extern "C" fn on_cancel(
    signal: c_int,
    info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    match insistence::strike((*info).si_code == libc::SI_TIMER) {
        Interruption::Nothing => {}
        Interruption::Interrupt => StatementCancelHandler(signal),
        Interruption::End => {
            leave_mark(MARK_OVERRAN);
            die(signal);
        }
    }
}

unsafe extern "C" fn on_quit(
    _signal: c_int,
    _info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    leave_mark(MARK_BYSTANDER);
    // As SignalHandlerForCrashExit: no callbacks, shared memory may be corrupt.
    libc::_exit(2);
}

type InfoHandler = unsafe extern "C" fn(c_int, *mut libc::siginfo_t, *mut libc::c_void);

unsafe fn install(signal: c_int, handler: InfoHandler) {
    let mut action: libc::sigaction = std::mem::zeroed();
    action.sa_sigaction = handler as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    libc::sigemptyset(&mut action.sa_mask);
    libc::sigaction(signal, &action, std::ptr::null_mut());
}

/// A reload that came before our handler was there is lost: StartBackgroundWorker ignores SIGHUP first,
/// which discards a pending one. So each worker reads its settings once at the start.
unsafe fn ask_for_reload() {
    *std::ptr::addr_of_mut!(pg_sys::ConfigReloadPending) = 1;
}

/// Handlers of a worker that runs no user code: SIGTERM ends it at the next interrupt check, SIGHUP
/// asks for the configuration to be read. Then lets signals in.
pub fn init_worker() {
    // SAFETY: handlers are the server's own; signals are still blocked here.
    unsafe {
        pqsignal(libc::SIGHUP, SignalHandlerForConfigReload);
        pqsignal(libc::SIGTERM, die);
        pg_sys::BackgroundWorkerUnblockSignals();
        ask_for_reload();
    }
}

/// The same for an executor: SIGINT cancels the running job, again and again if need be, and SIGTERM and SIGQUIT leave a mark.
pub fn init_executor() {
    // SAFETY: as above; ours do nothing that is not async-signal-safe, and chain to the server's.
    unsafe {
        pqsignal(libc::SIGHUP, SignalHandlerForConfigReload);
        install(libc::SIGINT, on_cancel);
        install(libc::SIGTERM, on_terminate);
        install(libc::SIGQUIT, on_quit);
        pg_sys::BackgroundWorkerUnblockSignals();
        ask_for_reload();
    }
}

/// Cancels what a process runs. May be called in commit callbacks.
pub fn cancel(pid: i32) {
    if pid > 0 {
        // SAFETY: a signal to a process of this server; a stale pid means a lost cancel at worst of
        // a process of the same user.
        unsafe {
            libc::kill(pid, libc::SIGINT);
        }
    }
}

/// Ends a process.
pub fn terminate(pid: i32) {
    if pid > 0 {
        // SAFETY: as above.
        unsafe {
            libc::kill(pid, libc::SIGTERM);
        }
    }
}
