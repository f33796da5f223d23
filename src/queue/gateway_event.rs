//! What gateways are told on channel pushy_gateway, which nobody else reads: who may read, which keys count, which sockets are to be closed.
//!
//! It is published where a gateway has come: where one has asked, since this server was started, what these events take back. A gateway
//! outlives no answer of a server that it has lost; it asks for all again when it is back. A transaction that had begun before the first one
//! came, and publishes nothing, looks again when it has ended: then what the gateway asks from there on knows of it, or the scheduler
//! has it ask for all again. The model is core/tests/gateway_come_model.

use pushy_core::channel::GATEWAY;
use serde::Serialize;

use super::control_channel;
use crate::errors::{Error, Result, SqlState};
use crate::pg::{database, identity, notify, text, transaction};
use crate::shared::{self, pending};

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

/// A gateway asks for what it keeps, before that is looked up. None asks a standby, whose primary would not know of it.
pub fn note_gateway(function: &std::ffi::CStr) {
    transaction::require_primary(function);
    if let Some(shared) = shared::get() {
        if let Some(slot) = shared.ensure_database(database::current()) {
            slot.note_gateway();
        }
    }
}

fn has_come() -> bool {
    shared::get()
        .and_then(|shared| shared.find_database(database::current()))
        .is_some_and(|slot| slot.gateway_has_come())
}

/// Publishes it where a gateway has come: one that is not connected just now reads it in the log when it is back, or asks for all.
pub fn publish(event: &GatewayEvent<'_>) -> Result<()> {
    if has_come() {
        return publish_logged(event);
    }
    match event {
        GatewayEvent::Grants { .. } | GatewayEvent::Keys => pending::unsaid_to_gateways(),
        // There are no sockets.
        GatewayEvent::SocketClose { .. } => {}
    }
    Ok(())
}

/// All that a gateway was answered may have changed.
pub fn ask_again() -> Result<()> {
    publish_logged(&GatewayEvent::Keys)?;
    publish_logged(&GatewayEvent::Grants { channel: None })
}

fn publish_logged(event: &GatewayEvent<'_>) -> Result<()> {
    let message = Message {
        v: 1,
        event,
        by: identity::role_name(identity::current_user()),
    };
    let json = serde_json::to_string(&message).expect("plain strings and numbers");
    let payload = text::encode_lossy(&json).into_owned();
    if payload.len() > notify::PAYLOAD_LIMIT {
        return Err(Error::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!(
                "what is said to gateways is too long: {} bytes, at most {}",
                payload.len(),
                notify::PAYLOAD_LIMIT
            ),
        )
        .hint("Say a shorter subject, topic or reason; control characters take six bytes each."));
    }
    control_channel::publish_logged(GATEWAY, payload)
}
