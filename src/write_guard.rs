//! Who may write Pushy's tables by SQL: who has the rights of their owner, and nobody by a privilege.
//!
//! Workers act on what the tables say, so whoever writes them runs code as anybody. The predefined role
//! pg_write_all_data may write every table; only a trigger keeps it out. Pushy's own statements run as the owner; its
//! direct writes fire no triggers.

use crate::errors::{Error, SqlState};
use crate::pg::identity;
use crate::pg::trigger::Guarded;
use crate::trigger_function;

trigger_function!(
    pushy_refuse_write,
    "pushy.refuse_write()",
    Guarded,
    |write| if may_write(write) {
        Ok(())
    } else {
        Err(refused(write))
    }
);

fn may_write(write: Guarded) -> bool {
    identity::has_rights_of(identity::current_user(), write.owner())
}

#[cold]
fn refused(write: Guarded) -> Error {
    Error::new(
        SqlState::INSUFFICIENT_PRIVILEGE,
        format!("permission denied for table {}", write.table()),
    )
    .detail("Only its owner writes it by SQL: workers act on what it says. No privilege and no predefined role is enough.")
    .hint("Call the functions of schema pushy: they check what you may do. \\df+ pushy.* lists them.")
}
