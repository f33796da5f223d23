//! How much each watch has published: counted in shared memory when the transaction commits.

use std::cell::RefCell;

use crate::pg::per_process::PerProcess;
use crate::pg::{transaction, transaction_end};
use crate::shared::{self, pending, Shared};

#[derive(Clone, Copy, Default)]
pub struct WatchCounts {
    pub notices: u64,
    pub jobs: u64,
    pub errors: u64,
}

struct Counted {
    level: i32,
    watch_id: i32,
    slot: usize,
    tally: WatchCounts,
}

struct Gone {
    level: i32,
    watch_id: i32,
}

static COUNTED: PerProcess<RefCell<Vec<Counted>>> = PerProcess::new(RefCell::new(Vec::new()));
static GONE: PerProcess<RefCell<Vec<Gone>>> = PerProcess::new(RefCell::new(Vec::new()));

/// Adds to the counts of a watch, in this slot, with the commit.
#[cfg_attr(target_os = "linux", link_section = "commit_path")]
pub fn add(watch_id: i32, slot: Option<usize>, tally: WatchCounts) {
    let Some(slot) = slot else { return };
    transaction_end::expect();
    let level = transaction::nest_level();
    COUNTED.with_borrow_mut(|all| {
        let entry = all
            .iter_mut()
            .rev()
            .find(|entry| entry.level == level && entry.slot == slot);
        match entry {
            Some(entry) => {
                entry.tally.notices += tally.notices;
                entry.tally.jobs += tally.jobs;
                entry.tally.errors += tally.errors;
            }
            None => all.push(Counted {
                level,
                watch_id,
                slot,
                tally,
            }),
        }
    });
}

/// A watch has ended: with the commit its slot is free for another.
pub fn end(watch_id: i32) {
    pending::unsaid();
    let level = transaction::nest_level();
    GONE.with_borrow_mut(|all| all.push(Gone { level, watch_id }));
}

/// The transaction has committed. Flips atomics only.
#[cfg_attr(target_os = "linux", link_section = "commit_path")]
pub fn announce() {
    let Some(shared) = shared::get() else { return };
    announce_counted(shared);
    GONE.with(|cell| {
        if let Ok(all) = cell.try_borrow() {
            all.iter().for_each(|gone| shared.free_watch(gone.watch_id));
        }
    });
}

fn announce_counted(shared: &Shared) {
    COUNTED.with(|cell| {
        let Ok(all) = cell.try_borrow() else { return };
        if all.is_empty() {
            return;
        }
        let now = crate::pg::clock::now();
        for counted in all.iter() {
            let WatchCounts {
                notices,
                jobs,
                errors,
            } = counted.tally;
            shared.count_watch(counted.watch_id, counted.slot, [notices, jobs, errors], now);
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
    GONE.with(|cell| {
        if let Ok(mut all) = cell.try_borrow_mut() {
            for gone in all.iter_mut().filter(|gone| gone.level >= level) {
                gone.level = level - 1;
            }
        }
    });
}

/// A savepoint of this level is undone; 0: the transaction has ended.
#[cfg_attr(target_os = "linux", link_section = "commit_path")]
pub fn forget(level: i32) {
    COUNTED.with(|cell| {
        if let Ok(mut all) = cell.try_borrow_mut() {
            all.retain(|counted| counted.level < level);
        }
    });
    GONE.with(|cell| {
        if let Ok(mut all) = cell.try_borrow_mut() {
            all.retain(|gone| gone.level < level);
        }
    });
}
