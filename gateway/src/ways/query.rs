//! What a URL and its fields ask for.

use std::time::Duration;

use axum::http::HeaderMap;
use pushy_core::log::cursor::Cursor;

use crate::clock;
use crate::gateway::Gateway;
use crate::hub::outbox::Tag;
use crate::settings::read_duration;
use crate::source::Redeemed;
use crate::topics::pattern::{self, Pattern};
use crate::who::Principal;

use super::message::{Code, Refusal};
use super::session::Request;

/// Bytes of a channel as it is written, at most: 63 bytes, each as a Unicode escape in quotes.
const LONGEST_CHANNEL: usize = 512;

#[derive(Debug, Default)]
pub struct Query {
    pub channel: Option<String>,
    pub topics: Vec<String>,
    pub after: Option<String>,
    pub latest: bool,
    pub ticket: Option<String>,
    pub wait: Option<String>,
    pub max: Option<String>,
}

impl Query {
    /// What it does not know, it leaves to others.
    pub fn read(query: &str) -> Result<Self, Refusal> {
        let mut read = Self::default();
        let mut set = |slot: fn(&mut Self) -> &mut Option<String>, name: &str, value: String| {
            let is_second = slot(&mut read).replace(value).is_some();
            if is_second {
                return Err(Code::BadMessage.because(format!("there is more than one {name}")));
            }
            Ok(())
        };
        let mut topics = Vec::new();
        let mut latest = false;
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let value = value.into_owned();
            match &*name {
                "channel" => set(|read| &mut read.channel, "channel", value)?,
                "after" => set(|read| &mut read.after, "after", value)?,
                "ticket" => set(|read| &mut read.ticket, "ticket", value)?,
                "wait" => set(|read| &mut read.wait, "wait", value)?,
                "max" => set(|read| &mut read.max, "max", value)?,
                "topic" => topics.push(value),
                "latest" => latest = matches!(&*value, "" | "1" | "true"),
                _ => {}
            }
        }
        (read.topics, read.latest) = (topics, latest);
        Ok(read)
    }

    /// The one subscription of a stream or a poll.
    pub fn request(&self, gateway: &Gateway, headers: &HeaderMap) -> Result<Request, Refusal> {
        let channel = self
            .channel
            .as_deref()
            .ok_or_else(|| Code::BadChannel.because("channel is missing"))?;
        // What a browser has heard counts, not where its page began.
        let heard = headers
            .get("last-event-id")
            .and_then(|id| id.to_str().ok())
            .filter(|id| !id.is_empty());
        request(
            gateway,
            1,
            channel,
            &self.topics,
            heard.or(self.after.as_deref()),
            self.latest,
            false,
        )
    }

    pub fn wait(&self, most: Duration) -> Result<Duration, Refusal> {
        let Some(wait) = &self.wait else {
            return Ok(Duration::ZERO);
        };
        let wait = read_duration(wait)
            .ok_or_else(|| Code::BadMessage.because("wait is no length of time, such as 30s"))?;
        Ok(wait.min(most))
    }

    pub fn max(&self, most: usize) -> Result<usize, Refusal> {
        let Some(max) = &self.max else {
            return Ok(most.min(100));
        };
        let max: usize = max
            .parse()
            .map_err(|_| Code::BadMessage.because("max is no number"))?;
        Ok(max.clamp(1, most))
    }
}

pub fn request(
    gateway: &Gateway,
    tag: Tag,
    channel: &str,
    topics: &[String],
    after: Option<&str>,
    latest: bool,
    presence: bool,
) -> Result<Request, Refusal> {
    if channel.is_empty() || channel.len() > LONGEST_CHANNEL || channel.contains('\0') {
        return Err(Code::BadChannel.because("channel is empty, or longer than a name can be"));
    }
    if topics.len() > gateway.settings.max_topics {
        gateway.metrics.refuse("topics");
        return Err(Code::TooMany.because(format!(
            "there are more than {} topics",
            gateway.settings.max_topics
        )));
    }
    let read = |topic: &String| {
        Pattern::read(topic)
            .map_err(|flaw| Code::BadTopic.because(format!("a topic {}", pattern::said(&flaw))))
    };
    let patterns: Vec<Pattern> = topics.iter().map(read).collect::<Result<_, _>>()?;
    let after = match after {
        None => None,
        Some(text) => Some(text.parse::<Cursor>().map_err(|_| {
            Code::BadCursor.because("after is no cursor: pass one as it was given")
        })?),
    };
    Ok(Request {
        tag,
        channel: channel.to_owned(),
        topics: (!patterns.is_empty()).then(|| patterns.into()),
        after,
        latest,
        presence,
    })
}

/// The token in `Authorization`, or the ticket in the URL.
pub async fn authenticate(
    gateway: &Gateway,
    headers: &HeaderMap,
    ticket: Option<&str>,
) -> Result<Option<Principal>, Refusal> {
    let settings = &gateway.settings;
    if let Some(field) = headers.get("authorization") {
        let token = field.to_str().ok().and_then(|field| {
            field
                .strip_prefix("Bearer ")
                .or_else(|| field.strip_prefix("bearer "))
        });
        let token = token
            .ok_or_else(|| Code::Unauthenticated.because("Authorization is no bearer token"))?;
        return verify(gateway, token.trim()).map(Some);
    }
    let Some(ticket) = ticket else {
        return Ok(None);
    };
    if !Redeemed::may_be(ticket) || ticket.len() > settings.max_token_bytes {
        return Err(Code::Unauthenticated.because("the ticket is none"));
    }
    let redeemed = tokio::time::timeout(
        settings.ask_timeout,
        gateway.source.redeem(ticket.to_owned()),
    )
    .await;
    let Ok(Ok(redeemed)) = redeemed else {
        return Err(Code::Unavailable.because("the database does not answer"));
    };
    let who =
        redeemed.and_then(|ticket| Principal::of_ticket(ticket, settings.max_age, clock::now_s()));
    who.map(Some).ok_or_else(|| {
        gateway.metrics.refuse("ticket");
        Code::Unauthenticated.because("the ticket was used, or its time is over")
    })
}

pub fn verify(gateway: &Gateway, token: &str) -> Result<Principal, Refusal> {
    let settings = &gateway.settings;
    if token.len() > settings.max_token_bytes {
        gateway.metrics.refuse("token_too_large");
        return Err(Code::Unauthenticated.because("the token is too large"));
    }
    gateway
        .who
        .verify(token, settings.leeway, settings.max_age, clock::now_s())
        .map_err(|rejected| {
            gateway.metrics.refuse(rejected.reason());
            // Whose clock it is, everybody knows; all else would tell a stranger what to try next.
            let why = match rejected {
                crate::who::token::Rejected::Expired => "the token has expired",
                _ => "the token is not valid here",
            };
            Code::Unauthenticated.because(why)
        })
}
