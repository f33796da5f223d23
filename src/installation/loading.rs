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

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::Ordering;

use pushy_core::loaded::{self, LOCAL};

use crate::errors::Result;
use crate::pg::object_lock::{self, LockMode, Number};
use crate::pg::per_process::PerProcess;
use crate::pg::spi::{self, Plan};
use crate::pg::value::Timestamp;
use crate::pg::{clock, identity, transaction, BuiltinOid};
use crate::shared::numbers::{self, NEVER};
use crate::{params, NUMBERS};

/// What a statement that loads knows, looked up with its first row.
pub(super) struct Loading {
    statement: Timestamp,
    definitions: u64,
    salt: i32,
    /// No job has had a higher number here when it began, of those that are given out.
    issued: i64,
    /// Without the preload: as looked up then.
    drawn_from: i64,
    queues: HashMap<i32, Link>,
}

/// A queue of the dump, as it is called here.
#[derive(Clone, Copy)]
pub(super) struct Link {
    pub(super) number: i32,
    /// How many loads of it run here by now.
    pub(super) step: u32,
    /// Whether its jobs keep the numbers that are below all of ours; None: nobody has asked.
    keeps: Option<bool>,
}

static LOADING: PerProcess<RefCell<Option<Loading>>> = PerProcess::new(RefCell::new(None));

static SALT: Plan = Plan::new("SELECT h.load_salt FROM pushy_internal.home h", &[]);

static RUNS_HERE: Plan = Plan::new(
    "SELECT EXISTS (SELECT FROM pushy_internal.loaded_queue l WHERE l.queue_id OPERATOR(pg_catalog.=) $1 AND l.number_there IS NULL)",
    &[BuiltinOid::INT4OID],
);

// The second: those of another database keep theirs.
static KEEPS: Plan = Plan::new(
    "SELECT EXISTS (SELECT FROM pushy_internal.loaded_queue l WHERE l.queue_id OPERATOR(pg_catalog.=) $1 AND l.number_there IS NOT NULL), \
            EXISTS (SELECT FROM pushy_internal.loaded_queue l WHERE l.number_there OPERATOR(pg_catalog.>) 0 \
                       AND NOT (l.number_there OPERATOR(pg_catalog.>=) $2 AND l.number_there OPERATOR(pg_catalog.<=) $3))",
    &[BuiltinOid::INT4OID, BuiltinOid::INT4OID, BuiltinOid::INT4OID],
);

static KEEP: Plan = Plan::new(
    "INSERT INTO pushy_internal.loaded_queue (queue_id, number_there) VALUES ($1, $2)",
    &[BuiltinOid::INT4OID, BuiltinOid::INT4OID],
);

static COME_HOME: Plan = Plan::new(
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
    let known =
        known.filter(|known| known.statement == statement && known.definitions == definitions);
    let mut loading = match known {
        Some(known) => known,
        None => {
            let (drawn_from, issued) = (NUMBERS.drawn_from)()?;
            Loading {
                statement,
                definitions,
                salt: ask(&SALT, &[], |row| row.i32(1))?,
                issued,
                drawn_from,
                queues: HashMap::new(),
            }
        }
    };
    let outcome = work(&mut loading)?;
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

    /// What a job of the dump is called, of whatever row that names it. It is passed over first, so that ours go on behind it if it is
    /// kept.
    pub(super) fn job(&mut self, queue: i32, job: i64) -> Result<i64> {
        let link = self.link(queue)?;
        if self.keeps(queue, link)? {
            (NUMBERS.pass_over)(job);
            if job < self.drawn_from()? {
                return Ok(job);
            }
        }
        Ok(loaded::job_number(job, queue, link.step))
    }

    /// Whether a row of this job can have come before, under the number that it has now.
    pub(super) fn may_be_here(&self, job: i64, number: i64) -> Result<bool> {
        Ok(number != job || job <= self.issued || job >= LOCAL || self.drawn_from()? != NEVER)
    }

    /// Whether jobs of the queue keep their numbers, as far as these are below ours. Once known it stays: where anything was loaded of it,
    /// `loaded_queue` says so.
    fn keeps(&mut self, queue: i32, link: Link) -> Result<bool> {
        if let Some(keeps) = link.keeps {
            return Ok(keeps);
        }
        let keeps = link.step == 0 && self.find_keeps(queue, link.number)?;
        self.queues.insert(
            queue,
            Link {
                keeps: Some(keeps),
                ..link
            },
        );
        Ok(keeps)
    }

    #[cold]
    fn find_keeps(&self, queue: i32, number: i32) -> Result<bool> {
        // Neighbours too: numbers of one database's queues may go over such a bound.
        let group = loaded::group(queue);
        let (first, last) = (
            (group - 1).saturating_mul(1 << 16),
            (group + 2).saturating_mul(1 << 16),
        );
        let known = || {
            ask(&KEEPS, params![number, first, last], |row| {
                (row.bool(1), row.bool(2))
            })
        };
        let (is_known, are_others) = known()?;
        if is_known {
            return Ok(true);
        }
        let is_first = self.drawn_from()? == NEVER && !(queue > 0 && are_others);
        let keeps = is_first || KEEPER.get() == Some(clock::transaction_start()) || {
            // Who has loaded of it, and has not committed, has written so.
            let table = identity::expect_relation("loaded_queue")?;
            object_lock::briefly(table, || Ok(known()?.0))?
        };
        if keeps {
            KEEPER.set(Some(clock::transaction_start()));
            object_lock::lock("loaded_queue", Number(0, 0), LockMode::Shared, || Ok(()))?;
            identity::as_owner(|| {
                spi::run(&KEEP, params![number, queue]);
                Ok(())
            })?;
        }
        Ok(keeps)
    }
}

/// The transaction that has loaded what keeps its numbers, by when it began: the rest of it is of the same load.
static KEEPER: PerProcess<std::cell::Cell<Option<Timestamp>>> =
    PerProcess::new(std::cell::Cell::new(None));
