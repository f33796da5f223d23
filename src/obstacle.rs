//! What keeps Pushy's workers out of this database, in words, and the statement that changes it: for queue_explain, and
//! for the states of watches and subscriptions.

use std::cell::{Cell, OnceCell};
use std::sync::atomic::Ordering;

use pushy_core::gate::{Closed, Facts};

use crate::errors::{quote_literal, Error, Result, SqlState};
use crate::pg::per_process::PerProcess;
use crate::pg::{clock, database, ereport, guc, transaction};
use crate::shared::database::DatabaseSlot;
use crate::shared::Shared;
use crate::{row, settings, shared, sql_function};

pub struct Finding {
    pub reason: String,
    pub fix: Option<String>,
}

pub fn blocked(reason: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding {
        reason: reason.into(),
        fix: Some(fix.into()),
    }
}

pub fn said(reason: impl Into<String>) -> Finding {
    Finding {
        reason: reason.into(),
        fix: None,
    }
}

/// What stops every worker of the server, or of the database.
pub fn of_workers() -> Vec<Finding> {
    let mut findings = Vec::new();
    if shared::get().is_none() {
        findings.push(blocked(
            "the library was not loaded when the server started, so there are no workers",
            "Add pushy to shared_preload_libraries in postgresql.conf, as in shared_preload_libraries = 'pushy', and restart the server",
        ));
    }
    if transaction::is_in_recovery() {
        findings.push(said(
            "the server is a standby: jobs run on the primary, and here after its promotion",
        ));
    }
    let launcher_is_missing = shared::get().is_some_and(|shared| !shared.launcher.is_entered());
    if launcher_is_missing && !transaction::is_in_recovery() {
        findings.push(blocked(
            format!(
                "Pushy's launcher is not running: it is being started again, or found all {} slots of max_worker_processes taken, whose number another start of the server changes",
                guc::max_worker_processes()
            ),
            more_slots(),
        ));
    }
    findings.extend(facts().reasons(clock::now().0).filter_map(of_database));
    findings
}

/// What is known of this database, and nothing of a queue; the settings as this session has read them.
pub fn facts() -> Facts {
    let name = database::name(database::current()).unwrap_or_default();
    let database_slot = shared::get().and_then(|shared| shared.find_database(database::current()));
    Facts {
        enabled: settings::enabled(),
        served: settings::runs_in(&name),
        quiesced: database_slot.is_some_and(DatabaseSlot::is_quiesced),
        ..Facts::OPEN
    }
}

/// In words, what keeps workers out of this database; None for what is a queue's own.
fn of_database(closed: Closed) -> Option<Finding> {
    match closed {
        Closed::Disabled => Some(blocked(
            "pushy.enabled is off",
            reloading("pushy.enabled = on"),
        )),
        Closed::NotServed => {
            let name = database::name(database::current()).unwrap_or_default();
            let all = [settings::databases(), name].join(",");
            Some(blocked(
                format!(
                    "jobs run in databases {} only (pushy.databases), not in this one",
                    quote_literal(&settings::databases())
                ),
                reloading(&format!(
                    "pushy.databases = {}",
                    quote_literal(all.trim_start_matches(','))
                )),
            ))
        }
        Closed::Quiesced => Some(said(
            "workers are kept out of the database while a transaction drops, renames or copies it, or drops or alters the extension",
        )),
        _ => None,
    }
}

/// Whether the launcher found no place for a worker when it last tried.
pub fn lacks_worker_slot(shared: &Shared) -> Option<Finding> {
    let slots = guc::max_worker_processes();
    (shared.lacks_worker_slot.load(Ordering::SeqCst) != 0).then(|| {
        blocked(
            format!("no background worker can be started: all {slots} slots of max_worker_processes are taken, {} of them by Pushy's workers{}, and another start of the server changes their number", by_us(shared), by_parallel_queries(shared)),
            more_slots(),
        )
    })
}

/// Room for all of Pushy's workers beside those that took what there is: a scheduler, and the relay, which every
/// declaration has something to say.
fn more_slots() -> String {
    format!(
        "Run ALTER SYSTEM SET max_worker_processes = {}, and restart the server",
        guc::max_worker_processes() as usize
            + settings::max_executors()
            + settings::reserved_executors()
            + 2
    )
}

