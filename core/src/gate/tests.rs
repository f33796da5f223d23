use super::*;

const NOW: i64 = 1000;

/// Every combination of what can be known, with times before, at and after now, and permits below, at and above the limit.
fn all_facts() -> Vec<Facts> {
    let flags = [false, true];
    let mut all = Vec::new();
    for enabled in flags {
        for served in flags {
            for presence in [
                Presence::Unknown,
                Presence::Present,
                Presence::Absent,
                Presence::Incompatible,
            ] {
                for quiesced in flags {
                    for standing in (0..64).map(Standing::from_u8) {
                        for suspended_until in [0, NOW, NOW + 1] {
                            for (running, limit) in [(0, 0), (9, 0), (0, 1), (1, 1), (2, 1)] {
                                all.extend(flags.map(|quarantined| Facts {
                                    enabled,
                                    served,
                                    presence,
                                    quiesced,
                                    standing,
                                    suspended_until,
                                    running,
                                    limit,
                                    quarantined,
                                }));
                            }
                        }
                    }
                }
            }
        }
    }
    all
}

#[test]
fn a_queue_is_open_when_there_is_no_reason_and_closed_by_the_first_that_concerns_who_asks() {
    for facts in all_facts() {
        let reasons: Vec<Closed> = facts.reasons(NOW).collect();
        for asker in Asker::ALL {
            let mut concerning = reasons.iter().filter(|closed| closed.concerns(asker));
            let expected = concerning.next().map_or(Ok(()), |closed| Err(*closed));
            assert_eq!(gate(&facts, NOW, asker), expected, "{facts:?} {asker:?}");
            assert_eq!(
                facts.let_in(NOW, asker),
                expected.is_ok(),
                "{facts:?} {asker:?}"
            );
        }
        // Who only wants to know passes over nothing but who does the jobs.
        let others = reasons.iter().filter(|closed| **closed != Closed::Outside);
        assert_eq!(
            gate(&facts, NOW, Asker::Anybody).is_ok(),
            others.count() == 0
        );
    }
}

/// One fact against a queue each, the reason that it is, whom it concerns (Executor, WakeUp, Launcher, Anybody, Outside), and
/// whether it stays.
const EACH: [(Facts, Closed, &str, bool); 15] = [
    (
        Facts {
            enabled: false,
            ..Facts::OPEN
        },
        Closed::Disabled,
        ".wlao",
        true,
    ),
    (
        Facts {
            served: false,
            ..Facts::OPEN
        },
        Closed::NotServed,
        ".w.ao",
        true,
    ),
    (
        Facts {
            presence: Presence::Unknown,
            ..Facts::OPEN
        },
        Closed::Unknown,
        "..la.",
        false,
    ),
    (
        Facts {
            presence: Presence::Absent,
            ..Facts::OPEN
        },
        Closed::Absent,
        "ewlao",
        true,
    ),
    (
        Facts {
            presence: Presence::Incompatible,
            ..Facts::OPEN
        },
        Closed::Incompatible,
        "ewlao",
        true,
    ),
    (
        Facts {
            quiesced: true,
            ..Facts::OPEN
        },
        Closed::Quiesced,
        "ewlao",
        true,
    ),
    (
        Facts {
            standing: Standing::DROPPED,
            ..Facts::OPEN
        },
        Closed::Dropped,
        "ewlao",
        true,
    ),
    (
        Facts {
            standing: Standing::UNBORN,
            ..Facts::OPEN
        },
        Closed::Unborn,
        "ewlao",
        false,
    ),
    (
        Facts {
            standing: Standing::ELSEWHERE,
            ..Facts::OPEN
        },
        Closed::Elsewhere,
        "ewlao",
        true,
    ),
    (
        Facts {
            standing: Standing::PAUSED,
            ..Facts::OPEN
        },
        Closed::Paused,
        "ewlao",
        true,
    ),
    (
        Facts {
            standing: Standing::PARKED,
            ..Facts::OPEN
        },
        Closed::Parked,
        "ewlao",
        true,
    ),
    (
        Facts {
            suspended_until: NOW + 1,
            ..Facts::OPEN
        },
        Closed::SuspendedUntil(NOW + 1),
        "ewla.",
        false,
    ),
    (
        Facts {
            running: 2,
            limit: 2,
            ..Facts::OPEN
        },
        Closed::AtItsLimit {
            running: 2,
            limit: 2,
        },
        "ewlao",
        false,
    ),
    (
        Facts {
            standing: Standing::OUTSIDE,
            ..Facts::OPEN
        },
        Closed::Outside,
        "ewl..",
        true,
    ),
    (
        Facts {
            quarantined: true,
            ..Facts::OPEN
        },
        Closed::Quarantined,
        "...a.",
        false,
    ),
];

#[test]
fn each_fact_is_one_reason_and_concerns_whom_the_table_says() {
    for (facts, closed, concerns, stays) in EACH {
        assert_eq!(facts.reasons(NOW).collect::<Vec<_>>(), [closed]);
        for (asker, letter) in Asker::ALL.into_iter().zip(concerns.bytes()) {
            assert_eq!(
                closed.concerns(asker),
                letter != b'.',
                "{closed:?} {asker:?}"
            );
        }
        assert_eq!(closed.is_standing(), stays, "{closed:?}");
    }
}
