//! A model of the wake protocol (docs/design.md), checked in every interleaving.
//!
//! The job table is read by position. Shared memory holds, per queue and priority, `low`: the lowest position
//! that may be ready, `MAX` for none; per queue a bit: some `low` is set; per executor a flag and a latch.
//!
//! ```text
//! announce(p)  fetch_min(low, p); set the bit; then CAS one executor idle -> woken and set its latch; if none
//!              is idle, ask the scheduler. Called once visible: after a COMMIT that made rows ready, after the
//!              COMMIT or ABORT of who locked a ready row and left it ready.
//! claim        clear the bit, done if it was clear. By priority: a = swap(low, MAX), next one if MAX; take a
//!              snapshot; lock up to n rows it sees from position a on, in order, skipping locked ones. If n
//!              came: announce(last + 1), last being the position *the snapshot saw*; announce(a) if
//!              that is not known, as a row can have moved since. On lower priorities left alone: if one's
//!              low is set, set the bit and wake. On failure after the swap: announce(a), after the abort.
//!              Rows given up: announce the lowest, after the commit.
//! idle         write the flag, idle; look at the bit; sleep on the latch if it is clear. On waking reset the
//!              latch, write the flag, busy; claim.
//! exit         however it comes: write the flag, gone; look at the bit; ask the scheduler if it is set.
//! ```
//!
//! Steps are single reads and writes of shared memory, in one order that all processes see: the code has to
//! use SeqCst on `low`, bit and flag (announce writes the bit then reads flags, idle writes the flag then
//! reads the bit: either may pass the other on weaker orders). A commit is one step: the server
//! makes rows visible, and row locks void, at once (ProcArrayEndTransaction), before it calls our callback.
//!
//! Checked of every world that can be reached: when nothing can happen any more, no committed and unlocked
//! row is left (`LostRow`); none waits beside a sleeping executor until a user or another job gets on
//! (`StalledRow`); every run ends (`Livelock`). Each rule above is then broken, and must be missed. With
//! `WAKE_MODEL_TRACE` set, tests of broken rules print the shortest run that goes wrong.
//!
//! The tests stay with runs of at most 1.4 million worlds. `LOCKED` with two enqueuers (9.5 million, with a
//! failing batch 33.9 million) and `PLAIN` with a failing batch and an exit (11.4 million) hold as well.

mod announce;
mod checker;
mod claim;
mod idle;
mod pack;
mod rules;
mod sessions;
mod world;

use checker::{explore, shortest_trace, Violation};
use rules::{Fault, Rules};
use world::Budget;

const NEVER: Budget = Budget {
    aborts: 0,
    stops: 0,
    exits: 0,
};

/// Two transactions enqueue a row each, two executors claim one row at a time.
const PLAIN: Rules = Rules {
    enqueuers: &[&[0], &[0]],
    lockers: 0,
    lockers_move: false,
    executors: 2,
    claim: 1,
    budget: NEVER,
    fault: Fault::None,
};

/// One transaction enqueues two rows, a session locks one for a while.
const LOCKED: Rules = Rules {
    enqueuers: &[&[0, 0]],
    lockers: 1,
    ..PLAIN
};

/// The same with one executor.
const ALONE: Rules = Rules {
    executors: 1,
    ..LOCKED
};

/// One transaction enqueues three rows, two executors claim two at a time.
const THREE_ROWS: Rules = Rules {
    enqueuers: &[&[0, 0, 0]],
    claim: 2,
    ..PLAIN
};

const ONE_ABORT: Budget = Budget { aborts: 1, ..NEVER };

fn holds(rules: Rules) {
    match explore(&rules, &Violation::ALL) {
        Ok(explored) => {
            assert!(explored.ends > 0);
            println!("{} worlds, {} ends", explored.worlds, explored.ends);
        }
        Err(violation) => match shortest_trace(&rules, violation) {
            Some(trace) => panic!("{violation:?}:\n{trace}"),
            None => panic!("{violation:?}"),
        },
    }
}

fn goes_wrong(violation: Violation, fault: Fault, rules: Rules) {
    let rules = Rules { fault, ..rules };
    assert_eq!(explore(&rules, &[violation]).err(), Some(violation));
    if std::env::var_os("WAKE_MODEL_TRACE").is_some() {
        let trace = shortest_trace(&rules, violation).expect("it was just found");
        println!("{fault:?}, {violation:?}:\n{trace}");
    }
}

fn loses_a_row(fault: Fault, rules: Rules) {
    goes_wrong(Violation::LostRow, fault, rules);
}

fn stalls_a_row(fault: Fault, rules: Rules) {
    goes_wrong(Violation::StalledRow, fault, rules);
}

mod the_protocol_holds {
    use super::*;

    #[test]
    fn when_transactions_commit_in_another_order_than_they_drew_positions() {
        holds(PLAIN);
    }

    #[test]
    fn when_batches_of_two_fail_or_stop_early() {
        let budget = Budget {
            aborts: 1,
            stops: 1,
            exits: 0,
        };
        holds(Rules {
            claim: 2,
            budget,
            ..PLAIN
        });
        holds(Rules {
            budget,
            ..THREE_ROWS
        });
    }

    #[test]
    fn when_a_session_locks_a_row_and_a_batch_fails() {
        holds(Rules {
            budget: ONE_ABORT,
            ..LOCKED
        });
    }

