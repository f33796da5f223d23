//! Whether a queue may start a job now, and why not: one answer for those who start jobs, those who wake them and those who
//! explain.
//!
//! Not asked here: whether a job is ready (the queue's watermarks say so); whether the queue's role may have a session and its
//! handler can be called, which takes look-ups in catalogs and a transaction; where an executor comes from (`capacity`).

/// Whether the database has the extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Presence {
    /// Not looked at since the server started.
    Unknown = 0,
    Present = 1,
    Absent = 2,
    /// It is there with a script that this library does not work with: all is kept as it is until ALTER EXTENSION UPDATE.
    Incompatible = 3,
}

/// What its definition says against a queue, in a byte: none of it, and the queue may run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing(u8);

impl Standing {
    pub const OPEN: Self = Self(0);
    /// Given up.
    pub const DROPPED: Self = Self(1);
    /// Made by a transaction that has not ended: nobody else sees its row.
    pub const UNBORN: Self = Self(2);
    /// Registered in another database or cluster.
    pub const ELSEWHERE: Self = Self(4);
    pub const PAUSED: Self = Self(8);
    pub const PARKED: Self = Self(16);
    /// It has no handler: its jobs are done by workers outside.
    pub const OUTSIDE: Self = Self(32);

    pub const fn from_u8(bits: u8) -> Self {
        Self(bits)
    }

    pub const fn as_u8(self) -> u8 {
        self.0
    }

    #[must_use]
    pub const fn with(self, more: Self, is_so: bool) -> Self {
        if is_so {
            Self(self.0 | more.0)
        } else {
            self
        }
    }

    pub const fn has(self, one: Self) -> bool {
        self.0 & one.0 != 0
    }

    /// Where it is not, the queue is closed to every executor.
    pub const fn is_open(self) -> bool {
        self.0 == 0
    }

    /// Whether nothing of it concerns this asker.
    #[inline]
    const fn is_open_to(self, asker: Asker) -> bool {
        match asker {
            Asker::Executor | Asker::WakeUp | Asker::Launcher => self.is_open(),
            Asker::Anybody | Asker::Outside => self.0 & !Self::OUTSIDE.0 == 0,
        }
    }
}

/// What is known of a queue, of its database and of the server at one moment. Times are in µs.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// pushy.enabled.
    pub enabled: bool,
    /// Jobs run in the queue's database (pushy.databases, and it takes connections).
    pub served: bool,
    pub presence: Presence,
    /// A transaction keeps workers out of the database.
    pub quiesced: bool,
    pub standing: Standing,
    /// Not tried before, because its last batches failed for want of something in the server, or somebody holds a lock.
    pub suspended_until: i64,
    /// Executors that work on the queue.
    pub running: u32,
    /// How many there may be; 0: as many as there are.
    pub limit: u32,
    /// A job that may have crashed the server runs alone in the cluster, or waits to.
    pub quarantined: bool,
}

/// Why a queue starts no job now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    Disabled,
    NotServed,
    Unknown,
    Absent,
    Incompatible,
    Quiesced,
    Dropped,
    Unborn,
    Elsewhere,
    Paused,
    Parked,
    /// Workers outside do its jobs, and no executor.
    Outside,
    SuspendedUntil(i64),
    AtItsLimit {
        running: u32,
        limit: u32,
    },
    Quarantined,
}

/// Who asks. Those who start jobs pass over what they see to themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// An executor that chooses a queue, or who wakes it: it reads the settings itself, and leaves. What it finds in its database
    /// is there. A quarantine it waits for.
    Executor,
    /// Who calls the launcher for a queue. Where somebody has just enqueued, the database has the extension.
    WakeUp,
    /// The launcher, which looks into pg_database itself.
    Launcher,
    /// Who wants to know whether a job would start if it were ready.
    Anybody,
    /// A worker outside that claims jobs.
    Outside,
}

impl Asker {
    pub const ALL: [Asker; 5] = [
        Asker::Executor,
        Asker::WakeUp,
        Asker::Launcher,
        Asker::Anybody,
        Asker::Outside,
    ];
}

