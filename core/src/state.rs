//! The life of a job: seven states, eight events, one function that says which move is legal.
//!
//! ```text
//!   scheduled ──Due──▶ available ──Claim──▶ running ──Succeed──▶ completed
//!                          ▲                   │──FailLast─────▶ discarded
//!                          ├────Release────────┤──Cancel───────▶ cancelled
//!                          └─Due─ retryable ◀──┘ FailAgain
//! ```
//!
//! Not drawn: scheduled, available and retryable jobs can be cancelled; a verdict after a crash moves
//! an available job as it would have moved a running one; `RetryNow` makes any job but an available or
//! running one available. (docs/design.md)

/// Where a job stands. `Running` is virtual: it is read from executor slots and never stored, since
/// a claim is a row lock and writes nothing.
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
    /// The claim was given up; nothing is charged.
    Release,
    /// `job_cancel`.
    Cancel,
    /// `job_retry`: run now, also when it was finished.
    RetryNow,
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
            (Running, Release) => Some(Available),
            // An available job fails when the server crashed while it ran: by the time of the verdict
            // the row lock that made it running is gone.
            (Running | Available, FailAgain) => Some(Retryable),
            (Running | Available, FailLast) => Some(Discarded),
            (Scheduled | Available | Running | Retryable, Cancel) => Some(Cancelled),
            (Scheduled | Retryable | Completed | Discarded | Cancelled, RetryNow) => {
                Some(Available)
            }
            _ => None,
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

    /// The byte that stands for the state in the job table. `Running` has one, for logs and traces,
    /// though no row ever carries it.
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
    pub const ALL: [JobEvent; 8] = [
        JobEvent::Due,
        JobEvent::Claim,
        JobEvent::Succeed,
        JobEvent::FailAgain,
        JobEvent::FailLast,
        JobEvent::Release,
        JobEvent::Cancel,
        JobEvent::RetryNow,
    ];
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seeded::Seeded;

    /// Rows: states; columns: events in the order of [`JobEvent::ALL`]; `.` is refused.
    const TABLE: [(JobState, &str); 7] = [
        // Due, Claim, Succeed, FailAgain, FailLast, Release, Cancel, RetryNow
        (JobState::Scheduled, "a.....ka"),
        (JobState::Available, ".x.rd.k."),
        (JobState::Running, "..crdak."),
        (JobState::Retryable, "a.....ka"),
        (JobState::Completed, ".......a"),
        (JobState::Discarded, ".......a"),
        (JobState::Cancelled, ".......a"),
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
                let event = JobEvent::ALL[random.below(8) as usize];
                let Some(next) = state.next(event) else {
                    continue;
                };
                assert_ne!(next, state, "{event:?} is a move");
                assert!(next != JobState::Running || state == JobState::Available);
                assert!(!state.is_terminal() || next == JobState::Available);
                assert!(next != JobState::Completed || state == JobState::Running);
                state = next;
            }
        }
    }
}
