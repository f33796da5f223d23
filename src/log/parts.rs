//! The tables of the log, as sql/log.sql has them: columns count from 1.

use std::sync::atomic::AtomicU64;

use crate::errors::Result;
use crate::pg::heap::{self, ForReading, Table};

pub use pushy_core::log::PARTS;

/// A part is left when it holds one of so many shares of what the log may, in bytes or in time.
pub const SHARE: i64 = PARTS as i64 - 1;

const LOGS: [&str; PARTS as usize] = ["log_0", "log_1", "log_2", "log_3", "log_4", "log_5"];
const TICKS: [&str; PARTS as usize] = ["tick_0", "tick_1", "tick_2", "tick_3", "tick_4", "tick_5"];
const TICK_INDEXES: [&str; PARTS as usize] = [
    "tick_0_pkey",
    "tick_1_pkey",
    "tick_2_pkey",
    "tick_3_pkey",
    "tick_4_pkey",
    "tick_5_pkey",
];

pub fn log_table(part: u32) -> &'static str {
    LOGS[part as usize]
}

pub fn tick_table(part: u32) -> &'static str {
    TICKS[part as usize]
}

pub fn tick_index(part: u32) -> &'static str {
    TICK_INDEXES[part as usize]
}

/// Of each table, what `heap::check_columns` keeps.
static LOG_CHECKED: [AtomicU64; PARTS as usize] = [const { AtomicU64::new(0) }; PARTS as usize];
static TICK_CHECKED: [AtomicU64; PARTS as usize] = [const { AtomicU64::new(0) }; PARTS as usize];

pub fn open_log(part: u32) -> Result<Table> {
    let table = heap::open(log_table(part))?;
    check_log(&table, part)?;
    Ok(table)
}

pub fn read_log(part: u32) -> Result<ForReading> {
    let table = heap::open_for_reading(log_table(part))?;
    check_log(&table, part)?;
    Ok(table)
}

pub fn open_ticks(part: u32) -> Result<Table> {
    let table = heap::open(tick_table(part))?;
    check_ticks(&table, part)?;
    Ok(table)
}

pub fn read_ticks(part: u32) -> Result<ForReading> {
    let table = heap::open_for_reading(tick_table(part))?;
    check_ticks(&table, part)?;
    Ok(table)
}

fn check_log(table: &Table, part: u32) -> Result<()> {
    heap::check_columns(table, log::COLUMNS, &LOG_CHECKED[part as usize])
}

fn check_ticks(table: &Table, part: u32) -> Result<()> {
    heap::check_columns(table, tick::COLUMNS, &TICK_CHECKED[part as usize])
}

pub mod log {
    crate::columns! {
        XID "xid",
        LSN "lsn",
        CAUSED_BY "caused_by",
        DEPTH "depth",
        MERGE "merge",
        CHANNEL "channel",
        PAYLOAD "payload",
        TOPIC "topic",
    }
}

pub mod tick {
    crate::columns! {
        EPOCH "epoch",
        TICK "tick",
        AT "at",
        NOTICES "notices",
        BYTES "bytes",
        CHANNELS "channels",
        PARTS "parts",
        EMITTED_EPOCH "emitted_epoch",
        EMITTED_TICK "emitted_tick",
        LOST "lost",
        SEEN "seen",
        RUNS "runs",
    }
}
