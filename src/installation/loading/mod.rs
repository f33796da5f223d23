//! What queues and jobs of a dump are called here.
//!
//! | | is called |
//! | --- | --- |
//! | a queue | by a number below zero, which depends on that of the dump alone; by the next such number once the one before runs here, so that a dump which is loaded later brings nothing to it |
//! | a job, in a database that has given out no number | as in the dump: people hold numbers of jobs in tables of theirs |
//! | a job of a queue of which one was called so, whose number is below the first that was given out here | the same |
//! | another job | by a number that is given out nowhere, which depends on that of the dump, on its queue and on how often that has come |
//!
//! So the rows of a job agree in all tables, in whatever order they come, and whoever resumes, registers or enqueues meanwhile.

mod job_number;
mod keeping;

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::Ordering;

use pushy_core::loaded;

use crate::errors::Result;
use crate::pg::per_process::PerProcess;
use crate::pg::spi::{self, Plan};
use crate::pg::transaction::Savepoint;
use crate::pg::value::Timestamp;
use crate::pg::{clock, identity, transaction, BuiltinOid};
use crate::shared::numbers;
use crate::{params, NUMBERS};

/// What a statement that loads knows, looked up with its first row.
pub(super) struct Loading {
    statement: Timestamp,
    /// In which it was used last: what it has written is gone with that.
    savepoint: Savepoint,
    definitions: u64,
    salt: i32,
    /// No job has had a higher number here when it began, of those that are given out.
    issued: i64,
    /// Without the preload: as looked up then.
    drawn_from: i64,
    queues: HashMap<i32, Link>,
}

static HAS_KEYS: Plan = Plan::for_any_values(
    "SELECT EXISTS (SELECT FROM pushy_internal.live_job j WHERE j.queue_id OPERATOR(pg_catalog.=) $1 AND j.unique_key IS NOT NULL)",
    &[BuiltinOid::INT4OID],
);

/// A queue of the dump, as it is called here.
#[derive(Clone, Copy)]
pub(super) struct Link {
    pub(super) number: i32,
    /// How many loads of it run here by now.
    pub(super) step: u32,
    /// Whether its jobs keep the numbers that are below all of ours; None: nobody has asked.
    keeps: Option<bool>,
    /// Whether jobs of it with a unique key had been loaded when the statement began; None: nobody has asked.
    has_keys: Option<bool>,
}

static LOADING: PerProcess<RefCell<Option<Loading>>> = PerProcess::new(RefCell::new(None));

static SALT: Plan = Plan::for_any_values("SELECT h.load_salt FROM pushy_internal.home h", &[]);

static RUNS_HERE: Plan = Plan::for_any_values(
    "SELECT EXISTS (SELECT FROM pushy_internal.loaded_queue l WHERE l.queue_id OPERATOR(pg_catalog.=) $1 AND l.number_there IS NULL)",
    &[BuiltinOid::INT4OID],
);

static COME_HOME: Plan = Plan::for_any_values(
    "INSERT INTO pushy_internal.loaded_queue (queue_id) VALUES ($1)",
    &[BuiltinOid::INT4OID],
);

/// A loaded queue runs here from now on, and what is loaded later is not of it. As the extension's owner.
pub fn come_home(queue_id: i32) {
    LOADING.replace(None);
    spi::run(&COME_HOME, params![queue_id]);
}

/// Asks the tables as they are now, whatever snapshot who loads has.
pub(super) fn ask<T>(
    plan: &Plan,
    params: &[spi::Param],
    read: impl Fn(spi::Row<'_>) -> T,
) -> Result<T> {
    identity::as_owner(|| {
        Ok(transaction::with_latest_snapshot(|| {
            spi::connect(|spi| read(spi.run_in_active_snapshot(plan, params).row(0)))
        }))
    })
}

fn definitions() -> u64 {
    numbers::here().map_or(0, |slot| slot.definitions.load(Ordering::SeqCst))
}

/// What is known of the load that is under way.
pub(super) fn with<T>(work: impl FnOnce(&mut Loading) -> Result<T>) -> Result<T> {
    let (statement, definitions) = (clock::statement_start(), definitions());
    // Out of its place while it is used, because an ERROR leaves it there.
    let known = LOADING.take();
    let known = known.filter(|known| {
        known.statement == statement
            && known.definitions == definitions
            && known.savepoint.is_open()
    });
    let mut loading = match known {
        Some(known) => known,
        None => {
            let (drawn_from, issued) = (NUMBERS.drawn_from)()?;
            Loading {
                statement,
                savepoint: Savepoint::current(),
                definitions,
                salt: ask(&SALT, &[], |row| row.i32(1))?,
                issued,
                drawn_from,
                queues: HashMap::new(),
            }
        }
    };
    let outcome = work(&mut loading)?;
    loading.savepoint = Savepoint::current();
    LOADING.replace(Some(loading));
    Ok(outcome)
}

impl Loading {
    /// Forgets what a queue is called: by now it runs here.
    pub(super) fn forget(&mut self, queue: i32) {
        self.queues.remove(&queue);
    }

    pub(super) fn link(&mut self, queue: i32) -> Result<Link> {
        if let Some(link) = self.queues.get(&queue) {
            return Ok(*link);
        }
        let mut link = Link {
            number: loaded::queue_number(queue, self.salt),
            step: 0,
            keeps: None,
            has_keys: None,
        };
        while ask(&RUNS_HERE, params![link.number], |row| row.bool(1))? {
            link.number = loaded::next_queue_number(link.number);
            link.step += 1;
        }
        self.queues.insert(queue, link);
        Ok(link)
    }

    fn drawn_from(&self) -> Result<i64> {
        if numbers::here().is_none() {
            return Ok(self.drawn_from);
        }
        Ok((NUMBERS.drawn_from)()?.0)
    }

    /// Whether a job of the queue with a unique key may be in the way of one that comes.
    pub(super) fn has_keys(&mut self, queue: i32) -> Result<bool> {
        let link = self.link(queue)?;
        if let Some(has_keys) = link.has_keys {
            return Ok(has_keys);
        }
        let has_keys = ask(&HAS_KEYS, params![link.number], |row| row.bool(1))?;
        let link = Link {
            has_keys: Some(has_keys),
            ..link
        };
        self.queues.insert(queue, link);
        Ok(has_keys)
    }
}
