//! The extension in a database: made, dropped, and its tables kept from writes that are not Pushy's.

mod created;
mod loaded;
mod write_guard;

pub use created::{forget_if_gone, Traces};
pub use loaded::{adopted, Numbers};
pub use write_guard::{init, take_passed_over};
