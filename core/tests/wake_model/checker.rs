//! Every interleaving: a depth-first search over all worlds that can be reached, and a breadth-first one
//! that finds the shortest way to a bad one.

use std::collections::hash_map::Entry;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};

use crate::pack::{pack, Packed};
use crate::rules::{Rules, EXECUTORS, PROCESSES};
use crate::world::{Step, World, NOBODY};

/// What must never be reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Violation {
    /// Nothing can happen any more, and a committed, unlocked, ready row is not done.
    LostRow,
    /// A row waits beside an executor that sleeps, until a user or another job gets on.
    StalledRow,
    /// A run that need never end.
    Livelock,
}

impl Violation {
    pub const ALL: [Violation; 3] = [
        Violation::LostRow,
        Violation::StalledRow,
        Violation::Livelock,
    ];
}

/// How much was looked at.
pub struct Explored {
    pub worlds: usize,
    /// Worlds in which nothing can happen any more.
    pub ends: usize,
}

/// Looks at every world that can be reached; the first violation among `of_interest` ends the search.
pub fn explore(rules: &Rules, of_interest: &[Violation]) -> Result<Explored, Violation> {
    let mut on_path: Visited<bool> = HashMap::default();
    let mut path: Vec<(World, Vec<World>)> = Vec::new();
    let mut ends = 0;
    let mut enter = |world: World| -> Result<(World, Vec<World>), Violation> {
        let mut successors = Vec::with_capacity(8);
        world.successors(rules, &mut |_, next| successors.push(next));
        ends += usize::from(successors.is_empty());
        match violation(&world, successors.is_empty()) {
            Some(violation) if of_interest.contains(&violation) => Err(violation),
            _ => Ok((world, successors)),
        }
    };
    let first = World::new(rules);
    on_path.insert(pack(&first), true);
    path.push(enter(first)?);
    while let Some((world, successors)) = path.last_mut() {
        let Some(next) = successors.pop() else {
            on_path.insert(pack(world), false);
            path.pop();
            continue;
        };
        match on_path.entry(pack(&next)) {
            Entry::Occupied(seen) => {
                if *seen.get() && of_interest.contains(&Violation::Livelock) {
                    return Err(Violation::Livelock);
                }
            }
            Entry::Vacant(new) => {
                new.insert(true);
                path.push(enter(next)?);
            }
        }
    }
    Ok(Explored {
        worlds: on_path.len(),
        ends,
    })
}

/// The shortest run to a violation of this kind; `None` if there is none. (A livelock is no single world.)
pub fn shortest_trace(rules: &Rules, wanted: Violation) -> Option<Trace> {
    let mut seen: Visited<()> = HashMap::default();
    let mut queue: Vec<(World, usize, Option<Step>)> = vec![(World::new(rules), 0, None)];
    seen.insert(pack(&queue[0].0), ());
    let mut at = 0;
    while at < queue.len() {
        let world = queue[at].0;
        let mut successors = 0;
        world.successors(rules, &mut |step, next| {
            successors += 1;
            if seen.insert(pack(&next), ()).is_none() {
                queue.push((next, at, Some(step)));
            }
        });
        if violation(&world, successors == 0) == Some(wanted) {
            let mut steps = Vec::new();
            while let (_, before, Some(step)) = queue[at] {
                steps.push(step);
                at = before;
            }
            steps.reverse();
            return Some(Trace(steps));
        }
        at += 1;
    }
    None
}

fn violation(world: &World, at_end: bool) -> Option<Violation> {
    if at_end && world.has_lost_a_row() {
        Some(Violation::LostRow)
    } else if !at_end && world.is_stalled() {
        Some(Violation::StalledRow)
    } else {
        None
    }
}

/// A run, one line per atomic step.
pub struct Trace(pub Vec<Step>);

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for step in &self.0 {
            match step.process {
                PROCESSES => write!(f, "scheduler  ")?,
                executor if executor < EXECUTORS => write!(f, "executor {executor} ")?,
                session => write!(f, "session {}  ", session - EXECUTORS)?,
            }
            match step.number {
                NOBODY => writeln!(f, "{}", step.text)?,
                number => writeln!(f, "{} {number}", step.text)?,
            }
        }
        Ok(())
    }
}

type Visited<V> = HashMap<Packed, V, BuildHasherDefault<Mix>>;

/// Multiplies and folds: nobody chooses worlds so that they collide.
#[derive(Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
        for chunk in bytes.chunks_exact(8) {
            let word = chunk
                .iter()
                .fold(0, |word, byte| word << 8 | u64::from(*byte));
            let product = u128::from(self.0.wrapping_add(ODD) ^ word) * u128::from(ODD);
            self.0 = (product as u64) ^ ((product >> 64) as u64);
        }
    }
    /// The length of the array: always the same.
    fn write_usize(&mut self, _: usize) {}
    fn finish(&self) -> u64 {
        self.0
    }
}
