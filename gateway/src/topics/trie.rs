//! Patterns by their levels: a topic walks only the branches that it fits.

use std::collections::HashMap;

use super::pattern::{Level, Pattern};
use super::routes::{Key, Listeners};

#[derive(Default)]
pub struct Trie {
    literal: HashMap<Box<[u8]>, Trie>,
    any: Option<Box<Trie>>,
    /// Patterns that end here.
    here: Listeners,
    /// Those that have `**` here.
    rest: Listeners,
}

impl Trie {
    pub fn insert(&mut self, pattern: &Pattern, key: Key) {
        let mut node = self;
        for level in pattern.levels() {
            node = match level {
                Level::Literal(text) => node.literal.entry(text.clone()).or_default(),
                Level::Any => node.any.get_or_insert_default(),
                Level::Rest => {
                    node.rest.insert(key);
                    return;
                }
                Level::Subject => return,
            };
        }
        node.here.insert(key);
    }

    pub fn remove(&mut self, pattern: &Pattern, key: Key) {
        self.remove_below(pattern.levels(), key);
    }

    fn remove_below(&mut self, levels: &[Level], key: Key) {
        match levels.split_first() {
            None => {
                self.here.swap_remove(&key);
            }
            Some((Level::Rest, _)) => {
                self.rest.swap_remove(&key);
            }
            Some((Level::Literal(text), below)) => {
                if let Some(node) = self.literal.get_mut(text) {
                    node.remove_below(below, key);
                    if node.is_empty() {
                        self.literal.remove(text);
                    }
                }
            }
            Some((Level::Any, below)) => {
                if let Some(node) = &mut self.any {
                    node.remove_below(below, key);
                    if node.is_empty() {
                        self.any = None;
                    }
                }
            }
            Some((Level::Subject, _)) => {}
        }
    }

    pub fn is_empty(&self) -> bool {
        self.literal.is_empty()
            && self.any.is_none()
            && self.here.is_empty()
            && self.rest.is_empty()
    }

    /// Each listener of the topic; one with several patterns maybe several times. As deep as patterns are.
    pub fn each(&self, topic: &str, visit: &mut impl FnMut(Key)) {
        self.walk(Some(topic), visit);
    }

    fn walk(&self, left: Option<&str>, visit: &mut impl FnMut(Key)) {
        self.rest.iter().for_each(|key| visit(*key));
        let Some(left) = left else {
            self.here.iter().for_each(|key| visit(*key));
            return;
        };
        let (level, left) = match left.split_once('/') {
            Some((level, left)) => (level, Some(left)),
            None => (left, None),
        };
        if let Some(node) = self.literal.get(level.as_bytes()) {
            node.walk(left, visit);
        }
        if let Some(node) = &self.any {
            node.walk(left, visit);
        }
    }
}
