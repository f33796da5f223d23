//! A process that goes on after a cancel is cancelled again, and in the end terminated.
//!
//! A handler can catch the error that a cancel raises and go on: `EXCEPTION WHEN query_canceled`, `except Exception` in
//! PL/Python. So the first SIGINT of a run starts a timer, which sends this process another one every `AGAIN_MS`, and after
//! `PATIENCE_MS` the process takes the SIGTERM of an administrator, which no handler can catch. The timer is one of POSIX
//! because timer_settime may be called in a signal handler, and the server's own timers may not. It signals this process only,
//! so that nothing strikes any more once it has been stopped: the next job is never meant.
//!
//! A handler that never looks (CHECK_FOR_INTERRUPTS: a loop in C, or in Perl or Python without a query) cannot be ended
//! without a crash of the server, by anybody; its executor is lost for others until it returns.

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicPtr, AtomicU32, Ordering};

use crate::errors::{Error, SqlState};
use crate::pg::clock;
use crate::pg::timeout::{self, Deadline};
use crate::pg::value::Timestamp;

/// Between two interrupts.
const AGAIN_MS: u32 = 250;
/// So long after its timeout or its cancel a run may go on before its process is ended.
const PATIENCE_MS: u32 = 5_000;

/// What a SIGINT is to do.
pub(in crate::pg) enum Interruption {
    /// It came too late.
    Nothing,
    Interrupt,
    /// The run had its time to stop.
    End,
}

/// What may be interrupted is running.
static OPEN: AtomicBool = AtomicBool::new(false);
/// The run was interrupted, by whomever.
static STRUCK: AtomicBool = AtomicBool::new(false);
/// When (µs) the run must be over; 0: never.
static DEADLINE: AtomicI64 = AtomicI64::new(0);
/// The timer is running.
static INSISTING: AtomicBool = AtomicBool::new(false);
/// The run has been told to stop, by its deadline or its cancel, and how often again since the first interrupt.
static IS_INTERRUPTED: AtomicBool = AtomicBool::new(false);
static AGAIN: AtomicU32 = AtomicU32::new(0);

/// The job that runs in this process, and the last that was to be cancelled where it runs.
static JOB: AtomicPtr<AtomicI64> = AtomicPtr::new(std::ptr::null_mut());
static CANCELLED: AtomicPtr<AtomicI64> = AtomicPtr::new(std::ptr::null_mut());
static TIMER: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

/// In a process that runs jobs, before its signals are let in. False: the system has no timer for it.
pub fn init(job: &'static AtomicI64, cancelled: &'static AtomicI64) -> bool {
    JOB.store(std::ptr::from_ref(job).cast_mut(), Ordering::SeqCst);
    CANCELLED.store(std::ptr::from_ref(cancelled).cast_mut(), Ordering::SeqCst);
    // SAFETY: plain data, zero is valid for each field; a timer of this process, which goes with it.
    unsafe {
        let mut event: libc::sigevent = std::mem::zeroed();
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = libc::SIGINT;
        let mut timer: libc::timer_t = std::mem::zeroed();
        let made = libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer) == 0;
        TIMER.store(timer, Ordering::SeqCst);
        made
    }
}

fn load(cell: &AtomicPtr<AtomicI64>) -> i64 {
    let cell = cell.load(Ordering::Relaxed);
    // SAFETY: init took a static reference, or nobody did.
    unsafe { cell.as_ref() }.map_or(0, |cell| cell.load(Ordering::SeqCst))
}

fn is_interrupted() -> bool {
    let deadline = DEADLINE.load(Ordering::Relaxed);
    let job = load(&JOB);
    let interrupted = IS_INTERRUPTED.load(Ordering::Relaxed)
        || (deadline != 0 && clock::now().0 >= deadline)
        || (job != 0 && load(&CANCELLED) == job);
    IS_INTERRUPTED.store(interrupted, Ordering::Relaxed);
    interrupted
}

fn set_timer(ms: u32) {
    let interval = libc::timespec {
        tv_sec: 0,
        tv_nsec: i64::from(ms) * 1_000_000,
    };
    let times = libc::itimerspec {
        it_interval: interval,
        it_value: interval,
    };
    // SAFETY: the timer of `init`; may be called in a signal handler (signal-safety(7)).
    unsafe {
        libc::timer_settime(
            TIMER.load(Ordering::Relaxed),
            0,
            &times,
            std::ptr::null_mut(),
        );
    }
}

/// In the handler of SIGINT. `again`: our timer sent it.
pub(in crate::pg) fn strike(again: bool) -> Interruption {
    if !again {
        STRUCK.store(true, Ordering::Relaxed);
        if OPEN.load(Ordering::Relaxed) && !INSISTING.swap(true, Ordering::Relaxed) {
            AGAIN.store(0, Ordering::Relaxed);
            is_interrupted();
            set_timer(AGAIN_MS);
        }
        return Interruption::Interrupt;
    }
    if !OPEN.load(Ordering::Relaxed) {
        return Interruption::Nothing;
    }
    if !is_interrupted() {
        // Somebody has cancelled what the handler did just then (pg_cancel_backend), and once is what was asked for.
        stop_timer();
        return Interruption::Nothing;
    }
    if AGAIN.fetch_add(1, Ordering::Relaxed) < PATIENCE_MS / AGAIN_MS {
        Interruption::Interrupt
    } else {
        Interruption::End
    }
}

fn stop_timer() {
    set_timer(0);
    INSISTING.store(false, Ordering::Relaxed);
}

/// The run of user code under a deadline, until this is dropped.
pub struct Run(Option<Deadline>);

/// Begins a run that is told to stop after `timeout_us` (0: never), counted from `now` by the server's clock, and when it
/// is cancelled.
pub fn begin(timeout_us: i64, now: Timestamp) -> Run {
    STRUCK.store(false, Ordering::Relaxed);
    IS_INTERRUPTED.store(false, Ordering::Relaxed);
    let deadline = match timeout_us {
        0 => 0,
        _ => timeout::deadline(timeout_us, now).0,
    };
    DEADLINE.store(deadline, Ordering::Relaxed);
    // Last: an interrupt before this is not the run's.
    OPEN.store(true, Ordering::Release);
    Run((timeout_us > 0).then(|| timeout::arm(timeout_us, now)))
}

impl Run {
    pub fn is_over_time(&self) -> bool {
        self.0.as_ref().is_some_and(Deadline::has_passed)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        OPEN.store(false, Ordering::Release);
        if INSISTING.load(Ordering::Relaxed) {
            stop_timer();
        }
    }
}

/// The error of a run that went on to its end after it was told to stop: its effects are not kept.
pub fn error() -> Error {
    Error::new(
        SqlState::QUERY_CANCELED,
        "it went on when it was told to stop",
    )
    .hint("A handler that catches query_canceled, or every error, raises it again.")
}

/// Whether the run was told to stop, by its deadline or its cancel, and interrupted. If it then ends without an error, it has
/// caught the cancel and gone on.
pub fn was_interrupted() -> bool {
    STRUCK.load(Ordering::Relaxed) && is_interrupted()
}
