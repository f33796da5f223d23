//! The numbers of watches, and the texts that their triggers carry beside them.

use crate::errors::Result;
use crate::pg::spi::{self, Plan};
use crate::pg::BuiltinOid::INT4OID;
use crate::shared::numbers::{self, Numbered};

static HIGHEST_KEPT: Plan = Plan::new(
    "SELECT COALESCE(GREATEST(pg_catalog.max(w.watch_id), 0), 0)::pg_catalog.int8 FROM pushy_internal.watch w",
    &[],
);

static NUMBERS: Numbered = Numbered::new(&numbers::WATCHES, || numbers::highest_in(&HIGHEST_KEPT));

static IS_HELD: Plan = Plan::new(
    "SELECT EXISTS (SELECT FROM pushy_internal.watch w WHERE w.watch_id OPERATOR(pg_catalog.=) $1)",
    &[INT4OID],
);

pub fn next_id() -> Result<i32> {
    NUMBERS.draw_free(&IS_HELD)
}

static NEW_TOKEN: Plan = Plan::new("SELECT pg_catalog.gen_random_uuid()::pg_catalog.text", &[]);

pub fn new_token() -> Result<String> {
    spi::connect(|spi| spi.run(&NEW_TOKEN, &[]).row(0).text(1))
}
