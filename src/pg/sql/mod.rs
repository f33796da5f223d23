//! SQL that Pushy runs itself: statements and what they answer, the search path under which they are read, sequences, and VACUUM.

mod rows;
pub mod search_path;
pub mod sequence;
pub mod spi;
pub mod vacuum;
