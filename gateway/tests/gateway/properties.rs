//! What holds whatever is written, and in whichever order things happen.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::FutureExt as _;
use proptest::prelude::*;
use pushy_core::log::cursor::Cursor;
use pushy_gateway::hub::outbox::{Command, Item, Outbox};
use pushy_gateway::hub::{Hub, Step};
use pushy_gateway::notice::Notice;
use pushy_gateway::source::memory::Memory;
use pushy_gateway::source::{Chunk, Reader, Source as _};
use pushy_gateway::topics::pattern::{Level, Pattern};
use pushy_gateway::topics::routes::{Key, Routes, Wants};
use pushy_gateway::ways::message::Incoming;

fn level() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[ab]", 1 => Just("*".to_owned()), 1 => Just(String::new()), 1 => Just("{sub}".to_owned()), 1 => Just("..".to_owned())]
}

fn pattern() -> impl Strategy<Value = Pattern> {
    (prop::collection::vec(level(), 1..5), any::<bool>()).prop_filter_map(
        "empty",
        |(mut levels, has_rest)| {
            if has_rest {
                levels.push("**".to_owned());
            }
            Pattern::read(&levels.join("/")).ok()
        },
    )
}

fn topic() -> impl Strategy<Value = String> {
    prop::collection::vec(prop_oneof![4 => "[ab]", 1 => Just(String::new()), 1 => Just("*".to_owned()), 1 => Just("..".to_owned())], 1..5)
        .prop_map(|levels| levels.join("/"))
}

/// As the words say it: `**` is any number of `*`.
fn naive(pattern: &[Level], topic: &[&str]) -> bool {
    match (pattern.split_first(), topic.split_first()) {
        (None, None) => true,
        (Some((Level::Rest, _)), _) => true,
        (Some((Level::Any, pattern)), Some((_, topic))) => naive(pattern, topic),
        (Some((Level::Literal(own), pattern)), Some((said, topic))) => {
            **own == *said.as_bytes() && naive(pattern, topic)
        }
        _ => false,
    }
}

proptest! {
    #[test]
    fn a_pattern_matches_what_its_words_say(pattern in pattern(), topic in topic()) {
        let levels: Vec<&str> = topic.split('/').collect();
        prop_assert_eq!(pattern.matches(&topic), naive(pattern.levels(), &levels), "{} {}", pattern, topic);
    }

    #[test]
    fn a_pattern_is_read_as_it_is_written(text in "[ab/*{}sub,\\\\é.]{1,12}") {
        if let Ok(pattern) = Pattern::read(&text) {
            prop_assert_eq!(Pattern::read(&pattern.to_string()), Ok(pattern));
        }
    }

    #[test]
    fn what_covers_a_pattern_matches_all_that_it_matches(wide in pattern(), narrow in pattern(), topic in topic()) {
        if wide.covers(&narrow) && narrow.matches(&topic) {
            prop_assert!(wide.matches(&topic), "{} covers {}, and not {}", wide, narrow, topic);
        }
    }

    #[test]
    fn an_own_topic_is_within_what_is_granted_to_a_subject(grant in pattern(), subject in ".{0,8}", topic in topic()) {
        if let Some(own) = grant.of_subject(Some(&subject)) {
            prop_assert!(!own.levels().contains(&Level::Subject));
            // What stands for the subject stands for nothing else.
            let said: Vec<&str> = topic.split('/').collect();
            if own.matches(&topic) {
                for (level, said) in grant.levels().iter().zip(&said) {
                    if *level == Level::Subject {
                        prop_assert_eq!(*said, subject.as_str());
                    }
                }
            }
        }
    }

    #[test]
    fn routes_lead_where_filters_do(
        all in prop::collection::vec(prop::option::weighted(0.8, prop::collection::vec(pattern(), 1..4)), 1..12),
        gone in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        topic in prop::option::weighted(0.9, topic()),
    ) {
        let mut routes = Routes::default();
        let wants: Vec<Wants> = all.into_iter().map(|topics| Wants { channel: "c".into(), topics: topics.map(Into::into) }).collect();
        for (key, wants) in (0..).zip(&wants) {
            routes.insert(wants, key);
        }
        let mut left: Vec<Key> = (0..wants.len() as Key).collect();
        for index in gone {
            let key = index.get(&(0..wants.len()).collect::<Vec<_>>()).to_owned() as Key;
            routes.remove(&wants[key as usize], key);
            left.retain(|one| *one != key);
        }
        let mut found = Vec::new();
        routes.each("c", topic.as_deref(), |key| found.push(key));
        found.sort_unstable();
        found.dedup();
        let expected: Vec<Key> = left.iter().copied().filter(|key| wants[*key as usize].wants("c", topic.as_deref())).collect();
        prop_assert_eq!(found, expected);
        for key in left {
            routes.remove(&wants[key as usize], key);
        }
        prop_assert!(routes.is_empty());
    }

    #[test]
    fn a_cursor_is_read_as_it_is_written(epoch in 0..i64::MAX, tick in 0..i64::MAX, n in 0..i32::MAX) {
        let cursor = Cursor::new(epoch, tick, n);
        prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
    }

    #[test]
    fn no_text_is_too_strange_to_be_read(text in ".{0,64}") {
        let _ = text.parse::<Cursor>();
        let _ = Pattern::read(&text);
        let _ = Pattern::read_list(&text);
        let _ = serde_json::from_str::<Incoming>(&text);
        let _ = pushy_gateway::ways::query::Query::read(&text);
        let _ = pushy_gateway::who::address::Network::read(&text);
        let _ = pushy_gateway::settings::read_duration(&text);
    }

    #[test]
    fn a_notice_is_one_line_of_json(channel in ".{1,16}", topic in prop::option::of(".{1,16}"), payload in any::<String>(), at in any::<i32>()) {
        let notice = Notice::new(Cursor::new(1, 2, 3), &channel, topic.as_deref(), &payload, i64::from(at));
        let text = String::from_utf8(notice.event().to_vec()).unwrap();
        prop_assert_eq!(text.matches('\n').count(), 3);
        prop_assert!(!text.contains('\r'));
        let said: serde_json::Value = serde_json::from_slice(&[b"{", notice.members().as_ref(), b"}"].concat()).unwrap();
        prop_assert_eq!(said["payload"].as_str().unwrap(), payload);
        prop_assert_eq!(said["channel"].as_str().unwrap(), channel);
        prop_assert_eq!(said["topic"].as_str(), topic.as_deref());
    }
}

