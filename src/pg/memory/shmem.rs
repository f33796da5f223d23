//! Shared memory: reserved at preload, mapped at start-up, at the same address in every process.

use std::ffi::{c_void, CStr};
use std::sync::atomic::{AtomicPtr, Ordering};

use pgrx::{pg_guard, pg_sys};

/// What the one segment of this extension needs.
pub struct Segment {
    pub name: &'static CStr,
    /// Bytes; read once settings are known.
    pub size: fn() -> usize,
    /// Prepares zeroed memory of that size; once per start of the server, crash restarts included.
    pub init: fn(*mut u8),
    /// Takes from it what is to outlive the server: once per stop that is none for a crash, when all other processes are
    /// gone.
    pub close: fn(*mut u8),
}

static SEGMENT: AtomicPtr<Segment> = AtomicPtr::new(std::ptr::null_mut());
static BASE: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());

static mut PREVIOUS_STARTUP: pg_sys::shmem_startup_hook_type = None;
static mut PREVIOUS_REQUEST: pg_sys::shmem_request_hook_type = None;

/// True while shared_preload_libraries are loaded: the only time a segment can be asked for.
pub fn is_preloading() -> bool {
    // SAFETY: reads a global of the postmaster.
    unsafe { pg_sys::process_shared_preload_libraries_in_progress }
}

/// Asks for the segment. Only while preloading.
pub fn request(segment: &'static Segment) {
    SEGMENT.store(std::ptr::from_ref(segment).cast_mut(), Ordering::Relaxed);
    // SAFETY: hooks are chained in the postmaster, before any process forks.
    unsafe {
        PREVIOUS_REQUEST = pg_sys::shmem_request_hook;
        pg_sys::shmem_request_hook = Some(on_request);
        PREVIOUS_STARTUP = pg_sys::shmem_startup_hook;
        pg_sys::shmem_startup_hook = Some(on_startup);
    }
}

fn segment() -> &'static Segment {
    // SAFETY: request() stored a static reference before a hook could run.
    unsafe { &*SEGMENT.load(Ordering::Relaxed) }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_request() {
    if let Some(previous) = PREVIOUS_REQUEST {
        previous();
    }
    pg_sys::RequestAddinShmemSpace((segment().size)());
}

#[pg_guard]
unsafe extern "C-unwind" fn on_startup() {
    if let Some(previous) = PREVIOUS_STARTUP {
        previous();
    }
    let segment = segment();
    let size = (segment.size)();
    let mut found = false;
    let base = pg_sys::ShmemInitStruct(segment.name.as_ptr(), size, &mut found).cast::<u8>();
    if !found {
        // The memory is zero: the server makes a new segment at each start and gives each byte of it once (ShmemAlloc), and a new
        // segment is zero (mmap(2), shmget(2)). To write that again would touch all of it, much of which nobody may ever need.
        (segment.init)(base);
    }
    BASE.store(base, Ordering::Release);
    if !pg_sys::IsUnderPostmaster {
        // The memory is unmapped by what was registered before this, and so runs after it.
        pg_sys::on_shmem_exit(Some(close_segment), pg_sys::Datum::from(0));
    }
}

/// In the postmaster, or the only process of a server in single-user mode.
#[pg_guard]
unsafe extern "C-unwind" fn close_segment(code: i32, _arg: pg_sys::Datum) {
    if let Some(base) = base().filter(|_| code == 0) {
        (segment().close)(base);
    }
}

/// The segment's first byte; None without the preload.
pub fn base() -> Option<*mut u8> {
    let base = BASE.load(Ordering::Acquire);
    (!base.is_null()).then_some(base)
}

#[pg_guard]
unsafe extern "C-unwind" fn run_at_exit(_code: i32, arg: pg_sys::Datum) {
    // SAFETY: arg is the function pointer given below.
    let callback: fn() = std::mem::transmute::<*const c_void, fn()>(arg.cast_mut_ptr());
    callback();
}

/// Runs `callback` when this process leaves, also on a FATAL error: after its transaction was rolled
/// back and its locks are gone, and while it still has its latch.
pub fn at_exit(callback: fn()) {
    // SAFETY: the callback stays valid as long as the library is loaded.
    unsafe {
        pg_sys::on_shmem_exit(
            Some(run_at_exit),
            pg_sys::Datum::from(callback as *const () as usize),
        )
    }
}

/// Runs `callback` when this process leaves, before its transaction is rolled back; to be asked for when
/// connected.
pub fn before_exit(callback: fn()) {
    // SAFETY: as above.
    unsafe {
        pg_sys::before_shmem_exit(
            Some(run_at_exit),
            pg_sys::Datum::from(callback as *const () as usize),
        )
    }
}
