//! Who may do what with a queue, and who sees it.

pub mod grant;
pub mod privilege;
pub mod visible;
