//! Waits for a prepared transaction, which may stay for ever and which no process shows: whoever waits is told for which. Every wait of
//! Pushy's goes through here, or through what calls this.

use crate::errors::{quote_literal, Error, Result, SqlState};
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::{array, ereport, identity, BuiltinOid};

static OF_NUMBERS: Plan = Plan::new(
    "SELECT x.gid FROM pg_catalog.pg_prepared_xacts x \
      WHERE x.transaction::pg_catalog.text OPERATOR(pg_catalog.=) ANY ($1) ORDER BY x.prepared LIMIT 1",
    &[BuiltinOid::TEXTARRAYOID],
);

/// Before a wait for the end of these transactions, by the numbers of their top levels: a NOTICE to the client where one of them is
/// prepared. `what` waits, and each of them `has_done` something to it.
#[cold]
pub fn say_which(what: &str, has_done: &str, xids: &[u32]) -> Result<()> {
    let numbers: Vec<String> = xids.iter().map(u32::to_string).collect();
    let gid = identity::as_owner(|| {
        spi::connect(|spi| {
            let numbers = array::of_texts(numbers.iter().map(String::as_str));
            let found = spi.run(&OF_NUMBERS, params![numbers]);
            found.first().map(|row| row.text(1)).transpose()
        })
    })?;
    if let Some(gid) = gid {
        say(what, has_done, &gid);
    }
    Ok(())
}

/// The NOTICE that names one.
pub fn say(what: &str, has_done: &str, gid: &str) {
    ereport::notice(&named(what, has_done, gid, SqlState::SUCCESSFUL_COMPLETION));
}

/// The same as a WARNING, where the server keeps notices back.
pub fn warn(what: &str, has_done: &str, gid: &str) {
    ereport::warning(&named(what, has_done, gid, SqlState::WARNING));
}

fn named(what: &str, has_done: &str, gid: &str, state: SqlState) -> Error {
    let gid = quote_literal(gid);
    Error::new(
        state,
        format!("{what} waits for prepared transaction {gid}, which {has_done}"),
    )
    .hint(format!(
        "COMMIT PREPARED {gid}, or ROLLBACK PREPARED {gid}."
    ))
}