/// Slots that Pushy's own workers take.
fn by_us(shared: &Shared) -> usize {
    let databases = shared.databases.iter().filter(|slot| slot.oid() != 0);
    let workers = databases.flat_map(|slot| &slot.workers);
    1 + shared.executors_in_use() + workers.filter(|worker| !worker.is_absent()).count()
}

/// Any role may take so many of them by parallel queries, if others than Pushy's workers, and the one that starts those of
/// subscriptions, take any.
fn by_parallel_queries(shared: &Shared) -> String {
    if by_us(shared) + 1 >= guc::max_worker_processes() as usize {
        return String::new();
    }
    let needed = settings::max_executors() + settings::reserved_executors() + 3;
    let slots = guc::max_worker_processes() as usize;
    let parallel = guc::max_parallel_workers() as usize;
    if parallel + needed <= slots {
        return String::new();
    }
    format!(
        ", of which parallel queries may hold {} (max_parallel_workers: lower it with ALTER SYSTEM SET max_parallel_workers = {} and SELECT pg_reload_conf(), which needs no other start)",
        parallel.min(slots),
        slots.saturating_sub(needed)
    )
}

/// Words: two statements in one message are one transaction, in which ALTER SYSTEM does not run.
pub fn reloading(setting: &str) -> String {
    format!(
        "Run ALTER SYSTEM SET {setting}, then SELECT pg_reload_conf() as a statement of its own"
    )
}

/// Why no relay comes to emit what is logged here; None while one is there, or would come.
pub fn of_relay() -> Option<Finding> {
    if let Some(finding) = of_workers().into_iter().next() {
        return Some(finding);
    }
    let shared = shared::get()?;
    let relay = shared.find_database(database::current())?.relay();
    if !relay.is_absent() {
        return None;
    }
    lacks_worker_slot(shared).or_else(|| {
        let left = relay.retry_at() - clock::now().0;
        (left > 0).then(|| {
            said(format!(
                "the relay did not come up; it is tried again in {:.1} s, and the server's log says why",
                left as f64 / 1e6
            ))
        })
    })
}

/// The name of the session's database, which nobody can change while the session is there.
static NAME: PerProcess<OnceCell<Option<String>>> = PerProcess::new(OnceCell::new());
/// The last answer, and the statement (by its start) that it is for: settings change between statements.
static LAST: PerProcess<Cell<(i64, bool)>> = PerProcess::new(Cell::new((0, false)));

/// Whether this server may start a relay for this database, now or later: the library is preloaded, and `pushy.databases`
/// names the database. Where one can come notices go by relay, because it spares writers the server-wide lock of NOTIFY
/// and listeners the notices of others; elsewhere by NOTIFY, because nobody would emit to LISTENers what is logged.
pub fn a_relay_can_come() -> bool {
    let statement = clock::statement_start().0;
    let (asked_in, can_come) = LAST.get();
    if asked_in == statement {
        return can_come;
    }
    let can_come = find_out();
    LAST.set((statement, can_come));
    can_come
}

#[cold]
fn find_out() -> bool {
    shared::get().is_some()
        && NAME
            .get_or_init(|| database::name(database::current()))
            .as_deref()
            .is_some_and(settings::runs_in)
}

/// Whether a relay emits soon to LISTENers what is logged. `pushy.enabled = off` is a pause: what is logged meanwhile is emitted when
/// it is on again, to subscriptions as well, so nothing is lost by it and nothing goes by NOTIFY instead.
pub fn is_emitted() -> bool {
    settings::enabled() && a_relay_can_come()
}

static WARNED: PerProcess<Cell<bool>> = PerProcess::new(Cell::new(false));

/// LISTENers hear nothing of what is logged. Said once in a session.
#[cold]
pub fn warn_of_silence() {
    if WARNED.replace(true) {
        return;
    }
    let Some(obstacle) = of_workers().into_iter().next() else {
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

sql_function!(pushy_relay_obstacle_v1, |call| {
    let found = of_relay();
    let (reason, fix) = found.map(|found| (found.reason, found.fix)).unzip();
    Result::Ok(call.answer_row(row![reason, fix.flatten(), a_relay_can_come()]))
});
