//! Every interleaving by which one subscription goes from what has been to what comes (src/hub), while the log grows and is
//! emptied under it. And of broken variants, each of which must be caught.
//!
//! ```text
//! pump       read behind `to`, without a lock; then under the hub's lock, for each notice: append it to the ring, `to` = its
//!            cursor, and push it to each live subscription whose position is before it. One that has no room becomes
//!            `catching`, at the notice before. A resync empties the ring: `from` = `to` = its cursor; each live subscription
//!            is told, and each that is catching is told at its next step.
//! evict      `from` = the cursor of the notice that left the ring.
//! catching   under the lock: a position from `from` to `to` is served by the ring, one notice after another while there is
//!            room; at `to` the subscription becomes live, in the same hold of the lock. Another position asks the source,
//!            without the lock; one that was live is closed instead, with its position. The answer is pushed under the lock, as far as
//!            there is room, if the position is still the one that was asked for; a position that the source has vouched for and that is beyond `to` becomes live as it is.
//! socket     takes what was pushed, in its order.
//! ```
//!
//! Checked of every world: what the socket gets is each notice, once and in order, or a resync before what is missing; a live
//! subscription with nothing left to do has had them all; who was closed can go on from the position it was told.

#[path = "../../../core/tests/common/mod.rs"]
mod common;

/// Cursors are 1 to this.
const LAST: u8 = 4;
/// What the outbox holds.
const ROOM: usize = 2;
/// Marks a resync in the outbox.
const RESYNC: u8 = 0x80;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    /// The subscription finds that it is at the end in one hold of the lock, and becomes live in the next.
    JoinsInTwoSteps,
    /// The pump pushes in one hold of the lock, and appends to the ring in the next.
    AppendsLater,
    /// A live subscription is pushed what is before its position too.
    PushesWhatWasReplayed,
    /// Becoming live, it is at the end of the ring, whatever it has read from the source.
    JoinsAtTheEnd,
    /// Without room, it is at the notice for which there was none.
    OverflowSkips,
    /// Without room, it goes back to the beginning of the ring.
    OverflowRewinds,
    /// The ring serves a position that has left it.
    ServesWhatIsGone,
    /// What leaves the ring does not move its beginning.
    EvictsSilently,
    /// What the source says of a resync is not told.
    HidesResyncOfSource,
    /// What the pump hears of a resync is not told.
    HidesResyncOfPump,
    /// An answer for which there was not room enough counts as pushed.
    OfferSkips,
    /// A position beyond the ring's end becomes live unasked.
    TrustsThePosition,
    /// An answer counts, though the ring has served the subscription meanwhile.
    OffersAnyway,
}

const FAULTS: [Fault; 13] = [
    Fault::JoinsInTwoSteps,
    Fault::AppendsLater,
    Fault::PushesWhatWasReplayed,
    Fault::JoinsAtTheEnd,
    Fault::OverflowSkips,
    Fault::OverflowRewinds,
    Fault::ServesWhatIsGone,
    Fault::EvictsSilently,
    Fault::HidesResyncOfSource,
    Fault::HidesResyncOfPump,
    Fault::OfferSkips,
    Fault::TrustsThePosition,
    Fault::OffersAnyway,
];

/// Where the client says that it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Start {
    Now,
    Oldest,
    /// At a notice that a server gave out and lost: of a time that never was.
    Beyond,
}

const STARTS: [Start; 3] = [Start::Now, Start::Oldest, Start::Beyond];

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Sub {
    Off,
    Catching,
    /// Found the end, is not live yet: of a broken variant.
    AtEnd,
    Live,
    Closed,
}

/// An answer of the source that is under way: a resync first, if any, then all to `to`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Answer {
    /// What was asked for.
    after: u8,
    resync: Option<u8>,
    behind: u8,
    to: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct World {
    /// The log: its last cursor, and the last that was emptied.
    head: u8,
    gone: u8,
    /// The ring.
    from: u8,
    to: u8,
    generation: u8,
    pumped: Option<Answer>,
    /// Pushed and not appended: of a broken variant.
    unappended: Option<u8>,
    sub: Sub,
    position: u8,
    was_live: bool,
    vouched: bool,
    told_generation: u8,
    asked: Option<Answer>,
    outbox: [u8; ROOM],
    /// What the socket has had: all to here is accounted for.
    had: u8,
    is_bad: bool,
}

