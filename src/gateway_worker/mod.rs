//! The worker that has a database's gateway running: a program of its own at the other end of a socket, because no network code is in a
//! process that is attached to shared memory. It starts the program again when it has ended, and answers what it asks.

mod answers;
mod frames;

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pushy_core::backoff;

use crate::errors::{Error, SqlState};
use crate::pg::child::{self, Child};
use crate::pg::{ereport, guc, interrupts, latch, worker};
use crate::shared;
use crate::shared::database::DatabaseSlot;
use crate::shared::database_worker::WorkerStart;
use crate::worker::database_worker;
use crate::{settings, worker_entry};

use answers::Answers;
use frames::Frames;

worker_entry!(pushy_gateway_main, gateway);

/// So long sockets have to leave when the gateway is to stop.
const DRAIN: Duration = Duration::from_secs(1);
/// A program that ran for so long has not failed to start.
const HAS_RUN: Duration = Duration::from_secs(10);
/// The worker looks at what it is asked for, and the program at what it is told: nothing else wakes it.
const LONGEST: Duration = Duration::from_secs(600);
/// Bytes of answers that wait to be taken: while there are more, nothing else is asked.
const MOST_WAITING: usize = 1 << 20;
const READ: usize = 64 * 1024;

/// `arg`: which start it is.
fn gateway(arg: usize) {
    // Before it connects: with settings that are newer than these it is another worker's turn.
    let database = WorkerStart::of_arg(arg).database;
    let for_settings = shared::expect()
        .find_database(database)
        .map_or(0, |slot| slot.gateway_settings.load(Ordering::SeqCst));
    let Some(database_slot) = database_worker::start(arg, DatabaseSlot::gateway, leave) else {
        return;
    };
    database_slot.gateway().has_succeeded();
    Worker {
        database_slot,
        for_settings,
        failures: 0,
    }
    .live();
}

fn leave() {
    database_worker::stop(DatabaseSlot::gateway, |_, _| {});
}

struct Worker {
    database_slot: &'static DatabaseSlot,
    /// With other settings another worker comes.
    for_settings: u64,
    /// Programs in a row that have ended soon.
    failures: u32,
}

/// Why the program is there no more.
enum Ended {
    /// The worker is to leave.
    Wanted,
    Program(String),
}

impl Worker {
    fn is_to_leave(&self) -> bool {
        self.database_slot.is_quiesced()
            || !settings::enabled()
            || settings::gateway_listen().is_empty()
            || self.database_slot.gateway_settings.load(Ordering::SeqCst) != self.for_settings
            || self.database_slot.gateway().is_asked_for_slot()
    }

    fn live(&mut self) {
        loop {
            guc::reload_if_asked();
            interrupts::check();
            if self.is_to_leave() {
                return;
            }
            let since = Instant::now();
            let why = match self.run() {
                Ended::Wanted => return,
                Ended::Program(why) => why,
            };
            if since.elapsed() >= HAS_RUN {
                self.failures = 0;
            }
            if self.failures == 0 {
                say(&why);
            }
            let pause = backoff::START.delay_us(self.failures);
            self.failures = self.failures.saturating_add(1);
            self.database_slot.gateway().set_rests(true);
            worker::show_activity(None);
            self.pause(Duration::from_micros(pause as u64));
        }
    }

    /// Whoever wakes the worker has something to say; the pause goes on behind it.
    fn pause(&self, length: Duration) {
        let until = Instant::now() + length;
        while !self.is_to_leave() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            interrupts::check();
            latch::wait(Some(left));
            guc::reload_if_asked();
        }
    }

    /// One life of the program.
    fn run(&mut self) -> Ended {
        let program = program();
        let started = Child::start(&program, &environment(), settings::gateway_memory());
        let mut child = match started {
            Ok(child) => child,
            Err(error) => {
                return Ended::Program(format!(
                    "the gateway \"{}\" could not be started: {error}",
                    program.display()
                ))
            }
        };
        self.database_slot.gateway().set_rests(false);
        worker::show_activity(Some(c"answers the gateway"));
        let mut frames = Frames::default();
        let mut answers = Answers::new(self.database_slot);
        let (mut read, mut out) = (Vec::new(), Frames::hello());
        loop {
            guc::reload_if_asked();
            interrupts::check();
            if self.is_to_leave() {
                child.stop(DRAIN * 2);
                return Ended::Wanted;
            }
            answers.look(&mut out);
            let is_open = child.write(&mut out);
            let timeout = answers.next().min(LONGEST);
            // Who lets answers lie is asked nothing more, and costs no more memory.
            let may_ask = out.len() < MOST_WAITING;
            if is_open {
                let writes = !out.is_empty();
                answers.while_awaiting(|| child.wait(may_ask, writes, timeout, DRAIN * 2));
            }
            if !is_open || may_ask && !child.read(&mut read, READ) {
                return self.over(child);
            }
            let asked = frames.take(&mut read);
            match asked {
                Ok(asked) => asked.iter().for_each(|one| answers.hear(one, &mut out)),
                Err(why) => {
                    child.stop(Duration::ZERO);
                    return Ended::Program(format!("the gateway was ended: {why}"));
                }
            }
        }
    }

    fn over(&self, mut child: Child) -> Ended {
        child.stop(DRAIN);
        let how = child.ended().map_or_else(
            || "ended".to_owned(),
            |status| format!("ended with {status}"),
        );
        Ended::Program(format!("the gateway (process {}) {how}", child.pid()))
    }
}

fn say(why: &str) {
    ereport::log(
        &Error::new(SqlState::CONNECTION_FAILURE, why)
            .detail("What it has said itself stands before this line.")
            .hint(format!(
                "It is started again, after {}; this is said once until it has run for 10 s.",
                backoff::START
            )),
    );
}

fn program() -> PathBuf {
    let said = settings::gateway_program();
    if said.is_empty() {
        child::folder_of_programs().join("pushy-gateway")
    } else {
        PathBuf::from(said)
    }
}

/// `name=value …`, as the program reads its environment; what the worker says comes last, and counts.
fn environment() -> Vec<(String, String)> {
    let variable = |name: &str, value: &str| {
        let name = name.replace('-', "_").to_ascii_uppercase();
        (format!("PUSHY_GATEWAY_{name}"), value.to_owned())
    };
    let options = settings::gateway_options();
    let mut all = vec![variable("drain", &format!("{}ms", DRAIN.as_millis()))];
    all.extend(options.split_whitespace().map(|option| {
        // Without a value it is none, which the program says.
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        variable(name, value)
    }));
    all.push(variable("dsn", ""));
    all.push(variable("listen", &settings::gateway_listen()));
    all
}
