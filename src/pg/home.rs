//! Where something was declared: its numbers of roles, tables and functions mean something only there.

use super::{database, identity, Oid};

/// A cluster, a database of it, and the life of the extension there: a restore into the same database begins
/// another, with tables and functions of other numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home {
    pub system: i64,
    pub database: Oid,
    pub extension: Oid,
}

impl Home {
    /// This database, now.
    pub fn here() -> Self {
        Self {
            system: database::system_identifier(),
            database: Oid::from(database::current()),
            extension: identity::extension_oid().unwrap_or(Oid::INVALID),
        }
    }

    pub fn is_here(&self) -> bool {
        *self == Self::here()
    }
}
