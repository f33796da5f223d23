//! The extension in a database: made, dropped, and its tables kept from writes that are not Pushy's.

mod created;
mod here_already;
mod in_the_way;
mod loaded;
mod loading;
mod passed_over;
mod retired;
mod statement_guard;
mod write_guard;

pub use created::{forget_if_gone, Traces};
pub use loaded::NumbersGiven;
pub use loading::come_home;
pub use passed_over::take_passed_over;
pub use statement_guard::init;
