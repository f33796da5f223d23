//! The launcher while the server's worker slots are all taken (`pushy_core::slots`): every mixture of up to five wanted workers of each class and
//! habit, over one to three slots, step by step, and broken variants, each of which must be caught.
//!
//! ```text
//! worker      comes when it is wanted and gets a slot; works, rests until it is wanted again, lingers; asked to leave, it does so when its
//!             round or its long job is over, and is wanted again when there is something to do.
//! launcher    comes when somebody is wanted or has left, and at the time that it has said; begins with the class whose turn it is, and in it with the
//!             worker that was started longest ago; while one lacks a slot asks one to leave.
//! ```
//!
//! Checked of every world: nobody who is wanted stands beside a free slot, unless the launcher comes at once; nobody who is wanted waits for longer than each of the others may stay, and the long jobs last; there are no more starts than
//! each slot may have by its workers' stays.

use pushy_core::capacity::{HELD_US, SLICE_US};
use pushy_core::slots::{who_leaves, Class, Doing, Leaves, Turn, Worker, STAY_US};

const TICK_US: i64 = 10_000;
const LONG_US: i64 = 3_000_000;
const SECONDS: i64 = 20;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    /// Only executors leave.
    OnlyExecutors,
    /// Who works stays.
    WorkersStay,
    /// Who rests leaves at once.
    NoStay,
    /// Workers of databases come first, always.
    DatabasesFirst,
    /// Within a class the first of the list comes first.
    ByNumber,
    /// One that was asked and does not leave is waited for.
    WaitsForever,
    /// Who has left a slot to the other class is not looked for when that lacks none any more.
    PassesOnForGood,
}

const FAULTS: [Fault; 7] = [
    Fault::OnlyExecutors,
    Fault::WorkersStay,
    Fault::NoStay,
    Fault::DatabasesFirst,
    Fault::ByNumber,
    Fault::WaitsForever,
    Fault::PassesOnForGood,
];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Habit {
    /// There is always more to do.
    Busy,
    /// Something to do every so many µs, done at once; then it rests, and does not leave by itself.
    Every(i64),
    /// Executors only: jobs of three seconds.
    Long,
    /// Another executor for a pair that has one: comes only where nobody lacks a slot, and nobody leaves for it.
    Another,
    /// It works, and does not leave for long when asked, because somebody holds what it needs.
    Stuck,
}

const WANTED: [(Class, Habit); 9] = [
    (Class::Executors, Habit::Busy),
    (Class::Executors, Habit::Every(100_000)),
    (Class::Executors, Habit::Long),
    (Class::Executors, Habit::Another),
    (Class::Executors, Habit::Stuck),
    (Class::OfDatabases, Habit::Busy),
    (Class::OfDatabases, Habit::Every(100_000)),
    (Class::OfDatabases, Habit::Every(5_000_000)),
    (Class::OfDatabases, Habit::Stuck),
];

struct Wanted {
    class: Class,
    habit: Habit,
    there: Option<Worker>,
    /// When its long job began.
    began: i64,
    last_started: i64,
    wanted_since: Option<i64>,
    done_at: i64,
}

struct World {
    wanted: Vec<Wanted>,
    slots: usize,
    turn: Turn,
    fault: Option<Fault>,
    now: i64,
    /// When the launcher comes next, if nobody calls it before.
    next: i64,
    is_called: bool,
    starts: usize,
    longest: i64,
    stood_beside_a_slot: bool,
}

