//! A channel's exact name.

use pushy_core::channel::{is_ours, is_plain, quoted};
use pushy_core::hidden;

use super::reading::Reading;
use super::refusals;
use crate::errors::Result;
use crate::pg::{identifier, text};

/// The exact name of a channel: 1 to [`identifier::LIMIT`] bytes in the server's encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel(Vec<u8>);

impl Channel {
    /// The channel of `LISTEN <text>`, unless LISTEN refuses the text (same SQLSTATE) or cuts the name
    /// (42622).
    pub fn of_identifier(text: &[u8]) -> Result<Self> {
        let reading = Reading::of(text)?;
        if reading.truncated() {
            return Err(refusals::cut(text, &reading));
        }
        Ok(Self(reading.channel))
    }

    /// The same, for a channel that something is declared on.
    pub fn declared(text: &[u8]) -> Result<Self> {
        Self::of_identifier(text)?.checked()
    }

    /// Refuses control characters and invisible ones, which LISTEN and NOTIFY take in a name.
    pub fn checked(self) -> Result<Self> {
        let is_hidden = self.0.iter().any(u8::is_ascii_control)
            || text::shown(&self.0).contains(hidden::is_hidden);
        if is_hidden {
            return Err(refusals::hidden(&self.0));
        }
        Ok(self)
    }

    /// The same, for a channel that the caller publishes on or owns: not one of Pushy's own.
    pub fn not_ours(self) -> Result<Self> {
        if is_ours(&self.0) {
            return Err(refusals::ours(&self.0));
        }
        Ok(self)
    }

    /// The channel of exactly this name, as pg_notify() takes it.
    pub fn exact(name: &[u8]) -> Result<Self> {
        if name.is_empty() {
            return Err(refusals::empty());
        }
        if name.len() > identifier::LIMIT {
            return Err(refusals::too_long(name));
        }
        Ok(Self(name.to_vec()))
    }

    /// The channel that [`Reading::of`] found, which the server itself has cut to size.
    pub fn of_reading(reading: &Reading) -> Self {
        Self(reading.channel.clone())
    }

    /// What to write after LISTEN for a name, in a message.
    pub fn shown_ident(name: &[u8]) -> String {
        Self::exact(name).map_or_else(
            |_| text::shown(name),
            |channel| text::shown(&channel.ident()),
        )
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// The text to write after LISTEN. Quoted only where the bare word is not taken for this name; which
    /// words are reserved and which letters fold is the server's to say.
    pub fn ident(&self) -> Vec<u8> {
        let stands_bare =
            is_plain(&self.0) && identifier::listened(&self.0).is_ok_and(|name| name == self.0);
        if stands_bare {
            self.0.clone()
        } else {
            quoted(&self.0)
        }
    }
}
