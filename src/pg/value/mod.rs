//! Values of the server and of Rust, and rows of them.

pub mod answer;
pub mod array;
pub mod columns;
pub mod composite;
mod elements;
pub mod interval;
pub mod jsonb;
mod scalar;
pub mod session_format;
pub mod slot;
pub mod text;
pub mod texts;
pub mod tid;
pub mod varlena;

pub use elements::Elements;
pub use scalar::{Char, Interval, Timestamp, Uuid};
