//! Takes connections, as many as there may be, and serves each until it ends or the gateway does.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{watch, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tower_service::Service as _;

use crate::gateway::Gateway;
use crate::who::address;

use super::door::{Peer, Place};
use super::routes;
use super::stall::StallGuard;
use super::tls::{Reload, Tls};

/// Until connections are taken again when the machine has no room for one.
const NO_ROOM: Duration = Duration::from_millis(50);

/// Until the gateway stops, and its connections have ended or their time is over.
pub async fn serve(gateway: Arc<Gateway>, listener: TcpListener, tls: Option<Arc<Tls>>) {
    let router = routes::router(gateway.clone());
    let places = Arc::new(Semaphore::new(gateway.settings.max_connections));
    let mut stopping = gateway.stopping.subscribe();
    let mut served = JoinSet::new();
    while !*stopping.borrow_and_update() {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopping.changed() => continue,
            Some(_) = served.join_next(), if !served.is_empty() => continue,
        };
        match accepted {
            Ok((stream, address)) => {
                let Some(place) = take_place(&gateway, &places, address.ip()) else {
                    continue;
                };
                let peer = Peer {
                    address,
                    has_tls: tls.is_some(),
                    place: Arc::new(place),
                };
                served.spawn(connection(
                    gateway.clone(),
                    router.clone(),
                    stream,
                    peer,
                    tls.clone(),
                ));
            }
            Err(error) => {
                gateway.say(&format!("no connection can be taken: {error}"));
                tokio::time::sleep(NO_ROOM).await;
            }
        }
    }
    drop(listener);
    let all = async { while served.join_next().await.is_some() {} };
    if timeout(gateway.settings.drain, all).await.is_err() {
        served.shutdown().await;
    }
    // Upgraded ones have left their task; they go with the last of their places.
    let most = u32::try_from(gateway.settings.max_connections).unwrap_or(u32::MAX);
    let _ = timeout(gateway.settings.drain, places.acquire_many(most)).await;
}

fn take_place(gateway: &Gateway, places: &Arc<Semaphore>, ip: std::net::IpAddr) -> Option<Place> {
    let Ok(of_all) = places.clone().try_acquire_owned() else {
        gateway.metrics.refuse("connections");
        return None;
    };
    let is_proxy = gateway
        .settings
        .trusted_proxies
        .iter()
        .any(|network| network.contains(ip));
    if is_proxy {
        return Some(Place {
            of_all: Some(of_all),
            of_address: None,
        });
    }
    let Some(of_address) = gateway.connections.take(address::counted(ip)) else {
        gateway.metrics.refuse("connections_of_address");
        return None;
    };
    Some(Place {
        of_all: Some(of_all),
        of_address: Some(of_address),
    })
}

async fn connection(
    gateway: Arc<Gateway>,
    router: Router,
    stream: TcpStream,
    peer: Peer,
    tls: Option<Arc<Tls>>,
) {
    // Each event goes out when it is written; without that it is slower, not wrong.
    let _ = stream.set_nodelay(true);
    // Whoever vanished without a word is gone after so long, though little is written. Where the system has no such bound, its own counts.
    let vanished = gateway.settings.keep_alive * 2 + gateway.settings.write_timeout;
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(vanished));
    let stream = StallGuard::new(stream, gateway.settings.write_timeout);
    let Some(tls) = tls else {
        return speak(gateway, router, stream, peer).await;
    };
    match tls.reload_if_changed() {
        Reload::Unchanged => {}
        outcome => told(&gateway, &outcome),
    }
    match timeout(
        gateway.settings.header_timeout,
        tls.acceptor().accept(stream),
    )
    .await
    {
        Ok(Ok(stream)) => speak(gateway, router, stream, peer).await,
        Ok(Err(_)) => gateway.metrics.refuse("tls"),
        Err(_) => gateway.metrics.refuse("header_timeout"),
    }
}

/// What came of reading the certificate anew.
pub fn told(gateway: &Gateway, outcome: &Reload) {
    let word = match outcome {
        Reload::Failed(why) => {
            gateway.say(&format!("the certificate stays as it was: {why}"));
            "failed"
        }
        _ => "done",
    };
    gateway
        .metrics
        .tls_reloads
        .get_or_create(&[("outcome", word)])
        .inc();
}

async fn speak<S>(gateway: Arc<Gateway>, router: Router, stream: S, peer: Peer)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let settings = &gateway.settings;
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        let mut router = router.clone();
        async move { router.call(request.map(Body::new)).await }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_timeout)
        .max_buf_size(settings.max_header_bytes)
        .max_headers(settings.max_headers);
    let connection = builder
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let mut stopping: watch::Receiver<bool> = gateway.stopping.subscribe();
    let stops = async move {
        // Gone with the gateway, it stops as well.
        let _ = stopping.wait_for(|stops| *stops).await;
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stops => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        let reason = if error.is_parse_too_large() {
            "header_too_large"
        } else if error.is_parse() {
            "header"
        } else if error.is_timeout() {
            "header_timeout"
        } else if is_stalled(&error) {
            "write_timeout"
        } else {
            return;
        };
        gateway.metrics.refuse(reason);
    }
}

fn is_stalled(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
        {
            return true;
        }
        source = cause.source();
    }
    false
}
