//! How notices go where nobody has said it, and who is told that nobody tells them.

use std::cell::{Cell, OnceCell};

use crate::errors::{Error, SqlState};
use crate::pg::per_process::PerProcess;
use crate::pg::{clock, database, ereport};
use crate::shared::obstacle;
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

/// Whether a relay tells LISTENers soon what is logged. `pushy.enabled = off` is a pause: what is logged meanwhile is told when
/// it is on again, to subscriptions as well, so nothing is lost by it and nothing goes by NOTIFY instead.
pub fn is_told() -> bool {
    settings::enabled() && a_relay_can_come()
}

static WARNED: PerProcess<Cell<bool>> = PerProcess::new(Cell::new(false));

/// LISTENers hear nothing of what is logged. Said once in a session.
#[cold]
pub fn warn_of_silence() {
    if WARNED.replace(true) {
        return;
    }
    let Some(obstacle) = obstacle::of_workers().into_iter().next() else {
        return;
    };
    let warning = Error::new(
        SqlState::WARNING,
        format!(
            "what is delivered by relay waits in the event log: LISTENers hear nothing of it, because {}",
            obstacle.reason
        ),
    );
    let notify = "pushy.notify and pushy.watch take delivery => 'notify'.";
    ereport::warning(&warning.hint(match obstacle.fix {
        Some(fix) => format!("{fix}. Or say how notices go: {notify}"),
        None => notify.to_owned(),
    }));
}
