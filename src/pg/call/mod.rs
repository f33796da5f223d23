//! Calls: of our functions by SQL, of handlers, expressions and triggers of users, and around utility statements.

pub mod expression;
pub mod function;
pub mod handler;
pub mod leftovers;
pub mod literals;
pub mod notify;
pub mod result_rows;
pub mod session;
pub mod statement;
pub mod trigger;
pub mod unplanned;
pub mod utility;
