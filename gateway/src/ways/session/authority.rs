//! Who it is, and what the server lets it hear.

use std::sync::Arc;
use std::time::Duration;

use pushy_core::log::cursor::Cursor;
use tokio::time::Instant;

use crate::clock;
use crate::gateway::Reads;
use crate::hub::outbox::{Command, Tag};
use crate::hub::{AskedAt, NotYet};
use crate::limits::Taken;
use crate::lock;
use crate::presence::Room;
use crate::source::{Ask, Redeemed, SourceError, Verdict};
use crate::topics::pattern::Pattern;
use crate::topics::routes::{Key, Wants};
use crate::ways::close;
use crate::ways::message::{self, Code, Refusal};
use crate::who::Principal;

use super::{within, Asked, Request, Session, Subscribed};

/// Until the server is asked again that has not answered; a little longer each time.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

impl Session {
    /// Lets it in, or renews: as the same, because what it has subscribed was for that one.
    pub fn admit(&mut self, who: Principal) -> Result<(), Refusal> {
        if let Some(before) = &self.who {
            if (&before.role, &before.subject) != (&who.role, &who.subject) {
                self.gateway.metrics.refuse("other_subject");
                return Err(Code::OtherSubject.because("the token is another subject's, or another role's: open another connection for it"));
            }
        } else if let Some(subject) = &who.subject {
            self.of_subject = self.gateway.of_subject.take(subject.clone());
            if self.of_subject.is_none() {
                self.gateway.metrics.refuse("sockets_of_subject");
                return Err(Code::TooMany.because("this subject has as many connections as it may"));
            }
        }
        let settings = &self.gateway.settings;
        let left = u64::try_from(who.until_s.saturating_sub(clock::now_s())).unwrap_or(0);
        let left = Duration::from_secs(left).min(settings.max_age);
        self.ends = Instant::now() + left;
        let before = settings.expiring_before.min(left / 2);
        self.expiring = Some(self.ends - before);
        *lock(&self.entry.who) = Some(who.clone());
        self.gateway.changes.moved.notify_one();
        // A key that went since the token was checked: who closes the sockets of that key has not seen this one.
        let key = who.key.as_deref();
        if key.is_some_and(|key| !self.gateway.who.has_key(key)) {
            self.outbox.close(close::UNAUTHENTICATED);
            return Err(Code::Unauthenticated.because("the token is not valid here"));
        }
        let is_renewal = self.who.replace(who).is_some();
        if is_renewal {
            let tags: Vec<Tag> = self.subscribed.keys().copied().collect();
            tags.into_iter().for_each(|tag| self.ask(tag));
        }
        Ok(())
    }

    pub fn redeem(&mut self, ticket: String) -> Result<(), Refusal> {
        if self.is_redeeming {
            self.gateway.metrics.refuse("tickets_at_a_time");
            return Err(Code::TooFast.because("another ticket is being looked at"));
        }
        if !Redeemed::may_be(&ticket) {
            self.hear_redeemed(Ok(None));
            return Ok(());
        }
        self.is_redeeming = true;
        let (source, limit) = (
            self.gateway.source.clone(),
            self.gateway.settings.ask_timeout,
        );
        self.asks.push(Box::pin(async move {
            Asked::Redeemed(within(limit, source.redeem(ticket)).await)
        }));
        Ok(())
    }

    /// Whether more is asked of the database than one connection may have under way.
    pub fn is_busy(&self) -> bool {
        self.asks.len() >= self.gateway.settings.max_subscriptions
    }

