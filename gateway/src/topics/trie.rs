//! Patterns by their levels: a topic walks only the branches that it fits. A node is small, because most have one below them and one
//! listener, and a pattern has up to sixteen.

use std::collections::HashMap;

use super::listeners::{shrink, Listeners};
use super::pattern::{Level, Pattern};
use super::routes::Key;

#[derive(Default)]
pub struct Trie {
    below: Below,
    any: Option<Box<Trie>>,
    /// Patterns that end here.
    here: Listeners,
    /// Those that have `**` here.
    rest: Listeners,
}

/// By their text.
#[derive(Default)]
struct Below(Option<Box<Children>>);

enum Children {
    One(Box<[u8]>, Trie),
    Many(HashMap<Box<[u8]>, Trie>),
}

impl Below {
    fn get(&self, text: &[u8]) -> Option<&Trie> {
        match self.0.as_deref()? {
            Children::One(own, trie) => (**own == *text).then_some(trie),
            Children::Many(many) => many.get(text),
        }
    }

    fn get_mut(&mut self, text: &[u8]) -> Option<&mut Trie> {
        match self.0.as_deref_mut()? {
            Children::One(own, trie) => (**own == *text).then_some(trie),
            Children::Many(many) => many.get_mut(text),
        }
    }

    /// The one that is there for a text, made where there is none.
    fn make(&mut self, text: &[u8]) -> &mut Trie {
        let first = || Box::new(Children::One(text.into(), Trie::default()));
        let children = &mut **self.0.get_or_insert_with(first);
        if matches!(children, Children::One(own, _) if **own != *text) {
            let before = std::mem::replace(children, Children::Many(HashMap::new()));
            if let (Children::One(own, trie), Children::Many(many)) = (before, &mut *children) {
                many.insert(own, trie);
            }
        }
        match children {
            Children::One(_, trie) => trie,
            Children::Many(many) => many.entry(text.into()).or_default(),
        }
    }

    fn remove(&mut self, text: &[u8]) {
        match self.0.as_deref_mut() {
            None => {}
            Some(Children::One(own, _)) if **own == *text => self.0 = None,
            Some(Children::One(..)) => {}
            Some(Children::Many(many)) => {
                many.remove(text);
                shrink(many);
                if many.len() <= 1 {
                    let last = many.drain().next();
                    self.0 = last.map(|(own, trie)| Box::new(Children::One(own, trie)));
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl Trie {
    pub fn insert(&mut self, pattern: &Pattern, key: Key) {
        let mut node = self;
        for level in pattern.levels() {
            node = match level {
                Level::Literal(text) => node.below.make(text),
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
            None => self.here.remove(key),
            Some((Level::Rest, _)) => self.rest.remove(key),
            Some((Level::Literal(text), below)) => {
                if let Some(node) = self.below.get_mut(text) {
                    node.remove_below(below, key);
                    if node.is_empty() {
                        self.below.remove(text);
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
        self.below.is_empty() && self.any.is_none() && self.here.is_empty() && self.rest.is_empty()
    }

    /// Each listener of the topic; one with several patterns maybe several times. As deep as patterns are.
    pub fn each(&self, topic: &str, visit: &mut impl FnMut(Key)) {
        self.walk(Some(topic), visit);
    }

    fn walk(&self, left: Option<&str>, visit: &mut impl FnMut(Key)) {
        self.rest.each(visit);
        let Some(left) = left else {
            self.here.each(visit);
            return;
        };
        let (level, left) = match left.split_once('/') {
            Some((level, left)) => (level, Some(left)),
            None => (left, None),
        };
        if let Some(node) = self.below.get(level.as_bytes()) {
            node.walk(left, visit);
        }
        if let Some(node) = &self.any {
            node.walk(left, visit);
        }
    }
}
