//! A world in 24 bytes, without loss, so that millions of them fit into a visited set.

use crate::world::{Announcing, Role, World};

pub type Packed = [u64; 4];

/// Appends small numbers, each in its own number of bits.
pub struct Packer {
    words: Packed,
    word: usize,
    used: u32,
}

impl Packer {
    /// `value` must be less than `2^bits - 1`, or `u8::MAX`, which becomes that number.
    pub fn push(&mut self, value: u8, bits: u32) {
        let all_ones = (1u8 << bits) - 1;
        debug_assert!(
            value < all_ones || value == u8::MAX,
            "{value} in {bits} bits"
        );
        self.push_bits(value.min(all_ones), bits);
    }

    pub fn push_flag(&mut self, flag: bool) {
        self.push_bits(u8::from(flag), 1);
    }

    fn push_bits(&mut self, value: u8, bits: u32) {
        if self.used + bits > u64::BITS {
            self.word += 1;
            self.used = 0;
        }
        self.words[self.word] |= u64::from(value) << self.used;
        self.used += bits;
    }
}

/// Bits of a position or `MAX`.
pub const POSITION: u32 = 3;
/// Bits of a number of a process, row or executor, or `NOBODY`.
pub const NUMBER: u32 = 3;

pub fn pack(world: &World) -> Packed {
    let mut to = Packer {
        words: [0; 4],
        word: 0,
        used: 0,
    };
    for row in &world.rows {
        to.push(row.position, POSITION);
        to.push(row.holder, NUMBER);
        to.push_flag(row.done);
    }
    to.push(world.sequence, POSITION);
    for low in world.low {
        to.push(low, POSITION);
    }
    to.push_flag(world.bit);
    to.push_flag(world.wanted);
    for slot in &world.slots {
        to.push(slot.flag as u8, 3);
        to.push_flag(slot.latch);
    }
    for left in [world.budget.aborts, world.budget.stops, world.budget.exits] {
        to.push(left, 2);
    }
    for process in &world.processes {
        pack_announcing(&process.announcing, &mut to);
        match &process.role {
            Role::Absent => (),
            Role::Executor(executor) => executor.pack(&mut to),
            Role::Enqueuer(enqueuer) => enqueuer.pack(&mut to),
            Role::Locker(locker) => locker.pack(&mut to),
        }
    }
    to.words
}

fn pack_announcing(announcing: &Announcing, to: &mut Packer) {
    to.push_flag(announcing.is_under_way());
    if announcing.is_under_way() {
        for owed in announcing.owed {
            to.push(owed, POSITION);
        }
        to.push(announcing.phase, 3);
        to.push(announcing.executor, NUMBER);
        to.push_flag(announcing.chosen);
    }
}
