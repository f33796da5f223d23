//! Who is served next, by turns of owners: one that has a great many that wait must not keep the others' waiting. Of each owner
//! the order in which they came is kept.

use std::collections::{BTreeMap, HashSet, VecDeque};

/// By number, as in [`crate::turns`].
pub type Owner = u32;

/// Things that wait for a turn, each known by a number and there once at most.
#[derive(Debug, Default)]
pub struct Circle {
    waiting: BTreeMap<Owner, VecDeque<i32>>,
    are_in: HashSet<i32>,
    /// Who had the last turn.
    last: Owner,
}

impl Circle {
    pub fn is_empty(&self) -> bool {
        self.are_in.is_empty()
    }

    /// Waits behind its owner's others, unless it waits already.
    pub fn push(&mut self, owner: Owner, thing: i32) {
        if self.are_in.insert(thing) {
            self.waiting.entry(owner).or_default().push_back(thing);
        }
    }

    /// Was not served after all: it is its owner's next.
    pub fn put_back(&mut self, owner: Owner, thing: i32) {
        if self.are_in.insert(thing) {
            self.waiting.entry(owner).or_default().push_front(thing);
        }
    }

    /// The next one, of the next owner in the circle.
    pub fn take_next(&mut self) -> Option<i32> {
        let later = self.waiting.range(self.last.saturating_add(1)..).next();
        let owner = *later.or_else(|| self.waiting.iter().next())?.0;
        self.last = owner;
        let things = self.waiting.get_mut(&owner)?;
        let thing = things.pop_front();
        if things.is_empty() {
            self.waiting.remove(&owner);
        }
        if let Some(thing) = &thing {
            self.are_in.remove(thing);
        }
        thing
    }

    /// Only what is still there goes on waiting; turns go on where they are.
    pub fn retain(&mut self, mut is_there: impl FnMut(Owner, i32) -> bool) {
        let are_in = &mut self.are_in;
        self.waiting.retain(|owner, things| {
            things.retain(|thing| {
                let stays = is_there(*owner, *thing);
                if !stays {
                    are_in.remove(thing);
                }
                stays
            });
            !things.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seeded::Seeded;

    fn owner_of(thing: i32) -> Owner {
        (thing / 1_000) as Owner
    }

    /// Things come at random, and what waits is looked through again at random: nobody waits longer than a round, and each
    /// owner's come out as they came in.
    #[test]
    fn an_owner_waits_for_one_turn_of_each_other_at_most() {
        for seed in 1..3_000 {
            let mut random = Seeded::new(seed);
            let mut circle = Circle::default();
            let mut waiting: BTreeMap<Owner, VecDeque<i32>> = BTreeMap::new();
            let mut since: BTreeMap<Owner, usize> = BTreeMap::new();
            for step in 0..300 {
                for _ in 0..random.below(3) {
                    let owner = 1 + random.below(4) as i32;
                    // One has a great many.
                    let thing =
                        1_000 * owner + random.below(if owner == 1 { 900 } else { 3 }) as i32;
                    let queue = waiting.entry(owner as Owner).or_default();
                    if !queue.contains(&thing) {
                        queue.push_back(thing);
                        since.entry(owner as Owner).or_insert(step);
                    }
                    circle.push(owner as Owner, thing);
                }
                if random.below(4) == 0 {
                    circle.retain(|_, thing| thing % 7 != 0);
                    for (owner, queue) in &mut waiting {
                        queue.retain(|thing| thing % 7 != 0);
                        if queue.is_empty() {
                            since.remove(owner);
                        }
                    }
                }
                let Some(thing) = circle.take_next() else {
                    assert!(waiting.values().all(VecDeque::is_empty), "seed {seed}");
                    continue;
                };
                let owner = owner_of(thing);
                let queue = waiting.get_mut(&owner).expect("it waits");
                assert_eq!(queue.pop_front(), Some(thing), "seed {seed}");
                let waited = step - since.remove(&owner).expect("it waits");
                assert!(waited <= 4, "seed {seed}: {owner} waited {waited} turns");
                if !queue.is_empty() {
                    since.insert(owner, step);
                }
            }
        }
    }
}
