//! A scheduler's leases: those that are over are ended, and workers outside that were told of work and have not come are not waited
//! for.
//!
//! Anybody can have a great many end at once: a look at them goes on by turns, and what somebody holds, or what ending one fails at,
//! keeps none of those behind it waiting.

use std::sync::atomic::Ordering;

use super::scheduler::{after_look, Scheduler};
use crate::errors::Result;
use crate::job::lease::expire;
use crate::pg::value::Timestamp;
use crate::pg::{clock, identity, interrupts, transaction};
use crate::shared;
use crate::shared::database::{DatabaseSlot, NEVER};

/// Rows per transaction.
const ROWS: usize = 500;

/// So long (µs) leases are ended, one transaction after another, before the rest of a round has its turn.
const STRETCH_US: i64 = 50_000;

/// Looks at leases that are under way.
#[derive(Clone, Copy, Default)]
pub(super) struct LeaseLooks {
    over: Option<Over>,
    sessions: Option<Sessions>,
}

impl LeaseLooks {
    pub(super) fn are_midway(&self) -> bool {
        self.over.is_some() || self.sessions.is_some()
    }

    /// Has the next scheduler look again.
    pub(super) fn give_up(self, slot: &DatabaseSlot) {
        if let Some(look) = self.over {
            slot.announce_lease_end(look.from.min(look.heard));
        }
        if self.sessions.is_some() {
            slot.sessions_known.store(false, Ordering::SeqCst);
        }
    }
}

/// A look at leases that are over.
#[derive(Clone, Copy)]
struct Over {
    /// Those were looked for that end from here on.
    from: i64,
    step: Step,
    /// When the first one has ended that was passed over.
    held: i64,
    /// From when on leases end that were announced since.
    heard: i64,
}

/// Where it goes on.
#[derive(Clone, Copy)]
enum Step {
    /// Behind this job, with leases of a time that has not come: nothing is known of them, because the server has started, or its
    /// clock was set back.
    SetBack(i64),
    /// Behind the lease that ended then, of this job.
    End(Timestamp, i64),
}

impl Over {
    fn from(from: i64) -> Self {
        let step = match from {
            0 => Step::SetBack(0),
            _ => Step::End(Timestamp(from), 0),
        };
        Self {
            from,
            step,
            held: NEVER,
            heard: NEVER,
        }
    }
}

/// A look at leases of sessions that have ended.
#[derive(Clone, Copy)]
struct Sessions {
    /// Behind the lease of this session, of this job.
    after: (i64, i64),
    all_done: bool,
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

    /// Ends leases of sessions that have ended, if some may have, for a while; answers when to go on.
    fn end_leases_of_sessions(&self) -> Result<Option<i64>> {
        let known = &self.database_slot.sessions_known;
        let looks = self.leases.take();
        self.leases.set(LeaseLooks {
            sessions: None,
            ..looks
        });
        let look = match looks.sessions {
            Some(look) => look,
            None if known.swap(true, Ordering::SeqCst) => return Ok(None),
            None => Sessions {
                after: (i64::MIN, 0),
                all_done: true,
            },
        };
        let done = self.go_on_with_sessions(look);
        match &done {
            Ok(Some(look)) => self.leases.set(LeaseLooks {
                sessions: Some(*look),
                ..self.leases.get()
            }),
            Ok(None) => {}
            Err(_) => known.store(false, Ordering::SeqCst),
        }
        Ok(done?.map(|_| clock::now().0))
    }

    /// None: it is over.
    fn go_on_with_sessions(&self, mut look: Sessions) -> Result<Option<Sessions>> {
        let began = clock::now();
        loop {
            let find = || Ok(expire::of_other_sessions(look.after, ROWS));
            let found = transaction::run(|| identity::as_owner(find))?;
            let done = self.end_each(&found, |(session, id)| {
                expire::end_of_session(*session, *id)
            });
            look.all_done &= !done.contains(&false);
            look.after = found.last().copied().unwrap_or(look.after);
            if found.len() < ROWS {
                break;
            }
            interrupts::check();
            if clock::now().since_us(began) as i64 > STRETCH_US {
                return Ok(Some(look));
            }
        }
        if !look.all_done {
            let known = &self.database_slot.sessions_known;
            known.store(false, Ordering::SeqCst);
            self.come_back_unless(false);
        }
        Ok(None)
    }

    /// Ends leases that are over, for a while; answers when to go on, or when the next one ends.
    fn end_leases(&self) -> Result<Option<i64>> {
        let (slot, began) = (self.database_slot, clock::now());
        // Before any snapshot: a claim that commits too late for the snapshot announces its end after this.
        let heard = slot.take_lease_ends();
        let looks = self.leases.take();
        self.leases.set(LeaseLooks {
            over: None,
            ..looks
        });
        let mut look = match looks.over {
            Some(look) => Over {
                heard: look.heard.min(heard),
                ..look
            },
            None if heard > began.0 => {
                slot.announce_lease_end(heard);
                return Ok((heard != NEVER).then_some(heard));
            }
            None => Over::from(heard),
        };
        let next = match self.go_on_with_leases(&mut look) {
            Ok(Some(next)) => next.map_or(NEVER, |next| next.0),
            Ok(None) => {
                self.leases.set(LeaseLooks {
                    over: Some(look),
                    ..self.leases.get()
                });
                return Ok(Some(clock::now().0));
            }
            Err(failure) => {
                slot.announce_lease_end(look.from.min(look.heard));
                return Err(failure);
            }
        };
        slot.announce_lease_end(look.held.min(look.heard).min(next));
        // One that somebody holds the job of is looked at again soon.
        let next = after_look(began, look.held.min(next)).min(look.heard);
        Ok((next != NEVER).then_some(next))
    }

    /// Answers when the next one ends; None: the look is not over.
    fn go_on_with_leases(&self, look: &mut Over) -> Result<Option<Option<Timestamp>>> {
        let began = clock::now();
        loop {
            let now = clock::now();
            match look.step {
                Step::SetBack(after) => {
                    let find = || Ok(expire::later(after, now, ROWS));
                    let found = transaction::run(|| identity::as_owner(find))?;
                    let done = self.end_each(&found, |id| expire::set_back(*id, now));
                    if done.contains(&false) {
                        look.held = 0;
                    }
                    look.step = match found.last() {
                        Some(last) if found.len() == ROWS => Step::SetBack(*last),
                        _ => Step::End(Timestamp(look.from), 0),
                    };
                }
                Step::End(until, id) => {
                    let find = || Ok(expire::over((until, id), now, ROWS));
                    let found = transaction::run(|| identity::as_owner(find))?;
                    let done = self.end_each(&found, |(_, id)| expire::end(*id, now));
                    let held = found.iter().zip(&done).find(|(_, is_done)| !**is_done);
                    if let Some(((until, _), _)) = held {
                        look.held = look.held.min(until.0);
                    }
                    match found.last() {
                        Some((until, id)) if found.len() == ROWS => {
                            look.step = Step::End(*until, *id);
                        }
                        _ => {
                            let find = || Ok(expire::next_end(now));
                            return transaction::run(|| identity::as_owner(find)).map(Some);
                        }
                    }
                }
            }
            interrupts::check();
            if clock::now().since_us(began) as i64 > STRETCH_US {
                return Ok(None);
            }
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
