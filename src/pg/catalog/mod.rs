//! What the catalogs say: of roles, databases, the extension, functions, types; and who asks.

pub(in crate::pg) mod cached_row;
pub mod changes;
pub mod database;
pub mod function;
pub mod home;
pub mod identifier;
pub mod identity;
pub mod installed;
pub mod invalidation;
pub mod script;
pub mod trigger;
pub mod type_;
