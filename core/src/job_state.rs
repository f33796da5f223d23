//! The life of a job: seven states, ten events, one function that says which move is legal.
//!
//! ```text
//!   scheduled ──Due──▶ available ──Claim──▶ running ──Succeed──▶ completed
//!                          ▲                   │──FailLast─────▶ discarded
//!                          ├────Release────────┤──Cancel───────▶ cancelled
//!                          └─Due─ retryable ◀──┘ FailAgain
//! ```
//!
//! Not drawn: scheduled, available and retryable jobs can be cancelled; a verdict after a crash moves
//! an available job as it would have moved a running one, and one whose promotion the crash took back after `Due`; `RetryNow` makes any job but an available or
//! running one available; `Orphan` discards what waits for a queue that is gone. A job that is due again at once after a
//! failure makes two moves in one: `FailAgain`, then `Due`. `Snooze` puts a running job off, uncharged: it is scheduled again. A job that is deleted with its queue (`queue_drop` by force) has no
//! last state.
//!
//! `src/job/moves/` carries out what this page allows, and nothing else writes a job's state. (docs/design.md)

/// Where a job stands. Of a job inside the server `Running` is virtual: it is read from executor slots and never stored, since
/// an executor's claim is a row lock and writes nothing. Of a leased job it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JobState {
    /// Due in the future.
    Scheduled,
    /// Due now; also claimed by an executor but not started yet.
    Available,
    /// Its handler runs at this moment.
    Running,
    /// Failed with attempts left; due again in the future.
    Retryable,
    /// Succeeded.
    Completed,
    /// Failed for the last time.
    Discarded,
    /// Taken back by somebody.
    Cancelled,
}

/// How a job comes to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Birth {
    /// Due at once.
    Ready,
    /// Due in the future.
    Later,
    /// The chain of its causes is longer than pushy.max_depth.
    TooDeep,
}

impl Birth {
    /// Every birth.
    pub const ALL: [Birth; 3] = [Birth::Ready, Birth::Later, Birth::TooDeep];

    /// The first state of a job.
    pub const fn state(self) -> JobState {
        match self {
            Birth::Ready => JobState::Available,
            Birth::Later => JobState::Scheduled,
            Birth::TooDeep => JobState::Discarded,
        }
    }
}

/// What can happen to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JobEvent {
    /// Its time has come.
    Due,
    /// An executor, or a worker outside, starts it.
    Claim,
    /// Its handler returned.
    Succeed,
    /// An attempt failed and others are left.
    FailAgain,
    /// The last attempt failed.
    FailLast,
    /// The claim was given up, or vanished with its process; nothing is charged.
    Release,
    /// Whoever runs it puts it off; nothing is charged.
    Snooze,
    /// `job_cancel`.
    Cancel,
    /// `job_retry`: run now, also when it was finished.
    RetryNow,
    /// Its queue is gone, and no executor has claimed it.
    Orphan,
}

impl JobState {
    /// Every state, in the order of a job's life.
    pub const ALL: [JobState; 7] = [
        JobState::Scheduled,
        JobState::Available,
        JobState::Running,
        JobState::Retryable,
        JobState::Completed,
        JobState::Discarded,
        JobState::Cancelled,
    ];

    /// The state after `event`, or `None` when the event is refused in this state.
    pub const fn next(self, event: JobEvent) -> Option<JobState> {
        use {JobEvent::*, JobState::*};
        match (self, event) {
            (Scheduled | Retryable, Due) => Some(Available),
            (Available, Claim) => Some(Running),
            (Running, Succeed) => Some(Completed),
            // An available job fails, or is given back, when the server crashed while it ran: by the time of the verdict
            // the row lock that made it running is gone.
            (Running | Available, Release) => Some(Available),
            (Running, Snooze) => Some(Scheduled),
            (Running | Available, FailAgain) => Some(Retryable),
            (Running | Available, FailLast) => Some(Discarded),
            (Scheduled | Available | Running | Retryable, Cancel) => Some(Cancelled),
            (Scheduled | Retryable | Completed | Discarded | Cancelled, RetryNow) => {
                Some(Available)
            }
            // A running one: its lease is over, and there is no queue to try it again.
            (Scheduled | Available | Running | Retryable, Orphan) => Some(Discarded),
            _ => None,
        }
    }

    /// The state after an event that is legal, where both are known when this is compiled: another move does not compile.
    pub const fn after(self, event: JobEvent) -> JobState {
        match self.next(event) {
            Some(state) => state,
            None => panic!("the state machine has no such move"),
        }
    }

    /// Whether the job is over: nothing but `RetryNow` moves it again.
    pub const fn is_terminal(self) -> bool {
        matches!(
            self,
            JobState::Completed | JobState::Discarded | JobState::Cancelled
        )
    }

    /// The word that SQL shows.
    pub const fn as_str(self) -> &'static str {
        match self {
            JobState::Scheduled => "scheduled",
            JobState::Available => "available",
            JobState::Running => "running",
            JobState::Retryable => "retryable",
            JobState::Completed => "completed",
            JobState::Discarded => "discarded",
            JobState::Cancelled => "cancelled",
        }
    }

    /// The state called `word`, exactly as [`as_str`](Self::as_str) writes it.
    pub fn parse(word: &str) -> Option<JobState> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// The byte that stands for the state in the job table.
    pub const fn code(self) -> u8 {
        match self {
            JobState::Scheduled => b's',
            JobState::Available => b'a',
            JobState::Running => b'x',
            JobState::Retryable => b'r',
            JobState::Completed => b'c',
            JobState::Discarded => b'd',
            JobState::Cancelled => b'k',
        }
    }

    /// The state that `code` stands for.
    pub fn from_code(code: u8) -> Option<JobState> {
        Self::ALL.into_iter().find(|state| state.code() == code)
    }
}

