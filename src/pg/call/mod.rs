//! Calls: of our functions by SQL, of handlers and triggers of users, and around utility statements.

pub mod function;
pub mod handler;
pub mod leftovers;
mod named;
pub mod notify;
pub mod procedure;
pub mod result_rows;
pub mod session;
pub mod statement;
mod symbol;
pub mod table_guard;
pub mod trigger;
pub mod utility;