impl Closed {
    /// Whether it keeps this asker from the queue.
    pub const fn concerns(self, asker: Asker) -> bool {
        match self {
            Closed::Disabled => !matches!(asker, Asker::Executor),
            Closed::NotServed => !matches!(asker, Asker::Executor | Asker::Launcher),
            Closed::Unknown => !matches!(asker, Asker::Executor | Asker::WakeUp | Asker::Outside),
            Closed::Outside => !matches!(asker, Asker::Anybody | Asker::Outside),
            Closed::Quarantined => matches!(asker, Asker::Anybody),
            _ => true,
        }
    }

    /// Whether it stays so until somebody acts; the others end by themselves.
    pub const fn is_standing(self) -> bool {
        !matches!(
            self,
            Closed::Unknown
                | Closed::Unborn
                | Closed::SuspendedUntil(_)
                | Closed::AtItsLimit { .. }
                | Closed::Quarantined
        )
    }
}

impl Facts {
    /// Of a queue that may start jobs.
    pub const OPEN: Self = Self {
        enabled: true,
        served: true,
        presence: Presence::Present,
        quiesced: false,
        standing: Standing::OPEN,
        suspended_until: 0,
        running: 0,
        limit: 0,
        quarantined: false,
    };

    const fn is_at_its_limit(&self) -> bool {
        self.limit != 0 && self.running >= self.limit
    }

    /// Whether no reason concerns this asker: the same as `gate`, in the few instructions that a batch and a commit have for it.
    #[inline]
    pub fn let_in(&self, now: i64, asker: Asker) -> bool {
        self.standing.is_open_to(asker)
            && self.suspended_until <= now
            && !self.is_at_its_limit()
            && !self.quiesced
            && match self.presence {
                Presence::Present => true,
                Presence::Unknown => !Closed::Unknown.concerns(asker),
                Presence::Absent | Presence::Incompatible => false,
            }
            && (self.enabled || !Closed::Disabled.concerns(asker))
            && (self.served || !Closed::NotServed.concerns(asker))
            && (!self.quarantined || !Closed::Quarantined.concerns(asker))
    }

    /// All reasons, in the order in which people should hear them.
    pub fn reasons(&self, now: i64) -> impl Iterator<Item = Closed> {
        let standing = |one, closed| self.standing.has(one).then_some(closed);
        let (running, limit) = (self.running, self.limit);
        [
            (!self.enabled).then_some(Closed::Disabled),
            (!self.served).then_some(Closed::NotServed),
            (self.presence == Presence::Unknown).then_some(Closed::Unknown),
            (self.presence == Presence::Absent).then_some(Closed::Absent),
            (self.presence == Presence::Incompatible).then_some(Closed::Incompatible),
            self.quiesced.then_some(Closed::Quiesced),
            standing(Standing::DROPPED, Closed::Dropped),
            standing(Standing::UNBORN, Closed::Unborn),
            standing(Standing::ELSEWHERE, Closed::Elsewhere),
            standing(Standing::PAUSED, Closed::Paused),
            standing(Standing::PARKED, Closed::Parked),
            standing(Standing::OUTSIDE, Closed::Outside),
            (self.suspended_until > now).then_some(Closed::SuspendedUntil(self.suspended_until)),
            self.is_at_its_limit()
                .then_some(Closed::AtItsLimit { running, limit }),
            self.quarantined.then_some(Closed::Quarantined),
        ]
        .into_iter()
        .flatten()
    }
}

/// Whether a queue may start a job now, as far as this asker is concerned; if not, the first reason.
pub fn gate(facts: &Facts, now: i64, asker: Asker) -> Result<(), Closed> {
    let first = facts.reasons(now).find(|closed| closed.concerns(asker));
    first.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
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
            "ewlao",
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

    #[test]
    fn a_byte_keeps_what_stands_against_a_queue() {
        for bits in 0..64 {
            let standing = Standing::from_u8(bits);
            assert_eq!(standing.as_u8(), bits);
            assert_eq!(standing.is_open(), bits == 0);
        }
        let paused = Standing::OPEN.with(Standing::PAUSED, true);
        assert!(paused.has(Standing::PAUSED) && !paused.has(Standing::PARKED));
        assert_eq!(paused.with(Standing::PARKED, false), paused);
    }
}
