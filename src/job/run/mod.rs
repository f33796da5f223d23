//! A job that runs: its call, as the handler sees it and others see it.

pub mod call;
pub mod claimed;
pub mod current;
pub mod log;
pub mod progress;
pub mod words;
