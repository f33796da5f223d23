//! A subtransaction around user code, and an error in it as data.

use std::mem::MaybeUninit;

use cee_scape::{call_with_sigsetjmp, SigJmpBufFields};
use pgrx::pg_sys;

// Called within one guard for several, with nothing to drop inside.
extern "C-unwind" {
    fn BeginInternalSubTransaction(name: *const std::ffi::c_char);
    fn ReleaseCurrentSubTransaction();
    fn RollbackAndReleaseCurrentSubTransaction();
    fn GetTransactionSnapshot() -> pg_sys::Snapshot;
    fn PushActiveSnapshot(snapshot: pg_sys::Snapshot);
    fn PopActiveSnapshot();
}

use crate::errors::{Error, Result};
use crate::pg::catch::caught;
use crate::pg::ereport::unpack_sqlstate;
use crate::pg::guard::guarded;
use crate::pg::text;

/// Unwinds to [`run`], which answers the error as it is: a panic of the bindings has only SQLSTATEs of the server's.
pub(in crate::pg) fn unwind(error: Error) -> ! {
    std::panic::resume_unwind(Box::new(error))
}

/// Runs `work` in a subtransaction with a snapshot of its own: kept when it answers Ok, else undone.
/// Memory context and resource owner are as before afterwards.
pub fn run<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: the protocol of plpgsql's exception blocks (pl_exec.c, exec_stmt_block).
    unsafe {
        let context = pg_sys::CurrentMemoryContext;
        let owner = pg_sys::CurrentResourceOwner;
        guarded(|| {
            BeginInternalSubTransaction(std::ptr::null());
            pg_sys::MemoryContextSwitchTo(context);
            PushActiveSnapshot(GetTransactionSnapshot());
        });

        let result = caught(work).and_then(|result| result);

        let done = result.is_ok();
        guarded(|| {
            if done {
                PopActiveSnapshot();
                ReleaseCurrentSubTransaction();
            } else {
                RollbackAndReleaseCurrentSubTransaction();
            }
        });
        pg_sys::MemoryContextSwitchTo(context);
        pg_sys::CurrentResourceOwner = owner;
        result
    }
}

/// Makes one call of the server with an ERROR as data: unlike the guard of the bindings it keeps the context
/// and any SQLSTATE.
///
/// # Safety
/// `call` is that one call, by a function pointer or a declaration of our own (the bindings' own are guarded,
/// and would unwind): an ERROR jumps over its frame, which owns nothing that wants to be dropped. After an ERROR a subtransaction,
/// or the transaction, must be aborted.
pub(in crate::pg) unsafe fn protected<T>(call: impl FnOnce() -> T) -> Result<T> {
    let memory = pg_sys::CurrentMemoryContext;
    let exception_stack = pg_sys::PG_exception_stack;
    let context_stack = pg_sys::error_context_stack;
    let mut result = MaybeUninit::<T>::uninit();
    let jumped = call_with_sigsetjmp(false, |buffer| {
        pg_sys::PG_exception_stack =
            std::mem::transmute::<*const SigJmpBufFields, *mut _>(std::ptr::from_ref(buffer));
        result.write(call());
        0
    });
    pg_sys::PG_exception_stack = exception_stack;
    pg_sys::error_context_stack = context_stack;
    if jumped == 0 {
        return Ok(result.assume_init());
    }
    pg_sys::MemoryContextSwitchTo(memory);
    Err(take_error())
}

/// Takes the error just raised out of the server's hands.
unsafe fn take_error() -> Error {
    let data = pg_sys::CopyErrorData();
    pg_sys::FlushErrorState();
    let optional = |text: *const std::ffi::c_char| (!text.is_null()).then(|| text::from_c(text));
    let error = Error {
        sqlstate: unpack_sqlstate((*data).sqlerrcode),
        message: text::from_c((*data).message),
        detail: optional((*data).detail),
        hint: optional((*data).hint),
        context: optional((*data).context),
    };
    pg_sys::FreeErrorData(data);
    error
}
