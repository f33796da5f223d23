//! A snapshot kept: which transactions were over when it was taken.
//!
//! The difference of two of them is a batch that loses no event, waits for no long transaction and never
//! changes: what is over in the newer one and was not in the older (PgQ's ticks).

use super::varint;

/// Transactions by their 64-bit numbers, top-level ones only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// All before this one were over.
    xmin: u64,
    /// None from this one on was.
    xmax: u64,
    /// Those between that were running, in order.
    running: Vec<u64>,
}

impl Seen {
    pub fn new(xmin: u64, xmax: u64, mut running: Vec<u64>) -> Self {
        running.retain(|xid| (xmin..xmax).contains(xid));
        running.sort_unstable();
        running.dedup();
        Self {
            xmin,
            xmax,
            running,
        }
    }

    /// Whether a transaction was over.
    pub fn is_over(&self, xid: u64) -> bool {
        xid < self.xmin || (xid < self.xmax && self.running.binary_search(&xid).is_err())
    }

    /// Whether all before this one were over.
    pub fn are_over_below(&self, xid: u64) -> bool {
        xid <= self.xmin
            || (xid <= self.xmax && self.running.first().is_none_or(|first| *first >= xid))
    }

    /// Whether one before `below` is over that was not over in `before`.
    pub fn has_ended_since(&self, before: &Self, below: u64) -> bool {
        let was_running = before.running.iter().take_while(|xid| **xid < below);
        let are_new = before.xmax..self.xmax.min(below);
        let still = self.running.iter().filter(|xid| are_new.contains(xid));
        let new = are_new.end.saturating_sub(are_new.start);
        was_running.into_iter().any(|xid| self.is_over(*xid)) || (still.count() as u64) < new
    }

    /// Which of two is newer.
    pub fn is_after(&self, other: &Self) -> bool {
        (self.xmax, self.xmin) > (other.xmax, other.xmin)
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(16 + self.running.len() * 2);
        varint::put(&mut bytes, self.xmin);
        varint::put(&mut bytes, self.xmax - self.xmin);
        let mut last = self.xmin;
        for xid in &self.running {
            varint::put(&mut bytes, xid - last);
            last = *xid;
        }
        bytes
    }

    pub fn decode(mut bytes: &[u8]) -> Option<Self> {
        let xmin = varint::take(&mut bytes)?;
        let xmax = xmin.checked_add(varint::take(&mut bytes)?)?;
        let mut running = Vec::new();
        let mut last = xmin;
        while !bytes.is_empty() {
            last = last.checked_add(varint::take(&mut bytes)?)?;
            running.push(last);
        }
        Some(Self {
            xmin,
            xmax,
            running,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_running_is_not_over() {
        let seen = Seen::new(10, 20, vec![15, 10, 25, 3]);
        let over: Vec<u64> = (8..23).filter(|xid| seen.is_over(*xid)).collect();
        assert_eq!(over, [8, 9, 11, 12, 13, 14, 16, 17, 18, 19]);
    }

    /// Against a look at each number, for all pairs of small snapshots.
    #[test]
    fn who_has_ended_since_and_who_is_over_below() {
        let mut all = Vec::new();
        for xmax in 1..6u64 {
            for bits in 0..1u64 << xmax {
                let running: Vec<u64> = (0..xmax).filter(|xid| bits & 1 << xid != 0).collect();
                let xmin = running.first().copied().unwrap_or(xmax);
                all.push(Seen::new(xmin, xmax, running));
            }
        }
        for now in &all {
            for below in 0..8 {
                let are_over = (0..below).all(|xid| now.is_over(xid));
                assert_eq!(now.are_over_below(below), are_over, "{now:?} {below}");
                let is_later = |before: &&Seen| {
                    before.xmax <= now.xmax
                        && (0..6).all(|xid| now.is_over(xid) || !before.is_over(xid))
                };
                for before in all.iter().filter(is_later) {
                    let has_ended = (0..below).any(|xid| now.is_over(xid) && !before.is_over(xid));
                    assert_eq!(
                        now.has_ended_since(before, below),
                        has_ended,
                        "{before:?} {now:?} {below}"
                    );
                }
            }
        }
    }

    #[test]
    fn it_comes_back_from_its_bytes() {
        for seen in [
            Seen::default(),
            Seen::new(7, 7, vec![]),
            Seen::new(
                5_000_000_000,
                5_000_100_000,
                vec![5_000_000_000, 5_000_099_999],
            ),
        ] {
            assert_eq!(Seen::decode(&seen.encode()), Some(seen));
        }
        assert_eq!(Seen::decode(&[]), None);
        assert_eq!(Seen::decode(&[0x80]), None);
    }

    /// Every interleaving of starts, ends and looks of a few transactions: each is in one difference only.
    #[test]
    fn each_transaction_falls_into_exactly_one_tick() {
        let mut random = crate::seeded::Seeded::new(7);
        for _ in 0..200 {
            let mut next = 100u64;
            let mut running: Vec<u64> = Vec::new();
            let mut ended: Vec<u64> = Vec::new();
            let mut told: Vec<u64> = Vec::new();
            let mut last = Seen::new(next, next, vec![]);
            for _ in 0..300 {
                match random.below(4) {
                    0 | 1 => {
                        running.push(next);
                        next += 1;
                    }
                    2 if !running.is_empty() => {
                        let at = random.below(running.len() as u64) as usize;
                        ended.push(running.swap_remove(at));
                    }
                    _ => {
                        let xmin = running.iter().copied().min().unwrap_or(next);
                        let now = Seen::new(xmin, next, running.clone());
                        let now = Seen::decode(&now.encode()).expect("encoded above");
                        told.extend(
                            (100..next).filter(|xid| now.is_over(*xid) && !last.is_over(*xid)),
                        );
                        last = now;
                    }
                }
            }
            let last = Seen::new(next, next, running.clone());
            let mut told_ended: Vec<u64> = told.clone();
            told_ended.sort_unstable();
            let unique = told_ended.len();
            told_ended.dedup();
            assert_eq!(unique, told_ended.len(), "told twice");
            assert!(told.iter().all(|xid| ended.contains(xid)));
            assert!(ended.iter().all(|xid| last.is_over(*xid)));
        }
    }
}
