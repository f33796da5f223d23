//! Events that lie in the log and are in no tick yet: of transactions that run, and of those that have just
//! ended.

use std::collections::HashMap;

use super::seen::Seen;
use super::written::Written;

#[derive(Default)]
pub struct Unticked {
    /// Announced by who wrote them, in that order.
    announced: Vec<Announced>,
    /// Found in the log, by their top-level transaction, in the order of their places.
    found: HashMap<u64, Vec<Written>>,
}

/// Runs that a transaction has announced one after the other. Most have one: without a list of it, and without a place
/// by their number (a fifth of the relay's time under load).
struct Announced {
    xid: u64,
    first: Written,
    more: Vec<Written>,
}

impl Announced {
    fn all(&self) -> impl Iterator<Item = &Written> {
        std::iter::once(&self.first).chain(&self.more)
    }
}

impl Unticked {
    fn all(&self) -> impl Iterator<Item = &Written> {
        let announced = self.announced.iter().flat_map(Announced::all);
        self.found.values().flatten().chain(announced)
    }

    /// Whether the relay has found this run itself, because a writer may announce it while the relay reads the log. A run is
    /// on its page whole or not at all.
    fn has_found(&self, written: &Written) -> bool {
        let Some(found) = self.found.get(&written.xid) else {
            return false;
        };
        let place = |run: &Written| (run.part, run.block, run.first);
        let behind = found.partition_point(|run| place(run) <= place(written));
        behind.checked_sub(1).is_some_and(|at| {
            let run = &found[at];
            (run.part, run.block) == (written.part, written.block)
                && written.first < run.first + run.count
        })
    }

    /// Adds a run that its writer announces, unless it was found.
    pub fn add(&mut self, written: Written) {
        if self.has_found(&written) {
            return;
        }
        match self
            .announced
            .last_mut()
            .filter(|last| last.xid == written.xid)
        {
            Some(last) => last.more.push(written),
            None => self.announced.push(Announced {
                xid: written.xid,
                first: written,
                more: Vec::new(),
            }),
        }
    }

    /// Forgets what it knows: the log is looked through from the start.
    pub fn start_over(&mut self) {
        self.announced.clear();
        self.found.clear();
    }

    /// Adds one event that was found, each behind the one before.
    pub fn find(&mut self, event: Written) {
        let found = self.found.entry(event.xid).or_default();
        match found.last_mut() {
            Some(last)
                if (last.part, last.block, last.own_xid, last.is_marker)
                    == (event.part, event.block, event.own_xid, event.is_marker)
                    && last.first + last.count == event.first
                    && last.position + i64::from(last.count) == event.position =>
            {
                last.count += 1;
            }
            _ => found.push(event),
        }
    }

    /// The runs of transactions that are over and have committed, in the order in which they were written.
    /// `has_committed`: of a transaction or savepoint that is over.
    pub fn due(&self, seen: &Seen, has_committed: impl Fn(u32) -> bool) -> Vec<Written> {
        let announced = self
            .announced
            .iter()
            .filter(|announced| seen.is_over(announced.xid));
        let found = self.found.iter().filter(|(xid, _)| seen.is_over(**xid));
        let mut due: Vec<Written> = found
            .flat_map(|(_, found)| found)
            .chain(announced.flat_map(Announced::all))
            .filter(|run| has_committed(run.own_xid))
            .copied()
            .collect();
        due.sort_unstable_by_key(|run| (run.position, run.xid, run.part, run.block, run.first));
        due
    }

    /// Forgets what is over: it is in a tick now, or was rolled back.
    pub fn drop_ended(&mut self, seen: &Seen) {
        self.announced
            .retain(|announced| !seen.is_over(announced.xid));
        self.found.retain(|xid, _| !seen.is_over(*xid));
    }

    pub fn lies_in(&self, part: u32) -> bool {
        self.all().any(|run| u32::from(run.part) == part)
    }

    pub fn events(&self) -> u64 {
        let events = self.all().filter(|run| !run.is_marker);
        events.map(|run| u64::from(run.count)).sum()
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
            is_marker: false,
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
            unticked.add(run);
        }
        assert_eq!(unticked.events(), 3);
        unticked.add(written(9, 7, 5, 3, 501));
        unticked.add(written(9, 8, 1, 1, 504));
        unticked.add(written(10, 7, 1, 1, 90));
        assert_eq!(unticked.events(), 8);
        unticked.drop_ended(&Seen::new(10, 11, vec![]));
        assert_eq!(unticked.events(), 0);
    }

    #[test]
    fn due_is_what_is_over_and_committed_in_the_order_of_writing() {
        let mut unticked = Unticked::default();
        unticked.add(written(10, 7, 1, 2, 300));
        unticked.add(written(11, 7, 3, 1, 100));
        unticked.add(written(10, 7, 4, 1, 400));
        unticked.add(written(12, 7, 5, 1, 200));
        unticked.add(written(13, 7, 6, 1, 250));
        // 12 runs, 13 was rolled back.
        let seen = Seen::new(12, 14, vec![12]);
        let due = unticked.due(&seen, |own_xid| own_xid != 13);
        let positions: Vec<i64> = due.iter().map(|run| run.position).collect();
        assert_eq!(positions, [100, 300, 400]);
        unticked.drop_ended(&seen);
        assert_eq!(unticked.events(), 1);
        assert!(unticked.lies_in(0) && !unticked.lies_in(1));
        unticked.start_over();
        assert_eq!(unticked.events(), 0);
    }
}
