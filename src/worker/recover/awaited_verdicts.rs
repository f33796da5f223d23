//! Verdicts that are not carried out yet: what they keep from running, and their end.

use super::recorder::{CrashVerdict, Recorder, VerdictKind};
use crate::pg::value::Timestamp;
use crate::shared::executor::ExecutorState;
use crate::shared::queue_slot::QueueKey;
use crate::shared::Shared;
use std::sync::atomic::Ordering;

/// How many endings there have been; None when all have been seen closed, which costs two loads.
#[inline]
fn open_endings(shared: &Shared) -> Option<u64> {
    let endings = shared.endings.load(Ordering::SeqCst);
    (endings != shared.closed_endings.load(Ordering::SeqCst)).then_some(endings)
}

impl Recorder {
    /// Whether one of these jobs, whose rows the caller holds, has a crash verdict that is not given or not carried out.
    /// Until then it must not run: each executor could run it once more without a charge.
    pub fn awaits_verdict(
        &self,
        shared: &Shared,
        queue: QueueKey,
        jobs: impl Iterator<Item = i64> + Clone,
    ) -> bool {
        let Some(endings) = open_endings(shared) else {
            return false;
        };
        self.is_any_awaited(shared, endings, |verdict| {
            verdict.database == queue.database
                && match verdict.kind {
                    VerdictKind::RunSingle => verdict.queue_id == queue.queue_id,
                    _ => jobs.clone().any(|job| job == verdict.job),
                }
        })
    }

    /// Whether a job of this queue has a verdict that is not given or not carried out. In a queue that keeps its order no job
    /// behind it may start before: while the verdict is carried out the job's row is locked, and a claim would pass over it.
    /// A verdict that waits for a session's lock keeps no job from starting.
    pub fn order_awaits_verdict(&self, shared: &Shared, queue: QueueKey) -> bool {
        let Some(endings) = open_endings(shared) else {
            return false;
        };
        self.is_any_awaited(shared, endings, |verdict| {
            verdict.database == queue.database
                && verdict.queue_id == queue.queue_id
                && !verdict.waits
        })
    }

    fn is_any_awaited(
        &self,
        shared: &Shared,
        endings: u64,
        concerns: impl Fn(&CrashVerdict) -> bool,
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
                here |= concerns(&note.verdict(VerdictKind::Terminated))
                    || (note.is_of_several() && concerns(&note.verdict(VerdictKind::RunSingle)));
            }
        }
        for verdict in self.all_verdicts() {
            anywhere = true;
            here |= concerns(&verdict);
        }
        if !anywhere {
            shared.closed_endings.fetch_max(endings, Ordering::SeqCst);
        }
        here
    }

    fn all_verdicts(&self) -> impl Iterator<Item = CrashVerdict> + '_ {
        let used = self.verdicts_used.load(Ordering::SeqCst) as usize;
        self.verdicts[..used.min(self.verdicts.len())]
            .iter()
            .enumerate()
            .filter_map(|(index, cell)| {
                Some(CrashVerdict {
                    kind: VerdictKind::from_u32(cell.kind.load(Ordering::SeqCst))?,
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
    pub fn verdicts(&self, database: u32) -> Vec<CrashVerdict> {
        self.all_verdicts()
            .filter(|verdict| verdict.database == database)
            .collect()
    }

    pub fn has_verdicts(&self, database: u32) -> bool {
        self.all_verdicts()
            .any(|verdict| verdict.database == database)
    }

    /// The verdict was carried out, and that has committed.
    pub fn remove(&self, verdict: &CrashVerdict) {
        self.verdicts[verdict.index].kind.store(0, Ordering::SeqCst);
    }

    /// The verdict could not be carried out, because a session has the job's row.
    pub fn wait(&self, verdict: &CrashVerdict) {
        self.verdicts[verdict.index]
            .waits
            .store(1, Ordering::SeqCst);
    }

    /// The database, or the extension in it, is gone: its verdicts cannot be carried out.
    pub fn forget_database(&self, database: u32) {
        for verdict in self.verdicts(database) {
            self.remove(&verdict);
        }
    }
}
