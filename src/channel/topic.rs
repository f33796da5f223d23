//! Topics and patterns as callers give them: what is none of them, in words.

use pushy_core::hidden;
use pushy_core::topic::{self, Flaw, Patterns, LONGEST, LONGEST_LIST, MOST_LEVELS, MOST_PATTERNS};

use crate::errors::{Error, Result, SqlState};
use crate::pg::function::Call;
use crate::pg::{array, text};

/// A topic, unless it cannot be one.
#[cfg_attr(target_os = "linux", link_section = "commit_path")]
pub fn checked(topic: Vec<u8>) -> Result<Box<[u8]>> {
    match flaw(&topic) {
        None => Ok(topic.into()),
        Some(flaw) => Err(refused("topic", &topic, &flaw)),
    }
}

fn flaw(topic: &[u8]) -> Option<Flaw> {
    topic::check(topic).err().or_else(|| {
        // The controls that are no ASCII, which each encoding writes otherwise.
        let has_control = !topic.is_ascii() && text::shown(topic).contains(char::is_control);
        has_control.then_some(Flaw::Control)
    })
}

/// The argument `topic`; NULL: none.
pub fn argument(call: Call, index: usize) -> Result<Option<Box<[u8]>>> {
    call.opt_bytes(index).map(checked).transpose()
}

/// Patterns that a text has, with commas between them.
pub fn patterns_of_text(argument: &str, written: &[u8]) -> Result<Patterns> {
    if written.len() <= LONGEST_LIST && text::shown(written).contains(char::is_control) {
        return Err(refused(argument, written, &Flaw::Control));
    }
    Patterns::read_list(written).map_err(|flaw| refused(argument, written, &flaw))
}

/// The same, where no pattern at all is as NULL.
pub fn patterns_argument_or_none(call: Call, index: usize) -> Result<Option<Vec<Vec<u8>>>> {
    let is_empty = call
        .datum(index)
        .is_some_and(|given| array::text_bytes(given).is_empty());
    if is_empty {
        return Ok(None);
    }
    patterns_argument(call, index)
}

/// The argument `topics`, an array of patterns, as they are written; NULL: none.
pub fn patterns_argument(call: Call, index: usize) -> Result<Option<Vec<Vec<u8>>>> {
    const ARGUMENT: &str = "topics";
    let Some(given) = call.datum(index) else {
        return Ok(None);
    };
    let mut written = Vec::new();
    for (at, pattern) in array::text_bytes(given).enumerate() {
        let name = format!("{ARGUMENT}[{}]", at + 1);
        let pattern = pattern.ok_or_else(|| Error::null_argument(&name))?;
        patterns_of_one(&name, &pattern)?;
        if !written.contains(&pattern) {
            written.push(pattern);
        }
        if written.len() > MOST_PATTERNS {
            return Err(refused(ARGUMENT, &written[0], &Flaw::TooMany));
        }
    }
    topic::Patterns::read_all(written.iter().map(Vec::as_slice)).or_else(|flaw| match flaw {
        Flaw::Empty => Ok(Patterns::NONE),
        flaw => Err(refused(ARGUMENT, &written[0], &flaw)),
    })?;
    if written.is_empty() {
        return Err(Error::out_of_range(
            ARGUMENT,
            "an empty array",
            "one pattern or more, such as 'post/*'; leave it out for all",
        ));
    }
    Ok(Some(written))
}

fn patterns_of_one(argument: &str, written: &[u8]) -> Result<()> {
    if written.len() <= LONGEST && text::shown(written).contains(char::is_control) {
        return Err(refused(argument, written, &Flaw::Control));
    }
    let pattern =
        topic::Pattern::read(written).map_err(|flaw| refused(argument, written, &flaw))?;
    if pattern.has_subject() {
        return Err(Error::out_of_range(
            argument,
            format!("\"{}\"", shown(written)),
            "without {sub}, which stands for whom the gateway has let in, in grants",
        ));
    }
    Ok(())
}

#[cold]
fn refused(argument: &str, written: &[u8], flaw: &Flaw) -> Error {
    let value = shown(written);
    let what = match flaw {
        Flaw::Empty => "is empty, or has an empty pattern".to_owned(),
        Flaw::TooLong(length) => format!("is too long: {length} bytes, at most {LONGEST}"),
        Flaw::Control => "has control characters".to_owned(),
        Flaw::Star => {
            "has a * that is not a whole level, or a ** that is not the last one".to_owned()
        }
        Flaw::Brace => "has a brace that is not of {sub}, a whole level".to_owned(),
        Flaw::Comma => "has a comma".to_owned(),
        Flaw::Escape => "has a \\ that is not before one of * { } , \\".to_owned(),
        Flaw::TooDeep(deep) => format!("has {deep} levels, at most {MOST_LEVELS}"),
        Flaw::TooMany => format!("has more than {MOST_PATTERNS} patterns"),
        Flaw::ListTooLong(length) => {
            format!("is too long: {length} bytes of patterns, at most {LONGEST_LIST}")
        }
    };
    let what = match flaw {
        Flaw::Empty if argument == "topic" => "is empty".to_owned(),
        _ => what,
    };
    let hint = match flaw {
        Flaw::Empty if argument == "topic" => "NULL is no topic.".to_owned(),
        Flaw::Empty => "Leave it out for all topics.".to_owned(),
        Flaw::TooLong(_) => "A topic is an address, as post/42: what is to be said belongs into the payload.".to_owned(),
        Flaw::Control => "Use printable characters.".to_owned(),
        Flaw::Star => "* stands for one whole level, and ** at the end for all that follow: post/*, user/7/**. A star as such is written \\*".to_owned(),
        Flaw::Brace => "A brace as such is written \\{ or \\}".to_owned(),
        Flaw::Comma => "Write several patterns as several elements of the array; a comma as such is written \\,".to_owned(),
        Flaw::Escape => "A backslash as such is written \\\\".to_owned(),
        Flaw::TooDeep(_) => "A topic is an address, as post/42; a / that is none of its own belongs into the payload.".to_owned(),
        Flaw::TooMany | Flaw::ListTooLong(_) => "Say it with fewer: ** at the end stands for all that follows.".to_owned(),
    };
    Error::new(
        SqlState::INVALID_PARAMETER_VALUE,
        format!("{argument} \"{value}\" {what}"),
    )
    .hint(hint)
}

/// As a message repeats it: its beginning.
fn shown(written: &[u8]) -> String {
    const MOST: usize = 100;
    // In each encoding of the server a character has four bytes at most.
    let written = text::cut(written, 4 * MOST);
    let whole = hidden::shown(&text::shown(written));
    match whole.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &whole[..end]),
        None => whole,
    }
}