#[derive(Clone, Copy)]
struct Rules {
    start: Start,
    fault: Option<Fault>,
}

impl Rules {
    fn breaks(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }
}

impl World {
    fn new() -> World {
        World {
            head: 1,
            gone: 0,
            from: 1,
            to: 1,
            generation: 0,
            pumped: None,
            unappended: None,
            sub: Sub::Off,
            position: 0,
            was_live: false,
            vouched: false,
            told_generation: 0,
            asked: None,
            outbox: [0; ROOM],
            had: 0,
            is_bad: false,
        }
    }

    fn read(&self, after: u8) -> Answer {
        // Nobody was given a cursor beyond the end.
        let is_out_of_reach = after < self.gone || after > self.head;
        let behind = if is_out_of_reach { self.gone } else { after };
        Answer {
            after,
            resync: is_out_of_reach.then_some(behind),
            behind,
            to: self.head,
        }
    }

    fn push(&mut self, what: u8) -> bool {
        match self.outbox.iter_mut().find(|slot| **slot == 0) {
            Some(slot) => {
                *slot = what;
                true
            }
            None => false,
        }
    }

    fn tell_resync(&mut self, at: u8) -> bool {
        let has_room = self.push(RESYNC | at);
        if has_room {
            self.position = at;
        }
        has_room
    }

    fn overflow(&mut self, rules: &Rules, notice: u8) {
        self.sub = Sub::Catching;
        self.was_live = true;
        self.vouched = false;
        self.position = if rules.breaks(Fault::OverflowSkips) {
            notice
        } else if rules.breaks(Fault::OverflowRewinds) {
            self.from
        } else {
            self.position.max(notice - 1)
        };
    }

    fn dispatch(&mut self, rules: &Rules, notice: u8) {
        let is_new = notice > self.position || rules.breaks(Fault::PushesWhatWasReplayed);
        if self.sub == Sub::Live && is_new {
            if self.push(notice) {
                self.position = notice;
            } else {
                self.overflow(rules, notice);
            }
        }
    }

    fn publish(&mut self, rules: &Rules, answer: Answer) {
        if let Some(at) = answer.resync {
            (self.from, self.to) = (at, at);
            if !rules.breaks(Fault::HidesResyncOfPump) {
                self.generation += 1;
                if self.sub == Sub::Live {
                    if self.tell_resync(at) {
                        self.told_generation = self.generation;
                    } else {
                        self.sub = Sub::Catching;
                        self.was_live = true;
                    }
                }
            } else if self.sub == Sub::Live {
                self.position = at;
            }
        }
        for notice in answer.behind + 1..=answer.to {
            if notice > self.to {
                self.to = notice;
                self.dispatch(rules, notice);
            }
        }
    }

    fn catch_up(&self, rules: &Rules) -> Option<World> {
        let mut next = *self;
        if self.told_generation != self.generation {
            if !next.tell_resync(self.from) {
                return None;
            }
            next.told_generation = self.generation;
            (next.vouched, next.was_live) = (false, false);
            next.asked = None;
            return Some(next);
        }
        let is_before = self.position < self.from && !rules.breaks(Fault::ServesWhatIsGone);
        let is_beyond = self.position > self.to;
        let may_be_beyond = self.vouched || rules.breaks(Fault::TrustsThePosition);
        if is_before || (is_beyond && !may_be_beyond) {
            if self.was_live {
                next.sub = Sub::Closed;
            } else if self.asked.is_none() {
                next.asked = Some(self.read(self.position));
            } else {
                return None;
            }
            return Some(next);
        }
        if self.position < self.to {
            let notice = self.position.max(self.from) + 1;
            if !next.push(notice) {
                return None;
            }
            next.position = notice;
            return Some(next);
        }
        if rules.breaks(Fault::JoinsInTwoSteps) {
            next.sub = Sub::AtEnd;
        } else {
            next.go_live(rules);
        }
        Some(next)
    }

    fn go_live(&mut self, rules: &Rules) {
        self.sub = Sub::Live;
        if rules.breaks(Fault::JoinsAtTheEnd) {
            self.position = self.to;
        }
    }