    pub fn subscribe(&mut self, request: Request) -> Result<(), Refusal> {
        let Some(who) = &self.who else {
            return Err(Code::Unauthenticated.because("send a token or a ticket first"));
        };
        if self.subscribed.len() >= self.gateway.settings.max_subscriptions {
            self.gateway.metrics.refuse("subscriptions");
            return Err(
                Code::TooMany.because("this connection has as many subscriptions as it may")
            );
        }
        if self.subscribed.contains_key(&request.tag) {
            return Err(
                Code::Taken.because(format!("there is a subscription {} already", request.tag))
            );
        }
        let own = |pattern: &Pattern| pattern.of_subject(who.subject.as_deref());
        let topics: Option<Option<Arc<[Pattern]>>> = request
            .topics
            .as_ref()
            .map(|topics| topics.iter().map(own).collect());
        if topics == Some(None) {
            return Err(Code::BadTopic.because("there is no subject that {sub} could stand for"));
        }
        let is_room = matches!(topics.as_ref().and_then(Option::as_deref), Some([one]) if one.exact().is_some());
        if request.presence && !(is_room && who.subject.is_some()) {
            return Err(Code::NoPresence
                .because("presence is for a subject, in one topic without patterns"));
        }
        let tag = request.tag;
        let topics = topics.flatten();
        let weight = self.weighed(topics.as_deref().unwrap_or_default())?;
        let request = Request { topics, ..request };
        let subscribed = Subscribed {
            request,
            key: None,
            asked: 0,
            asked_at: AskedAt::default(),
            unanswered: 0,
            room: None,
            is_told_live: false,
            weight,
        };
        self.subscribed.insert(tag, subscribed);
        self.ask(tag);
        Ok(())
    }

    /// The place of a subscription's topics among those of this socket, and of all.
    fn weighed(&self, topics: &[Pattern]) -> Result<Taken, Refusal> {
        let own: usize = self.subscribed.values().map(|one| one.weight.bytes()).sum();
        let weight: usize = topics.iter().map(Pattern::weight).sum();
        let refused = |reason, message: &str| {
            self.gateway.metrics.refuse(reason);
            Err(Code::TooMany.because(message))
        };
        if own + weight > self.gateway.settings.max_topic_bytes {
            return refused(
                "topic_bytes",
                "the topics of this connection take as much as they may",
            );
        }
        let all = self.gateway.hub.topics();
        match all.take(weight) {
            Some(taken) => Ok(taken),
            None => refused(
                "all_topic_bytes",
                "the topics of all connections take as much as they may",
            ),
        }
    }

    /// Asks the server whether this subscription may be.
    pub(super) fn ask(&mut self, tag: Tag) {
        self.ask_after(tag, Duration::ZERO);
    }

    fn ask_after(&mut self, tag: Tag, pause: Duration) {
        let (Some(who), Some(subscribed)) = (&self.who, self.subscribed.get_mut(&tag)) else {
            return;
        };
        self.last_ask += 1;
        let number = self.last_ask;
        subscribed.asked = number;
        subscribed.asked_at = self.gateway.hub.asked_at();
        let is_first = subscribed.key.is_none();
        let topics = subscribed.request.topics.iter();
        let topics = topics.flat_map(|topics| topics.iter());
        let ask = Ask {
            role: who.role.clone(),
            subject: who.subject.clone(),
            channel: subscribed.request.channel.clone(),
            topics: topics.map(ToString::to_string).collect(),
        };
        let (gateway, limit) = (self.gateway.clone(), self.gateway.settings.ask_timeout);
        self.asks.push(Box::pin(async move {
            tokio::time::sleep(pause).await;
            let since = Instant::now();
            let place = gateway.asks.acquire();
            let answer = gateway.source.authorize(ask);
            let verdict = if is_first {
                let in_turn = async {
                    let _place = place.await;
                    answer.await
                };
                within(limit, in_turn).await
            } else {
                // All are asked anew at once: nobody is turned away for those before them.
                let _place = place.await;
                within(limit, answer).await
            };
            gateway
                .metrics
                .authorize
                .observe(since.elapsed().as_secs_f64());
            Asked::Verdict(tag, number, verdict)
        }));
    }

