//! Nothing → available, or scheduled; discarded at once where a chain of causes is too long.

use std::rc::Rc;

use pushy_core::job_state::Birth;

use super::discard;
use super::rows::{insert_of_key, Stored};
use crate::errors::Result;
use crate::job::tables::live_job;
use crate::job::unique_key::{self, KeyHolder};
use crate::job::{current, position};
use crate::pg::function::Answer;
use crate::pg::value::Timestamp;
use crate::pg::{clock, heap, interrupts, Datum, Oid};
use crate::queue::cache::CachedQueue;
use crate::shared::{self, pending};
use crate::{params, settings};

/// What all jobs of one call have in common.
pub struct Request {
    pub(super) queue: Rc<CachedQueue>,
    /// The role that called, because inside the guard the current user is the extension's owner.
    pub(super) caller: Oid,
    pub(super) enqueued_at: Timestamp,
    pub run_at: Timestamp,
    /// Due now.
    pub ready: bool,
    pub priority: i16,
    pub max_attempts: Option<i32>,
    pub timeout_us: Option<i64>,
    pub(super) caused_by: Option<i64>,
    pub(super) depth: i32,
    /// The jobs are a watch's, which never fails the write: a queue that a watch feeds is dropped by force only, and these jobs
    /// go with it.
    of_watch: bool,
}

impl Request {
    /// Jobs that run now, as the queue has it. Whether `caller` may enqueue them is checked before.
    pub fn plain(queue: Rc<CachedQueue>, caller: Oid, now: Timestamp) -> Self {
        let (caused_by, depth) = match current::cause() {
            Some((cause, depth)) => (Some(cause), depth + 1),
            None => (None, 0),
        };
        Self {
            priority: queue.definition.priority as i16,
            queue,
            caller,
            enqueued_at: now,
            run_at: now,
            ready: true,
            max_attempts: None,
            timeout_us: None,
            caused_by,
            depth,
            of_watch: false,
        }
    }

    /// The same for jobs of a watch.
    pub fn of_watch(queue: Rc<CachedQueue>, owner: Oid, now: Timestamp) -> Self {
        Self {
            of_watch: true,
            ..Self::plain(queue, owner, now)
        }
    }

    /// Adds jobs without a unique key and answers their numbers; as the extension's owner.
    pub fn add(&self, args: &[Datum]) -> Result<Vec<i64>> {
        let ids: Vec<i64> = position::next_of(args.len())?.collect();
        let jobs: Vec<(i64, Datum)> = ids.iter().copied().zip(args.iter().copied()).collect();
        self.add_numbered(&jobs)?;
        Ok(ids)
    }

    /// Adds jobs whose numbers were drawn before, in their order; as the extension's owner.
    pub fn add_numbered(&self, jobs: &[(i64, Datum)]) -> Result<()> {
        if self.is_too_deep() {
            for (id, args) in jobs {
                interrupts::check();
                discard::at_birth(self, *id, *args, None)?;
            }
        } else if let Some((first, _)) = jobs.first() {
            self.insert(jobs.iter().copied())?;
            self.announce(*first, jobs.len() as u64);
        }
        Ok(())
    }

    /// Adds a job, or answers the number of one that has its key and waits, and keeps that from starting until this
    /// transaction has ended.
    pub fn add_unique(&self, args: Datum, unique_key: &str) -> Result<i64> {
        if self.is_too_deep() {
            let id = position::next()?;
            discard::at_birth(self, id, args, Some(unique_key))?;
            return Ok(id);
        }
        loop {
            let CachedQueue {
                definition, slot, ..
            } = &*self.queue;
            match unique_key::find(definition, *slot, unique_key, self.depth, self.caused_by)? {
                KeyHolder::Waiting(id) => return Ok(id),
                KeyHolder::Free { beside } => {
                    let id = position::next()?;
                    let row = self.row(id, args, Some((unique_key, beside)));
                    if insert_of_key(&row, definition, unique_key, beside)? {
                        self.announce(id, 1);
                        return Ok(id);
                    }
                }
            }
            interrupts::check();
        }
    }
}

/// Adds jobs that are due now on behalf of `caller`, each with what caused it; as the extension's owner. The
/// caller's privilege has been looked at.
pub fn add_for(
    queue: &Rc<CachedQueue>,
    caller: Oid,
    jobs: &[(Datum, Option<(i64, i32)>)],
) -> Result<()> {
    let now = clock::now();
    for jobs in jobs.chunk_by(|one, other| one.1 == other.1) {
        let cause = jobs[0].1;
        let request = Request {
            queue: Rc::clone(queue),
            caller,
            enqueued_at: now,
            run_at: now,
            ready: true,
            priority: queue.definition.priority as i16,
            max_attempts: None,
            timeout_us: None,
            caused_by: cause.map(|(job, _)| job),
            depth: cause.map_or(0, |(_, depth)| depth + 1),
            of_watch: false,
        };
        let args: Vec<Datum> = jobs.iter().map(|(args, _)| *args).collect();
        request.add(&args)?;
    }
    Ok(())
}

impl Request {
    fn is_too_deep(&self) -> bool {
        self.depth > settings::max_depth()
    }

    #[inline]
    fn birth(&self) -> Birth {
        if self.ready {
            Birth::Ready
        } else {
            Birth::Later
        }
    }

    /// Inserts jobs without a unique key. With the queue and its privileges cached, a number from shared memory and
    /// this are the whole cost of an enqueue; as an INSERT with a kept plan it took half as long again.
    fn insert(&self, jobs: impl Iterator<Item = (i64, Datum)>) -> Result<()> {
        let table = heap::open("live_job")?;
        heap::check_columns(&table, live_job::COLUMNS, &live_job::CHECKED)?;
        table.append(jobs.map(|(id, args)| self.row(id, args, None)));
        Ok(())
    }

    /// A row of the table; `unique`: its key, and beside which job of that key it stands.
    #[inline]
    fn row(&self, id: i64, args: Datum, unique: Option<(&str, i64)>) -> [Answer; 20] {
        let stored = Stored::of(self.birth().state(), id);
        *params![
            id,
            stored.position,
            self.run_at,
            self.enqueued_at,
            self.timeout_us,
            self.caused_by,
            self.queue.definition.queue_id,
            self.caller,
            0i32,
            self.max_attempts,
            self.priority,
            self.depth as i16,
            0i16,
            stored.state,
            0i16,
            unique.map(|unique| unique.0),
            unique.map(|unique| unique.1),
            args,
            None::<i32>,
            None::<bool>,
        ]
    }

    /// Says at commit that jobs became ready, or when they will be due.
    fn announce(&self, first_position: i64, jobs: u64) {
        let Some(slot) = self.queue.slot else {
            return self.announce_without_place();
        };
        let key = self.queue.definition.key();
        if !self.of_watch {
            pending::promises(slot, key);
        }
        if self.ready {
            pending::ready(slot, key, self.priority as usize, first_position, jobs);
        } else {
            pending::for_later(slot, key, jobs);
            pending::waiting_from(self.run_at.0);
        }
    }

    /// The queue has no place in shared memory: its jobs are stored all the same, and run when it has one.
    #[cold]
    fn announce_without_place(&self) {
        if shared::get().is_none() {
            return;
        }
        pending::unplaced(self.queue.definition.key());
        if !self.ready {
            pending::waiting_from(self.run_at.0);
        }
    }
}
