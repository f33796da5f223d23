//! Which subscriptions a notice concerns: exact topics by a hash, patterns by a trie.

mod listeners;
pub mod pattern;
pub mod routes;
mod trie;
