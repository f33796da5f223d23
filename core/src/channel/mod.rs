//! How PostgreSQL writes the name of a channel, byte by byte.
//!
//! LISTEN takes an SQL identifier and cuts it in silence, so the server never tells how long the name
//! was. The rules here read the same text and keep what the server drops. Whether a text *is* an
//! identifier they leave to the server's own parser: on a text that it refuses, what they answer means
//! nothing. Text is bytes in the server's encoding; every encoding a server can have keeps ASCII as is,
//! never inside a longer character.

mod blank;
mod escape_character;
mod hash;
mod identifier;
mod ours;
mod quoting;
mod unicode_escapes;

pub use hash::hash;
pub use identifier::{longest_operator, Form, Identifier, Server};
pub use ours::{is_ours, is_private, CONTROL, GATEWAY};
pub use quoting::{is_plain, quoted};