#[derive(Clone, Debug)]
enum Act {
    Publish(u8, u8),
    Pump(u8),
    Empty,
    Promote(u8),
    Subscribe(u8, u8, bool),
    Unsubscribe(u8),
    CatchUp(u8),
    Ask(u8),
    Offer(u8),
    Take(u8),
    Recheck,
    Resume(u8),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0..3u8, 1..4u8).prop_map(|(topic, count)| Act::Publish(topic, count)),
        6 => (1..6u8).prop_map(Act::Pump),
        1 => Just(Act::Empty),
        1 => (0..3u8).prop_map(Act::Promote),
        3 => (0..3u8, 0..4u8, any::<bool>()).prop_map(|(one, after, is_all)| Act::Subscribe(one, after, is_all)),
        1 => (0..3u8).prop_map(Act::Unsubscribe),
        6 => (0..3u8).prop_map(Act::CatchUp),
        3 => (0..3u8).prop_map(Act::Ask),
        3 => (0..3u8).prop_map(Act::Offer),
        6 => (0..3u8).prop_map(Act::Take),
        1 => Just(Act::Recheck),
        2 => (0..3u8).prop_map(Act::Resume),
    ]
}

struct Reader1 {
    key: Key,
    outbox: Arc<Outbox>,
    wants: Wants,
    /// All that it wants up to there it has had, or was told to miss.
    had: Cursor,
    asked: Option<(Cursor, Chunk)>,
    is_lost: bool,
}

struct World {
    hub: Hub,
    memory: Memory,
    published: Vec<(Cursor, String)>,
    readers: HashMap<u8, Reader1>,
}

impl World {
    fn new() -> Self {
        let memory = Memory::default();
        let hub = Hub::new(4, 1 << 20);
        hub.open(memory.position().now_or_never().unwrap().unwrap());
        Self {
            hub,
            memory,
            published: Vec::new(),
            readers: HashMap::new(),
        }
    }

    fn read(&self, after: Cursor, max: u32) -> Chunk {
        self.memory
            .read(Reader::Replay, after, max)
            .now_or_never()
            .unwrap()
            .unwrap()
    }

    fn pump(&self, max: u32) -> bool {
        let after = self.hub.end();
        let chunk = self.read(after, max);
        let has_news = chunk.next != after || !chunk.events.is_empty();
        self.hub.publish(&chunk.events, chunk.next);
        has_news
    }

    fn take(&mut self, reader: u8, max: usize) -> bool {
        let Some(reader) = self.readers.get_mut(&reader) else {
            return false;
        };
        while let Some(command) = reader.outbox.take_command() {
            assert!(matches!(command, Command::Recheck(1) | Command::CatchUp(1)));
        }
        let items = reader.outbox.take(max);
        for item in &items {
            match item {
                Item::Resync { cursor, .. } => reader.had = *cursor,
                Item::Notice { notice, .. } => {
                    let wants = |topic: &str| reader.wants.wants("c", Some(topic));
                    let next = self
                        .published
                        .iter()
                        .find(|(cursor, topic)| *cursor > reader.had && wants(topic));
                    assert_eq!(
                        next.map(|(cursor, _)| *cursor),
                        Some(notice.cursor),
                        "after {}",
                        reader.had
                    );
                    reader.had = notice.cursor;
                }
                Item::Message(_) => {}
            }
        }
        !items.is_empty()
    }

