//! The names of Pushy's own channels.

/// How they begin: pushy_control, and what is to come.
const BEGINNING: &[u8] = b"pushy_";

/// Where it is published what is done to queues and jobs, and where LISTENers hear that notices are missing.
pub const CONTROL: &[u8] = b"pushy_control";

/// Where gateways hear what concerns their sockets. It is theirs alone: others neither LISTEN to it nor read it.
pub const GATEWAY: &[u8] = b"pushy_gateway";

/// Whether nobody but a gateway hears this channel.
pub fn is_private(channel: &[u8]) -> bool {
    channel == GATEWAY
}

/// Whether a channel is one of Pushy's own.
pub fn is_ours(channel: &[u8]) -> bool {
    channel.starts_with(BEGINNING)
}
