//! GET /events: Server-Sent Events.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::{header, HeaderMap, HeaderValue};
use axum::response::Response;

use crate::gateway::Gateway;
use crate::hub::outbox::Item;
use crate::serve::door::Visitor;

use super::message::{self, Code, Refusal};
use super::query::{authenticate, Query};
use super::session::{Out, Session};

const TRANSPORT: &str = "sse";

pub async fn open(
    gateway: &Arc<Gateway>,
    visitor: Visitor,
    headers: &HeaderMap,
    query: &str,
) -> Result<Response, Refusal> {
    let query = Query::read(query)?;
    let request = query.request(gateway, headers)?;
    let who = authenticate(gateway, headers, query.ticket.as_deref()).await?;
    let who = who.ok_or_else(|| Code::Unauthenticated.because("a token or a ticket is needed"))?;
    let mut session = Session::new(
        gateway,
        TRANSPORT,
        visitor.address,
        true,
        gateway.settings.buffer_notices,
    );
    session.admit(who)?;
    session.subscribe(request)?;
    session.settle().await?;
    let stream = futures_util::stream::unfold(Some((session, visitor)), |state| async {
        let (mut session, visitor) = state?;
        let out = session.next().await;
        let (text, is_over) = write(&session, out);
        let rest = (!is_over).then_some((session, visitor));
        Some((Ok::<Bytes, Infallible>(text), rest))
    });
    let mut response = Response::new(Body::from_stream(stream));
    let fields = response.headers_mut();
    fields.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // The end of the stream is the connection's, which would wait for another request.
    fields.insert(header::CONNECTION, HeaderValue::from_static("close"));
    // nginx holds back what it could buffer.
    fields.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// And whether it is the last.
fn write(session: &Session, out: Out) -> (Bytes, bool) {
    match out {
        Out::Items(items) => {
            session.sent(&items, TRANSPORT);
            // The usual case is one notice, which all share.
            if let [Item::Notice { notice, .. }] = items.as_slice() {
                return (notice.event().clone(), false);
            }
            let mut text = Vec::new();
            for item in &items {
                match item {
                    Item::Notice { notice, .. } => text.extend_from_slice(notice.event()),
                    Item::Resync { cursor, .. } => text.extend_from_slice(
                        message::event(&message::frame(item), Some(*cursor)).as_bytes(),
                    ),
                    Item::Message(said) => {
                        text.extend_from_slice(message::event(said, None).as_bytes())
                    }
                }
            }
            (text.into(), false)
        }
        // An id alone moves the browser's Last-Event-ID, and fires no event.
        Out::KeepAlive(Some(cursor)) => (format!("id: {}\n\n", cursor.shown()).into(), false),
        Out::KeepAlive(None) => (Bytes::from_static(b":\n\n"), false),
        Out::Expiring(until_s) => (
            message::event(&message::expiring(until_s), None).into(),
            false,
        ),
        Out::Close(close) => {
            session.count_close(&close);
            (message::close_event(&close).into(), true)
        }
    }
}
