//! pushy.notify: a notice from SQL.

use super::buffer::{self, Item, Route};
use super::repeats::Repeat;
use crate::channel::{refusals, topic, Channel};
use crate::errors::{Error, Result};
use crate::job::current;
use crate::obstacle;
use crate::pg::{notify, transaction};
use crate::shared::pending;
use crate::sql_function;

sql_function!(pushy_notify_v2, |call| {
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
    let topic = topic::argument(call, 3)?;
    if let Some(topic) = &topic {
        require_room(channel.as_bytes(), topic, &payload)?;
        if delivery.as_deref() == Some("notify") {
            return Err(refusals::topic_by_notify(topic));
        }
    }
    // Where nothing is said and no relay can come, a topic is passed over: LISTENers would not see it.
    let delivery = delivery.as_deref().unwrap_or_else(|| usual_delivery());
    match delivery {
        "notify" => notify::send(channel.as_bytes(), &payload),
        "relay" => {
            transaction::require_primary(c"pushy.notify()");
            transaction::require_leader("pushy.notify()")?;
            buffer::add(Item::Notice {
                channel: channel.as_bytes().into(),
                topic,
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

/// A row of the log is on one page: a topic takes its bytes from the payload's.
#[cold]
fn require_room(channel: &[u8], topic: &[u8], payload: &[u8]) -> Result<()> {
    let most = notify::PAYLOAD_LIMIT - topic.len();
    if payload.len() <= most {
        return Ok(());
    }
    Err(
        refusals::payload_too_long(channel, payload.len(), most).detail(format!(
            "Payload and topic have {} bytes together.",
            notify::PAYLOAD_LIMIT
        )),
    )
}
