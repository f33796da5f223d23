//! What models have in common.

use std::collections::HashSet;
use std::hash::Hash;

/// Looks at every world that can be reached from the first, until one is bad: how many there were, and whether it was.
pub fn explore<World: Copy + Eq + Hash>(
    first: World,
    is_bad: impl Fn(&World) -> bool,
    successors: impl Fn(&World, &mut dyn FnMut(World)),
) -> (usize, bool) {
    let mut seen = HashSet::from([first]);
    let mut left = vec![first];
    while let Some(world) = left.pop() {
        if is_bad(&world) {
            return (seen.len(), true);
        }
        successors(&world, &mut |next| {
            if seen.insert(next) {
                left.push(next);
            }
        });
    }
    (seen.len(), false)
}
