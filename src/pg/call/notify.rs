//! NOTIFY, as the function pg_notify() sends it.

use std::cell::RefCell;
use std::ffi::c_char;

use pgrx::pg_sys::{self, Oid};

use crate::pg::guard::guarded;
use crate::pg::per_process::PerProcess;

/// Bytes of the longest payload: below NOTIFY_PAYLOAD_MAX_LENGTH of async.c.
pub const PAYLOAD_LIMIT: usize = pg_sys::BLCKSZ as usize - pg_sys::NAMEDATALEN as usize - 128 - 1;

extern "C-unwind" {
    /// Not among the bindings; behind the guard in `send`.
    fn Async_Notify(channel: *const c_char, payload: *const c_char);
}

/// Channel and payload as the server wants them, zeros behind them: used again for the next.
static STRINGS: PerProcess<RefCell<Vec<u8>>> = PerProcess::new(RefCell::new(Vec::new()));

/// Sends a notice at commit: what pg_notify() does, without making two values of type text for it and looking
/// the function up (4 % of a COPY with a notice per row). An ERROR of the server's in recovery, in a parallel
/// worker, and for a name or a payload that is too long.
pub fn send(channel: &[u8], payload: &[u8]) {
    debug_assert!(!channel.contains(&0) && !payload.contains(&0));
    STRINGS.with_borrow_mut(|strings| {
        strings.clear();
        for text in [channel, payload] {
            strings.extend_from_slice(text);
            strings.push(0);
        }
        let (channel, payload) = strings.split_at(channel.len() + 1);
        // SAFETY: two strings with a zero behind each, which the server copies.
        unsafe {
            pg_sys::PreventCommandDuringRecovery(c"NOTIFY".as_ptr());
            guarded(|| {
                Async_Notify(channel.as_ptr().cast(), payload.as_ptr().cast());
            });
        }
    });
}

/// Frees what all LISTENers have read. Whoever sends does it too, but in 15 not once the queue is full: then
/// it stays full when the one who slept has gone.
pub fn advance_tail() {
    // SAFETY: a function without arguments, which answers a double: not looked at.
    unsafe {
        pg_sys::OidFunctionCall0Coll(
            Oid::from(pg_sys::F_PG_NOTIFICATION_QUEUE_USAGE),
            Oid::INVALID,
        );
    }
}
