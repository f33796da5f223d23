use super::*;
use crate::seeded::Seeded;

const BOUNDS: Bounds = Bounds {
    rows: 3,
    passed: 4,
    share: 2,
};

#[derive(Clone, Copy)]
struct Job {
    cursor: WaitingCursor,
    queue: i32,
    /// When it came: 0 at the beginning.
    came: usize,
    is_held: bool,
    /// Of a session that is there.
    is_passed: bool,
    ready_at: Option<usize>,
}

fn job_of(id: i64, run_at: i64, queue: i32) -> Job {
    Job {
        cursor: WaitingCursor { run_at, id },
        queue,
        came: 0,
        is_held: false,
        is_passed: false,
        ready_at: None,
    }
}

/// A queue's owner: of two queues one.
fn owner_of(queue: i32) -> Owner {
    (queue / 2) as u32 + 1
}

struct World {
    jobs: Vec<Job>,
    now: i64,
    step: usize,
}

impl World {
    /// One transaction, as src/job/moves/promote.rs has it.
    fn step(&mut self, turns: &mut Turns) {
        self.step += 1;
        let after = turns.begin();
        let mut order: Vec<usize> = (0..self.jobs.len()).collect();
        order.sort_by_key(|job| self.jobs[*job].cursor);
        let mut has_more = false;
        for index in order {
            let job = &mut self.jobs[index];
            if job.cursor <= after || job.cursor.run_at > self.now || job.ready_at.is_some() {
                continue;
            }
            if turns.has_walked_enough() {
                has_more = true;
                break;
            }
            if job.is_passed {
                turns.pass(job.cursor);
            } else if turns.wants(job.cursor, job.queue, owner_of) && !job.is_held {
                job.ready_at = Some(self.step);
            }
        }
        turns.end(has_more || turns.has_walked_enough());
    }
}

/// Jobs at random, of which some come late and are announced, some are held, and the clock goes on.
#[test]
fn every_due_job_is_made_ready_and_each_owners_in_order() {
    for seed in 1..4_000 {
        let mut random = Seeded::new(seed);
        let mut pick = |most: u64| random.below(most);
        let owners = 1 + pick(4);
        let mut world = World {
            jobs: Vec::new(),
            now: 10,
            step: 0,
        };
        let mut turns = Turns::from(0, BOUNDS);
        for id in 0..30 + pick(30) as i64 {
            world.jobs.push(Job {
                cursor: WaitingCursor {
                    run_at: 1 + pick(12) as i64,
                    id,
                },
                queue: pick(2 * owners) as i32,
                came: 0,
                is_held: pick(10) == 0,
                is_passed: false,
                ready_at: None,
            });
        }
        let mut late = 6;
        while !turns.are_over() || late > 0 {
            assert!(world.step < 2_000, "seed {seed} never ends");
            world.step(&mut turns);
            if late > 0 && pick(6) == 0 {
                late -= 1;
                world.now += pick(2) as i64;
                let run_at = 1 + pick(world.now as u64) as i64;
                world.jobs.push(Job {
                    cursor: WaitingCursor {
                        run_at,
                        id: world.jobs.len() as i64,
                    },
                    queue: pick(2 * owners) as i32,
                    came: world.step,
                    is_held: false,
                    is_passed: false,
                    ready_at: None,
                });
                turns.hear_of(run_at);
            }
        }
        let due = world
            .jobs
            .iter()
            .filter(|job| job.cursor.run_at <= world.now);
        for job in due.clone() {
            assert!(job.is_held != job.ready_at.is_some(), "seed {seed}");
        }
        // Of jobs of one owner that were there both, the earlier is not ready later.
        for one in due.clone() {
            for other in due.clone() {
                let both = one.ready_at.zip(other.ready_at);
                let same = owner_of(one.queue) == owner_of(other.queue);
                let is_before = same && one.cursor < other.cursor && one.came == 0;
                if let (true, Some((first, second))) = (is_before, both) {
                    assert!(first <= second, "seed {seed}");
                }
            }
        }
    }
}