    pub fn unsubscribe(&mut self, tag: Tag) -> Option<Cursor> {
        self.catching.remove(&tag);
        lock(&self.entry.channels).remove(&tag);
        self.gateway.changes.moved.notify_one();
        let subscribed = self.subscribed.remove(&tag)?;
        let key = subscribed.key?;
        if let (Some(room), Some(subject)) = (
            &subscribed.room,
            self.who.as_ref().and_then(|who| who.subject.as_deref()),
        ) {
            self.gateway.presence.leave(room, subject, key);
        }
        if self.replay.as_ref().is_some_and(|replay| replay.tag == tag) {
            self.replay = None;
        }
        self.gateway.hub.unsubscribe(key)
    }

    pub(super) fn refuse(&mut self, tag: Tag, refusal: &Refusal) {
        self.unsubscribe(tag);
        self.gateway.metrics.refuse(refusal.code.word());
        self.outbox.answer(message::error(Some(tag), refusal));
        if self.is_single {
            let close = match refusal.code {
                Code::Unavailable => close::UNAVAILABLE,
                _ => close::DENIED,
            };
            self.outbox.close(close);
            self.refused = Some(refusal.clone());
        }
    }

    pub(super) fn hear(&mut self, asked: Asked) {
        match asked {
            Asked::Redeemed(redeemed) => self.hear_redeemed(redeemed),
            Asked::Verdict(tag, number, verdict) => {
                if self
                    .subscribed
                    .get(&tag)
                    .is_none_or(|one| one.asked != number)
                {
                    return;
                }
                match verdict {
                    Ok(Verdict::Allowed { channel, since }) => {
                        self.allow(tag, channel, since.as_deref())
                    }
                    Ok(Verdict::Refused { reason }) => {
                        self.refuse(tag, &Code::Denied.because(reason))
                    }
                    Err(error) if self.is_decided(tag) => {
                        self.gateway.say(&error.to_string());
                        self.ask_again_later(tag);
                    }
                    Err(error) => {
                        self.gateway.say(&error.to_string());
                        self.refuse(
                            tag,
                            &Code::Unavailable.because("the database does not answer"),
                        );
                    }
                }
            }
        }
    }

    fn is_decided(&self, tag: Tag) -> bool {
        self.subscribed
            .get(&tag)
            .is_some_and(|one| one.key.is_some())
    }

    /// Nothing is read meanwhile.
    fn ask_again_later(&mut self, tag: Tag) {
        let Some(subscribed) = self.subscribed.get_mut(&tag) else {
            return;
        };
        if let Some(key) = subscribed.key {
            self.gateway.hub.pause(key);
        }
        let longest = FIRST_PAUSE.saturating_mul(1 << subscribed.unanswered.min(5));
        subscribed.unanswered = subscribed.unanswered.saturating_add(1);
        self.ask_after(tag, longest.mul_f64(0.5 + fastrand::f64()));
    }

    fn hear_redeemed(&mut self, redeemed: Result<Option<Redeemed>, SourceError>) {
        self.is_redeeming = false;
        let max_age = self.gateway.settings.max_age;
        let who = match redeemed {
            Err(_) => Err(Code::Unavailable.because("the database does not answer")),
            Ok(ticket) => {
                let who =
                    ticket.and_then(|ticket| Principal::of_ticket(ticket, max_age, clock::now_s()));
                who.ok_or_else(|| {
                    Code::Unauthenticated.because("the ticket was used, or its time is over")
                })
            }
        };
        let admitted = who.and_then(|who| {
            let until_s = who.until_s;
            self.admit(who).map(|()| until_s)
        });
        match admitted {
            Ok(until_s) => self.outbox.answer(message::authenticated(until_s)),
            Err(refusal) => {
                self.gateway.metrics.refuse(refusal.code.word());
                self.outbox.answer(message::error(None, &refusal));
                if self.who.is_none() {
                    self.outbox.close(match refusal.code {
                        Code::Unavailable => close::UNAVAILABLE,
                        Code::TooMany => close::TOO_MANY,
                        _ => close::UNAUTHENTICATED,
                    });
                }
            }
        }
    }

