//! Worker slots of the server (`max_worker_processes`) while they are all taken: which worker leaves for one that has none, and whose turn a
//! slot is that comes free.
//!
//! Executors, and the schedulers and relays of all databases, take slots. While somebody lacks one, a worker that rests (an idle executor, a
//! relay that has caught up, a scheduler that waits for a later time) leaves once it has been there for [`STAY_US`], the oldest first; where
//! none rests, the one that has worked longest leaves after [`SLICE_US`]. One is asked at a time. So slots are given anew at a bounded rate, and
//! whoever has left comes in turn again when it is wanted: executors and workers of databases by turns, and among each the one that
//! was started longest ago.

use crate::capacity::SLICE_US;

/// A worker that rests has been there for so long (µs) before it leaves for another, so that starts take a bounded part of the server.
pub const STAY_US: i64 = 250_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    Coming,
    /// It has nothing to do now.
    Rests,
    Works,
    /// An executor in a long job, which leaves when that is over.
    Held,
    Going,
}

#[derive(Clone, Copy, Debug)]
pub struct Worker {
    pub started_at: i64,
    pub doing: Doing,
    /// When (µs) it was asked to leave.
    pub asked_at: Option<i64>,
}

impl Worker {
    /// It leaves in a moment. One that does not, for somebody holds what it needs, keeps nobody else from being asked.
    fn is_leaving(&self, now: i64) -> bool {
        let is_asked = self.asked_at.is_some_and(|at| now < at + SLICE_US);
        self.doing == Doing::Going || (is_asked && self.doing != Doing::Held)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaves {
    /// The worker of this index is asked to leave.
    Ask(usize),
    /// Nobody leaves before this time (µs), or before one ends, which calls the launcher.
    Nobody(i64),
}

/// Who of these leaves for one that lacks a slot.
pub fn who_leaves(workers: &[Worker], now: i64) -> Leaves {
    let later = now + SLICE_US;
    if workers.iter().any(|worker| worker.is_leaving(now)) {
        return Leaves::Nobody(later);
    }
    let oldest = |doing: Doing| {
        let those = workers.iter().enumerate();
        those
            .filter(|(_, worker)| worker.doing == doing && worker.asked_at.is_none())
            .min_by_key(|(_, worker)| worker.started_at)
    };
    let mut next = later;
    for (doing, stays) in [(Doing::Rests, STAY_US), (Doing::Works, SLICE_US)] {
        if let Some((index, worker)) = oldest(doing) {
            let until = worker.started_at + stays;
            if until <= now {
                return Leaves::Ask(index);
            }
            next = next.min(until);
        }
    }
    let is_asked = |worker: &Worker| worker.doing == Doing::Held && worker.asked_at.is_some();
    match oldest(Doing::Held) {
        Some((index, _)) if next == later && !workers.iter().any(is_asked) => Leaves::Ask(index),
        _ => Leaves::Nobody(next),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Executors,
    OfDatabases,
}

impl Class {
    fn other(self) -> Self {
        match self {
            Self::Executors => Self::OfDatabases,
            Self::OfDatabases => Self::Executors,
        }
    }
}

/// Whose turn a free slot is: each class by turns while both lack one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Turn {
    lack: [bool; 2],
    /// In this round one of the class has left a slot to the other class, because that has its turn ...
    passed_on: [bool; 2],
    /// ... and an executor for a pair that has one already, because a database lacks one.
    spared_one: bool,
    databases_first: bool,
}

impl Turn {
    pub fn first(&self) -> Class {
        if self.databases_first {
            Class::OfDatabases
        } else {
            Class::Executors
        }
    }

    pub fn lacks(&self, class: Class) -> bool {
        self.lack[class as usize]
    }

    pub fn anybody_lacks(&self) -> bool {
        self.lack != [false; 2]
    }

    /// A class begins to start what it wants.
    pub fn begins(&mut self, class: Class) {
        self.lack[class as usize] = false;
        self.passed_on[class as usize] = false;
        self.spared_one &= class != Class::Executors;
    }

    /// One of the class leaves a slot to the other class, whose turn it is.
    pub fn passed_on(&mut self, class: Class) {
        self.lacked(class);
        self.passed_on[class as usize] = true;
    }

    /// A pair that has an executor gets no other while databases lack a worker.
    pub fn spared_one(&mut self) {
        self.spared_one = true;
    }

    /// One of the class found no slot.
    pub fn lacked(&mut self, class: Class) {
        self.lack[class as usize] = true;
    }

    /// One of the class was started: the next slot is the other's, if that lacks one.
    pub fn started(&mut self, class: Class) {
        if self.lacks(class.other()) {
            self.databases_first = class.other() == Class::OfDatabases;
        }
    }

    /// All that is wanted was tried. True: who has left a slot to others is to try now, because nobody is before them any more, and nothing
    /// that happens would call the launcher for them.
    pub fn ends(&mut self) -> bool {
        self.databases_first &= self.anybody_lacks();
        let is_next = |class: Class| self.passed_on[class as usize] && !self.is_others(class);
        is_next(Class::Executors)
            || is_next(Class::OfDatabases)
            || self.spared_one && !self.lacks(Class::OfDatabases)
    }

    /// Whether a slot that is free now is the other class's.
    pub fn is_others(&self, class: Class) -> bool {
        self.lacks(class.other()) && self.first() != class
    }
}