    fn catch_up(&mut self, reader: u8) -> Option<Cursor> {
        let reader = self.readers.get_mut(&reader)?;
        match self.hub.catch_up(reader.key) {
            Step::Ask(after) => Some(after),
            Step::Lost(cursor) => {
                // Whoever comes back with it has missed nothing.
                for item in reader.outbox.take(100) {
                    reader.had = match item {
                        Item::Notice { notice, .. } => notice.cursor,
                        Item::Resync { cursor, .. } => cursor,
                        Item::Message(_) => reader.had,
                    };
                }
                let wanted = self
                    .published
                    .iter()
                    .filter(|(_, topic)| reader.wants.wants("c", Some(topic)));
                assert!(
                    wanted
                        .clone()
                        .all(|(at, _)| !(reader.had < *at && *at <= cursor)),
                    "{cursor} after {}",
                    reader.had
                );
                reader.is_lost = true;
                None
            }
            _ => None,
        }
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Publish(topic, count) => {
                for _ in 0..*count {
                    let topic = format!("t/{topic}");
                    let cursor = self.memory.publish("c", Some(&topic), "");
                    self.published.push((cursor, topic));
                }
            }
            Act::Pump(max) => {
                self.pump(u32::from(*max));
            }
            Act::Empty => {
                if let Some((cursor, _)) = self.published.last() {
                    self.memory.empty(*cursor);
                }
            }
            Act::Promote(lost) => self.memory.promote(usize::from(*lost)),
            Act::Subscribe(one, after, is_all) => {
                if self.readers.contains_key(one) {
                    return;
                }
                let outbox = self.hub.outbox(3, 1 << 20);
                let topics = (!is_all).then(|| {
                    ["t/1", "*/2"]
                        .map(|topic| Pattern::read(topic).unwrap())
                        .into()
                });
                let wants = Wants {
                    channel: "c".into(),
                    topics,
                };
                let after = match after {
                    0 => None,
                    1 => Some(Cursor::START),
                    2 => self.published.first().map(|(cursor, _)| *cursor),
                    _ => self.published.last().map(|(cursor, _)| *cursor),
                };
                let mut had = Cursor::START;
                let key = self
                    .hub
                    .subscribe(
                        &outbox,
                        1,
                        wants.clone(),
                        false,
                        after,
                        None,
                        self.hub.asked_at(),
                        |cursor| had = cursor,
                    )
                    .unwrap();
                let reader = Reader1 {
                    key,
                    outbox,
                    wants,
                    had,
                    asked: None,
                    is_lost: false,
                };
                self.readers.insert(*one, reader);
            }
            Act::Unsubscribe(one) => {
                if let Some(reader) = self.readers.remove(one) {
                    self.hub.unsubscribe(reader.key);
                }
            }
            Act::CatchUp(one) => {
                self.catch_up(*one);
            }
            Act::Ask(one) => {
                if let Some(after) = self.catch_up(*one) {
                    let chunk = self.read(after, 3);
                    self.readers.get_mut(one).unwrap().asked = Some((after, chunk));
                }
            }
            Act::Offer(one) => {
                if let Some(reader) = self.readers.get_mut(one) {
                    if let Some((after, chunk)) = reader.asked.take() {
                        self.hub.offer(reader.key, after, &chunk);
                    }
                }
            }
            Act::Take(one) => {
                self.take(*one, 2);
            }
            Act::Recheck => self.hub.recheck(Some("c")),
            Act::Resume(one) => {
                if let Some(reader) = self.readers.get(one) {
                    self.hub
                        .resume(reader.key, None, self.hub.asked_at())
                        .unwrap();
                }
            }
        }
        self.readers.retain(|_, reader| {
            if reader.is_lost {
                self.hub.unsubscribe(reader.key);
            }
            !reader.is_lost
        });
    }

    /// Everybody goes on until there is nothing left.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            let mut has_news = self.pump(100);
            for one in 0..3 {
                self.act(&Act::Resume(one));
                has_news |= self.take(one, 100);
                self.act(&Act::Ask(one));
                has_news |= self
                    .readers
                    .get(&one)
                    .is_some_and(|reader| reader.asked.is_some());
                self.act(&Act::Offer(one));
                has_news |= self.take(one, 100);
            }
            if !has_news {
                return;
            }
        }
        panic!("there is always something left");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Of the hub itself, what the model shows of the protocol.
    #[test]
    fn each_reader_gets_each_notice_once_or_is_told(acts in prop::collection::vec(act(), 1..80)) {
        let mut world = World::new();
        for act in &acts {
            world.act(act);
        }
        world.settle();
        for reader in world.readers.values() {
            let missed = world.published.iter().find(|(cursor, topic)| *cursor > reader.had && reader.wants.wants("c", Some(topic)));
            prop_assert!(missed.is_none(), "{:?} after {}", missed, reader.had);
            prop_assert!(world.hub.is_live(reader.key));
        }
    }
}
