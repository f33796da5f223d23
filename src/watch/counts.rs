//! How much each watch has told: counted in shared memory when the transaction commits.

use std::cell::RefCell;

use crate::pg::transaction;
use crate::shared;

#[derive(Clone, Copy, Default)]
pub struct Tally {
    pub notices: u64,
    pub jobs: u64,
    pub errors: u64,
}

struct Counted {
    level: i32,
    slot: usize,
    tally: Tally,
}

thread_local! {
    static COUNTED: RefCell<Vec<Counted>> = const { RefCell::new(Vec::new()) };
}

/// Adds to the counts of the watch in this slot, with the commit.
pub fn add(slot: Option<usize>, tally: Tally) {
    let Some(slot) = slot else { return };
    let level = transaction::nest_level();
    COUNTED.with_borrow_mut(|all| {
        let known = all
            .iter_mut()
            .rev()
            .find(|known| known.level == level && known.slot == slot);
        match known {
            Some(known) => {
                known.tally.notices += tally.notices;
                known.tally.jobs += tally.jobs;
                known.tally.errors += tally.errors;
            }
            None => all.push(Counted { level, slot, tally }),
        }
    });
}

/// The transaction has committed. Flips atomics only.
pub fn tell() {
    let Some(shared) = shared::get() else { return };
    COUNTED.with(|cell| {
        let Ok(all) = cell.try_borrow() else { return };
        if all.is_empty() {
            return;
        }
        let now = crate::pg::clock::now();
        for counted in all.iter() {
            let Tally {
                notices,
                jobs,
                errors,
            } = counted.tally;
            shared.watches[counted.slot].count(notices, jobs, errors, now);
        }
    });
}

/// A savepoint is released.
pub fn raise(level: i32) {
    COUNTED.with(|cell| {
        if let Ok(mut all) = cell.try_borrow_mut() {
            for counted in all.iter_mut().filter(|counted| counted.level >= level) {
                counted.level = level - 1;
            }
        }
    });
}

/// A savepoint of this level is undone; 0: the transaction has ended.
pub fn forget(level: i32) {
    COUNTED.with(|cell| {
        if let Ok(mut all) = cell.try_borrow_mut() {
            all.retain(|counted| counted.level < level);
        }
    });
}
