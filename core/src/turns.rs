//! In which order due jobs are made ready, and leases that are over ended: by their times, and by turns of the queues' owners, because
//! one that has a great many due at once must not keep the others' jobs, retries and leases waiting.
//!
//! A walk in the order of times makes each owner's first jobs ready and passes over those of who has had its share. It comes to
//! its end soon, because only what is written takes long; then who was passed over has a turn, from the first job that
//! was passed over on, and the walk looks whether more has become due; and so on. A walk that has come to its end owes a turn, and one
//! that is under way goes on to its end, whatever is announced meanwhile: somebody may announce something all the time. Of each owner
//! the order of times is kept, of what was there.

use std::collections::{BTreeMap, HashMap};

/// A place in the order of waiting jobs: behind the job `id` that waits for `run_at`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WaitingCursor {
    /// In microseconds. Of leases that end with sessions, the number of the session.
    pub run_at: i64,
    pub id: i64,
}

impl WaitingCursor {
    /// Before all that wait for `run_at`.
    pub fn first(run_at: i64) -> Self {
        Self {
            run_at,
            id: i64::MIN,
        }
    }

    fn before(self) -> Self {
        Self {
            id: self.id.saturating_sub(1),
            ..self
        }
    }
}

/// How much at a time.
#[derive(Clone, Copy)]
pub struct Bounds {
    /// Jobs made ready in a transaction, at most.
    pub rows: usize,
    /// Jobs passed over in a transaction, at most.
    pub passed: usize,
    /// Jobs of an owner that the walk makes ready, before the others are left to its turns.
    pub share: usize,
}

impl Bounds {
    /// A scheduler never holds many locks, nor a snapshot for long.
    pub const USUAL: Self = Self {
        rows: 1_000,
        passed: 10_000,
        share: 1_000,
    };
}

/// Whose turn it is: an owner of queues, by number; 0 is the owner of those that are gone.
pub type Owner = u32;

/// How far due jobs have been made ready: all that wait for a time up to the front, but for those of owners that have more behind
/// a place of their own.
pub struct Turns {
    /// No job was looked for that waits for a time before this.
    pub from: i64,
    bounds: Bounds,
    front: WaitingCursor,
    behind: BTreeMap<Owner, WaitingCursor>,
    /// What the walk has made ready of each.
    had: HashMap<Owner, usize>,
    /// Who owns each queue, as it was met first: a queue that changes hands stays with its jobs.
    owners: HashMap<i32, Owner>,
    /// Whose turn it is; None: the walk's.
    turn: Option<Owner>,
    /// Who had the last.
    last: Owner,
    /// The walk has begun and not come to its end.
    is_walking: bool,
    /// From where on it is to begin again: what has come there since was behind it already.
    again: Option<WaitingCursor>,
    /// It has come to its end since the last turn.
    owes_turn: bool,
    /// It has, and nothing was announced since.
    walk_is_over: bool,
    /// Of this transaction: jobs wanted, jobs passed over, and the last one of either.
    wanted: usize,
    passed: usize,
    at: WaitingCursor,
}

impl Turns {
    /// Looks for jobs that wait for a time from there on (µs).
    pub fn from(from: i64, bounds: Bounds) -> Self {
        let front = WaitingCursor::first(from);
        Self {
            from,
            bounds,
            front,
            behind: BTreeMap::new(),
            had: HashMap::new(),
            owners: HashMap::new(),
            turn: None,
            last: 0,
            is_walking: false,
            again: None,
            owes_turn: false,
            walk_is_over: false,
            wanted: 0,
            passed: 0,
            at: front,
        }
    }

    /// Jobs have come meanwhile that wait for this time (µs) or a later one.
    pub fn hear_of(&mut self, from: i64) {
        self.from = self.from.min(from);
        let first = WaitingCursor::first(from);
        if self.is_walking {
            self.again = Some(self.again.map_or(first, |again| again.min(first)));
        } else {
            self.front = self.front.min(first);
        }
        self.walk_is_over = false;
    }

    /// Nothing that is due is left, but for what somebody holds.
    pub fn are_over(&self) -> bool {
        self.walk_is_over && self.behind.is_empty()
    }

    /// A transaction begins: behind which place it looks.
    pub fn begin(&mut self) -> WaitingCursor {
        self.turn = self.owes_turn.then(|| self.next_turn()).flatten();
        // After a turn the walk goes on: more may be due by now.
        self.owes_turn = false;
        self.walk_is_over = false;
        self.is_walking |= self.turn.is_none();
        self.wanted = 0;
        self.passed = 0;
        self.at = match self.turn {
            Some(owner) => self.behind[&owner],
            None => self.front,
        };
        self.at
    }

    /// The next of those that wait for a turn, in their circle.
    fn next_turn(&self) -> Option<Owner> {
        let later = self.behind.range(self.last + 1..).next();
        later.or(self.behind.iter().next()).map(|(owner, _)| *owner)
    }

    /// Whether this job, the next in the order of times, is to be made ready in this transaction.
    pub fn wants(
        &mut self,
        cursor: WaitingCursor,
        queue_id: i32,
        owner_of: impl FnOnce(i32) -> Owner,
    ) -> bool {
        self.at = cursor;
        let owner = *self
            .owners
            .entry(queue_id)
            .or_insert_with(|| owner_of(queue_id));
        let wants = match self.turn {
            Some(turn) => owner == turn,
            None => self.walk_wants(cursor, owner),
        };
        if wants {
            self.wanted += 1;
        } else {
            self.passed += 1;
        }
        wants
    }

    /// This job, the next in the order of times, is nobody's turn.
    pub fn pass(&mut self, cursor: WaitingCursor) {
        self.at = cursor;
        self.passed += 1;
    }

    fn walk_wants(&mut self, cursor: WaitingCursor, owner: Owner) -> bool {
        if let Some(behind) = self.behind.get_mut(&owner) {
            // It has come since that owner's last turn.
            *behind = cursor.before().min(*behind);
            return false;
        }
        let had = self.had.entry(owner).or_default();
        *had += 1;
        if *had > self.bounds.share {
            self.behind.insert(owner, cursor.before());
        }
        *had <= self.bounds.share
    }

    pub fn has_walked_enough(&self) -> bool {
        self.wanted >= self.bounds.rows || self.passed >= self.bounds.passed
    }

    /// The transaction has come as far as it goes: to the last job that is due, or there may be more.
    pub fn end(&mut self, has_more: bool) {
        match self.turn {
            None => {
                self.front = self.at;
                if !has_more {
                    self.is_walking = false;
                    self.owes_turn = true;
                    let again = self.again.take().filter(|again| *again < self.front);
                    self.walk_is_over = again.is_none();
                    self.front = again.unwrap_or(self.front);
                }
            }
            Some(owner) => {
                self.last = owner;
                if has_more {
                    self.behind.insert(owner, self.at);
                } else {
                    self.behind.remove(&owner);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
