//! NOTIFY, as the function pg_notify() sends it.

use pgrx::pg_sys::{self, Oid};

use super::text;

/// Bytes of the longest payload: below NOTIFY_PAYLOAD_MAX_LENGTH of async.c.
pub const PAYLOAD_LIMIT: usize = pg_sys::BLCKSZ as usize - pg_sys::NAMEDATALEN as usize - 128 - 1;

/// Sends a notice at commit. An ERROR of the server's in recovery, in a parallel worker, and for a name or
/// a payload that is too long.
pub fn send(channel: &[u8], payload: &[u8]) {
    // SAFETY: the function takes two texts and answers nothing.
    unsafe {
        pg_sys::OidFunctionCall2Coll(
            Oid::from(pg_sys::F_PG_NOTIFY),
            Oid::INVALID,
            text::bytes_to_datum(channel),
            text::bytes_to_datum(payload),
        );
    }
}

/// Frees what all LISTENers have read. Whoever sends does it too, but in 15 not once the queue is full: then
/// it stays full when the one who slept has gone.
pub fn make_room() {
    // SAFETY: a function without arguments, which answers a double: not looked at.
    unsafe {
        pg_sys::OidFunctionCall0Coll(
            Oid::from(pg_sys::F_PG_NOTIFICATION_QUEUE_USAGE),
            Oid::INVALID,
        );
    }
}
