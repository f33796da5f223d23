//! The extension that a call began with: while it waits the extension may be dropped, and created again.

use crate::errors::{Error, Result, SqlState};
use crate::pg::{identity, object_lock, Oid};

/// One CREATE EXTENSION.
pub struct Installed(Oid);

impl Installed {
    /// That of now.
    pub fn find() -> Result<Self> {
        identity::require_installed().map(Self)
    }

    /// Asked in each of the call's transactions: whether it is still this one. From here on to the transaction's end it stays, because whoever
    /// is woken by a drop comes before that has told all sessions what is gone.
    pub fn require(&self) -> Result<()> {
        object_lock::share_extension(self.0);
        if identity::require_installed()? == self.0 {
            Ok(())
        } else {
            Err(gone())
        }
    }
}

/// What ends a call of an extension that is gone.
#[cold]
pub fn gone() -> Error {
    Error::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        "extension \"pushy\" was dropped while the call waited",
    )
    .hint("Call again, where it was created again.")
}
