//! GET /notices: a long poll. Each answer says where the next one begins, so answers make a chain, and a full page never changes.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{header, HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use pushy_core::log::cursor::Cursor;
use tokio::time::{sleep_until, Instant};

use crate::gateway::Gateway;
use crate::hub::outbox::Item;
use crate::notice::Notice;
use crate::serve::door::Visitor;

use super::message::{Code, Refusal};
use super::query::{authenticate, Query};
use super::session::{Out, Session};

const TRANSPORT: &str = "poll";
const TAG: u32 = 1;

/// Of one answer.
#[derive(Clone, Copy)]
struct Bounds {
    notices: usize,
    bytes: usize,
}

#[derive(Default)]
struct Page {
    notices: Vec<Arc<Notice>>,
    bytes: usize,
    resync: Option<Cursor>,
}

impl Page {
    fn add(&mut self, items: Vec<Item>) {
        for item in items {
            match item {
                Item::Notice { notice, .. } => {
                    self.bytes += notice.size();
                    self.notices.push(notice);
                }
                // What was before is part of what is to be looked at anew.
                Item::Resync { cursor, .. } => {
                    self.notices.clear();
                    self.bytes = 0;
                    self.resync = Some(cursor);
                }
                Item::Message(_) => {}
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.notices.is_empty() && self.resync.is_none()
    }

    /// As long as an answer may be.
    fn is_over(&self, bounds: Bounds) -> bool {
        self.notices.len() >= bounds.notices || self.bytes >= bounds.bytes
    }
}

pub async fn poll(
    gateway: &Arc<Gateway>,
    visitor: Visitor,
    headers: &HeaderMap,
    query: &str,
) -> Result<Response, Refusal> {
    let settings = &gateway.settings;
    let query = Query::read(query)?;
    let request = query.request(gateway, headers)?;
    let (wait, max) = (
        query.wait(settings.max_wait)?,
        query.max(settings.max_notices)?,
    );
    let who = authenticate(gateway, headers, query.ticket.as_deref()).await?;
    let who = who.ok_or_else(|| Code::Unauthenticated.because("a token or a ticket is needed"))?;
    let mut session = Session::new(gateway, TRANSPORT, visitor.address, true, max);
    let after = request.after;
    session.admit(who)?;
    session.subscribe(request)?;
    session.settle().await?;
    let bounds = Bounds {
        notices: max,
        bytes: settings.buffer_bytes,
    };
    let page = gather(&mut session, wait, settings.ask_timeout, bounds).await?;
    Ok(answer(
        &session,
        page,
        after,
        max,
        headers,
        query.ticket.is_some(),
    ))
}

struct Gathered {
    page: Page,
    next: Cursor,
}

async fn gather(
    session: &mut Session,
    wait: Duration,
    ask_timeout: Duration,
    bounds: Bounds,
) -> Result<Gathered, Refusal> {
    let mut page = Page::default();
    let begun = Instant::now();
    let (deadline, at_most) = (begun + wait, begun + wait + ask_timeout);
    while !page.is_over(bounds) {
        // Read to its end, it has something, or has waited.
        let is_level = session.is_live(TAG);
        if is_level && (!page.is_empty() || Instant::now() >= deadline) {
            break;
        }
        session.set_batch(bounds.notices - page.notices.len());
        tokio::select! {
            out = session.next() => match out {
                Out::Items(items) => page.add(items),
                Out::Close(close) if close.code == 1001 => break,
                Out::Close(close) => return Err(Code::Unavailable.because(format!("ended: {}", close.reason))),
                Out::KeepAlive(_) | Out::Expiring(_) => {}
            },
            () = sleep_until(if is_level { deadline } else { at_most }) => {
                if !is_level {
                    return Err(Code::Unavailable.because("the database does not answer"));
                }
            }
        }
    }
    let position = session.unsubscribe(TAG);
    // What came between the last look and the end.
    while !page.is_over(bounds) {
        let left = session.take(bounds.notices - page.notices.len());
        if left.is_empty() {
            break;
        }
        page.add(left);
    }
    let last = page
        .notices
        .last()
        .map(|notice| notice.cursor)
        .or(page.resync);
    // A full page may have left something behind.
    let next = if page.is_over(bounds) {
        last
    } else {
        position.or(last)
    };
    let next = next.ok_or_else(|| Code::Unavailable.because("the database was not reached yet"))?;
    Ok(Gathered { page, next })
}

fn answer(
    session: &Session,
    gathered: Gathered,
    after: Option<Cursor>,
    max: usize,
    headers: &HeaderMap,
    is_by_ticket: bool,
) -> Response {
    let Gathered { page, next } = gathered;
    let is_full = page.notices.len() >= max;
    let is_chained =
        after.is_some() && page.resync.is_none() && !page.notices.is_empty() && !is_by_ticket;
    // A full page says for ever the same; one that is not, says so until the next notice.
    let cache = match (is_chained, is_full) {
        (true, true) => "private, max-age=60",
        (true, false) => "private, no-cache",
        (false, _) => "no-store",
    };
    let tag = format!(
        "\"{}:{}\"",
        after.unwrap_or(Cursor::START).shown(),
        next.shown()
    );
    let is_known = is_chained
        && headers
            .get_all("if-none-match")
            .iter()
            .any(|known| known.as_bytes() == tag.as_bytes());
    let mut response = if is_known {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let items: Vec<Item> = page
            .notices
            .iter()
            .map(|notice| Item::Notice {
                notice: notice.clone(),
                tag: TAG,
                more: Vec::new(),
            })
            .collect();
        session.sent(&items, TRANSPORT);
        Response::new(Body::from(body(&page, next)))
    };
    let fields = response.headers_mut();
    fields.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    fields.append(
        header::VARY,
        HeaderValue::from_static("Authorization, Last-Event-ID"),
    );
    if is_chained {
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            fields.insert(header::ETAG, tag);
        }
    }
    response
}

fn body(page: &Page, next: Cursor) -> Vec<u8> {
    let size: usize = page
        .notices
        .iter()
        .map(|notice| notice.members().len() + 3)
        .sum();
    let mut body = Vec::with_capacity(size + 80);
    body.extend_from_slice(b"{\"notices\":[");
    for (n, notice) in page.notices.iter().enumerate() {
        if n > 0 {
            body.push(b',');
        }
        body.push(b'{');
        body.extend_from_slice(notice.members());
        body.push(b'}');
    }
    let end = format!(
        "],\"next\":\"{}\",\"resync\":{}}}\n",
        next.shown(),
        page.resync.is_some()
    );
    body.extend_from_slice(end.as_bytes());
    body
}
