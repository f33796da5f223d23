use super::*;
use crate::backoff;

const TICK_US: i64 = 50_000;

/// What the jobs of a role are like; there are always more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Jobs {
    /// They never end.
    Endless,
    /// Three seconds each.
    Long,
    /// A batch lasts a tick.
    Short,
    /// None begins, because no start comes up.
    Hanging,
}

/// The launcher and its executors, step by step: all there is to time.
struct World {
    limits: Limits,
    roles: Vec<Jobs>,
    /// When each begins to have jobs.
    from: Vec<i64>,
    executors: Vec<ExecutorView>,
    last_started: Vec<i64>,
    hangs: Hangs,
    now: i64,
}

/// Those that hang are all of one database, the others of another.
fn database_of(jobs: Jobs) -> u32 {
    if jobs == Jobs::Hanging {
        2
    } else {
        1
    }
}

impl World {
    fn count(&self, role: usize) -> usize {
        let of_role = |e: &&ExecutorView| e.pair.role == role as u32;
        self.executors.iter().filter(of_role).count()
    }

    /// Executors go on with their jobs, and leave where they were asked to.
    fn work(&mut self) {
        let now = self.now;
        let roles = self.roles.clone();
        let hangs = &mut self.hangs;
        self.executors.retain_mut(|e| {
            if roles[e.pair.role as usize] == Jobs::Hanging {
                let stays = now - e.started_at < START_US;
                if !stays {
                    hangs.ended(e.pair.database, now);
                }
                return stays;
            }
            let is_over = match (e.doing, roles[e.pair.role as usize]) {
                (Doing::Batch { .. }, Jobs::Endless) => false,
                (Doing::Batch { since }, Jobs::Long) => now - since >= 3_000_000,
                _ => true,
            };
            if is_over && e.asked_at.is_some() {
                return false;
            }
            if is_over {
                e.doing = Doing::Batch { since: now };
            }
            hangs.came_up(e.pair.database, e.started_at);
            true
        });
    }

    fn launch(&mut self) {
        if let Some(index) = surplus(&self.executors, &self.limits, self.now) {
            self.executors[index].asked_at = Some(self.now);
        }
        let mut needs: Vec<usize> = (0..self.roles.len())
            .filter(|role| self.from[*role] <= self.now)
            .collect();
        let serving = |world: &Self, role: usize| {
            let busy = |e: &&ExecutorView| e.pair.role == role as u32 && e.asked_at.is_none();
            world.executors.iter().filter(busy).count()
        };
        needs.sort_by_key(|role| (serving(self, *role), self.last_started[*role]));
        for role in needs {
            let pair = ExecutorKey {
                database: database_of(self.roles[role]),
                role: role as u32,
            };
            let is_coming = |e: &ExecutorView| e.pair == pair && e.doing == Doing::Coming;
            let may_start = self
                .hangs
                .may_start(pair.database, &self.executors, self.now);
            if self.executors.iter().any(is_coming) || may_start.is_err() {
                continue;
            }
            match decide(
                pair,
                serving(self, role),
                &self.executors,
                &self.limits,
                self.now,
            ) {
                Decision::Start => {
                    self.last_started[role] = self.now;
                    self.executors.push(ExecutorView {
                        pair,
                        started_at: self.now,
                        doing: Doing::Coming,
                        asked_at: None,
                    });
                }
                Decision::Ask(index) => self.executors[index].asked_at = Some(self.now),
                Decision::Wait(until) => assert!(until.is_none_or(|until| until > self.now)),
            }
        }
    }

    /// Runs for a while; answers how long each role had jobs and no executor at a stretch, at most.
    fn run(&mut self, seconds: i64) -> Vec<i64> {
        let mut waits = vec![0; self.roles.len()];
        let mut since: Vec<Option<i64>> = vec![None; self.roles.len()];
        let Limits {
            most,
            reserve,
            per_role,
        } = self.limits;
        while self.now < seconds * 1_000_000 {
            self.work();
            self.launch();
            assert!(self.executors.len() <= most + reserve);
            for role in 0..self.roles.len() {
                let count = self.count(role);
                assert!(per_role == 0 || count <= per_role);
                if count > 0 || self.from[role] > self.now {
                    since[role] = None;
                } else {
                    let began = *since[role].get_or_insert(self.now);
                    waits[role] = waits[role].max(self.now - began);
                }
            }
            self.now += TICK_US;
        }
        waits
    }
}

