//! The door: sockets of the system, TLS, routes.

pub mod door;
pub mod listen;
pub mod routes;
pub mod stall;
pub mod tls;
