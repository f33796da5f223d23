//! The flight recorder: what each executor does, in a mapped file that outlives a crash of the server.
//!
//! An executor notes its job before it runs it. A crash of any process makes the postmaster send SIGQUIT
//! to all: the handler of an executor marks its note 'bystander' before the process exits. What is found
//! without a mark is the suspect. (docs/design.md)

use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU32, AtomicU64, Ordering};

use pushy_core::backoff;

use crate::errors::{Error, Result, SqlState};
use crate::pg::signals::MARK_NONE;
use crate::pg::value::Timestamp;
use crate::pg::{ereport, latch, mapped_file};
use crate::shared::executor::MAX_EXECUTORS;
use crate::worker::failures_in_row::{FailuresInRow, Waits};

const PATH: &str = "pg_stat_tmp/pushy.recorder";
pub(super) const MAGIC: u64 = 0x7075_7368_7966_6c04;
/// Verdicts that wait for the scheduler of their database.
const MAX_VERDICTS: usize = 2 * MAX_EXECUTORS;

const IDLE: u32 = 0;
const RUNNING: u32 = 1;
const COMMITTING: u32 = 2;

/// What one executor does.
#[repr(C, align(64))]
pub struct Note {
    pub mark: AtomicU32,
    phase: AtomicU32,
    database: AtomicU32,
    queue_id: AtomicI32,
    job: AtomicI64,
    attempt: AtomicI32,
    started_at: AtomicI64,
    /// Jobs of the batch that is being committed.
    jobs: AtomicU32,
    /// It runs with no other job in the cluster.
    pub(super) in_quarantine: AtomicU32,
}

/// What is to be done to a job, or to a queue, because of how a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum VerdictKind {
    /// The server crashed while it ran, and nothing else can have been the cause.
    Crashed = 1,
    /// Its handler ended its own session.
    EndedSession = 2,
    /// Several ran when the server crashed: run it with no other job in the cluster.
    Quarantine = 3,
    /// Its executor was terminated from outside.
    Terminated = 4,
    /// The server crashed while a batch of several committed: batches of one for a while.
    RunSingle = 5,
    /// It did not stop when its timeout or its cancel interrupted it, and its executor was ended.
    Overran = 6,
}

impl VerdictKind {
    pub(super) fn from_u32(value: u32) -> Option<Self> {
        match value {
            1 => Some(Self::Crashed),
            2 => Some(Self::EndedSession),
            3 => Some(Self::Quarantine),
            4 => Some(Self::Terminated),
            5 => Some(Self::RunSingle),
            6 => Some(Self::Overran),
            _ => None,
        }
    }
}

#[repr(C)]
pub(super) struct CrashVerdictCell {
    /// 0: free.
    pub(super) kind: AtomicU32,
    pub(super) database: AtomicU32,
    pub(super) queue_id: AtomicI32,
    pub(super) attempt: AtomicI32,
    pub(super) job: AtomicI64,
    pub(super) started_at: AtomicI64,
    /// A session has the job's row: the verdict waits for it, and nobody else does.
    pub(super) waits: AtomicU32,
}

impl CrashVerdictCell {
    pub(super) fn is_taken(&self) -> bool {
        self.kind.load(Ordering::SeqCst) != 0
    }
}

#[derive(Clone, Copy, Debug)]
pub struct CrashVerdict {
    pub kind: VerdictKind,
    pub database: u32,
    pub queue_id: i32,
    /// The attempts charged when it started.
    pub attempt: i32,
    pub job: i64,
    pub started_at: Timestamp,
    /// A session has the job's row.
    pub(super) waits: bool,
    /// The cell it waits in.
    pub(super) index: usize,
}

#[repr(C)]
pub struct Recorder {
    pub(super) magic: AtomicU64,
    pub(super) system: AtomicI64,
    pub(super) boot: AtomicU64,
    /// Verdicts from this on were never made.
    pub(super) verdicts_used: AtomicU64,
    pub(super) notes: [Note; MAX_EXECUTORS],
    pub(super) verdicts: [CrashVerdictCell; MAX_VERDICTS],
}

