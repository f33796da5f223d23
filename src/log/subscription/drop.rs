//! subscription_drop.

use super::table;
use crate::errors::{Error, Result, SqlState};
use crate::pg::spi::{self, Plan};
use crate::pg::{identity, transaction, BuiltinOid};
use crate::shared::pending;
use crate::{params, sql_function};

// The one that was looked at: by now another may have its name, or another owner have taken it over.
static DELETE: Plan = Plan::new(
    "DELETE FROM pushy_internal.subscription s \
      WHERE s.subscription_id OPERATOR(pg_catalog.=) $1 AND s.owner OPERATOR(pg_catalog.=) $2",
    &[BuiltinOid::INT4OID, BuiltinOid::OIDOID],
);

sql_function!(pushy_subscription_drop_v1, |call| {
    transaction::require_writable(c"pushy.subscription_drop()");
    let name = call.text("name", 0)?;
    let subscription = table::owned(&name, identity::current_user()).map_err(|error| match error.sqlstate {
        SqlState::UNDEFINED_OBJECT => error.hint(
            "Nothing is left to do, if the name is right; the view pushy.subscriptions lists yours.",
        ),
        _ => error,
    })?;
    let deleted = identity::as_owner(|| {
        table::lock(&name)?;
        Ok(spi::run(
            &DELETE,
            params![subscription.number, subscription.owner],
        ))
    })?;
    if deleted == 0 {
        return Err(Error::new(
            SqlState::UNDEFINED_OBJECT,
            format!("subscription \"{name}\" was dropped meanwhile"),
        )
        .hint("Nothing is left to do."));
    }
    if subscription.queue.is_some() {
        pending::privileges_changed(None);
    }
    pending::subscriptions_changed();
    Result::Ok(())
});
