//! Who may hear from outside: keys of tokens, tickets, and what the gateway asks for its sockets. The gateway itself is a program of its own.

mod authorize;
mod explain;
mod keys;
mod reports;
mod rights;
mod tickets;