    #[test]
    fn when_a_session_locks_a_row_between_two_commits_and_one_executor_does_it_all() {
        holds(Rules {
            enqueuers: &[&[0], &[0]],
            executors: 1,
            budget: ONE_ABORT,
            ..LOCKED
        });
    }

    #[test]
    fn when_a_row_moves_to_a_new_position_under_a_claim() {
        holds(Rules {
            lockers_move: true,
            ..LOCKED
        });
    }

    #[test]
    fn with_two_priorities() {
        holds(Rules {
            enqueuers: &[&[0], &[1]],
            claim: 2,
            budget: ONE_ABORT,
            ..PLAIN
        });
        holds(Rules {
            enqueuers: &[&[1, 0, 0]],
            budget: ONE_ABORT,
            ..THREE_ROWS
        });
    }

    #[test]
    fn when_executors_exit() {
        for executors in [1, 2] {
            holds(Rules {
                enqueuers: &[&[0, 0]],
                executors,
                budget: Budget {
                    aborts: 1,
                    stops: 0,
                    exits: 1,
                },
                ..PLAIN
            });
        }
    }
}

mod without_its_rule_announce {
    use super::*;

    #[test]
    fn writes_low_before_the_bit() {
        loses_a_row(Fault::BitBeforeLow, PLAIN);
    }

    #[test]
    fn looks_for_an_idle_executor_last() {
        loses_a_row(Fault::WakeBeforeWrite, PLAIN);
    }

    #[test]
    fn comes_after_the_commit() {
        loses_a_row(Fault::AnnounceBeforeCommit, PLAIN);
    }

    #[test]
    fn is_made_by_who_locked_a_row_and_aborts() {
        loses_a_row(Fault::SilentAbort, ALONE);
    }

    #[test]
    fn is_made_by_who_locked_a_row_and_commits() {
        loses_a_row(Fault::SilentCommit, ALONE);
    }
}

mod without_its_rule_claim {
    use super::*;

    #[test]
    fn clears_the_bit_before_the_swap() {
        loses_a_row(Fault::ClearAfterSwap, PLAIN);
    }

    #[test]
    fn takes_its_snapshot_after_the_swap() {
        loses_a_row(Fault::SnapshotBeforeSwap, PLAIN);
    }

    #[test]
    fn announces_what_follows_a_full_batch() {
        loses_a_row(Fault::NoReannounce, THREE_ROWS);
    }

    #[test]
    fn counts_from_the_position_that_its_snapshot_saw() {
        loses_a_row(
            Fault::ReannounceMovedPosition,
            Rules {
                lockers_move: true,
                ..ALONE
            },
        );
    }

    #[test]
    fn wakes_another_executor_for_what_follows() {
        stalls_a_row(Fault::ReannounceWakesNobody, THREE_ROWS);
    }

    #[test]
    fn sets_the_bit_again_for_a_lower_priority() {
        loses_a_row(
            Fault::LeavesNoBit,
            Rules {
                enqueuers: &[&[0, 1]],
                ..THREE_ROWS
            },
        );
    }

    #[test]
    fn wakes_another_executor_for_a_lower_priority() {
        stalls_a_row(
            Fault::LeavesBitWakesNobody,
            Rules {
                enqueuers: &[&[0, 1]],
                ..THREE_ROWS
            },
        );
    }

    #[test]
    fn announces_its_start_when_it_fails() {
        loses_a_row(
            Fault::SilentFailure,
            Rules {
                budget: ONE_ABORT,
                ..PLAIN
            },
        );
    }

    #[test]
    fn announces_the_rows_it_gives_up() {
        loses_a_row(
            Fault::SilentStop,
            Rules {
                enqueuers: &[&[0, 0]],
                budget: Budget { stops: 1, ..NEVER },
                ..THREE_ROWS
            },
        );
    }
}

mod without_its_rule_idle {
    use super::*;

    #[test]
    fn says_so_before_the_last_look() {
        loses_a_row(Fault::IdleAfterLook, PLAIN);
    }

    #[test]
    fn resets_the_latch_before_it_claims() {
        loses_a_row(Fault::ResetBeforeSleep, PLAIN);
    }

    #[test]
    fn looks_at_the_bit_when_it_exits() {
        loses_a_row(
            Fault::BlindExit,
            Rules {
                executors: 1,
                budget: Budget { exits: 1, ..NEVER },
                ..PLAIN
            },
        );
    }
}

#[test]
fn a_trace_names_each_step_up_to_the_loss() {
    let rules = Rules {
        enqueuers: &[&[0, 0]],
        executors: 1,
        fault: Fault::NoReannounce,
        ..PLAIN
    };
    let trace = shortest_trace(&rules, Violation::LostRow).unwrap();
    let text = trace.to_string();
    let story = [
        "session 0  draws a position and inserts, p = 1",
        "session 0  draws a position and inserts, p = 2",
        "session 0  commits",
        "session 0  announce: fetch_min(low, p), p = 1",
        "session 0  announce: sets the bit",
        "executor 0 claim: a = swap(low, MAX), a = 1",
        "executor 0 claim: locks the row it saw at 1",
        "executor 0 runs its jobs and commits",
    ];
    let mut lines = text.lines();
    for step in story {
        assert!(lines.any(|line| line == step), "no {step:?} in\n{text}");
    }
}
