//! Pushy without PostgreSQL: the rules that can be tested on their own.

pub mod backoff;
pub mod state;

pub mod channel;
#[cfg(test)]
mod seeded;
