//! What answers to which path.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{Extension, RawQuery, State};
use axum::http::{header, HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get, MethodRouter};
use axum::Router;
use serde_json::json;

use crate::gateway::Gateway;
use crate::ways::message::{Code, Refusal};
use crate::ways::{events, notices, socket};
use crate::who::origin;

use super::door::{enter, Peer, Visitor};

pub fn router(gateway: Arc<Gateway>) -> Router {
    Router::new()
        .route("/events", by(Way::Stream))
        .route("/socket", get(upgrade))
        .route("/notices", by(Way::Poll))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .fallback(|| async { (StatusCode::NOT_FOUND, "see /events, /socket, /notices\n") })
        .with_state(gateway)
}

fn refused(refusal: &Refusal) -> Response {
    let body = json!({"type": "error", "code": refusal.code.word(), "message": refusal.message})
        .to_string();
    let mut response = Response::new(Body::from(body + "\n"));
    *response.status_mut() =
        StatusCode::from_u16(refusal.code.status()).unwrap_or(StatusCode::BAD_REQUEST);
    let fields = response.headers_mut();
    fields.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    match refusal.code {
        Code::Unauthenticated => {
            fields.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        Code::TooFast | Code::TooMany | Code::Unavailable => {
            fields.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        _ => {}
    }
    response
}

/// A page may read the answer that was meant for its origin.
fn for_page(mut response: Response, origin: Option<HeaderValue>) -> Response {
    let fields = response.headers_mut();
    fields.append(header::VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = origin {
        fields.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        fields.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("ETag, Retry-After"),
        );
    }
    response
}

fn preflight() -> Response {
    let fields: [(HeaderName, &str); 3] = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET"),
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "Authorization, Last-Event-ID, If-None-Match, Cache-Control",
        ),
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ];
    (StatusCode::NO_CONTENT, fields).into_response()
}

/// Lets in, or says why not; a page that only asks whether it may is told.
fn let_in(
    gateway: &Gateway,
    peer: &Peer,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Visitor, Box<Response>> {
    let visitor = match enter(gateway, peer, headers) {
        Ok(visitor) => visitor,
        Err(refusal) => return Err(Box::new(refused(&refusal))),
    };
    let answer = match *method {
        Method::GET if !gateway.is_stopping() => return Ok(visitor),
        Method::GET => refused(&Code::Unavailable.because("this gateway stops")),
        Method::OPTIONS => preflight(),
        _ => {
            let allowed = [(header::ALLOW, "GET, OPTIONS")];
            (StatusCode::METHOD_NOT_ALLOWED, allowed).into_response()
        }
    };
    Err(Box::new(for_page(answer, visitor.origin)))
}

/// The ways in that are plain requests.
#[derive(Clone, Copy)]
enum Way {
    Stream,
    Poll,
}

fn by(way: Way) -> MethodRouter<Arc<Gateway>> {
    any(
        move |State(gateway): State<Arc<Gateway>>,
              Extension(peer): Extension<Peer>,
              method: Method,
              headers: HeaderMap,
              RawQuery(query): RawQuery| async move {
            let visitor = match let_in(&gateway, &peer, &method, &headers) {
                Ok(visitor) => visitor,
                Err(response) => return *response,
            };
            let (origin, query) = (visitor.origin.clone(), query.unwrap_or_default());
            let answer = match way {
                Way::Stream => events::open(&gateway, visitor, &headers, &query).await,
                Way::Poll => notices::poll(&gateway, visitor, &headers, &query).await,
            };
            for_page(answer.unwrap_or_else(|refusal| refused(&refusal)), origin)
        },
    )
}

async fn upgrade(
    State(gateway): State<Arc<Gateway>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let visitor = match let_in(&gateway, &peer, &Method::GET, &headers) {
        Ok(visitor) => visitor,
        Err(response) => return *response,
    };
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return rejection.into_response(),
    };
    let opened = socket::open(
        &gateway,
        visitor,
        &headers,
        &query.unwrap_or_default(),
        upgrade,
    )
    .await;
    opened.unwrap_or_else(|refusal| refused(&refusal))
}

async fn ready(State(gateway): State<Arc<Gateway>>) -> Response {
    if gateway.is_stopping() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response();
    }
    if gateway.metrics.source_up.get() == 0 {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            "the database is not reached\n",
        )
            .into_response();
    }
    "ready\n".into_response()
}

/// For who has the word, or is on this machine itself.
async fn metrics(
    State(gateway): State<Arc<Gateway>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Response {
    let word = &gateway.settings.metrics_token;
    let said = headers
        .get(header::AUTHORIZATION)
        .and_then(|field| field.to_str().ok()?.strip_prefix("Bearer "));
    // A page whose name somebody has pointed here is on this machine, too.
    let is_page = headers.contains_key(header::ORIGIN)
        || !origin::is_of_loopback(
            headers
                .get(header::HOST)
                .and_then(|host| host.to_str().ok()),
        );
    let may = if word.is_empty() {
        peer.address.ip().to_canonical().is_loopback()
            && !is_page
            && !headers.contains_key("x-forwarded-for")
            && !headers.contains_key("forwarded")
    } else {
        said.is_some_and(|said| is_same(said.as_bytes(), word.as_bytes()))
    };
    if !may {
        gateway.metrics.refuse("metrics");
        return (StatusCode::FORBIDDEN, "see the setting metrics_token\n").into_response();
    }
    gateway.measure();
    let rows = tokio::time::timeout(gateway.settings.ask_timeout, gateway.source.metrics()).await;
    // Without the database, its own are what there is.
    let rows = rows.ok().and_then(Result::ok).unwrap_or_default();
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], gateway.metrics.text(&rows)).into_response()
}

/// In a time that does not tell how much of it is right.
fn is_same(said: &[u8], word: &[u8]) -> bool {
    let differs = said
        .iter()
        .zip(word)
        .fold(0, |differs, (a, b)| differs | (a ^ b));
    said.len() == word.len() && differs == 0
}
