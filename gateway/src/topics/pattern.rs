//! Patterns of topics, as the server reads them: those of `pushy_core::topic`, over texts.

use pushy_core::topic;
pub use pushy_core::topic::{Flaw, Level};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern(topic::Pattern);

/// What is wrong, behind 'a topic'.
pub fn said(flaw: &Flaw) -> String {
    match flaw {
        Flaw::Empty => "is empty".to_owned(),
        Flaw::TooLong(length) => format!("has {length} bytes, at most {}", topic::LONGEST),
        Flaw::TooDeep(levels) => format!("has {levels} levels, at most {}", topic::MOST_LEVELS),
        Flaw::TooMany => format!("is one of more than {}", topic::MOST_PATTERNS),
        Flaw::ListTooLong(length) => {
            format!(
                "is of a list of {length} bytes, at most {}",
                topic::LONGEST_LIST
            )
        }
        Flaw::Control => "has a control character in it".to_owned(),
        Flaw::Star => {
            "has a * that is no level of its own, or a ** that is not the last one".to_owned()
        }
        Flaw::Brace => "has a brace that is not {sub}: write \\{".to_owned(),
        Flaw::Comma => "has a comma in it: write \\,".to_owned(),
        Flaw::Escape => "has a \\ that stands before nothing that means something".to_owned(),
    }
}

fn text(bytes: Vec<u8>) -> String {
    // What was read as text, cut at ASCII bytes, is text.
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Pattern {
    pub fn read(written: &str) -> Result<Self, Flaw> {
        topic::Pattern::read(written.as_bytes()).map(Self)
    }

    /// Those of a text: with a `,` between them, and maybe spaces behind it.
    pub fn read_list(written: &str) -> Result<Vec<Self>, Flaw> {
        let all = topic::Patterns::read_list(written.as_bytes())?;
        Ok(all.each().cloned().map(Self).collect())
    }

    pub fn levels(&self) -> &[Level] {
        self.0.levels()
    }

    /// Bytes that it takes where notices are led to it, about: its levels, their places, and its subscription's.
    pub fn weight(&self) -> usize {
        let level = |level: &Level| match level {
            Level::Literal(text) => text.len() + 112,
            Level::Any | Level::Subject | Level::Rest => 112,
        };
        128 + self.0.levels().iter().map(level).sum::<usize>()
    }

    /// The topic that it is, if it stands for one only.
    pub fn exact(&self) -> Option<String> {
        self.0.exact().map(text)
    }

    /// With the reader's subject in place of `{sub}`; None where there is none, or one that is no level.
    pub fn of_subject(&self, subject: Option<&str>) -> Option<Self> {
        self.0.of_subject(subject.map(str::as_bytes)).map(Self)
    }

    pub fn matches(&self, topic: &str) -> bool {
        self.0.matches(topic.as_bytes(), None)
    }

    pub fn covers(&self, other: &Self) -> bool {
        self.0.covers(&other.0)
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str(&text(self.0.written()))
    }
}
