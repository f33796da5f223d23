//! A scheduler's leases: those that are over are ended, and workers outside that were told of work and have not come are not waited
//! for.
//!
//! Anybody can have a great many end at once: a look at them goes on by turns, with the rest of a round and of the queues' owners
//! (`pushy_core::turns`), and what somebody holds, or what ending one fails at, keeps none of those behind it waiting.

use std::sync::atomic::Ordering;

use pushy_core::turns::Turns;

use super::scheduler::{after_look, Scheduler};
use crate::errors::Result;
use crate::job::lease::{expire, of_session, set_back, walk};
use crate::pg::value::Timestamp;
use crate::pg::{clock, identity, interrupts, transaction};
use crate::shared;
use crate::shared::database::{DatabaseSlot, NEVER};

/// Rows per transaction, of those that were claimed by a clock that was ahead.
const ROWS: usize = 500;

/// So long (µs) leases are ended, one transaction after another, before the rest of a round has its turn.
const STRETCH_US: i64 = 50_000;

/// Looks at leases that are under way.
#[derive(Default)]
pub(super) struct LeaseLooks {
    over: Option<Over>,
    sessions: Option<Sessions>,
}

impl LeaseLooks {
    /// Has the next scheduler look again.
    pub(super) fn give_up(self, slot: &DatabaseSlot) {
        if let Some(look) = self.over {
            slot.announce_lease_end(look.from());
        }
        if self.sessions.is_some() {
            slot.sessions_known.store(false, Ordering::SeqCst);
        }
    }
}

/// A look at leases that are over.
struct Over {
    /// First those of a time that has not come are looked for, behind this job: nothing is known of them, because the server has
    /// started, or its clock was set back.
    set_back: Option<i64>,
    /// And once more, after the look at the others.
    is_set_back_again: bool,
    /// One of those is held.
    is_ahead_held: bool,
    turns: Turns,
    /// When the first one has ended that was passed over, because somebody holds it.
    held: i64,
}

impl Over {
    fn new(from: i64) -> Self {
        Self {
            set_back: (from == 0).then_some(0),
            is_set_back_again: false,
            is_ahead_held: false,
            turns: walk::turns_from(from),
            held: NEVER,
        }
    }

    /// Leases were announced that end from then on; those of later have their time in the end.
    fn hear_of(&mut self, from: i64) {
        if from > clock::now().0 {
            return;
        }
        if from == 0 {
            // One that is under way comes to its end, however often others are asked for.
            match self.set_back {
                Some(_) => self.is_set_back_again = true,
                None => self.set_back = Some(0),
            }
        }
        self.turns.hear_of(from);
    }

    /// From where on another look begins.
    fn from(&self) -> i64 {
        if self.set_back.is_some() || self.is_set_back_again {
            0
        } else {
            self.turns.from
        }
    }
}

/// A look at leases of sessions that have ended.
struct Sessions {
    turns: Turns,
    all_done: bool,
}

impl Sessions {
    fn new() -> Self {
        Self {
            turns: walk::turns_from(i64::MIN),
            all_done: true,
        }
    }
}

impl Scheduler {
    /// Answers when something of leases is due next.
    pub(super) fn keep_leases(&self) -> Option<i64> {
        let sessions = self.pass_over(self.end_leases_of_sessions()).flatten();
        let leases = self.pass_over(self.end_leases()).flatten();
        let nexts = sessions.into_iter().chain(leases);
        nexts.chain(self.wake_other_claimers()).min()
    }

    /// Wakes other workers outside where those that were woken have not claimed; answers when to look again.
    fn wake_other_claimers(&self) -> Option<i64> {
        let outside = self.queues.iter().filter(|queue| queue.is_outside());
        // Outside a transaction no catalog can be read, as a queue that has no place yet would need.
        outside
            .filter_map(|queue| shared::expect().find_queue(queue.key()))
            .filter_map(|slot| shared::expect().wake_another_outside(slot))
            .min()
    }

    pub(super) fn is_looking_at_leases(&self) -> bool {
        let looks = self.leases.take();
        let is_midway = looks.over.is_some() || looks.sessions.is_some();
        self.leases.set(looks);
        is_midway
    }

    /// Ends leases of sessions that have ended, if some may have, for a while; answers when to go on.
    fn end_leases_of_sessions(&self) -> Result<Option<i64>> {
        let known = &self.database_slot.sessions_known;
        let mut looks = self.leases.take();
        let look = looks.sessions.take();
        self.leases.set(looks);
        let has_heard = !known.swap(true, Ordering::SeqCst);
        let mut look = match look {
            Some(look) => look,
            None if has_heard => Sessions::new(),
            None => return Ok(None),
        };
        if has_heard {
            look.turns.hear_of(i64::MIN);
        }
        match self.go_on_with_sessions(&mut look) {
            Ok(true) => {
                if !look.all_done {
                    known.store(false, Ordering::SeqCst);
                    self.come_back_unless(false);
                }
                Ok(None)
            }
            Ok(false) => {
                self.leases.set(LeaseLooks {
                    sessions: Some(look),
                    ..self.leases.take()
                });
                Ok(Some(clock::now().0))
            }
            Err(failure) => {
                known.store(false, Ordering::SeqCst);
                Err(failure)
            }
        }
    }

