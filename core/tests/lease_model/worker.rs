//! worker: claims, holds, completes, fails, releases, extends, dies; and the end of its session.

use crate::world::{
    Change, State, Worker, World, LENGTH, MAX_ATTEMPTS, MAX_GIVE_BACKS, MAX_RELEASES, NEVER,
    NOBODY, NO_TOKEN,
};
use crate::{Case, Fault, Rules};

impl World {
    pub fn step_worker(&self, case: Case, rules: Rules, me: usize, visit: &mut dyn FnMut(World)) {
        let number = me as u8;
        let name = self.name(case, number);
        fn with(world: &World, me: usize, worker: Worker, change: &dyn Fn(&mut World)) -> World {
            let mut next = *world;
            next.workers[me] = worker;
            change(&mut next);
            next
        }
        let go = |worker: Worker, change: &dyn Fn(&mut World)| with(self, me, worker, change);
        let nothing = |_: &mut World| ();
        let unlock = |world: &mut World| world.locked_by = NOBODY;
        match self.workers[me] {
            Worker::Idle => {
                if self.open >> me & 1 == 0 {
                    return;
                }
                if self.announced {
                    visit(go(Worker::Came, &|world| world.announced = false));
                }
                // Asks again, because it knows of no answer.
                let holds = self.row.state == State::Leased && self.row.worker == name;
                if holds && self.locked_by == NOBODY && case.same_name {
                    let now = self.now;
                    visit(go(Worker::Claims { again: true, now }, &|world| {
                        world.locked_by = number
                    }));
                }
            }
            Worker::Came => {
                if self.locked_by != NOBODY || self.row.state != State::Ready {
                    // Who holds the row announces it.
                    visit(go(Worker::Idle, &nothing));
                } else {
                    let now = self.now;
                    visit(go(Worker::Claims { again: false, now }, &|world| {
                        world.locked_by = number
                    }));
                }
            }
            Worker::Claims { again, now } if rules == Some(Fault::AnnouncesEarly) => {
                visit(go(Worker::Announced { again, now }, &|world| {
                    world.announce_end(now + LENGTH)
                }));
            }
            Worker::Claims { again, now } | Worker::Announced { again, now } => {
                self.end_claim(case, rules, me, (again, now), visit);
            }
            Worker::Claimed { token } => {
                let silent = matches!(rules, Some(Fault::AnnouncesEarly | Fault::AnnouncesNothing));
                let is_back = self.row.said_at > self.now && rules != Some(Fault::CommitsLater);
                let until = if is_back { 0 } else { self.row.until };
                // With its session the scheduler has nothing to do until that ends.
                let ends = move |world: &mut World| {
                    if !silent && !case.bound {
                        world.announce_end(until);
                    }
                    if case.bound && rules == Some(Fault::EntersLate) {
                        world.entered |= 1 << me;
                    }
                };
                visit(go(Worker::Holds { token }, &ends));
                // The answer is lost.
                if case.same_name {
                    visit(go(Worker::Idle, &ends));
                }
            }
            Worker::Holds { token } => {
                // Dies: with its session, if the lease is bound to it.
                if case.bound {
                    self.disconnect(rules, me, visit);
                } else {
                    visit(go(Worker::Idle, &|world| world.open &= !(1 << me)));
                }
                if self.locked_by != NOBODY {
                    return;
                }
                let is_mine = self.row.state == State::Leased && self.row.token == token;
                let by_name = self.row.state == State::Leased && self.row.worker == name;
                let is_mine = is_mine || rules == Some(Fault::FencesByName) && by_name;
                let left_behind =
                    rules == Some(Fault::CancelLeavesToken) && self.row.token == token;
                let may_extend = is_mine
                    || rules == Some(Fault::ExtendsBlindly) && self.row.state == State::Leased;
                if !is_mine && !left_behind && !may_extend {
                    // False: it is no longer its own.
                    visit(go(Worker::Idle, &nothing));
                    return;
                }
                let changes: &[Change] = if is_mine || left_behind {
                    &[
                        Change::Complete,
                        Change::Fail,
                        Change::Release,
                        Change::Extend(LENGTH),
                        Change::Extend(1),
                    ]
                } else {
                    &[Change::Extend(LENGTH)]
                };
                for change in changes {
                    if !case.extends && matches!(change, Change::Extend(_))
                        || self.releases == MAX_RELEASES && *change == Change::Release
                    {
                        continue;
                    }
                    visit(go(
                        Worker::Changes {
                            token,
                            change: *change,
                        },
                        &|world| world.locked_by = number,
                    ));
                }
            }
            Worker::Changes { token, change } => {
                visit(go(Worker::Holds { token }, &unlock));
                let mut next = *self;
                next.locked_by = NOBODY;
                next.change(rules, change, token);
                next.workers[me] = Worker::Changed { token, change };
                visit(next);
            }
            Worker::Changed { token, change } => {
                let silent = rules == Some(Fault::SilentReturn);
                match change {
                    Change::Extend(length) => {
                        let silent = length < LENGTH && rules == Some(Fault::ShortensSilently);
                        let until = self.row.until;
                        visit(go(Worker::Holds { token }, &|world| {
                            if !silent && world.row.state == State::Leased {
                                world.announce_end(until);
                            }
                        }));
                    }
                    Change::Fail | Change::Release if self.row.state == State::Ready => {
                        visit(go(Worker::Idle, &|world| world.announced |= !silent));
                    }
                    _ => visit(go(Worker::Idle, &nothing)),
                }
            }
        }
    }

