//! jobs_settle: how many claimed jobs ended, in one statement.

use serde::Deserialize;

use crate::errors::{Error, Result, SqlState};
use crate::job::lease::{extend, outcome};
use crate::pg::function::{Answer, Call};
use crate::pg::value::Uuid;
use crate::pg::{jsonb, transaction};
use crate::queue::lease_length::require;
use crate::sql_function;

sql_function!(pushy_jobs_settle_v1, |call| {
    transaction::require_writable(c"pushy.jobs_settle()");
    settle(call)
});

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Ended {
    Complete,
    Fail,
    Release,
    Snooze,
    Discard,
    Extend,
}

/// One element of the array; lengths of time in seconds.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Outcome<'a> {
    job_id: i64,
    token: String,
    outcome: Ended,
    #[serde(borrow)]
    result: Option<&'a serde_json::value::RawValue>,
    error: Option<String>,
    sqlstate: Option<String>,
    detail: Option<String>,
    retry_in: Option<f64>,
    discard: Option<bool>,
    delay: Option<f64>,
    lease: Option<f64>,
    fraction: Option<f64>,
    message: Option<String>,
}

/// Of how many the caller held the job.
fn settle(call: Call) -> Result<i32> {
    let text = call.json("outcomes", 0)?;
    let mut outcomes: Vec<Outcome<'_>> = serde_json::from_str(&text).map_err(|_| wrong(&text))?;
    // Whoever settles the same jobs at the same time locks them in the same order.
    outcomes.sort_by_key(|outcome| outcome.job_id);
    let mut settled = 0;
    for outcome in &outcomes {
        settled += i32::from(outcome.settle()?);
    }
    Ok(settled)
}

impl Outcome<'_> {
    fn settle(&self) -> Result<bool> {
        let token = Uuid::parse(&self.token)
            .ok_or_else(|| Error::out_of_range("token", format!("\"{}\"", self.token), "a uuid"))?;
        match self.outcome {
            Ended::Complete => {
                let result = self.result.map_or(Answer::Null, |result| {
                    Answer::Datum(jsonb::from_json(result.get().as_bytes()))
                });
                outcome::complete(self.job_id, token, result)
            }
            Ended::Fail | Ended::Discard => {
                let error = outcome::error(
                    self.error.clone(),
                    self.sqlstate.clone(),
                    self.detail.clone(),
                )?;
                let is_last = self.outcome == Ended::Discard || self.discard == Some(true);
                let next = outcome::next(length("retry_in", self.retry_in)?, is_last)?;
                Ok(outcome::fail(self.job_id, token, &error, next)?.is_some())
            }
            Ended::Snooze => {
                let delay = length("delay", self.delay)?;
                let delay = delay.ok_or_else(|| Error::null_argument("delay"))?;
                outcome::snooze(self.job_id, token, delay, self.error.as_deref())
            }
            Ended::Release => outcome::release(self.job_id, token, length("delay", self.delay)?),
            Ended::Extend => extend::extend(
                self.job_id,
                token,
                require("lease", length("lease", self.lease)?, || {
                    self.lease.unwrap_or_default()
                })?,
                self.fraction,
                self.message.clone(),
            ),
        }
    }
}

/// Seconds as microseconds.
fn length(name: &str, seconds: Option<f64>) -> Result<Option<i64>> {
    /// As long as an interval may be that is added to a time.
    const MOST: f64 = 1e12;
    match seconds {
        Some(seconds) if !(0.0..MOST).contains(&seconds) => Err(Error::out_of_range(
            name,
            format!("{seconds:?}"),
            "seconds from 0 to 1e12",
        )),
        seconds => Ok(seconds.map(|seconds| (seconds * 1e6) as i64)),
    }
}

/// Which element it is, and in words of SQL what is wrong with it.
#[cold]
fn wrong(text: &str) -> Error {
    let message = match serde_json::from_str::<Vec<&serde_json::value::RawValue>>(text) {
        Err(_) => "outcomes is not an array".into(),
        Ok(elements) => {
            let read = |one: &serde_json::value::RawValue| {
                serde_json::from_str::<Outcome<'_>>(one.get()).err()
            };
            let mut errors = elements
                .iter()
                .zip(1..)
                .filter_map(|(one, n)| Some((n, read(one)?)));
            errors.next().map_or_else(
                || "outcomes cannot be read".into(),
                |(n, error)| {
                    format!(
                        "element {n} of outcomes is no outcome: {}",
                        in_words(&error)
                    )
                },
            )
        }
    };
    Error::new(SqlState::INVALID_PARAMETER_VALUE, message).hint(
        r#"Pass for instance '[{"job_id": 1, "token": "…", "outcome": "complete"}]'; lengths of time are numbers of seconds."#,
    )
}

/// Without the parser's names, and without its place in a text that nobody has written so.
fn in_words(error: &serde_json::Error) -> String {
    const WORDS: [(&str, &str); 4] = [
        ("expected struct Outcome", "expected an object"),
        ("expected f64", "expected a number"),
        ("expected i64", "expected a whole number"),
        ("invalid type: map", "invalid type: object"),
    ];
    let said = error.to_string();
    let said = said
        .rsplit_once(" at line ")
        .map_or(&*said, |(said, _)| said);
    let in_words = |said: String, (of_parser, word): (&str, &str)| said.replace(of_parser, word);
    WORDS.into_iter().fold(said.to_owned(), in_words)
}