impl World {
    fn work(&mut self) {
        let now = self.now;
        let mut others = self.wanted.iter();
        let has_executor = others.any(|one| {
            one.habit == Habit::Busy && one.class == Class::Executors && one.there.is_some()
        });
        for wanted in &mut self.wanted {
            let due = match wanted.habit {
                Habit::Another => has_executor,
                Habit::Every(pause) => now >= wanted.done_at + pause,
                _ => true,
            };
            let Some(worker) = &mut wanted.there else {
                if due {
                    self.is_called |= wanted.wanted_since.is_none();
                    let since = *wanted.wanted_since.get_or_insert(now);
                    if wanted.habit != Habit::Another {
                        self.longest = self.longest.max(now - since);
                    }
                }
                continue;
            };
            wanted.wanted_since = None;
            let job_is_over = wanted.habit != Habit::Long || now >= wanted.began + LONG_US;
            let leaves_at = match (worker.asked_at, wanted.habit) {
                (None, _) => i64::MAX,
                (Some(asked), Habit::Stuck) => asked + 12 * SLICE_US,
                (Some(asked), _) => asked + TICK_US,
            };
            if job_is_over && leaves_at <= now {
                wanted.there = None;
                self.is_called = true;
                continue;
            }
            if job_is_over {
                wanted.began = now;
            }
            worker.doing = match wanted.habit {
                Habit::Every(_) if !due => Doing::Rests,
                Habit::Long if now >= wanted.began + HELD_US => Doing::Held,
                _ => Doing::Works,
            };
            if due {
                wanted.done_at = now;
            }
        }
    }

    fn launch(&mut self) {
        self.is_called = false;
        self.next = i64::MAX;
        let databases_first =
            self.fault == Some(Fault::DatabasesFirst) || self.turn.first() == Class::OfDatabases;
        let mut order = [Class::Executors, Class::OfDatabases];
        if databases_first {
            order.reverse();
        }
        for class in order {
            self.turn.begins(class);
            let absent = |wanted: &Wanted| wanted.class == class && wanted.wanted_since.is_some();
            let mut needs: Vec<usize> = (0..self.wanted.len())
                .filter(|index| absent(&self.wanted[*index]))
                .collect();
            if self.fault != Some(Fault::ByNumber) {
                needs.sort_by_key(|index| {
                    let wanted = &self.wanted[*index];
                    (wanted.habit == Habit::Another, wanted.last_started)
                });
            }
            for index in needs {
                let is_another = self.wanted[index].habit == Habit::Another;
                if is_another && self.turn.lacks(Class::OfDatabases) {
                    self.turn.spared_one();
                    continue;
                }
                let is_others = match self.fault {
                    Some(Fault::DatabasesFirst) => {
                        class == Class::Executors && self.turn.lacks(Class::OfDatabases)
                    }
                    _ => self.turn.is_others(class),
                };
                if is_others {
                    self.turn.passed_on(class);
                    break;
                }
                let there = self.wanted.iter().filter(|one| one.there.is_some()).count();
                if there >= self.slots && is_another {
                    break;
                }
                if there >= self.slots {
                    self.turn.lacked(class);
                    self.make_room();
                    break;
                }
                self.turn.started(class);
                self.starts += 1;
                let wanted = &mut self.wanted[index];
                wanted.last_started = self.now;
                wanted.began = self.now;
                wanted.wanted_since = None;
                wanted.there = Some(Worker {
                    started_at: self.now,
                    doing: Doing::Coming,
                    asked_at: None,
                });
            }
        }
        if self.turn.ends() && self.fault != Some(Fault::PassesOnForGood) {
            self.next = self.now;
        }
        let there = self.wanted.iter().filter(|one| one.there.is_some()).count();
        let mut all = self.wanted.iter();
        let is_wanted = all.any(|wanted| wanted.wanted_since.is_some());
        self.stood_beside_a_slot |= is_wanted && there < self.slots && self.next > self.now;
    }

