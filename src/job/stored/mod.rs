//! Jobs as their tables hold them.

pub mod checkpoint;
pub mod history;
pub mod live;
pub mod position;
pub mod promise;
pub mod purge;
pub mod rotation;
pub mod tables;
