//! The gateway on real sockets, over a source in memory.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod bounds;
mod framed;
mod frames;
mod limits;
mod many;
mod pages;
mod polls;
mod presence;
mod properties;
mod sockets;
mod stage;
mod stopping;
mod streams;
mod tls;
mod tokens;