    fn make_room(&mut self) {
        let now = self.now;
        let mut seen = Vec::new();
        let mut workers = Vec::new();
        for (index, wanted) in self.wanted.iter().enumerate() {
            let Some(mut worker) = wanted.there else {
                continue;
            };
            let stays = match self.fault {
                Some(Fault::OnlyExecutors) => wanted.class != Class::Executors,
                Some(Fault::WorkersStay) => worker.doing == Doing::Works,
                _ => false,
            };
            if stays {
                continue;
            }
            if self.fault == Some(Fault::NoStay) && worker.doing == Doing::Rests {
                worker.started_at -= STAY_US;
            }
            if self.fault == Some(Fault::WaitsForever) && worker.asked_at.is_some() {
                worker.asked_at = Some(now);
            }
            seen.push(index);
            workers.push(worker);
        }
        match who_leaves(&workers, now) {
            Leaves::Ask(index) => {
                let asked = self.wanted[seen[index]].there.as_mut();
                asked.expect("seen there").asked_at = Some(now);
                self.next = self.next.min(now + SLICE_US);
            }
            Leaves::Nobody(until) => {
                assert!(until > now);
                self.next = self.next.min(until);
            }
        }
    }

    fn is_bad(&mut self) -> bool {
        while self.now < SECONDS * 1_000_000 {
            self.work();
            if self.is_called || self.next <= self.now {
                self.launch();
            }
            self.now += TICK_US;
        }
        let count = |habit: Habit| {
            let those = self.wanted.iter().filter(|wanted| wanted.habit == habit);
            those.count() as i64
        };
        // Whoever is stuck keeps its slot, and others only while there is no other slot, or until it is seen to be stuck.
        let stays = if count(Habit::Stuck) < self.slots as i64 {
            SLICE_US
        } else {
            20 * SLICE_US
        };
        let stuck = 2 * count(Habit::Stuck) * stays;
        let others = self.wanted.len() as i64 * (SLICE_US + 5 * TICK_US);
        let most = 2 * others + 2 * count(Habit::Long) * LONG_US + stuck;
        let by_stays = SECONDS * 1_000_000 / STAY_US * self.slots as i64;
        let most_starts = by_stays as usize + self.wanted.len();
        self.stood_beside_a_slot || self.longest > most || self.starts > most_starts
    }
}

/// Every mixture of `count` wanted workers.
fn mixtures(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let shorter = mixtures(count - 1);
    let with = |rest: &Vec<usize>| {
        let from = rest.last().copied().unwrap_or(0);
        let longer = (from..WANTED.len()).map(|one| [rest.as_slice(), &[one]].concat());
        longer.collect::<Vec<_>>()
    };
    shorter.iter().flat_map(with).collect()
}

fn bad_worlds(fault: Option<Fault>) -> (usize, usize) {
    let (mut all, mut bad) = (0, 0);
    for mixture in (1..=5).flat_map(mixtures) {
        for slots in 1..=3 {
            let wanted = mixture.iter().map(|kind| Wanted {
                class: WANTED[*kind].0,
                habit: WANTED[*kind].1,
                there: None,
                began: 0,
                last_started: -1,
                wanted_since: None,
                done_at: i64::MIN / 2,
            });
            let mut world = World {
                wanted: wanted.collect(),
                slots,
                turn: Turn::default(),
                fault,
                now: 0,
                next: 0,
                is_called: false,
                starts: 0,
                longest: 0,
                stood_beside_a_slot: false,
            };
            let is_bad = world.is_bad();
            if is_bad && fault.is_none() {
                let shown: Vec<_> = mixture.iter().map(|kind| WANTED[*kind]).collect();
                println!("{slots} {shown:?} {} {}", world.longest, world.starts);
            }
            all += 1;
            bad += usize::from(is_bad);
        }
    }
    (all, bad)
}

#[test]
fn nobody_waits_for_a_slot_for_long_and_slots_are_given_at_a_bounded_rate() {
    let (all, bad) = bad_worlds(None);
    assert!(all > 1000);
    assert_eq!(bad, 0);
}

#[test]
fn each_broken_variant_starves_somebody_or_starts_without_end() {
    for fault in FAULTS {
        assert!(bad_worlds(Some(fault)).1 > 0, "{fault:?}");
    }
}
