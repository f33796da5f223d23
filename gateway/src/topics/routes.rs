//! From a channel and a topic to the subscriptions that want it.

use std::collections::HashMap;
use std::sync::Arc;

use super::listeners::{shrink, Listeners};
use super::pattern::Pattern;
use super::trie::Trie;

/// The number of a subscription; never given out twice.
pub type Key = u64;

#[derive(Default)]
struct OfChannel {
    all: Listeners,
    exact: HashMap<Box<str>, Listeners>,
    patterns: Trie,
}

/// What a subscription wants of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wants {
    pub channel: Box<str>,
    /// None: all of the channel, and what has no topic.
    pub topics: Option<Arc<[Pattern]>>,
}

impl Wants {
    pub fn wants(&self, channel: &str, topic: Option<&str>) -> bool {
        *self.channel == *channel
            && match (&self.topics, topic) {
                (None, _) => true,
                (Some(topics), Some(topic)) => topics.iter().any(|pattern| pattern.matches(topic)),
                (Some(_), None) => false,
            }
    }
}

#[derive(Default)]
pub struct Routes {
    channels: HashMap<Box<str>, OfChannel>,
}

impl Routes {
    pub fn insert(&mut self, wants: &Wants, key: Key) {
        let channel = self.channels.entry(wants.channel.clone()).or_default();
        let Some(topics) = &wants.topics else {
            channel.all.insert(key);
            return;
        };
        for pattern in topics.iter() {
            match pattern.exact() {
                Some(topic) => {
                    channel.exact.entry(topic.into()).or_default().insert(key);
                }
                None => channel.patterns.insert(pattern, key),
            }
        }
    }

    pub fn remove(&mut self, wants: &Wants, key: Key) {
        let Some(channel) = self.channels.get_mut(&wants.channel) else {
            return;
        };
        channel.all.remove(key);
        for pattern in wants.topics.iter().flat_map(|topics| topics.iter()) {
            let Some(topic) = pattern.exact() else {
                channel.patterns.remove(pattern, key);
                continue;
            };
            if let Some(listeners) = channel.exact.get_mut(topic.as_str()) {
                listeners.remove(key);
                if listeners.is_empty() {
                    channel.exact.remove(topic.as_str());
                    shrink(&mut channel.exact);
                }
            }
        }
        if channel.all.is_empty() && channel.exact.is_empty() && channel.patterns.is_empty() {
            self.channels.remove(&wants.channel);
            shrink(&mut self.channels);
        }
    }

    /// Each that wants it; one with several patterns maybe several times.
    pub fn each(&self, channel: &str, topic: Option<&str>, mut visit: impl FnMut(Key)) {
        let Some(channel) = self.channels.get(channel) else {
            return;
        };
        channel.all.each(&mut visit);
        if let Some(topic) = topic {
            if let Some(listeners) = channel.exact.get(topic) {
                listeners.each(&mut visit);
            }
            channel.patterns.each(topic, &mut visit);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }
}
