//! From the notes of executors that have ended to verdicts on their jobs.

use super::recorder::{Note, Recorder, VerdictKind, MAGIC};
use crate::pg::signals::{MARK_NONE, MARK_OVERRAN, MARK_TERMINATED};
use crate::pg::{database, mapped_file};
use crate::shared::executor::MAX_EXECUTORS;
use crate::shared::{self};
use std::sync::atomic::Ordering;

impl Recorder {
    /// At the first start of the launcher since the server's shared memory was made: reads what the
    /// executors of before left behind.
    pub fn find_verdicts_of_last_life(&self) {
        let expected = (
            MAGIC,
            database::system_identifier(),
            mapped_file::boot_number(),
        );
        let found = (
            self.magic.load(Ordering::SeqCst),
            self.system.load(Ordering::SeqCst),
            self.boot.load(Ordering::SeqCst),
        );
        if expected == found {
            self.find_verdicts_of_crash();
        } else {
            for verdict in &self.verdicts {
                verdict.kind.store(0, Ordering::SeqCst);
            }
            self.verdicts_used.store(0, Ordering::SeqCst);
            self.system.store(expected.1, Ordering::SeqCst);
            self.boot.store(expected.2, Ordering::SeqCst);
            self.magic.store(expected.0, Ordering::SeqCst);
        }
        for note in &self.notes {
            note.clear();
        }
        // Also for verdicts from before the start that are not carried out: executors may come before the scheduler.
        shared::expect().endings.fetch_add(1, Ordering::SeqCst);
    }

    fn find_verdicts_of_crash(&self) {
        let suspects: Vec<&Note> = self
            .notes
            .iter()
            .filter(|note| note.is_busy() && note.mark.load(Ordering::SeqCst) == MARK_NONE)
            .collect();
        for note in &suspects {
            let was_single = suspects.len() == 1 || note.in_quarantine.load(Ordering::SeqCst) != 0;
            let kind = if note.is_of_several() {
                VerdictKind::RunSingle
            } else if was_single {
                VerdictKind::Crashed
            } else {
                VerdictKind::Quarantine
            };
            self.add_verdict(kind, note);
        }
        for note in &self.notes {
            self.find_verdict_of_ended(note);
        }
    }

    /// When an executor has left while the server runs on: reads its note.
    pub fn find_verdicts_of_exit(&self, slot: usize) -> bool {
        let note = &self.notes[slot];
        if !note.is_busy() {
            note.clear();
            return false;
        }
        match note.mark.load(Ordering::SeqCst) {
            MARK_NONE if note.is_of_several() => self.add_verdict(VerdictKind::RunSingle, note),
            MARK_NONE => self.add_verdict(VerdictKind::EndedSession, note),
            _ => self.find_verdict_of_ended(note),
        }
        note.clear();
        true
    }

    /// An executor that was ended by a signal, of an administrator or its own.
    fn find_verdict_of_ended(&self, note: &Note) {
        if !note.is_busy() {
            return;
        }
        match note.mark.load(Ordering::SeqCst) {
            MARK_OVERRAN if note.is_of_several() => self.add_verdict(VerdictKind::RunSingle, note),
            MARK_OVERRAN => self.add_verdict(VerdictKind::Overran, note),
            MARK_TERMINATED => self.add_verdict(VerdictKind::Terminated, note),
            _ => {}
        }
    }

    fn add_verdict(&self, kind: VerdictKind, note: &Note) {
        // The cells run out only when sessions lock the jobs of verdicts that are awaited. Then one more executor's end goes
        // uncharged. Crashes of the server have the other half of the cells, so that no session can keep them from being
        // judged.
        let cells = match kind {
            VerdictKind::Crashed | VerdictKind::Quarantine => &self.verdicts[..],
            _ => &self.verdicts[..MAX_EXECUTORS],
        };
        let Some(index) = cells.iter().position(|cell| !cell.is_taken()) else {
            return;
        };
        let cell = &self.verdicts[index];
        self.verdicts_used
            .fetch_max(index as u64 + 1, Ordering::SeqCst);
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
}