    pub fn end_claim(
        &self,
        case: Case,
        rules: Rules,
        me: usize,
        (again, now): (bool, u8),
        visit: &mut dyn FnMut(World),
    ) {
        let mut undone = *self;
        undone.locked_by = NOBODY;
        undone.workers[me] = Worker::Idle;
        undone.announced |= !again && rules != Some(Fault::SilentRollback);
        visit(undone);

        let mut next = *self;
        next.locked_by = NOBODY;
        if again && rules != Some(Fault::AsksForFree) {
            if self.row.give_backs == MAX_GIVE_BACKS {
                // It has been given back too often: charged.
                next.charge();
                next.workers[me] = Worker::Changed {
                    token: NO_TOKEN,
                    change: Change::Fail,
                };
                visit(next);
                return;
            }
            next.row.give_backs += 1;
        }
        let token = if again && rules == Some(Fault::KeepsToken) {
            self.row.token
        } else {
            next.next_token += 1;
            self.next_token
        };
        next.claims += 1;
        next.row.state = State::Leased;
        next.row.life = self.crashes;
        next.row.token = token;
        next.row.worker = if case.bound {
            me as u8
        } else {
            self.name(case, me as u8)
        };
        next.row.until = if case.bound { NEVER } else { now + LENGTH };
        next.row.said_at = now;
        next.promised = now + LENGTH;
        if case.bound && rules != Some(Fault::EntersLate) {
            next.entered |= 1 << me;
        }
        next.workers[me] = Worker::Claimed { token };
        // Two holders of one token are two that may complete.
        let others =
            |worker: &Worker| matches!(worker, Worker::Holds { token: other } if *other == token);
        next.broken |= self.workers.iter().any(others);
        visit(next);
    }

    /// The end of a session: removed from shared memory, then the scheduler is called.
    pub fn disconnect(&self, rules: Rules, me: usize, visit: &mut dyn FnMut(World)) {
        let mut next = *self;
        let early = rules == Some(Fault::CallsEarly);
        if self.open >> me & 1 == 1 {
            next.open &= !(1 << me);
            if early {
                next.announce_end(0);
            } else {
                next.entered &= !(1 << me);
            }
        } else {
            next.workers[me] = Worker::Idle;
            if early {
                next.entered &= !(1 << me);
            } else {
                next.announce_end(0);
            }
        }
        visit(next);
    }

    pub fn change(&mut self, rules: Rules, change: Change, token: u8) {
        match change {
            Change::Complete => {
                self.row.state = State::Completed;
                self.completions += 1;
                // Whoever else holds a token of this job has had it taken away.
                self.broken |= self.row.token != token;
            }
            Change::Fail => self.charge(),
            Change::Release => {
                // Uncharged, as often as its worker likes.
                self.releases += 1;
                self.row.state = State::Ready;
            }
            Change::Extend(length) => {
                // The holder of now is promised what it was promised, or what it asks for.
                self.broken |= self.row.token != token;
                self.row.until = self.now + length;
                if rules != Some(Fault::CountsFromClaim) {
                    self.row.said_at = self.now;
                }
                self.promised = self.row.until;
            }
        }
        if self.row.state != State::Leased {
            self.row.token = NO_TOKEN;
            self.row.until = NEVER;
        }
    }

    /// The server ended the session of its holder.
    pub fn give_back(&mut self) {
        self.row.give_backs += 1;
        self.row.state = State::Ready;
        self.row.token = NO_TOKEN;
        self.row.until = NEVER;
    }

    pub fn charge(&mut self) {
        self.row.attempts += 1;
        self.row.state = if self.row.attempts == MAX_ATTEMPTS {
            State::Discarded
        } else {
            State::Ready
        };
        self.row.token = NO_TOKEN;
        self.row.until = NEVER;
    }
}
