//! Who may come in at all, before anybody asks for anything: the name, the page, the rate.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::http::{header, HeaderMap, HeaderValue};

use crate::gateway::Gateway;
use crate::limits::Counted;
use crate::ways::message::{Code, Refusal};
use crate::who::{address, origin};

/// The other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: SocketAddr,
    pub has_tls: bool,
    /// Its place among the connections, for as long as anything holds it.
    pub place: Arc<Place>,
}

#[derive(Debug, Default)]
pub struct Place {
    pub of_all: Option<tokio::sync::OwnedSemaphorePermit>,
    pub of_address: Option<Counted<std::net::IpAddr>>,
}

/// One that was let in. Held for as long as it is served.
#[derive(Clone, Debug)]
pub struct Visitor {
    pub address: std::net::IpAddr,
    /// The origin of its page, if it has one.
    pub origin: Option<HeaderValue>,
    _place: Arc<Place>,
    _behind_proxy: Option<Arc<Counted<std::net::IpAddr>>>,
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

pub fn enter(gateway: &Gateway, peer: &Peer, headers: &HeaderMap) -> Result<Visitor, Refusal> {
    let settings = &gateway.settings;
    let refuse = |reason: &'static str, code: Code, message: &str| {
        gateway.metrics.refuse(reason);
        Err(code.because(message))
    };
    let forwarded: Vec<&str> = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    let peer_ip = peer.address.ip();
    let client = address::client(peer_ip, &forwarded, &settings.trusted_proxies);
    let counted = address::counted(client);
    if !gateway.rates.take(counted, Instant::now()) {
        return refuse("connect_rate", Code::TooFast, "this address asks too often");
    }
    let host = text(headers, "host");
    if !origin::is_host_allowed(settings, host) {
        return refuse(
            "host",
            Code::Host,
            "this is not the host that was asked for: see the setting hosts",
        );
    }
    let page = headers.get(header::ORIGIN);
    let page_text = match page.map(HeaderValue::to_str) {
        None => None,
        Some(Ok(text)) => Some(text),
        Some(Err(_)) => return refuse("origin", Code::Origin, "the origin is none"),
    };
    let is_https =
        peer.has_tls || (client != peer_ip && text(headers, "x-forwarded-proto") == Some("https"));
    if !origin::is_origin_allowed(settings, page_text, host, is_https) {
        return refuse(
            "origin",
            Code::Origin,
            "pages of this origin may not connect: see the setting origins",
        );
    }
    // Those of one proxy are many; each counts by its own address.
    let behind_proxy = if client == peer_ip {
        None
    } else {
        match gateway.connections.take(counted) {
            Some(place) => Some(Arc::new(place)),
            None => {
                return refuse(
                    "connections_of_address",
                    Code::TooMany,
                    "this address has as many connections as it may",
                )
            }
        }
    };
    Ok(Visitor {
        address: client,
        origin: page.cloned(),
        _place: peer.place.clone(),
        _behind_proxy: behind_proxy,
    })
}