impl JobEvent {
    /// Every event.
    pub const ALL: [JobEvent; 10] = [
        JobEvent::Due,
        JobEvent::Claim,
        JobEvent::Succeed,
        JobEvent::FailAgain,
        JobEvent::FailLast,
        JobEvent::Release,
        JobEvent::Snooze,
        JobEvent::Cancel,
        JobEvent::RetryNow,
        JobEvent::Orphan,
    ];

    /// Its name, for messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            JobEvent::Due => "due",
            JobEvent::Claim => "claim",
            JobEvent::Succeed => "succeed",
            JobEvent::FailAgain => "fail again",
            JobEvent::FailLast => "fail for the last time",
            JobEvent::Release => "release",
            JobEvent::Snooze => "be put off",
            JobEvent::Cancel => "cancel",
            JobEvent::RetryNow => "retry now",
            JobEvent::Orphan => "lose its queue",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seeded::Seeded;

    /// Rows: states; columns: events in the order of [`JobEvent::ALL`]; `.` is refused.
    const TABLE: [(JobState, &str); 7] = [
        // Due, Claim, Succeed, FailAgain, FailLast, Release, Snooze, Cancel, RetryNow, Orphan
        (JobState::Scheduled, "a......kad"),
        (JobState::Available, ".x.rda.k.d"),
        (JobState::Running, "..crdask.d"),
        (JobState::Retryable, "a......kad"),
        (JobState::Completed, "........a."),
        (JobState::Discarded, "........a."),
        (JobState::Cancelled, "........a."),
    ];

    #[test]
    fn every_legal_move_is_made_and_every_other_is_refused() {
        for (state, row) in TABLE {
            assert_eq!(row.len(), JobEvent::ALL.len());
            for (event, code) in JobEvent::ALL.into_iter().zip(row.bytes()) {
                let expected = (code != b'.').then(|| JobState::from_code(code).unwrap());
                assert_eq!(state.next(event), expected, "{state:?} on {event:?}");
            }
        }
    }

    #[test]
    fn every_birth_gives_a_state_in_which_nothing_is_claimed() {
        let states = Birth::ALL.map(Birth::state);
        assert_eq!(
            states,
            [
                JobState::Available,
                JobState::Scheduled,
                JobState::Discarded
            ]
        );
    }

    #[test]
    fn every_state_but_running_is_reached_and_left_by_a_row() {
        // What is stored after any birth and any row of moves: never `Running` but by a claim, which writes nothing.
        let mut reached: Vec<JobState> = Birth::ALL.map(Birth::state).to_vec();
        let mut at = 0;
        while at < reached.len() {
            for event in JobEvent::ALL {
                if let Some(next) = reached[at].next(event) {
                    assert_eq!(next == JobState::Running, event == JobEvent::Claim);
                    if !reached.contains(&next) {
                        reached.push(next);
                    }
                }
            }
            at += 1;
        }
        assert_eq!(reached.len(), JobState::ALL.len());
    }

    #[test]
    fn names_of_events_are_unique() {
        let mut names = JobEvent::ALL.map(JobEvent::as_str).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), JobEvent::ALL.len());
    }

    #[test]
    fn words_and_codes_are_unique_and_read_back() {
        for state in JobState::ALL {
            assert_eq!(JobState::parse(state.as_str()), Some(state));
            assert_eq!(JobState::from_code(state.code()), Some(state));
        }
    }

    #[test]
    fn no_other_byte_and_no_other_spelling_is_a_state() {
        let known = (0..=u8::MAX).filter(|code| JobState::from_code(*code).is_some());
        assert_eq!(known.count(), JobState::ALL.len());
        for word in ["", "Running", " running", "done", "x"] {
            assert_eq!(JobState::parse(word), None, "{word:?}");
        }
    }

    #[test]
    fn terminal_means_that_only_a_retry_moves_it() {
        for state in JobState::ALL {
            let movers: Vec<_> = JobEvent::ALL
                .into_iter()
                .filter(|event| state.next(*event).is_some())
                .collect();
            assert_eq!(
                state.is_terminal(),
                movers == [JobEvent::RetryNow],
                "{state:?}"
            );
        }
    }

    #[test]
    fn no_random_life_runs_twice_without_becoming_available_in_between() {
        let mut random = Seeded::new(1);
        for _ in 0..2_000 {
            let mut state = JobState::Scheduled;
            for _ in 0..40 {
                let event = JobEvent::ALL[random.below(JobEvent::ALL.len() as u64) as usize];
                let Some(next) = state.next(event) else {
                    continue;
                };
                // But that a claim is gone which was not known to be.
                assert!(next != state || event == JobEvent::Release);
                assert!(next != JobState::Running || state == JobState::Available);
                assert!(!state.is_terminal() || next == JobState::Available);
                assert!(next != JobState::Completed || state == JobState::Running);
                state = next;
            }
        }
    }
}
