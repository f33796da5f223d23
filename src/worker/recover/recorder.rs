//! The flight recorder: what each executor does, in a mapped file that outlives a crash of the server.
//!
//! An executor notes its job before it runs it. A crash of any process makes the postmaster send SIGQUIT
//! to all: the handler of an executor marks its note 'bystander' before the process exits. What is found
//! without a mark is the suspect. (docs/design.md)

use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU32, AtomicU64, Ordering};

use crate::errors::{Error, SqlState};
use crate::pg::signals::{MARK_NONE, MARK_OVERRAN, MARK_TERMINATED};
use crate::pg::value::Timestamp;
use crate::pg::{database, ereport, mapped_file};
use crate::shared::executor::{ExecutorState, MAX_EXECUTORS};
use crate::shared::queue_slot::QueueKey;
use crate::shared::{self, Shared};

const PATH: &str = "pg_stat_tmp/pushy.recorder";
const MAGIC: u64 = 0x7075_7368_7966_6c03;
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
    alone: AtomicU32,
}

/// What is to be done to a job, or to a queue, because of how a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// The server crashed while it ran, and nothing else can have been the cause.
    Crashed = 1,
    /// Its handler ended its own session.
    EndedSession = 2,
    /// Several ran when the server crashed: run it with no other job in the cluster.
    RunAlone = 3,
    /// Its executor was terminated from outside.
    Terminated = 4,
    /// The server crashed while a batch of several committed: batches of one for a while.
    RunSingle = 5,
    /// It did not stop when its timeout or its cancel told it to, and its executor was ended.
    Overran = 6,
}

impl Kind {
    fn from_u32(value: u32) -> Option<Self> {
        match value {
            1 => Some(Self::Crashed),
            2 => Some(Self::EndedSession),
            3 => Some(Self::RunAlone),
            4 => Some(Self::Terminated),
            5 => Some(Self::RunSingle),
            6 => Some(Self::Overran),
            _ => None,
        }
    }
}

#[repr(C)]
struct VerdictCell {
    /// 0: free.
    kind: AtomicU32,
    database: AtomicU32,
    queue_id: AtomicI32,
    attempt: AtomicI32,
    job: AtomicI64,
    started_at: AtomicI64,
    /// A session has the job's row: the verdict waits for it, and nobody else does.
    waits: AtomicU32,
}

