//! The channel where LISTENers hear that a queue for workers outside has work.

use pushy_core::channel;

use super::definition::QueueDefinition;
use crate::pg::{identifier, text};

const BEFORE: &[u8] = b"pushy_queue_";

/// With the queue's name, or as much of that as there is room for and a number that tells it from others.
pub fn of(queue: &str) -> Vec<u8> {
    let name = text::encode_lossy(queue);
    if BEFORE.len() + name.len() <= identifier::LIMIT {
        return [BEFORE, &name].concat();
    }
    let number = format!("_{:08x}", channel::hash(&name) as u32);
    let room = identifier::LIMIT - BEFORE.len() - number.len();
    [BEFORE, text::cut(&name, room), number.as_bytes()].concat()
}

/// Its hash, where workers outside do the jobs; else 0.
pub(super) fn hash_of(queue: &QueueDefinition) -> u64 {
    if queue.is_outside() {
        channel::hash(&of(&queue.name))
    } else {
        0
    }
}
