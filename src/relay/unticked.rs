//! Events that lie in the log and are in no tick yet: of transactions that run, and of those that have just
//! ended.

use pushy_core::log::seen::Seen;
use rustc_hash::FxHashMap as HashMap;

use crate::pg::transaction;
use crate::shared::log::Written;

/// By their top-level transaction.
#[derive(Default)]
pub struct Unticked {
    of: HashMap<u64, Runs>,
}

#[derive(Default)]
struct Runs {
    /// Found in the log, in the order of their places.
    found: Vec<Written>,
    /// Told by who wrote them.
    told: Vec<Written>,
}

impl Runs {
    fn all(&self) -> impl Iterator<Item = &Written> {
        self.found.iter().chain(&self.told)
    }

    /// What is told while the log is looked through can be found as well; a run is on its page whole or not.
    fn has_found(&self, written: &Written) -> bool {
        let place = |run: &Written| (run.part, run.block, run.first);
        let behind = self
            .found
            .partition_point(|run| place(run) <= place(written));
        behind.checked_sub(1).is_some_and(|at| {
            let run = &self.found[at];
            (run.part, run.block) == (written.part, written.block)
                && written.first < run.first + run.count
        })
    }
}

impl Unticked {
    /// Adds what its writer tells, unless it was found.
    pub fn tell(&mut self, written: Written) {
        let runs = self.of.entry(written.xid).or_default();
        if !runs.has_found(&written) {
            runs.told.push(written);
        }
    }

    /// Forgets what it knows: the log is looked through from the start.
    pub fn start_over(&mut self) {
        self.of.clear();
    }

    /// Adds one event that was found, each behind the one before.
    pub fn find(&mut self, event: Written) {
        let runs = self.of.entry(event.xid).or_default();
        match runs.found.last_mut() {
            Some(last)
                if (last.part, last.block, last.own_xid)
                    == (event.part, event.block, event.own_xid)
                    && last.first + last.count == event.first
                    && last.position + i64::from(last.count) == event.position =>
            {
                last.count += 1;
            }
            _ => runs.found.push(event),
        }
    }

    /// What is over and committed, in the order in which it was written.
    pub fn due(&self, seen: &Seen) -> Vec<Written> {
        let mut due: Vec<Written> = self
            .of
            .iter()
            .filter(|(xid, _)| seen.is_over(**xid))
            .flat_map(|(_, runs)| runs.all())
            .filter(|run| transaction::has_committed(run.own_xid))
            .copied()
            .collect();
        due.sort_unstable_by_key(|run| (run.position, run.xid, run.part, run.block, run.first));
        due
    }

    /// Forgets what is over: it is in a tick now, or was rolled back.
    pub fn settle(&mut self, seen: &Seen) {
        self.of.retain(|xid, _| !seen.is_over(*xid));
    }

    pub fn lies_in(&self, part: u32) -> bool {
        let mut all = self.of.values().flat_map(Runs::all);
        all.any(|run| u32::from(run.part) == part)
    }

    pub fn events(&self) -> u64 {
        let all = self.of.values().flat_map(Runs::all);
        all.map(|run| u64::from(run.count)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(xid: u64, block: u32, first: u16, count: u16, position: i64) -> Written {
        Written {
            part: 0,
            block,
            first,
            count,
            xid,
            own_xid: xid as u32,
            position,
            about: None,
        }
    }

    #[test]
    fn what_was_found_is_not_added_again_when_it_is_told() {
        let mut unticked = Unticked::default();
        for (first, position) in [(1, 100), (2, 101), (4, 500)] {
            unticked.find(written(9, 7, first, 1, position));
        }
        for run in [written(9, 7, 1, 2, 100), written(9, 7, 4, 1, 500)] {
            unticked.tell(run);
        }
        assert_eq!(unticked.events(), 3);
        unticked.tell(written(9, 7, 5, 3, 501));
        unticked.tell(written(9, 8, 1, 1, 504));
        unticked.tell(written(10, 7, 1, 1, 90));
        assert_eq!(unticked.events(), 8);
        unticked.settle(&Seen::new(10, 11, vec![]));
        assert_eq!(unticked.events(), 0);
    }
}
