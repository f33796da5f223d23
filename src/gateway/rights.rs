//! gateway_grant, gateway_revoke: which role a gateway outside may have.

use crate::errors::{Error, Result};
use crate::pg::function::Call;
use crate::pg::spi;
use crate::pg::{identifier, identity, transaction};
use crate::sql_function;

sql_function!(pushy_gateway_grant_v1, |call| {
    transaction::require_writable(c"pushy.gateway_grant()");
    change(call, "GRANT", "TO")
});
sql_function!(pushy_gateway_revoke_v1, |call| {
    transaction::require_writable(c"pushy.gateway_revoke()");
    change(call, "REVOKE", "FROM")
});

/// All that a gateway asks, and its schema; what else is there for PUBLIC shows a role what concerns it.
fn change(call: Call, verb: &str, preposition: &str) -> Result<()> {
    let name = call.text("role", 0)?;
    identity::find_role(&name).ok_or_else(|| Error::no_such_role(&name))?;
    let role = identifier::quoted(&name);
    identity::as_owner(|| {
        spi::command(&format!(
            "{verb} USAGE ON SCHEMA pushy_internal {preposition} {role}"
        ));
        spi::command(&format!(
            "{verb} EXECUTE ON FUNCTION \
               pushy_internal.gateway_authorize(pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.text[]), \
               pushy_internal.gateway_redeem(pg_catalog.text), \
               pushy_internal.gateway_keys(), \
               pushy_internal.gateway_report(pg_catalog.text, pg_catalog.text, pg_catalog.text), \
               pushy_internal.gateway_position(), \
               pushy_internal.gateway_metrics() \
             {preposition} {role}"
        ));
        Ok(())
    })
}
