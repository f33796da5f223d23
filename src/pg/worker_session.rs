//! What the session of a worker must be, of whatever kind, over what the configuration, ALTER SYSTEM, ALTER DATABASE and
//! ALTER ROLE say. `worker::connect` settles it: no kind of worker can forget it.

use std::ffi::CStr;

use super::{database, guc};

/// Settings that every worker forces, and why.
const FORCED: &[(&CStr, &str)] = &[
    // The session's role is the queue's; who owns a database may say another for all who connect to it.
    (c"role", "none"),
    // An error that is caught would end the process.
    (c"exit_on_error", "off"),
    // A claim needs READ COMMITTED: in REPEATABLE READ a SKIP LOCKED claim fails with 'could not serialize access'.
    (c"default_transaction_isolation", "read committed"),
    // Bookkeeping writes.
    (c"default_transaction_read_only", "off"),
    // A deferrable transaction waits for others to end.
    (c"default_transaction_deferrable", "off"),
    // Deadlines are Pushy's: a job's timeout, and the bound of bookkeeping on locks.
    (c"statement_timeout", "0"),
    (c"lock_timeout", "0"),
    (c"idle_in_transaction_session_timeout", "0"),
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    (c"transaction_timeout", "0"),
    // A policy must not hide rows from a statement that does not say so.
    (c"row_security", "on"),
];

/// Settles the session of this process, which has just connected.
pub(super) fn settle() {
    for (name, value) in FORCED {
        guc::force(name, value);
    }
    guc::force(c"client_encoding", &database::encoding_name());
}
