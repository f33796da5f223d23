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
use crate::pg::transaction::Savepoint;
use crate::pg::value::Timestamp;
use crate::pg::{array, clock, identity, transaction, BuiltinOid};
use crate::shared::numbers::{self, NEVER};
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

/// Numbers that are looked at together.
const AT_ONCE: u32 = 8;

/// Of all rows that a number has here: when their job was enqueued.
macro_rules! rows_of {
    ($number:literal) => {
        concat!(
            "SELECT j.enqueued_at FROM pushy_internal.live_job j WHERE j.id OPERATOR(pg_catalog.=) ", $number,
            " UNION ALL SELECT f.enqueued_at FROM pushy_internal.finished_job f WHERE f.id OPERATOR(pg_catalog.=) ", $number,
            " UNION ALL SELECT f.enqueued_at FROM pushy_internal.failure f WHERE f.job_id OPERATOR(pg_catalog.=) ", $number,
            " UNION ALL SELECT l.enqueued_at FROM pushy_internal.lease l WHERE l.job_id OPERATOR(pg_catalog.=) ", $number,
            " UNION ALL SELECT l.enqueued_at FROM pushy_internal.job_log l WHERE l.job_id OPERATOR(pg_catalog.=) ", $number,
            " UNION ALL SELECT c.enqueued_at FROM pushy_internal.checkpoint c WHERE c.job_id OPERATOR(pg_catalog.=) ", $number,
            " UNION ALL SELECT p.enqueued_at FROM pushy_internal.promised_cancel p \
               WHERE p.job_id OPERATOR(pg_catalog.=) ANY (ARRAY[", $number, ", OPERATOR(pg_catalog.-) ", $number, "])"
        )
    };
}

static IS_ANOTHERS: Plan = Plan::new(
    concat!(
        "SELECT EXISTS (SELECT FROM (",
        rows_of!("$1"),
        ") r WHERE r.enqueued_at OPERATOR(pg_catalog.<>) $2)"
    ),
    &[BuiltinOid::INT8OID, BuiltinOid::TIMESTAMPTZOID],
);

// The number that the job has, or else the first that no other has.
static FREE_OR_ITS: Plan = Plan::new(
    concat!(
        "SELECT (SELECT n.number FROM pg_catalog.unnest($1) WITH ORDINALITY AS n (number, place), \
                LATERAL (SELECT pg_catalog.bool_or(r.enqueued_at OPERATOR(pg_catalog.=) $2) AS is_its, pg_catalog.bool_or(r.enqueued_at OPERATOR(pg_catalog.<>) $2) AS is_anothers \
                           FROM (",
        rows_of!("n.number"),
        ") r) has \
          WHERE has.is_anothers IS NOT TRUE ORDER BY has.is_its IS TRUE DESC, n.place LIMIT 1)"
    ),
    &[BuiltinOid::INT8ARRAYOID, BuiltinOid::TIMESTAMPTZOID],
);

static HAS_KEYS: Plan = Plan::new(
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

    /// What a job of the dump is called, of whatever row that names it. It is passed over first, so that ours go on behind it if it is
    /// kept.
    pub(super) fn job(&mut self, queue: i32, job: i64) -> Result<i64> {
        let link = self.link(queue)?;
        if self.keeps(queue, link)? {
            (NUMBERS.pass_over)(job);
            if loaded::may_keep(job) && job < self.drawn_from()? {
                return Ok(job);
            }
        }
        Ok(loaded::job_number(job, queue, link.step))
    }

    /// What a row is called that is of a job: as that is, which it names by its number and by when it was enqueued. Copies of a database
    /// give the same numbers to different jobs.
    pub(super) fn number(
        &mut self,
        queue: i32,
        job: i64,
        enqueued_at: Option<Timestamp>,
    ) -> Result<i64> {
        let number = self.job(queue, job)?;
        // 0.1.0 has not said it of all.
        let Some(enqueued_at) = enqueued_at else {
            return Ok(number);
        };
        let may_be_taken = self.may_be_here(job, number)?;
        if !may_be_taken
            || !ask(&IS_ANOTHERS, params![number, enqueued_at], |row| {
                row.bool(1)
            })?
        {
            return Ok(number);
        }
        let step = self.link(queue)?.step;
        for step in (step..).step_by(AT_ONCE as usize).take(2048) {
            let steps = step..step + AT_ONCE;
            let numbers: Vec<i64> = steps
                .map(|step| loaded::job_number(job, queue, step))
                .collect();
            let found = ask(
                &FREE_OR_ITS,
                params![array::of_int8s(&numbers), enqueued_at],
                |row| row.opt_i64(1),
            )?;
            if let Some(number) = found {
                return Ok(number);
            }
        }
        Ok(number)
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
        if known()?.0 {
            return Ok(true);
        }
        let table = identity::expect_relation("loaded_queue")?;
        // One at a time, because two loads of different databases cannot both be the first.
        let keeps = object_lock::briefly(table, || {
            // Before the table: whose lock is gone has left its row there.
            let lock = i64::from(queue as u32);
            let open = params![table, lock, first, last];
            let (of_same, are_open_others) = ask(&OPEN, open, |row| (row.bool(1), row.bool(2)))?;
            let (is_known, are_others) = known()?;
            let are_others = queue > 0 && (are_others || are_open_others);
            let keeps = is_known || of_same || (self.drawn_from()? == NEVER && !are_others);
            if keeps {
                let number = Number(queue as u32, KEEPER);
                object_lock::lock("loaded_queue", number, LockMode::Shared, || Ok(()))?;
            }
            Ok(keeps)
        })?;
        if keeps {
            identity::as_owner(|| {
                spi::run(&KEEP, params![number, queue]);
                Ok(())
            })?;
        }
        Ok(keeps)
    }
}

/// A lock on a queue's number in its dump, held by each transaction that loads what keeps its numbers: what such a one has written, nobody else sees
/// yet. The server lets go of it with the savepoint in which it was taken.
const KEEPER: u16 = 1;

// The first: this transaction has begun to keep numbers, and the rest of it is of the same load; or another has, of this queue.
static OPEN: Plan = Plan::new(
    "SELECT COALESCE(pg_catalog.bool_or(l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() OR l.objid::pg_catalog.int8 OPERATOR(pg_catalog.=) $2), false), \
            COALESCE(pg_catalog.bool_or(l.objid::pg_catalog.int8 OPERATOR(pg_catalog.>) 0 AND l.objid::pg_catalog.int8 OPERATOR(pg_catalog.<=) 2147483647 \
                       AND NOT (l.objid::pg_catalog.int8 OPERATOR(pg_catalog.>=) $3 AND l.objid::pg_catalog.int8 OPERATOR(pg_catalog.<=) $4)), false) \
       FROM pg_catalog.pg_locks l \
      WHERE l.locktype OPERATOR(pg_catalog.=) 'object'::pg_catalog.text AND l.granted AND l.classid OPERATOR(pg_catalog.=) $1 \
        AND l.objsubid OPERATOR(pg_catalog.=) 1 \
        AND l.database OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())",
    &[
        BuiltinOid::OIDOID,
        BuiltinOid::INT8OID,
        BuiltinOid::INT4OID,
        BuiltinOid::INT4OID,
    ],
);
