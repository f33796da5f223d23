//! Who uses channels in the rooms above, which know channels while channels do not know them. `crate::ON_CHANNELS` names these rooms.

use crate::errors::Result;
use crate::pg::Oid;

/// A thing's role, if it is here.
pub type Whose = Option<Oid>;

/// One kind of things that name a channel.
pub struct Users {
    /// As a message calls one, and says what it does.
    pub one: &'static str,
    pub does: &'static str,
    /// Whether one on this channel is another role's than this one; and whose, if that role is here.
    pub of_another: fn(&[u8], Oid) -> Result<Option<Whose>>,
}