    fn allow(&mut self, tag: Tag, channel: String, since: Option<&str>) {
        let since = match since.map(str::parse::<Cursor>) {
            None => None,
            Some(Ok(since)) => Some(since),
            Some(Err(_)) => {
                return self.refuse(
                    tag,
                    &Code::Unavailable.because("the database says a cursor that is none"),
                )
            }
        };
        let Some(subscribed) = self.subscribed.get_mut(&tag) else {
            return;
        };
        let scope = self.who.as_ref().and_then(|who| who.scope.as_ref());
        if scope.is_some_and(|scope| !scope.covers(&channel, subscribed.request.topics.as_deref()))
        {
            return self.refuse(tag, &Code::Denied.because("the ticket is not for this"));
        }
        subscribed.unanswered = 0;
        if let Some(key) = subscribed.key {
            match self.gateway.hub.resume(key, since, subscribed.asked_at) {
                Ok(()) => {}
                Err(NotYet::AskAgain) => return self.ask(tag),
                // There is room as soon as something was written: asked again then.
                Err(NotYet::Full | NotYet::Closed) => self.outbox.command(Command::Recheck(tag)),
            }
            self.catching.insert(tag);
            return;
        }
        let request = &subscribed.request;
        let mut after = request.after;
        if let (Some(asked), Some(since)) = (after, since) {
            if asked < since {
                // What was said before somebody was let in is told as missing.
                if self.outbox.push_resync(tag, since).is_err() {
                    self.outbox.command(Command::Recheck(tag));
                    return;
                }
                after = Some(since);
            }
        }
        let wants = Wants {
            channel: channel.as_str().into(),
            topics: request.topics.clone(),
        };
        let is_live = after.is_none();
        let announce = |cursor| {
            self.outbox
                .answer(message::subscribed(tag, &channel, cursor, is_live))
        };
        let asked_at = subscribed.asked_at;
        let (hub, latest) = (&self.gateway.hub, request.latest);
        let key = match hub.subscribe(
            &self.outbox,
            tag,
            wants,
            latest,
            after,
            since,
            asked_at,
            announce,
        ) {
            Ok(key) => key,
            Err(NotYet::AskAgain) => return self.ask(tag),
            Err(NotYet::Closed | NotYet::Full) => {
                return self.refuse(
                    tag,
                    &Code::Unavailable.because("the database was not reached yet"),
                )
            }
        };
        subscribed.key = Some(key);
        subscribed.is_told_live = is_live;
        let reads = Reads {
            channel: channel.as_str().into(),
            topics: request.topics.clone(),
        };
        lock(&self.entry.channels).insert(tag, reads);
        self.gateway.changes.moved.notify_one();
        if request.presence {
            self.enter(tag, key, &channel);
        }
        if !is_live {
            self.catching.insert(tag);
        }
    }

    fn enter(&mut self, tag: Tag, key: Key, channel: &str) {
        let subject = self.who.as_ref().and_then(|who| who.subject.clone());
        let Some(subscribed) = self.subscribed.get_mut(&tag) else {
            return;
        };
        let topic = subscribed
            .request
            .topics
            .as_ref()
            .and_then(|topics| topics.first()?.exact());
        let (Some(subject), Some(topic)) = (subject, topic) else {
            return;
        };
        let room = Room {
            channel: channel.into(),
            topic: topic.into(),
        };
        match self
            .gateway
            .presence
            .enter(&room, &subject, key, &self.outbox, tag)
        {
            Ok(state) => {
                self.outbox.answer(state);
                subscribed.room = Some(room);
            }
            Err(_) => {
                self.gateway.metrics.refuse("presence");
                self.outbox.answer(message::error(
                    Some(tag),
                    &Code::NoPresence.because("the room is full, or there are too many"),
                ));
            }
        }
    }
}
