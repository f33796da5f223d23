//! Where writers have put events, as they announce it before they commit.

/// Neighbours in the log, and who wrote them.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    pub part: u8,
    pub block: u32,
    pub first: u16,
    pub count: u16,
    /// The top-level transaction, with its epoch.
    pub xid: u64,
    /// The transaction or savepoint.
    pub own_xid: u32,
    /// Of its first event.
    pub position: i64,
    /// Not events, but the word that some of the transaction are missing ([`super::gap`]).
    pub is_marker: bool,
    /// What the relay would read its rows for, if nobody hears them; None: they were found, not announced.
    pub about: Option<About>,
}

/// What neighbours are about, if they share a channel.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// The hash of the channel.
    pub channel: u64,
    /// Of channels and payloads, together.
    pub bytes: u32,
}
