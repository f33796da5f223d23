//! Patterns of topics, as a grant may have them. They are kept, and chosen by once notices have topics.

use crate::errors::{Error, Result};
use crate::pg::identifier;

/// Bytes of a pattern.
const LONGEST: usize = 255;

/// Refuses what is no pattern: segments with `/` between them; `*` stands for one, `**` at the end for all that follow.
pub fn require_pattern(argument: &str, pattern: &str) -> Result<()> {
    let segments: Vec<&str> = pattern.split('/').collect();
    let is_segment = |(at, segment): (usize, &&str)| match *segment {
        "" | "." | ".." => false,
        "*" => true,
        "**" => at + 1 == segments.len(),
        plain => !plain.contains('*'),
    };
    let fits = pattern.len() <= LONGEST
        && !identifier::has_control(pattern)
        && segments.iter().enumerate().all(is_segment);
    if fits {
        return Ok(());
    }
    Err(Error::out_of_range(
        argument,
        format!("\"{}\"", pattern.escape_debug()),
        &format!(
            "segments with / between them, such as 'post/42' or 'post/*/likes': * stands for one, ** at the end for all that follow; at most {LONGEST} bytes, no control characters"
        ),
    ))
}
