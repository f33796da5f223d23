//! jobs_settle: how many claimed jobs ended, in one statement.

use crate::errors::{Error, Result, SqlState};
use crate::job::lease::done::{complete_all, Done};
use crate::job::lease::{extend, outcome};
use crate::pg::function::{Answer, Call};
use crate::pg::interrupts;
use crate::pg::jsonb::{Inside, Number, Part};
use crate::pg::transaction;
use crate::pg::value::Uuid;
use crate::queue::lease_length::require;
use crate::sql_function;

sql_function!(pushy_jobs_settle_v1, |call| {
    transaction::require_writable(c"pushy.jobs_settle()");
    settle(call)
});

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    Complete,
    Fail,
    Release,
    Snooze,
    Discard,
    Extend,
}

/// Each with the members that it takes beside those of all.
const OUTCOMES: [(&str, Ended, &[&str]); 6] = [
    ("complete", Ended::Complete, &["result"]),
    (
        "fail",
        Ended::Fail,
        &["error", "sqlstate", "detail", "retry_in", "discard"],
    ),
    ("discard", Ended::Discard, &["error", "sqlstate", "detail"]),
    ("release", Ended::Release, &["delay"]),
    ("snooze", Ended::Snooze, &["delay", "error"]),
    ("extend", Ended::Extend, &["lease", "fraction", "message"]),
];
const OF_ALL: [&str; 3] = ["job_id", "token", "outcome"];

/// One element of the array; lengths of time in seconds.
struct Outcome {
    /// Which element it is, from 1 on.
    number: usize,
    job_id: i64,
    token: Uuid,
    ended: Ended,
    result: Answer,
    error: Option<String>,
    sqlstate: Option<String>,
    detail: Option<String>,
    retry_in: Option<f64>,
    discard: bool,
    delay: Option<f64>,
    lease: Option<f64>,
    fraction: Option<f64>,
    message: Option<String>,
}

/// Of how many the caller held the job.
fn settle(call: Call) -> Result<i32> {
    let Part::Array(array) = call.jsonb("outcomes", 0)? else {
        return Err(wrong("outcomes is not an array".into()));
    };
    let elements = array.elements()?.zip(1..);
    let mut outcomes = elements
        .map(|((part, _), number)| {
            read(part, number).map_err(|what| {
                wrong(format!(
                    "element {number} of outcomes is no outcome: {what}"
                ))
            })
        })
        .collect::<Result<Vec<Outcome>>>()?;
    // Whoever settles the same jobs at the same time locks them in the same order.
    outcomes.sort_by_key(|outcome| outcome.job_id);
    let mut settled = 0;
    for together in outcomes.chunk_by(are_together) {
        for some in together.chunks(MOST_TOGETHER) {
            interrupts::check();
            settled += settle_some(some)?;
        }
    }
    Ok(settled as i32)
}

/// Completions that are written at once: their arguments are in memory until then.
const MOST_TOGETHER: usize = 1_000;

/// Jobs that are done, each said once: what is said of a job twice comes one after the other.
fn are_together(one: &Outcome, next: &Outcome) -> bool {
    one.ended == Ended::Complete && next.ended == Ended::Complete && one.job_id != next.job_id
}

/// One outcome, or several completions.
fn settle_some(outcomes: &[Outcome]) -> Result<usize> {
    let in_element = |error: Error, of: usize| match error.detail {
        None => error.detail(format!("In element {} of outcomes.", outcomes[of].number)),
        Some(_) => error,
    };
    if outcomes[0].ended != Ended::Complete {
        let has_settled = outcomes[0].settle().map_err(|error| in_element(error, 0))?;
        return Ok(usize::from(has_settled));
    }
    let done: Vec<Done> = outcomes
        .iter()
        .map(|outcome| Done {
            job: outcome.job_id,
            token: outcome.token,
            result: outcome.result,
        })
        .collect();
    complete_all(&done).map_err(|wrong| match wrong.of {
        Some(of) => in_element(wrong.error, of),
        None => wrong.error,
    })
}

/// What is wrong with it is said in words.
type Read<T> = std::result::Result<T, String>;

fn read(element: Part<'_>, number: usize) -> Read<Outcome> {
    let Part::Object(object) = element else {
        return Err(format!("it is {}, and not an object", kind(&element)));
    };
    let mut outcome = Outcome {
        number,
        job_id: 0,
        token: Uuid([0; 16]),
        ended: Ended::Complete,
        result: Answer::Null,
        error: None,
        sqlstate: None,
        detail: None,
        retry_in: None,
        discard: false,
        delay: None,
        lease: None,
        fraction: None,
        message: None,
    };
    let said = outcome.fill(object)?;
    if let Some(missing) = OF_ALL
        .iter()
        .find(|name| !said.iter().any(|said| said == *name))
    {
        return Err(format!("it has no \"{missing}\""));
    }
    let ended = outcome.ended;
    let takes = OUTCOMES.iter().find(|(_, other, _)| *other == ended);
    let (word, _, takes) = takes.expect("each is in the table");
    let is_taken = |name: &String| OF_ALL.contains(&&**name) || takes.contains(&&**name);
    match said.iter().find(|name| !is_taken(name)) {
        Some(name) => Err(format!(
            "\"{name}\" is nothing that \"{word}\" takes, which is {}",
            takes.join(", ")
        )),
        None => Ok(outcome),
    }
}