/// Maps the recorder, in a worker that cannot do without; an error ends it. An unusable one (of another
/// cluster or boot) is wiped by the launcher.
pub fn open() -> &'static Recorder {
    map().unwrap_or_else(|failure| ereport::raise(&failure))
}

/// The same in the launcher, which the server would start again every second: it waits until there is one.
pub fn await_one() -> &'static Recorder {
    let mut failures = FailuresInRow::none(None, &WAITS);
    loop {
        match map() {
            Ok(recorder) => return recorder,
            Err(failure) => latch::wait(Some(failures.count(&failure))),
        }
    }
}

fn map() -> Result<&'static Recorder> {
    mapped_file::map::<Recorder>(PATH).map_err(|error| {
        Error::new(
            SqlState::INTERNAL_ERROR,
            format!("could not map \"{PATH}\": {error}"),
        )
        .hint(ROOM)
    })
}

const ROOM: &str = "The data directory must be writable and have room for a few kilobytes.";

static WAITS: Waits = Waits {
    backoff: backoff::START,
    what: "jobs wait",
    detail: Some(ROOM),
    hint: "It is tried again, after {after}; this is said once until it succeeds.",
};

impl Note {
    /// Before a job starts. The number last: a note is complete when it is there.
    pub fn enter(
        &self,
        database: u32,
        queue_id: i32,
        job: i64,
        attempt: i32,
        started_at: Timestamp,
    ) {
        self.database.store(database, Ordering::Relaxed);
        self.queue_id.store(queue_id, Ordering::Relaxed);
        self.attempt.store(attempt, Ordering::Relaxed);
        self.started_at.store(started_at.0, Ordering::Relaxed);
        self.job.store(job, Ordering::Relaxed);
        self.phase.store(RUNNING, Ordering::SeqCst);
    }

    /// Between jobs: whatever happens now is charged to no job.
    pub fn leave(&self) {
        self.phase.store(IDLE, Ordering::SeqCst);
    }

    /// Before the commit of a batch of `jobs`, the last entered being one of them.
    pub fn enter_commit(&self, jobs: u32) {
        self.jobs.store(jobs, Ordering::Relaxed);
        self.phase.store(COMMITTING, Ordering::SeqCst);
    }

    pub fn set_in_quarantine(&self, held: bool) {
        self.in_quarantine.store(u32::from(held), Ordering::SeqCst);
    }

    pub fn clear(&self) {
        self.leave();
        self.set_in_quarantine(false);
        self.mark.store(MARK_NONE, Ordering::SeqCst);
    }

    pub(super) fn is_busy(&self) -> bool {
        self.phase.load(Ordering::SeqCst) != IDLE
    }

    pub(super) fn verdict(&self, kind: VerdictKind) -> CrashVerdict {
        CrashVerdict {
            kind,
            database: self.database.load(Ordering::SeqCst),
            queue_id: self.queue_id.load(Ordering::SeqCst),
            attempt: self.attempt.load(Ordering::SeqCst),
            job: self.job.load(Ordering::SeqCst),
            started_at: Timestamp(self.started_at.load(Ordering::SeqCst)),
            waits: false,
            index: 0,
        }
    }

    /// Attributed to the queue, not to one job: several were being committed.
    pub(super) fn is_of_several(&self) -> bool {
        self.phase.load(Ordering::SeqCst) == COMMITTING && self.jobs.load(Ordering::SeqCst) > 1
    }
}

impl Recorder {
    pub fn note(&self, slot: usize) -> &Note {
        &self.notes[slot]
    }

    /// Whether the note of this slot says that something ran.
    pub fn is_noted(&self, slot: usize) -> bool {
        self.notes[slot].is_busy()
    }
}