/// One owner has more come all the time than can be made ready, and another's single job has its turn all the same: after a
/// walk over what has come, and not behind what waits.
#[test]
fn who_goes_on_and_on_delays_nobody() {
    const BOUNDS: Bounds = Bounds {
        rows: 3,
        passed: 40,
        share: 2,
    };
    let (mut jobs, mut lonely) = (Vec::new(), None);
    let job = |id: usize, run_at, queue, came| Job {
        came,
        ..job_of(id as i64, run_at, queue)
    };
    jobs.push(job(0, 1, 0, 0));
    let mut world = World {
        jobs,
        now: 1,
        step: 0,
    };
    let mut turns = Turns::from(0, BOUNDS);
    for step in 1..400 {
        world.now += 1;
        let mut come = |queue| {
            let id = world.jobs.len();
            world.jobs.push(job(id, world.now, queue, world.step));
            id
        };
        for _ in 0..9 {
            come(0);
        }
        if step == 300 {
            lonely = Some(come(2));
        }
        turns.hear_of(world.now);
        world.step(&mut turns);
    }
    let job = &world.jobs[lonely.expect("it has come")];
    let waited = job.ready_at.expect("it is ready") - job.came;
    assert!(waited <= 4, "{waited} transactions");
    let left = world.jobs.iter().filter(|job| job.ready_at.is_none());
    assert!(left.count() > 1_000);
}

/// While something is announced before each transaction, an owner who has many more than its share comes to the end of them.
#[test]
fn who_has_many_shares_gets_on_whatever_is_announced() {
    for announced in [i64::MIN, 0, 1, 2, 1_000] {
        let mut jobs: Vec<Job> = (0..20 * BOUNDS.share as i64)
            .map(|id| job_of(id, 1, 2))
            .collect();
        jobs.push(job_of(1_000, 1, 0));
        let mut world = World {
            jobs,
            now: 1,
            step: 0,
        };
        let mut turns = Turns::from(0, BOUNDS);
        while world.jobs.iter().any(|job| job.ready_at.is_none()) {
            assert!(world.step < 100, "announced from {announced} on");
            turns.hear_of(announced);
            world.step(&mut turns);
        }
    }
}

/// Nor does it keep from its lease who stands behind many that are only passed.
#[test]
fn a_walk_comes_to_its_end_whatever_is_announced() {
    let mut jobs: Vec<Job> = (0..10 * BOUNDS.passed as i64)
        .map(|id| Job {
            is_passed: true,
            ..job_of(id, 1, 0)
        })
        .collect();
    jobs.push(job_of(1_000, 2, 2));
    let mut world = World {
        jobs,
        now: 2,
        step: 0,
    };
    let mut turns = Turns::from(i64::MIN, BOUNDS);
    while world.jobs.last().is_some_and(|job| job.ready_at.is_none()) {
        assert!(world.step < 20);
        turns.hear_of(i64::MIN);
        world.step(&mut turns);
    }
}

/// However many are due of one owner, the single job of another is ready after the walk, and what becomes due later after
/// one turn.
#[test]
fn one_owners_flood_delays_nobody() {
    let mut jobs: Vec<Job> = (0..1_000).map(|id| job_of(id, 1, 0)).collect();
    jobs.push(job_of(1_000, 2, 2));
    jobs.push(job_of(1_001, 3, 2));
    let mut world = World {
        jobs,
        now: 2,
        step: 0,
    };
    let mut turns = Turns::from(0, BOUNDS);
    while world.jobs[1_000].ready_at.is_none() {
        world.step(&mut turns);
    }
    let ready = |world: &World| {
        world
            .jobs
            .iter()
            .filter(|job| job.ready_at.is_some())
            .count()
    };
    assert!(ready(&world) <= BOUNDS.share + BOUNDS.rows + 1);
    world.now = 3;
    let before = world.step;
    while world.jobs[1_001].ready_at.is_none() {
        world.step(&mut turns);
    }
    assert!(world.step - before <= 2);
    while !turns.are_over() {
        world.step(&mut turns);
    }
    assert_eq!(ready(&world), 1_002);
}