/// Every mixture of up to four roles with every kind of jobs, which come at the same time or one after another, under
/// every small set of limits.
fn every_world(mut check: impl FnMut(&mut World)) {
    const KINDS: [Jobs; 3] = [Jobs::Endless, Jobs::Long, Jobs::Short];
    for count in 1..=4usize {
        for mixture in 0..3usize.pow(count as u32) {
            let roles: Vec<Jobs> = (0..count)
                .map(|role| KINDS[mixture / 3usize.pow(role as u32) % 3])
                .collect();
            for apart in [0, 400_000, 1_700_000] {
                for most in 1..=3 {
                    for reserve in 0..=2 {
                        for per_role in 0..=2 {
                            check(&mut World {
                                limits: Limits {
                                    most,
                                    reserve,
                                    per_role,
                                },
                                from: (0..count as i64).map(|role| role * apart).collect(),
                                executors: Vec::new(),
                                last_started: vec![-1; count],
                                hangs: Hangs::default(),
                                now: 0,
                                roles: roles.clone(),
                            });
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_role_without_an_executor_gets_one_within_a_second_while_the_reserve_lasts() {
    every_world(|world| {
        let waits = world.run(12);
        let Limits {
            most,
            reserve,
            per_role,
        } = world.limits;
        let hostile = world
            .roles
            .iter()
            .filter(|jobs| **jobs != Jobs::Short)
            .count();
        let tame = world.roles.len() - hostile;
        // As many roles with long jobs as the reserve can bear, and one that comes to it. Of several that come at the
        // same moment each has to be known for its long jobs before the next goes on.
        let at_once = world.from.iter().filter(|from| **from < HELD_US).count() as i64;
        // A tick more for an executor to leave, and one for another to come.
        let bound = SLICE_US + (at_once - 2).max(0) * HELD_US + 2 * TICK_US;
        if hostile <= reserve && tame <= 1 {
            for wait in &waits {
                assert!(
                    *wait <= bound,
                    "{waits:?} {:?} {:?}",
                    world.roles,
                    world.limits
                );
            }
        }
        // And with turns, where there are more of those that let go, as long as the others cannot hold all there are.
        let share = if per_role == 0 { most } else { per_role };
        if hostile <= reserve || hostile * share < most + reserve {
            let turns = world.roles.len() as i64 * (SLICE_US + HELD_US + 2 * TICK_US);
            for (wait, jobs) in waits.iter().zip(&world.roles) {
                assert!(
                    *wait <= turns || *jobs != Jobs::Short,
                    "{waits:?} {:?} {:?}",
                    world.roles,
                    world.limits
                );
            }
        }
    });
}

#[test]
fn a_role_alone_uses_all_executors_and_none_of_the_reserve() {
    every_world(|world| {
        if world.roles.len() > 1 {
            return;
        }
        world.run(5);
        let Limits { most, per_role, .. } = world.limits;
        let share = if per_role == 0 {
            most
        } else {
            most.min(per_role)
        };
        assert_eq!(
            world.executors.len(),
            share,
            "{:?} {:?}",
            world.roles,
            world.limits
        );
    });
}

#[test]
fn what_was_taken_from_the_reserve_is_given_back_when_jobs_are_short_again() {
    every_world(|world| {
        world.run(8);
        for jobs in &mut world.roles {
            *jobs = Jobs::Short;
        }
        world.run(11);
        assert!(
            world.executors.len() <= world.limits.most,
            "{:?} {:?}",
            world.executors,
            world.limits
        );
    });
}

#[test]
fn who_could_do_with_more_looks_again_while_somebody_else_may_become_idle() {
    let limits = Limits {
        most: 2,
        reserve: 0,
        per_role: 0,
    };
    let of = |role, doing| ExecutorView {
        pair: ExecutorKey { database: 1, role },
        started_at: 0,
        doing,
        asked_at: None,
    };
    let mine = of(1, Doing::Batch { since: 0 });
    for doing in [Doing::Coming, Doing::Looking, Doing::Batch { since: 0 }] {
        let executors = [mine, of(2, doing)];
        let found = decide(mine.pair, 1, &executors, &limits, 10);
        assert_eq!(found, Decision::Wait(Some(10 + SLICE_US)), "{doing:?}");
    }
    let alone = [mine, mine];
    let found = decide(mine.pair, 1, &alone, &limits, 10);
    assert_eq!(found, Decision::Wait(None));
}

#[test]
fn without_a_reserve_endless_jobs_keep_a_role_from_its_first_executor() {
    let limits = Limits {
        most: 2,
        reserve: 0,
        per_role: 0,
    };
    let mut world = World {
        limits,
        roles: vec![Jobs::Endless, Jobs::Short],
        from: vec![0, 1_000_000],
        executors: Vec::new(),
        last_started: vec![-1; 2],
        hangs: Hangs::default(),
        now: 0,
    };
    assert!(world.run(10)[1] > 8_000_000, "the model would not see it");
}

/// Up to four roles of a database where no start comes up, one role that never lets go, and one of short jobs that comes at
/// any time.
#[test]
fn starts_that_hang_keep_no_other_database_waiting() {
    for hanging in 1..=4usize {
        for endless in 0..=1usize {
            for most in 1..=3 {
                for reserve in 0..=3 {
                    for late in [0, 200_000, 700_000, 5_000_000, 10_400_000, 21_000_000] {
                        let mut roles = vec![Jobs::Hanging; hanging];
                        roles.extend(vec![Jobs::Endless; endless]);
                        roles.push(Jobs::Short);
                        let count = roles.len();
                        let mut from = vec![0; count];
                        from[count - 1] = late;
                        let limits = Limits {
                            most,
                            reserve,
                            per_role: 0,
                        };
                        let mut world = World {
                            limits,
                            from,
                            executors: Vec::new(),
                            last_started: vec![-1; count],
                            hangs: Hangs::default(),
                            now: 0,
                            roles,
                        };
                        let waits = world.run(90);
                        // One executor of the reserve for those that hang, and one for the role that never lets go.
                        if reserve > 1 + endless || (reserve > endless && most > hanging) {
                            let bound = SLICE_US + 2 * HELD_US + 4 * TICK_US;
                            assert!(
                                waits[count - 1] <= bound,
                                "{waits:?} {:?} {limits:?} {late}",
                                world.roles
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_database_that_hung_is_tried_one_start_at_a_time_and_less_and_less_often() {
    let mut hangs = Hangs::default();
    assert_eq!(hangs.may_start(1, &[], 0), Ok(()));
    let mut now = 0;
    let mut rests = Vec::new();
    for _ in 0..10 {
        hangs.ended(1, now);
        let Err(Some(again)) = hangs.may_start(1, &[], now) else {
            panic!("it rests");
        };
        rests.push(again - now);
        now = again;
        assert_eq!(hangs.may_start(1, &[], now), Ok(()));
        assert_eq!(hangs.may_start(2, &[], now), Ok(()));
        let coming = ExecutorView {
            pair: ExecutorKey {
                database: 1,
                role: 7,
            },
            started_at: now,
            doing: Doing::Coming,
            asked_at: None,
        };
        assert_eq!(hangs.may_start(1, &[coming], now), Err(None));
        assert_eq!(hangs.may_start(2, &[coming], now), Ok(()));
        now += START_US;
    }
    assert!(rests.is_sorted() && rests[0] == 500_000 && rests[9] == backoff::START.most_us);
    // One that was there before proves nothing.
    hangs.came_up(1, now - 10 * START_US);
    assert_eq!(hangs.ended(1, now), 11);
    assert!(hangs.may_start(1, &[], now).is_err());
    hangs.came_up(1, now);
    assert_eq!(hangs.ended(2, now), 1);
    assert_eq!(hangs.may_start(1, &[], now), Ok(()));
}

/// Every three executors of three pairs in all that they may be doing.
fn every_three() -> Vec<Vec<ExecutorView>> {
    const NOW: i64 = 100 * SLICE_US;
    let pairs = [(1, 1), (1, 2), (2, 1)].map(|(database, role)| ExecutorKey { database, role });
    let since = 0;
    let doings = [
        Doing::Coming,
        Doing::Idle { since },
        Doing::Batch { since },
        Doing::Batch { since: NOW },
        Doing::Looking,
        Doing::Going,
    ];
    let mut kinds = vec![None];
    for pair in pairs {
        for doing in doings {
            kinds.extend([None, Some(NOW), Some(since)].map(|asked_at| {
                Some(ExecutorView {
                    pair,
                    started_at: since,
                    doing,
                    asked_at,
                })
            }));
        }
    }
    let mut all = Vec::new();
    for one in &kinds {
        for two in &kinds {
            all.extend(kinds.iter().map(|three| {
                let some = [*one, *two, *three];
                some.into_iter().flatten().collect::<Vec<ExecutorView>>()
            }));
        }
    }
    all
}

#[test]
fn a_commit_calls_the_launcher_whenever_that_would_find_room() {
    const NOW: i64 = 100 * SLICE_US;
    let pair = ExecutorKey {
        database: 1,
        role: 1,
    };
    let is_idle = |e: &ExecutorView| matches!(e.doing, Doing::Idle { .. });
    let (mut calls, mut asked) = (0, 0);
    for executors in every_three() {
        let mine = |e: &&ExecutorView| e.pair == pair;
        // These are woken, or awaited, and the launcher is not called.
        let is_served = |e: &ExecutorView| is_idle(e) || e.doing == Doing::Coming;
        if executors.iter().filter(mine).any(is_served) {
            continue;
        }
        let is_serving = |e: &&ExecutorView| e.is_busy() && e.asked_at.is_none();
        let serving = executors.iter().filter(mine).filter(is_serving).count();
        let elsewhere = || executors.iter().filter(|e| e.pair != pair && is_idle(e));
        let seen = Seen {
            all: executors.len(),
            of_role: executors.iter().filter(|e| e.pair.role == 1).count(),
            of_pair: executors
                .iter()
                .filter(mine)
                .filter(|e| e.doing != Doing::Going)
                .count(),
            idle_elsewhere: elsewhere().next().is_some(),
            idle_of_role_elsewhere: elsewhere().any(|e| e.pair.role == 1),
        };
        for (most, per_role) in [(1, 0), (2, 0), (3, 0), (4, 0), (2, 1), (3, 2), (4, 1)] {
            let limits = Limits {
                most,
                reserve: 1,
                per_role,
            };
            asked += 1;
            let may = may_find_room(&seen, &limits, false);
            calls += usize::from(may);
            match decide(pair, serving, &executors, &limits, NOW) {
                Decision::Wait(_) => {}
                // Where all of the pair are asked to leave, who leaves calls the launcher.
                Decision::Start | Decision::Ask(_) => {
                    assert!(may || serving == 0, "{executors:?} {limits:?}");
                }
            }
        }
    }
    assert!(calls < asked, "a call each time is no rule");
}

#[test]
fn one_that_was_asked_and_does_not_leave_keeps_nobody_from_being_asked() {
    let limits = Limits {
        most: 2,
        reserve: 0,
        per_role: 0,
    };
    let of = |role, doing, asked_at| ExecutorView {
        pair: ExecutorKey { database: 1, role },
        started_at: 0,
        doing,
        asked_at,
    };
    let asked_at = 2 * SLICE_US;
    let mine = of(1, Doing::Looking, None);
    let idle = Doing::Idle { since: 0 };
    for (serving, doing, other) in [
        (0, Doing::Looking, Doing::Looking),
        (0, idle, idle),
        (1, idle, idle),
    ] {
        let mut executors = vec![of(2, doing, Some(asked_at)), of(3, other, None)];
        executors.extend((serving > 0).then_some(mine));
        let limits = Limits {
            most: executors.len(),
            ..limits
        };
        let decide = |now| decide(mine.pair, serving, &executors, &limits, now);
        assert_eq!(decide(asked_at), Decision::Wait(Some(asked_at + SLICE_US)));
        assert_eq!(decide(asked_at + SLICE_US), Decision::Ask(1), "{doing:?}");
    }
}