    fn offer(&self, rules: &Rules, answer: Answer) -> World {
        let mut next = *self;
        next.asked = None;
        if answer.after != self.position && !rules.breaks(Fault::OffersAnyway) {
            return next;
        }
        if let Some(at) = answer.resync {
            if rules.breaks(Fault::HidesResyncOfSource) {
                next.position = at;
            } else if !next.tell_resync(at) {
                return next;
            }
        }
        for notice in answer.behind + 1..=answer.to {
            if !next.push(notice) {
                if rules.breaks(Fault::OfferSkips) {
                    next.position = answer.to;
                }
                return next;
            }
            next.position = notice;
        }
        next.vouched = true;
        next
    }

    fn take(&self) -> Option<World> {
        let first = self.outbox[0];
        if first == 0 {
            return None;
        }
        let mut next = *self;
        next.outbox = [self.outbox[1], 0];
        if first & RESYNC != 0 {
            next.had = first & !RESYNC;
        } else {
            next.is_bad |= first != self.had + 1;
            next.had = first;
        }
        Some(next)
    }

    fn has_settled(&self) -> bool {
        let nothing_left =
            self.outbox == [0; ROOM] && self.pumped.is_none() && self.unappended.is_none();
        self.sub == Sub::Live && nothing_left && self.to == self.head
    }

    fn is_bad(&self) -> bool {
        let has_missed = self.has_settled() && self.had != self.head;
        let cannot_go_on =
            self.sub == Sub::Closed && self.outbox == [0; ROOM] && self.had != self.position;
        self.is_bad || has_missed || cannot_go_on
    }

    fn successors(&self, rules: &Rules, visit: &mut dyn FnMut(World)) {
        let mut step = |change: &dyn Fn(&mut World)| {
            let mut next = *self;
            change(&mut next);
            visit(next);
        };
        if self.head < LAST {
            step(&|next| next.head += 1);
        }
        if self.gone < self.head {
            step(&|next| next.gone += 1);
        }
        if self.from < self.to {
            step(&|next| {
                if !rules.breaks(Fault::EvictsSilently) {
                    next.from += 1;
                } else if next.sub == Sub::Catching && next.position == next.from {
                    // It is not there, and nobody can see that.
                    next.position += 1;
                }
            });
        }
        match (self.pumped, self.unappended) {
            (_, Some(notice)) => step(&|next| {
                next.to = notice;
                next.unappended = None;
            }),
            (None, None) => step(&|next| {
                let answer = next.read(next.to);
                if answer.resync.is_some() || answer.to > next.to {
                    next.pumped = Some(answer);
                }
            }),
            (Some(answer), None) => step(&|next| {
                next.pumped = None;
                if rules.breaks(Fault::AppendsLater) && answer.resync.is_none() {
                    next.dispatch(rules, next.to + 1);
                    next.unappended = Some(next.to + 1);
                } else {
                    next.publish(rules, answer);
                }
            }),
        }
        match self.sub {
            Sub::Off => step(&|next| {
                next.sub = Sub::Catching;
                next.told_generation = next.generation;
                match rules.start {
                    Start::Now => {
                        next.sub = Sub::Live;
                        next.position = next.to;
                    }
                    Start::Oldest => next.position = 0,
                    Start::Beyond => next.position = LAST - 1,
                }
                next.had = next.position;
            }),
            Sub::Catching => {
                if let Some(next) = self.catch_up(rules) {
                    visit(next);
                }
                if let Some(answer) = self.asked {
                    visit(self.offer(rules, answer));
                }
            }
            Sub::AtEnd => step(&|next| next.go_live(rules)),
            Sub::Live | Sub::Closed => {}
        }
        if let Some(next) = self.take() {
            visit(next);
        }
    }
}

fn explore(rules: &Rules) -> (usize, bool) {
    common::explore(World::new(), World::is_bad, |world, visit| {
        world.successors(rules, visit);
    })
}

#[test]
fn a_subscription_gets_each_notice_once_or_is_told() {
    let fault = None;
    common::assert_holds(&STARTS, |start| explore(&Rules { start, fault }));
}

#[test]
fn each_broken_variant_loses_or_doubles_a_notice() {
    common::assert_caught(&FAULTS, &STARTS, |start, fault| {
        let fault = Some(fault);
        explore(&Rules { start, fault }).1
    });
}
