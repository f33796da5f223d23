//! How much of a database's event log each role has filled: counted in shared memory, while
//! pushy.log_max_size_per_role bounds it.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use pushy_core::log::PARTS;

use crate::shared::Shared;

/// Roles of the whole cluster that are counted at a time; those beyond are not bounded.
pub const MAX_SHARES: usize = 1024;

/// Places that are looked at for one role.
const PROBES: usize = 32;

#[repr(C)]
pub struct LogShare {
    /// The database in the upper half, the role in the lower; 0: never used.
    key: AtomicU64,
    /// Bytes in each part of the log, those of transactions that were rolled back included.
    bytes: [AtomicI64; PARTS as usize],
}

impl LogShare {
    fn total(&self) -> i64 {
        self.bytes
            .iter()
            .map(|bytes| bytes.load(Ordering::SeqCst))
            .sum()
    }

    fn clear(&self) {
        self.bytes
            .iter()
            .for_each(|bytes| bytes.store(0, Ordering::SeqCst));
    }
}

impl Shared {
    /// The place of a role, taken if need be from one that has nothing in the log; None when all near it are taken.
    fn log_share(&self, key: u64) -> Option<&LogShare> {
        let home = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize;
        let places = || (0..PROBES).map(move |step| &self.log_shares[(home + step) % MAX_SHARES]);
        if let Some(found) = places().find(|share| share.key.load(Ordering::SeqCst) == key) {
            return Some(found);
        }
        places().find(|share| {
            let other = share.key.load(Ordering::SeqCst);
            share.total() == 0
                && share
                    .key
                    .compare_exchange(other, key, Ordering::SeqCst, Ordering::SeqCst)
                    .is_ok()
        })
    }

    /// Counts bytes that a role is about to write to a part of a database's log; else, if it would have more than `most`
    /// then, how many it has.
    pub fn charge_log(
        &self,
        database: u32,
        role: u32,
        part: u32,
        bytes: i64,
        most: i64,
    ) -> std::result::Result<(), i64> {
        let Some(share) = self.log_share(u64::from(database) << 32 | u64::from(role)) else {
            return Ok(());
        };
        let here = &share.bytes[part as usize];
        here.fetch_add(bytes, Ordering::SeqCst);
        let total = share.total();
        if total <= most {
            return Ok(());
        }
        here.fetch_sub(bytes, Ordering::SeqCst);
        Err(total - bytes)
    }

    /// Bytes that a role has in a database's log; None: it is not bounded, because the places near its own are taken.
    pub fn log_charged(&self, database: u32, role: u32) -> Option<i64> {
        let share = self.log_share(u64::from(database) << 32 | u64::from(role));
        share.map(LogShare::total)
    }

    fn log_shares_of(&self, database: u32) -> impl Iterator<Item = &LogShare> {
        let is_of =
            move |share: &&LogShare| share.key.load(Ordering::SeqCst) >> 32 == u64::from(database);
        self.log_shares.iter().filter(is_of)
    }

    /// A part of a database's log was emptied.
    pub fn uncharge_log(&self, database: u32, part: u32) {
        self.log_shares_of(database)
            .for_each(|share| share.bytes[part as usize].store(0, Ordering::SeqCst));
    }

    /// A database, or the extension in it, is gone. May be called in commit callbacks.
    pub fn forget_log_of(&self, database: u32) {
        self.log_shares_of(database).for_each(LogShare::clear);
    }
}
