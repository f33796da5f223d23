//! Who is asking, what a role may do, and the one guard under which Pushy's own statements run.

mod acting;
mod extension;
mod privilege;
mod role;

pub use acting::*;
pub use extension::*;
pub use privilege::*;
pub use role::*;