impl Outcome {
    /// Answers the names of what was said; a null says nothing.
    fn fill(&mut self, object: Inside<'_>) -> Read<Vec<String>> {
        let unreadable = |error: Error| error.message;
        let mut names = Vec::new();
        for (name, part, whole) in object.members().map_err(unreadable)? {
            if !is_known(&name) {
                return Err(format!(
                    "\"{}\" is nothing that any outcome takes",
                    cut(&name)
                ));
            }
            if matches!(part, Part::Null) {
                continue;
            }
            match &*name {
                "job_id" => {
                    self.job_id = (number(&name, &part)?.as_i64())
                        .ok_or("\"job_id\" is no whole number of a job")?;
                }
                // Not shown, because it is as good as the job while its lease lives.
                "token" => {
                    self.token =
                        Uuid::parse(text(&name, &part)?).ok_or("\"token\" is not a uuid")?;
                }
                "outcome" => self.ended = ended(text(&name, &part)?)?,
                "result" => self.result = whole.to_jsonb(),
                "error" => self.error = Some(text(&name, &part)?.to_owned()),
                "sqlstate" => self.sqlstate = Some(text(&name, &part)?.to_owned()),
                "detail" => self.detail = Some(text(&name, &part)?.to_owned()),
                "message" => self.message = Some(text(&name, &part)?.to_owned()),
                "retry_in" => self.retry_in = Some(number(&name, &part)?.as_f64()),
                "delay" => self.delay = Some(number(&name, &part)?.as_f64()),
                "lease" => self.lease = Some(number(&name, &part)?.as_f64()),
                "fraction" => self.fraction = Some(number(&name, &part)?.as_f64()),
                "discard" => {
                    let Part::Bool(discard) = part else {
                        return Err(format!("\"discard\" is {}, and not a boolean", kind(&part)));
                    };
                    self.discard = discard;
                }
                _ => unreachable!("each that is known is above"),
            }
            names.push(name);
        }
        Ok(names)
    }

    fn settle(&self) -> Result<bool> {
        let (job_id, token) = (self.job_id, self.token);
        match self.ended {
            Ended::Complete => unreachable!("completions are written together"),
            Ended::Fail | Ended::Discard => {
                let error = outcome::error(
                    self.error.clone(),
                    self.sqlstate.clone(),
                    self.detail.clone(),
                )?;
                let is_last = self.ended == Ended::Discard || self.discard;
                let next = outcome::next(length("retry_in", self.retry_in)?, is_last)?;
                Ok(outcome::fail(job_id, token, &error, next)?.is_some())
            }
            Ended::Snooze => {
                let delay = length("delay", self.delay)?;
                let delay = delay.ok_or_else(|| Error::null_argument("delay"))?;
                outcome::snooze(job_id, token, delay, self.error.as_deref())
            }
            Ended::Release => outcome::release(job_id, token, length("delay", self.delay)?),
            Ended::Extend => extend::extend(
                job_id,
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

fn is_known(name: &str) -> bool {
    let mut of_some = OUTCOMES.iter().flat_map(|(_, _, takes)| *takes);
    OF_ALL.contains(&name) || of_some.any(|taken| *taken == name)
}

fn ended(word: &str) -> Read<Ended> {
    let found = OUTCOMES.iter().find(|(name, ..)| *name == word);
    found.map(|(_, ended, _)| *ended).ok_or_else(|| {
        let words: Vec<&str> = OUTCOMES.iter().map(|(name, ..)| *name).collect();
        format!(
            "\"outcome\" is \"{}\", and not one of {}",
            cut(word),
            words.join(", ")
        )
    })
}

fn number<'a>(name: &str, part: &Part<'a>) -> Read<Number<'a>> {
    match part {
        Part::Number(number) => Ok(*number),
        other => Err(format!("\"{name}\" is {}, and not a number", kind(other))),
    }
}

fn text<'a>(name: &str, part: &'a Part<'_>) -> Read<&'a str> {
    match part {
        Part::Text(text) => Ok(text),
        other => Err(format!("\"{name}\" is {}, and not a string", kind(other))),
    }
}

/// As JSON calls them.
fn kind(part: &Part<'_>) -> &'static str {
    match part {
        Part::Null => "null",
        Part::Bool(_) => "a boolean",
        Part::Number(_) => "a number",
        Part::Text(_) => "a string",
        Part::Array(_) => "an array",
        Part::Object(_) => "an object",
    }
}

/// Enough of a word to find it again.
fn cut(word: &str) -> &str {
    const MOST: usize = 64;
    crate::pg::text::cut_utf8(word, MOST)
}

/// Seconds as microseconds.
fn length(name: &str, seconds: Option<f64>) -> Result<Option<i64>> {
    /// As long as an interval may be that is added to a time.
    const MOST: f64 = 1e12;
    match seconds {
        Some(seconds) if !(0.0..MOST).contains(&seconds) => Err(Error::out_of_range(
            name,
            format!("{seconds:e}"),
            "seconds from 0 to 1e12",
        )),
        seconds => Ok(seconds.map(|seconds| (seconds * 1e6) as i64)),
    }
}

#[cold]
fn wrong(message: String) -> Error {
    Error::new(SqlState::INVALID_PARAMETER_VALUE, message).hint(
        r#"Pass for instance '[{"job_id": 1, "token": "…", "outcome": "complete"}]'; lengths of time are numbers of seconds."#,
    )
}
