//! Who listens at one place: nobody or one mostly, which takes no more than its number; many are walked in a row, and left in any order.

use std::collections::HashMap;
use std::hash::Hash;

use indexmap::IndexSet;

use super::routes::Key;

#[derive(Default)]
pub struct Listeners(Who);

#[derive(Default)]
enum Who {
    #[default]
    None,
    One(Key),
    Many(Box<IndexSet<Key>>),
}

/// What is kept for so many is kept though there are fewer.
const KEPT: usize = 16;

/// Room that most of its users have left is given back.
pub fn shrink<K: Eq + Hash, V>(map: &mut HashMap<K, V>) {
    if map.capacity() > KEPT && map.len() < map.capacity() / 4 {
        map.shrink_to(map.len() * 2);
    }
}

impl Listeners {
    pub fn insert(&mut self, key: Key) {
        match &mut self.0 {
            Who::None => self.0 = Who::One(key),
            Who::One(one) if *one == key => {}
            Who::One(one) => self.0 = Who::Many(Box::new([*one, key].into_iter().collect())),
            Who::Many(many) => {
                many.insert(key);
            }
        }
    }

    pub fn remove(&mut self, key: Key) {
        match &mut self.0 {
            Who::One(one) if *one == key => self.0 = Who::None,
            Who::Many(many) => {
                many.swap_remove(&key);
                if many.capacity() > KEPT && many.len() < many.capacity() / 4 {
                    many.shrink_to(many.len() * 2);
                }
                if let (1, Some(last)) = (many.len(), many.first()) {
                    self.0 = Who::One(*last);
                }
            }
            Who::None | Who::One(_) => {}
        }
    }

    pub fn is_empty(&self) -> bool {
        matches!(self.0, Who::None)
    }

    pub fn each(&self, visit: &mut impl FnMut(Key)) {
        match &self.0 {
            Who::None => {}
            Who::One(one) => visit(*one),
            Who::Many(many) => many.iter().for_each(|key| visit(*key)),
        }
    }
}
