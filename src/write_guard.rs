//! Who may write Pushy's tables by SQL: who has the rights of their owner, and nobody by a privilege.
//!
//! Workers act on what the tables say, so whoever writes them runs code as anybody. The predefined role
//! pg_write_all_data may write every table; only a trigger keeps it out. Pushy's own statements run as the owner; its
//! direct writes fire no triggers. Nobody else puts a trigger there, whatever was granted: it would run as the owner.

use crate::errors::{Error, SqlState};
use crate::pg::trigger::Guarded;
use crate::pg::utility::{self, Hooks, Statement};
use crate::pg::{ereport, identity};
use crate::trigger_function;

static HOOKS: Hooks = Hooks {
    before: refuse_trigger,
    after: |_| {},
};

/// Once, while preloading.
pub fn init() {
    utility::install(&HOOKS);
}

fn refuse_trigger(statement: &Statement) {
    let Statement::CreateTrigger { relation } = statement else {
        return;
    };
    let found = relation.find();
    let is_ours = found.is_some_and(identity::is_in_pushy);
    if is_ours && !identity::owns_extension(identity::current_user()) {
        ereport::raise(
            &Error::new(
                SqlState::INSUFFICIENT_PRIVILEGE,
                "Pushy's tables take no triggers of others",
            )
            .detail("It would run with the rights of their owner.")
            .hint("pushy.watch(table) is for your own tables; pushy_control tells what becomes of queues and jobs."),
        );
    }
}

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