    /// Whether it is over.
    fn go_on_with_sessions(&self, look: &mut Sessions) -> Result<bool> {
        let began = clock::now();
        loop {
            let find = || of_session::of_others(&self.queues, &mut look.turns);
            let found = transaction::run(|| identity::as_owner(find))?;
            let done = self.end_each(&found, |(session, id)| of_session::end(*session, *id));
            look.all_done &= !done.contains(&false);
            if look.turns.are_over() {
                return Ok(true);
            }
            interrupts::check();
            if clock::now().since_us(began) as i64 > STRETCH_US {
                return Ok(false);
            }
            // Before any snapshot: a session is entered before its claim is committed.
            let known = &self.database_slot.sessions_known;
            if !known.swap(true, Ordering::SeqCst) {
                look.turns.hear_of(i64::MIN);
            }
        }
    }

    /// Ends leases that are over, for a while; answers when to go on, or when the next one ends.
    fn end_leases(&self) -> Result<Option<i64>> {
        let (slot, began) = (self.database_slot, clock::now());
        // Before any snapshot: a claim that commits too late for the snapshot announces its end after this.
        let heard = slot.take_lease_ends();
        let mut looks = self.leases.take();
        let look = looks.over.take();
        self.leases.set(looks);
        let mut look = match look {
            Some(mut look) => {
                look.hear_of(heard);
                look
            }
            None if heard > began.0 => {
                slot.announce_lease_end(heard);
                return Ok((heard != NEVER).then_some(heard));
            }
            None => Over::new(heard),
        };
        let next = match self.go_on_with_leases(&mut look) {
            Ok(Some(next)) => next.map_or(NEVER, |next| next.0),
            Ok(None) => {
                self.leases.set(LeaseLooks {
                    over: Some(look),
                    ..self.leases.take()
                });
                return Ok(Some(clock::now().0));
            }
            Err(failure) => {
                slot.announce_lease_end(look.from());
                return Err(failure);
            }
        };
        let held = if look.is_ahead_held { 0 } else { look.held };
        let next = next.min(held);
        slot.announce_lease_end(next);
        // One that somebody holds the job of is looked at again soon.
        let next = after_look(began, next);
        Ok((next != NEVER).then_some(next))
    }

    /// Answers when the next one ends; None: the look is not over.
    fn go_on_with_leases(&self, look: &mut Over) -> Result<Option<Option<Timestamp>>> {
        let began = clock::now();
        loop {
            let now = clock::now();
            if let Some(after) = look.set_back {
                let find = || Ok(set_back::later(after, now, ROWS));
                let found = transaction::run(|| identity::as_owner(find))?;
                let done = self.end_each(&found, |id| set_back::set_back(*id, now));
                look.is_ahead_held |= done.contains(&false);
                look.set_back = found.last().copied().filter(|_| found.len() == ROWS);
            } else {
                let find = || expire::over(&self.queues, &mut look.turns, now);
                let found = transaction::run(|| identity::as_owner(find))?;
                let done = self.end_each(&found, |(_, id)| expire::end(*id, now));
                let held = found.iter().zip(&done).filter(|(_, is_done)| !**is_done);
                let held = held.map(|((until, _), _)| until.0).min();
                look.held = look.held.min(held.unwrap_or(NEVER));
                if look.turns.are_over() && std::mem::take(&mut look.is_set_back_again) {
                    look.set_back = Some(0);
                } else if look.turns.are_over() {
                    let find = || Ok(expire::next_end(now));
                    return transaction::run(|| identity::as_owner(find)).map(Some);
                }
            }
            interrupts::check();
            if clock::now().since_us(began) as i64 > STRETCH_US {
                return Ok(None);
            }
            // What has come since has its turn with the others.
            look.hear_of(self.database_slot.take_lease_ends());
        }
    }

    /// Does it with each of some leases, in one transaction, or in one for each where it cannot be done with one of them. Answers
    /// with which it was done.
    fn end_each<T>(&self, leases: &[T], mut end: impl FnMut(&T) -> Result<bool>) -> Vec<bool> {
        let mut end = |lease: &T| identity::as_owner(|| end(lease));
        match transaction::run_each(leases, &mut end) {
            Ok(done) => done.into_iter().map(|done| done == Some(true)).collect(),
            Err(_) => leases
                .iter()
                .map(|lease| self.pass_over(transaction::run(|| end(lease))) == Some(true))
                .collect(),
        }
    }
}
