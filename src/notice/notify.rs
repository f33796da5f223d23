//! pushy.notify: a notice from SQL.

use super::buffer::{self, Item, Route};
use super::repeats::Repeat;
use crate::channel::{refusals, Channel};
use crate::errors::Error;
use crate::job::current;
use crate::obstacle;
use crate::pg::{notify, transaction};
use crate::shared::pending;
use crate::sql_function;

sql_function!(pushy_notify_v1, |call| {
    let channel = Channel::of_identifier(&call.bytes("channel", 0)?)?.not_ours()?;
    let payload = call.opt_bytes(1).unwrap_or_default();
    if payload.len() > notify::PAYLOAD_LIMIT {
        return Err(refusals::payload_too_long(
            channel.as_bytes(),
            payload.len(),
            notify::PAYLOAD_LIMIT,
        ));
    }
    let delivery = call.opt_text(2)?;
    let delivery = delivery.as_deref().unwrap_or_else(|| usual_delivery());
    match delivery {
        "notify" => notify::send(channel.as_bytes(), &payload),
        "relay" => {
            transaction::require_primary(c"pushy.notify()");
            transaction::require_leader("pushy.notify()")?;
            buffer::add(Item::Notice {
                channel: channel.as_bytes().into(),
                payload,
                delivery: Route::Relay {
                    merge: false,
                    cause: current::cause(),
                },
                repeat: Repeat::Follows,
            })?;
        }
        other => {
            return Err(Error::out_of_range(
                "delivery",
                format!("\"{other}\""),
                "'notify', 'relay'",
            ))
        }
    }
    Ok(())
});

fn usual_delivery() -> &'static str {
    if obstacle::a_relay_can_come() {
        "relay"
    } else {
        pending::unlogged();
        "notify"
    }
}
