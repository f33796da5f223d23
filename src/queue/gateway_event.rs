//! What gateways hear on channel pushy_control: who may read, which keys count, which sockets are to be closed.

use serde::Serialize;

use super::control_channel;
use crate::errors::Result;
use crate::obstacle;
use crate::pg::{identity, text};

/// What a gateway is to do when this transaction has committed. The words are part of the contract.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(tag = "event")]
pub enum GatewayEvent<'a> {
    /// Who may read this channel was changed; None: any.
    #[serde(rename = "gateway_grants")]
    Grants { channel: Option<&'a str> },
    #[serde(rename = "gateway_keys")]
    Keys,
    #[serde(rename = "socket_close")]
    SocketClose {
        subject: Option<&'a str>,
        channel: Option<&'a str>,
        topic: Option<&'a str>,
        reason: Option<&'a str>,
    },
}

#[derive(Serialize)]
struct Message<'a> {
    /// Version of this form.
    v: u32,
    #[serde(flatten)]
    event: &'a GatewayEvent<'a>,
    /// The role that did it.
    by: String,
}

/// Publishes it, whoever hears: a gateway that is not connected just now reads it in the log when it is back. Where no relay can come
/// no gateway can read.
pub fn publish(event: &GatewayEvent<'_>) -> Result<()> {
    if !obstacle::a_relay_can_come() {
        return Ok(());
    }
    let message = Message {
        v: 1,
        event,
        by: identity::role_name(identity::current_user()),
    };
    let json = serde_json::to_string(&message).expect("plain strings and numbers");
    control_channel::publish_logged(text::encode_lossy(&json).into_owned())
}
