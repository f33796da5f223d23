//! Pushy without PostgreSQL: the rules that can be tested on their own.

pub mod backoff;
pub mod batch;
pub mod bits;
pub mod calendar;
pub mod capacity;
pub mod channel;
pub mod circle;
pub mod counters_file;
pub mod fnv;
pub mod gate;
pub mod hidden;
pub mod histogram;
pub mod job_state;
pub mod json;
pub mod lease_count;
pub mod loaded;
pub mod log;
pub mod pace;
pub mod presence;
pub mod public_key;
pub mod rest;
pub mod share;
pub mod slots;
pub mod standing;
pub mod suspicion;
pub mod topic;
pub mod trigger_text;
pub mod turns;
pub mod version;

#[cfg(test)]
mod seeded;
