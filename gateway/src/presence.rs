//! Who is in a room, a topic of a channel, in the memory of this gateway. A subject that is back before the debounce is over never left.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::hub::outbox::{Command, Outbox, Tag};
use crate::lock;
use crate::notice::json;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Room {
    pub channel: Box<str>,
    pub topic: Box<str>,
}

/// One subscription's stay in a room; the number is that of the subscription in the hub.
#[derive(Clone)]
struct Listener {
    key: u64,
    outbox: Arc<Outbox>,
    tag: Tag,
}

#[derive(Default)]
struct Member {
    /// Its subscriptions; none: it is about to have left.
    count: u32,
    /// How often it was about to: only the last time counts.
    leaves: u64,
}

#[derive(Default)]
struct Inhabited {
    members: HashMap<Box<str>, Member>,
    listeners: Vec<Listener>,
}

#[derive(Default)]
struct Inside {
    rooms: HashMap<Room, Inhabited>,
    /// In the order of their times, because the debounce is the same for all.
    leaving: VecDeque<Leaving>,
}

struct Leaving {
    due: Instant,
    room: Room,
    subject: Box<str>,
    leaves: u64,
}

pub struct Presence {
    inside: Mutex<Inside>,
    changed: Notify,
    /// Told when somebody has come or gone.
    moved: Arc<Notify>,
    debounce: Duration,
    max_rooms: usize,
    max_members: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub struct NoRoom;

fn message(listener: &Listener, room: &Room, what: &str, rest: &str) -> Arc<str> {
    let (channel, topic) = (json(&room.channel), json(&room.topic));
    let tag = listener.tag;
    format!(r#"{{"type":"presence","id":{tag},"channel":{channel},"topic":{topic},"event":"{what}",{rest}}}"#).into()
}

impl Inhabited {
    fn tell(&self, room: &Room, what: &str, subject: &str) {
        let rest = format!(r#""subject":{}"#, json(subject));
        for listener in &self.listeners {
            if listener
                .outbox
                .push_message(message(listener, room, what, &rest))
                .is_err()
            {
                listener.outbox.command(Command::PresenceAnew(listener.tag));
            }
            listener.outbox.wake();
        }
    }

    fn state(&self, room: &Room, listener: &Listener) -> Arc<str> {
        let mut members: Vec<&str> = self.members.keys().map(|subject| &**subject).collect();
        members.sort_unstable();
        let members: Vec<String> = members.into_iter().map(json).collect();
        message(
            listener,
            room,
            "state",
            &format!(r#""members":[{}]"#, members.join(",")),
        )
    }
}

impl Presence {
    pub fn new(
        debounce: Duration,
        max_rooms: usize,
        max_members: usize,
        moved: Arc<Notify>,
    ) -> Self {
        Self {
            inside: Mutex::default(),
            changed: Notify::new(),
            moved,
            debounce,
            max_rooms,
            max_members,
        }
    }

    /// Tells the others, and the subscription who is there. Nothing is told to a room of whom it was full of.
    pub fn enter(
        &self,
        room: &Room,
        subject: &str,
        key: u64,
        outbox: &Arc<Outbox>,
        tag: Tag,
    ) -> Result<Arc<str>, NoRoom> {
        let mut inside = lock(&self.inside);
        let is_new_room = !inside.rooms.contains_key(room);
        if is_new_room && inside.rooms.len() >= self.max_rooms {
            return Err(NoRoom);
        }
        let inhabited = inside.rooms.entry(room.clone()).or_default();
        let is_full = inhabited.members.len() >= self.max_members;
        match inhabited.members.get_mut(subject) {
            Some(member) => member.count = member.count.saturating_add(1),
            None if is_full => return Err(NoRoom),
            None => {
                inhabited.tell(room, "join", subject);
                let member = Member {
                    count: 1,
                    leaves: 0,
                };
                inhabited.members.insert(subject.into(), member);
                self.moved.notify_one();
            }
        }
        let listener = Listener {
            key,
            outbox: outbox.clone(),
            tag,
        };
        let state = inhabited.state(room, &listener);
        inhabited.listeners.push(listener);
        Ok(state)
    }

    /// The subscription is over; its subject leaves if it does not come back.
    pub fn leave(&self, room: &Room, subject: &str, key: u64) {
        let mut inside = lock(&self.inside);
        let Some(inhabited) = inside.rooms.get_mut(room) else {
            return;
        };
        inhabited.listeners.retain(|listener| listener.key != key);
        let Some(member) = inhabited.members.get_mut(subject) else {
            return;
        };
        member.count = member.count.saturating_sub(1);
        if member.count == 0 {
            member.leaves += 1;
            let leaving = Leaving {
                due: Instant::now() + self.debounce,
                room: room.clone(),
                subject: subject.into(),
                leaves: member.leaves,
            };
            inside.leaving.push_back(leaving);
            drop(inside);
            self.changed.notify_one();
        }
    }

    /// Who is there, for a listener that was not told of everything.
    pub fn state(&self, room: &Room, key: u64) -> Option<Arc<str>> {
        let inside = lock(&self.inside);
        let inhabited = inside.rooms.get(room)?;
        let listener = inhabited
            .listeners
            .iter()
            .find(|listener| listener.key == key)?;
        Some(inhabited.state(room, listener))
    }

    /// So many rooms, and who is in each; how many there are.
    pub fn all(&self, most: usize) -> (Vec<(Room, Vec<String>)>, usize) {
        let inside = lock(&self.inside);
        let members = |(room, inhabited): (&Room, &Inhabited)| {
            let members = inhabited.members.keys().map(ToString::to_string);
            (room.clone(), members.collect())
        };
        let shown = inside.rooms.iter().take(most).map(members).collect();
        (shown, inside.rooms.len())
    }

    pub fn members(&self, room: &Room) -> Vec<String> {
        let inside = lock(&self.inside);
        let members = inside
            .rooms
            .get(room)
            .map(|inhabited| inhabited.members.keys());
        let mut members: Vec<String> = members
            .into_iter()
            .flatten()
            .map(ToString::to_string)
            .collect();
        members.sort_unstable();
        members
    }

    /// Lets those go whose time is over; when the next one's is.
    fn let_go(&self, now: Instant) -> Option<Instant> {
        let mut guard = lock(&self.inside);
        let inside = &mut *guard;
        while let Some(next) = inside.leaving.front() {
            if next.due > now {
                return Some(next.due);
            }
            let Leaving {
                room,
                subject,
                leaves,
                ..
            } = inside.leaving.pop_front()?;
            let Some(inhabited) = inside.rooms.get_mut(&room) else {
                continue;
            };
            // Where it came back and left again, another entry is for that.
            let is_last = |member: &Member| member.count == 0 && member.leaves == leaves;
            if inhabited.members.get(&subject).is_some_and(is_last) {
                inhabited.members.remove(&subject);
                self.moved.notify_one();
                inhabited.tell(&room, "leave", &subject);
            }
            if inhabited.members.is_empty() && inhabited.listeners.is_empty() {
                inside.rooms.remove(&room);
            }
        }
        None
    }

    /// Sleeps until somebody is about to leave.
    pub async fn run(&self) {
        loop {
            match self.let_go(Instant::now()) {
                Some(due) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(due) => {}
                        () = self.changed.notified() => {}
                    }
                }
                None => self.changed.notified().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room() -> Room {
        Room {
            channel: "c".into(),
            topic: "t".into(),
        }
    }

    fn outbox() -> Arc<Outbox> {
        Arc::new(Outbox::new(100, 100_000, Arc::default()))
    }

    fn events(outbox: &Outbox) -> Vec<String> {
        let items = outbox.take(100).into_iter().map(|item| match item {
            crate::hub::outbox::Item::Message(text) => text.to_string(),
            other => panic!("{other:?}"),
        });
        let read = |text: String| -> serde_json::Value { serde_json::from_str(&text).unwrap() };
        items
            .map(read)
            .map(|said| {
                format!(
                    "{} {}",
                    said["event"].as_str().unwrap(),
                    said["subject"].as_str().unwrap()
                )
            })
            .collect()
    }

    #[test]
    fn who_comes_back_in_time_never_left() {
        let presence = Presence::new(Duration::from_secs(5), 10, 10, Arc::default());
        let (a, b) = (outbox(), outbox());
        presence.enter(&room(), "ann", 1, &a, 1).unwrap();
        let state = presence.enter(&room(), "bob", 2, &b, 7).unwrap();
        assert!(state.contains(r#""members":["ann","bob"]"#), "{state}");
        assert_eq!(events(&a), ["join bob"]);
        let start = Instant::now();
        presence.leave(&room(), "bob", 2);
        assert!(presence.let_go(start).is_some());
        presence.enter(&room(), "bob", 3, &b, 8).unwrap();
        presence.let_go(start + Duration::from_secs(60));
        assert_eq!(events(&a), Vec::<String>::new());
        presence.leave(&room(), "bob", 3);
        presence.let_go(start + Duration::from_secs(60));
        assert_eq!(events(&a), ["leave bob"]);
        presence.leave(&room(), "ann", 1);
        presence.let_go(start + Duration::from_secs(60));
        assert!(lock(&presence.inside).rooms.is_empty());
    }

    #[test]
    fn many_that_leave_at_once_are_let_go_in_their_number() {
        const MANY: u64 = 100_000;
        let presence = Presence::new(Duration::ZERO, 1_000, 1_000, Arc::default());
        let outbox = outbox();
        let room = |n: u64| Room {
            channel: "c".into(),
            topic: format!("{}", n % 1_000).into(),
        };
        for n in 0..MANY {
            let subject = n.to_string();
            presence.enter(&room(n), &subject, n, &outbox, 1).unwrap();
            presence.leave(&room(n), &subject, n);
        }
        let start = Instant::now();
        presence.let_go(start);
        assert!(lock(&presence.inside).rooms.is_empty());
        // Each looked at all others before: that were minutes.
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn rooms_and_their_members_are_bounded() {
        let presence = Presence::new(Duration::from_secs(5), 1, 1, Arc::default());
        let outbox = outbox();
        presence.enter(&room(), "ann", 1, &outbox, 1).unwrap();
        assert_eq!(presence.enter(&room(), "bob", 2, &outbox, 2), Err(NoRoom));
        let other = Room {
            topic: "u".into(),
            ..room()
        };
        assert_eq!(presence.enter(&other, "ann", 3, &outbox, 3), Err(NoRoom));
    }
}