impl VerdictCell {
    fn is_taken(&self) -> bool {
        self.kind.load(Ordering::SeqCst) != 0
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    pub kind: Kind,
    pub database: u32,
    pub queue_id: i32,
    /// The attempts charged when it started.
    pub attempt: i32,
    pub job: i64,
    pub started_at: Timestamp,
    /// A session has the job's row.
    waits: bool,
    /// The cell it waits in.
    index: usize,
}

#[repr(C)]
pub struct Recorder {
    magic: AtomicU64,
    system: AtomicI64,
    boot: AtomicU64,
    notes: [Note; MAX_EXECUTORS],
    verdicts: [VerdictCell; MAX_VERDICTS],
}

/// Maps the recorder, in a worker that cannot do without; an error ends it. An unusable one (of another
/// cluster or boot) is wiped by the launcher.
pub fn open() -> &'static Recorder {
    mapped_file::map::<Recorder>(PATH).unwrap_or_else(|error| {
        ereport::raise(
            &Error::new(
                SqlState::INTERNAL_ERROR,
                format!("could not map \"{PATH}\": {error}"),
            )
            .hint("The data directory must be writable and have room for a few kilobytes."),
        )
    })
}

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

    /// Between jobs: whatever happens now is no job's fault.
    pub fn leave(&self) {
        self.phase.store(IDLE, Ordering::SeqCst);
    }

    /// Before the commit of a batch of `jobs`, the last entered being one of them.
    pub fn enter_commit(&self, jobs: u32) {
        self.jobs.store(jobs, Ordering::Relaxed);
        self.phase.store(COMMITTING, Ordering::SeqCst);
    }

    pub fn set_alone(&self, alone: bool) {
        self.alone.store(u32::from(alone), Ordering::SeqCst);
    }

    pub fn clear(&self) {
        self.leave();
        self.set_alone(false);
        self.mark.store(MARK_NONE, Ordering::SeqCst);
    }

    fn is_busy(&self) -> bool {
        self.phase.load(Ordering::SeqCst) != IDLE
    }

    fn verdict(&self, kind: Kind) -> Verdict {
        Verdict {
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

    /// The queue is to blame, not one job: several were being committed.
    fn is_of_several(&self) -> bool {
        self.phase.load(Ordering::SeqCst) == COMMITTING && self.jobs.load(Ordering::SeqCst) > 1
    }
}

impl Recorder {
    pub fn note(&self, slot: usize) -> &Note {
        &self.notes[slot]
    }

    /// At the first start of the launcher since the server's shared memory was made: reads what the
    /// executors of before left behind.
    pub fn judge_last_life(&self) {
        let known = (
            MAGIC,
            database::system_identifier(),
            mapped_file::boot_number(),
        );
        let found = (
            self.magic.load(Ordering::SeqCst),
            self.system.load(Ordering::SeqCst),
            self.boot.load(Ordering::SeqCst),
        );
        if known == found {
            self.judge_crash();
        } else {
            for verdict in &self.verdicts {
                verdict.kind.store(0, Ordering::SeqCst);
            }
            self.system.store(known.1, Ordering::SeqCst);
            self.boot.store(known.2, Ordering::SeqCst);
            self.magic.store(known.0, Ordering::SeqCst);
        }
        for note in &self.notes {
            note.clear();
        }
        // Also for verdicts from before the start that are not carried out: executors may come before the scheduler.
        shared::expect().endings.fetch_add(1, Ordering::SeqCst);
    }

    fn judge_crash(&self) {
        let suspects: Vec<&Note> = self
            .notes
            .iter()
            .filter(|note| note.is_busy() && note.mark.load(Ordering::SeqCst) == MARK_NONE)
            .collect();
        for note in &suspects {
            let alone = suspects.len() == 1 || note.alone.load(Ordering::SeqCst) != 0;
            let kind = if note.is_of_several() {
                Kind::RunSingle
            } else if alone {
                Kind::Crashed
            } else {
                Kind::RunAlone
            };
            self.add_verdict(kind, note);
        }
        for note in &self.notes {
            self.judge_ended(note);
        }
    }

    /// Whether the note of this slot says that something ran.
    pub fn is_noted(&self, slot: usize) -> bool {
        self.notes[slot].is_busy()
    }

    /// When an executor has left while the server runs on: reads its note.
    pub fn judge_exit(&self, slot: usize) -> bool {
        let note = &self.notes[slot];
        if !note.is_busy() {
            note.clear();
            return false;
        }
        match note.mark.load(Ordering::SeqCst) {
            MARK_NONE if note.is_of_several() => self.add_verdict(Kind::RunSingle, note),
            MARK_NONE => self.add_verdict(Kind::EndedSession, note),
            _ => self.judge_ended(note),
        }
        note.clear();
        true
    }

    /// An executor that was ended by a signal, of an administrator or its own.
    fn judge_ended(&self, note: &Note) {
        if !note.is_busy() {
            return;
        }
        match note.mark.load(Ordering::SeqCst) {
            MARK_OVERRAN if note.is_of_several() => self.add_verdict(Kind::RunSingle, note),
            MARK_OVERRAN => self.add_verdict(Kind::Overran, note),
            MARK_TERMINATED => self.add_verdict(Kind::Terminated, note),
            _ => {}
        }
    }

    fn add_verdict(&self, kind: Kind, note: &Note) {
        // The cells run out only when sessions lock the jobs of unsettled verdicts. Then one more executor's end goes
        // uncharged. Crashes of the server have the other half of the cells, so that no session can keep them from being
        // judged.
        let cells = match kind {
            Kind::Crashed | Kind::RunAlone => &self.verdicts[..],
            _ => &self.verdicts[..MAX_EXECUTORS],
        };
        let Some(cell) = cells.iter().find(|cell| !cell.is_taken()) else {
            return;
        };
        let verdict = note.verdict(kind);
        cell.database.store(verdict.database, Ordering::SeqCst);
        cell.queue_id.store(verdict.queue_id, Ordering::SeqCst);
        cell.attempt.store(verdict.attempt, Ordering::SeqCst);
        cell.job.store(verdict.job, Ordering::SeqCst);
        cell.started_at
            .store(verdict.started_at.0, Ordering::SeqCst);
        cell.waits.store(0, Ordering::SeqCst);
        cell.kind.store(kind as u32, Ordering::SeqCst);
        shared::expect().endings.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether one of these jobs, whose rows the caller holds, has a crash verdict that is not given or not carried out.
    /// Until then it must not run: each executor could run it once more without a charge.
    pub fn is_unsettled(
        &self,
        shared: &Shared,
        queue: QueueKey,
        jobs: impl Iterator<Item = i64> + Clone,
    ) -> bool {
        let endings = shared.endings.load(Ordering::SeqCst);
        if endings == shared.settled_endings.load(Ordering::SeqCst) {
            return false;
        }
        self.is_any_unsettled(shared, endings, |verdict| {
            verdict.database == queue.database
                && match verdict.kind {
                    Kind::RunSingle => verdict.queue_id == queue.queue_id,
                    _ => jobs.clone().any(|job| job == verdict.job),
                }
        })
    }

    /// Whether a job of this queue has a verdict that is not given or not carried out. In a queue that keeps its order no job
    /// behind it may start before: while the verdict is carried out the job's row is locked, and a claim would pass over it.
    /// A verdict that waits for a session's lock keeps no job from starting.
    pub fn is_order_unsettled(&self, shared: &Shared, queue: QueueKey) -> bool {
        let endings = shared.endings.load(Ordering::SeqCst);
        if endings == shared.settled_endings.load(Ordering::SeqCst) {
            return false;
        }
        self.is_any_unsettled(shared, endings, |verdict| {
            verdict.database == queue.database
                && verdict.queue_id == queue.queue_id
                && !verdict.waits
        })
    }

    fn is_any_unsettled(
        &self,
        shared: &Shared,
        endings: u64,
        concerns: impl Fn(&Verdict) -> bool,
    ) -> bool {
        let mut here = false;
        let mut anywhere = false;
        // The notes first: a note that is judged meanwhile becomes a verdict, and is found there.
        for (executor, note) in shared.executors.iter().zip(&self.notes) {
            let has_left = matches!(
                executor.state(),
                ExecutorState::Free | ExecutorState::Stopping
            );
            if has_left && note.is_busy() {
                anywhere = true;
                here |= concerns(&note.verdict(Kind::Terminated))
                    || (note.is_of_several() && concerns(&note.verdict(Kind::RunSingle)));
            }
        }
        for verdict in self.all_verdicts() {
            anywhere = true;
            here |= concerns(&verdict);
        }
        if !anywhere {
            shared.settled_endings.fetch_max(endings, Ordering::SeqCst);
        }
        here
    }

    fn all_verdicts(&self) -> impl Iterator<Item = Verdict> + '_ {
        self.verdicts
            .iter()
            .enumerate()
            .filter_map(|(index, cell)| {
                Some(Verdict {
                    kind: Kind::from_u32(cell.kind.load(Ordering::SeqCst))?,
                    database: cell.database.load(Ordering::SeqCst),
                    queue_id: cell.queue_id.load(Ordering::SeqCst),
                    attempt: cell.attempt.load(Ordering::SeqCst),
                    job: cell.job.load(Ordering::SeqCst),
                    started_at: Timestamp(cell.started_at.load(Ordering::SeqCst)),
                    waits: cell.waits.load(Ordering::SeqCst) != 0,
                    index,
                })
            })
    }

    /// What waits for the scheduler of this database.
    pub fn verdicts(&self, database: u32) -> Vec<Verdict> {
        self.all_verdicts()
            .filter(|verdict| verdict.database == database)
            .collect()
    }

    pub fn has_verdicts(&self, database: u32) -> bool {
        self.all_verdicts()
            .any(|verdict| verdict.database == database)
    }

    /// The verdict was carried out, and that has committed.
    pub fn settle(&self, verdict: &Verdict) {
        self.verdicts[verdict.index].kind.store(0, Ordering::SeqCst);
    }

    /// The verdict could not be carried out, because a session has the job's row.
    pub fn wait(&self, verdict: &Verdict) {
        self.verdicts[verdict.index]
            .waits
            .store(1, Ordering::SeqCst);
    }

    /// The database, or the extension in it, is gone: its verdicts cannot be carried out.
    pub fn forget_database(&self, database: u32) {
        for verdict in self.verdicts(database) {
            self.settle(&verdict);
        }
    }
}
