//! The tables of the log, as sql/log.sql has them: columns count from 1.

use std::sync::atomic::AtomicU32;

/// Parts that the log has; as many tables of events and of ticks.
pub const PARTS: u32 = 6;

/// A part is left when it holds one of so many shares of what the log may, in bytes or in time.
pub const SHARE: i64 = PARTS as i64 - 1;

pub fn log_table(part: u32) -> String {
    format!("log_{part}")
}

pub fn tick_table(part: u32) -> String {
    format!("tick_{part}")
}

pub fn tick_index(part: u32) -> String {
    format!("tick_{part}_pkey")
}

/// OIDs of the tables whose columns were found to be these.
pub static LOG_CHECKED: [AtomicU32; PARTS as usize] = [const { AtomicU32::new(0) }; PARTS as usize];
pub static TICK_CHECKED: [AtomicU32; PARTS as usize] =
    [const { AtomicU32::new(0) }; PARTS as usize];

pub mod log {
    pub const COLUMNS: &[&str] = &[
        "xid",
        "position",
        "caused_by",
        "depth",
        "merge",
        "channel",
        "payload",
    ];
    pub const XID: i32 = 1;
    pub const POSITION: i32 = 2;
    pub const CAUSED_BY: i32 = 3;
    pub const DEPTH: i32 = 4;
    pub const MERGE: i32 = 5;
    pub const CHANNEL: i32 = 6;
    pub const PAYLOAD: i32 = 7;
}

pub mod tick {
    pub const COLUMNS: &[&str] = &[
        "epoch",
        "tick",
        "at",
        "events",
        "bytes",
        "channels",
        "parts",
        "told_epoch",
        "told_tick",
        "lost",
        "seen",
        "runs",
    ];
    pub const EPOCH: i32 = 1;
    pub const TICK: i32 = 2;
    pub const AT: i32 = 3;
    pub const EVENTS: i32 = 4;
    pub const BYTES: i32 = 5;
    pub const CHANNELS: i32 = 6;
    pub const PARTS: i32 = 7;
    pub const TOLD_EPOCH: i32 = 8;
    pub const TOLD_TICK: i32 = 9;
    pub const LOST: i32 = 10;
    pub const SEEN: i32 = 11;
    pub const RUNS: i32 = 12;
}
