//! What models have in common.

use std::collections::HashSet;
use std::fmt::Debug;
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

/// No world of any case is bad, and there are as many as a model that has lost nothing has.
pub fn assert_holds<Case: Copy + Debug>(cases: &[Case], explore: impl Fn(Case) -> (usize, bool)) {
    for case in cases {
        let (worlds, bad) = explore(*case);
        assert!(!bad, "{case:?}");
        assert!(worlds > 1000, "{case:?}: only {worlds} worlds");
    }
}

/// Each fault makes a world bad, in one case at least.
pub fn assert_caught<Case: Copy, Fault: Copy + Debug>(
    faults: &[Fault],
    cases: &[Case],
    is_bad: impl Fn(Case, Fault) -> bool,
) {
    let is_harmless = |fault: &&Fault| !cases.iter().any(|case| is_bad(*case, **fault));
    let harmless: Vec<&Fault> = faults.iter().filter(is_harmless).collect();
    assert!(harmless.is_empty(), "{harmless:?}");
}
