//! How notices go where nobody has said it.

use std::cell::{Cell, OnceCell};

use crate::pg::per_process::PerProcess;
use crate::pg::{clock, database};
use crate::{settings, shared};

/// The name of the session's database, which nobody can change while the session is there.
static NAME: PerProcess<OnceCell<Option<String>>> = PerProcess::new(OnceCell::new());
/// The last answer, and the statement (by its start) that it is for: settings change between statements.
static LAST: PerProcess<Cell<(i64, bool)>> = PerProcess::new(Cell::new((0, false)));

/// Whether this server may start a relay for this database, now or later: the library is preloaded, and `pushy.databases`
/// names the database. Where one can come notices go by relay, because it spares writers the server-wide lock of NOTIFY
/// and listeners the notices of others; elsewhere by NOTIFY, because nobody would tell LISTENers what is logged.
pub fn a_relay_can_come() -> bool {
    let statement = clock::statement_start().0;
    let (asked_in, can_come) = LAST.get();
    if asked_in == statement {
        return can_come;
    }
    let can_come = look();
    LAST.set((statement, can_come));
    can_come
}

#[cold]
fn look() -> bool {
    shared::get().is_some()
        && NAME
            .get_or_init(|| database::name(database::current()))
            .as_deref()
            .is_some_and(settings::runs_in)
}
