//! Topics: finer addresses within a channel, and the patterns by which readers choose among them.
//!
//! A topic is one or more levels with `/` between them (`post/42`); a level may be empty. In a pattern a level is a text that
//! stands for itself, or `*`, which stands for any one level, `**`, at the end only, which stands for all that follows (or for
//! nothing), or `{sub}`, which stands for the subject of a reader who has one. What means something in a pattern
//! (`*`, `{`, `}`, `,`, `\`) stands for itself behind a `\`.
//!
//! Matching takes one step for each level: nothing is tried twice. Levels, patterns and their bytes are bounded, because readers of
//! others pay for them.

/// Bytes of a topic, and of a pattern, at most: so a pattern can say any topic that needs no `\`.
pub const LONGEST: usize = 1024;

/// Levels of a topic, and of a pattern, at most: the steps that a topic and a pattern take are counted in levels.
pub const MOST_LEVELS: usize = 16;

/// Patterns of one reader, or of one grant, at most.
pub const MOST_PATTERNS: usize = 100;

/// Bytes of all of them at most, with what stands between them: whoever reads all channels has those of all grants in hand.
pub const LONGEST_LIST: usize = 8 * 1024;

/// Why a text is no topic, or no pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flaw {
    Empty,
    /// So many bytes.
    TooLong(usize),
    /// So many levels.
    TooDeep(usize),
    Control,
    /// A `*` that is no level of its own, or a `**` that is not the last one.
    Star,
    /// A `{` or `}` that is no `{sub}`.
    Brace,
    /// A `,` where there is one pattern only.
    Comma,
    /// A `\` before something else than what means something.
    Escape,
    /// More patterns than may be.
    TooMany,
    /// So many bytes of patterns.
    ListTooLong(usize),
}

/// What no topic may be, whatever the encoding: the bytes of ASCII stand for themselves in each that the server stores.
pub fn check(topic: &[u8]) -> Result<(), Flaw> {
    if topic.is_empty() {
        Err(Flaw::Empty)
    } else if topic.len() > LONGEST {
        Err(Flaw::TooLong(topic.len()))
    } else if topic.iter().any(u8::is_ascii_control) {
        Err(Flaw::Control)
    } else {
        match 1 + topic.iter().filter(|byte| **byte == SEPARATOR).count() {
            deep if deep > MOST_LEVELS => Err(Flaw::TooDeep(deep)),
            _ => Ok(()),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    Literal(Box<[u8]>),
    /// `*`
    Any,
    /// `{sub}`
    Subject,
    /// `**`
    Rest,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern(Vec<Level>);

const SEPARATOR: u8 = b'/';
/// What a `\` may stand before.
const SPECIAL: &[u8] = br"*{},\";

impl Level {
    fn read(written: &[u8]) -> Result<Self, Flaw> {
        match written {
            b"*" => return Ok(Self::Any),
            b"**" => return Ok(Self::Rest),
            b"{sub}" => return Ok(Self::Subject),
            _ => {}
        }
        let mut literal = Vec::with_capacity(written.len());
        let mut rest = written.iter();
        while let Some(byte) = rest.next() {
            literal.push(match byte {
                b'\\' => *rest
                    .next()
                    .filter(|next| SPECIAL.contains(next))
                    .ok_or(Flaw::Escape)?,
                b'*' => return Err(Flaw::Star),
                b'{' | b'}' => return Err(Flaw::Brace),
                b',' => return Err(Flaw::Comma),
                other => *other,
            });
        }
        Ok(Self::Literal(literal.into()))
    }

    /// Whether each level of a topic that the other stands for is one that this stands for.
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, Self::Any | Self::Literal(_)) => true,
            (Self::Literal(own), Self::Literal(other)) => own == other,
            _ => false,
        }
    }
}

impl Pattern {
    pub fn read(written: &[u8]) -> Result<Self, Flaw> {
        check(written)?;
        let levels = written.split(|byte| *byte == SEPARATOR).map(Level::read);
        let levels: Vec<Level> = levels.collect::<Result<_, _>>()?;
        let before_last = &levels[..levels.len() - 1];
        if before_last.contains(&Level::Rest) {
            return Err(Flaw::Star);
        }
        Ok(Self(levels))
    }

    /// Whether it matches this topic for a reader who is this subject, if any. No `{sub}` stands for an empty subject, nor
    /// for more than one level.
    pub fn matches(&self, topic: &[u8], subject: Option<&[u8]>) -> bool {
        let mut said = topic.split(|byte| *byte == SEPARATOR);
        for level in &self.0 {
            if *level == Level::Rest {
                return true;
            }
            let Some(said) = said.next() else {
                return false;
            };
            let fits = match level {
                Level::Literal(literal) => **literal == *said,
                Level::Subject => !said.is_empty() && subject == Some(said),
                Level::Any | Level::Rest => true,
            };
            if !fits {
                return false;
            }
        }
        said.next().is_none()
    }

    pub fn has_subject(&self) -> bool {
        self.0.contains(&Level::Subject)
    }

    pub fn levels(&self) -> &[Level] {
        &self.0
    }

    /// The pattern that stands for this topic and no other.
    pub fn of_topic(topic: &[u8]) -> Self {
        let levels = topic.split(|byte| *byte == SEPARATOR);
        Self(levels.map(|level| Level::Literal(level.into())).collect())
    }

    /// The topic that it is, if it stands for one only.
    pub fn exact(&self) -> Option<Vec<u8>> {
        let levels = self.0.iter().map(|level| match level {
            Level::Literal(text) => Some(&**text),
            _ => None,
        });
        let levels: Vec<&[u8]> = levels.collect::<Option<_>>()?;
        Some(levels.join(&SEPARATOR))
    }

    /// With the reader's subject in place of `{sub}`; None where there is none, or one that is no level.
    pub fn of_subject(&self, subject: Option<&[u8]>) -> Option<Self> {
        let level = |level: &Level| match level {
            Level::Subject => {
                let is_level =
                    |subject: &&[u8]| !subject.is_empty() && !subject.contains(&SEPARATOR);
                subject
                    .filter(is_level)
                    .map(|subject| Level::Literal(subject.into()))
            }
            other => Some(other.clone()),
        };
        Some(Self(self.0.iter().map(level).collect::<Option<_>>()?))
    }

    /// Whether each topic that the other matches is one that this matches. `{sub}` covers nothing: put the subject in first.
    pub fn covers(&self, other: &Self) -> bool {
        let mut asked = other.0.iter();
        for level in &self.0 {
            if *level == Level::Rest {
                return !other.has_subject();
            }
            match asked.next() {
                Some(asked) if level.covers(asked) => {}
                _ => return false,
            }
        }
        asked.next().is_none()
    }

    /// As it can be read again.
    pub fn written(&self) -> Vec<u8> {
        let mut written = Vec::new();
        for (at, level) in self.0.iter().enumerate() {
            if at > 0 {
                written.push(SEPARATOR);
            }
            match level {
                Level::Any => written.push(b'*'),
                Level::Rest => written.extend_from_slice(b"**"),
                Level::Subject => written.extend_from_slice(b"{sub}"),
                Level::Literal(text) => {
                    for byte in text.iter() {
                        if SPECIAL.contains(byte) {
                            written.push(b'\\');
                        }
                        written.push(*byte);
                    }
                }
            }
        }
        written
    }
}

/// Several patterns: a topic is matched by one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patterns(Vec<Pattern>);

impl Patterns {
    /// Match nothing.
    pub const NONE: Self = Self(Vec::new());

    /// Those of a text: with a `,` between them, and maybe spaces behind it.
    pub fn read_list(written: &[u8]) -> Result<Self, Flaw> {
        if written.len() > LONGEST_LIST {
            return Err(Flaw::ListTooLong(written.len()));
        }
        let mut is_escaped = false;
        let between = |byte: &u8| {
            let ends = *byte == b',' && !is_escaped;
            is_escaped = *byte == b'\\' && !is_escaped;
            ends
        };
        Self::read_all(written.split(between).map(<[u8]>::trim_ascii_start))
    }

    /// Those of a list; no more of it is read than may be.
    pub fn read_all<'a>(written: impl Iterator<Item = &'a [u8]>) -> Result<Self, Flaw> {
        let mut patterns = Vec::new();
        let mut length = 0;
        for pattern in written {
            if patterns.len() == MOST_PATTERNS {
                return Err(Flaw::TooMany);
            }
            length += pattern.len() + 1;
            if length > LONGEST_LIST + 1 {
                return Err(Flaw::ListTooLong(length - 1));
            }
            patterns.push(Pattern::read(pattern)?);
        }
        if patterns.is_empty() {
            return Err(Flaw::Empty);
        }
        Ok(Self(patterns))
    }

    /// Those that were checked before they were kept. What is none by now matches nothing.
    pub fn kept<'a>(written: impl Iterator<Item = &'a [u8]>) -> Self {
        Self::read_all(written).unwrap_or(Self::NONE)
    }

    /// How many, which is what a look for a topic among them costs.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub fn match_topic(&self, topic: &[u8], subject: Option<&[u8]>) -> bool {
        self.0.iter().any(|pattern| pattern.matches(topic, subject))
    }

    /// Whether each topic that a pattern matches is one that one of these matches.
    pub fn cover(&self, other: &Pattern) -> bool {
        self.0.iter().any(|pattern| pattern.covers(other))
    }

    /// With the reader's subject in place of `{sub}`; those for which there is none go.
    pub fn of_subject(&self, subject: Option<&[u8]>) -> Self {
        let own = self.0.iter();
        Self(
            own.filter_map(|pattern| pattern.of_subject(subject))
                .collect(),
        )
    }

    pub fn each(&self) -> impl Iterator<Item = &Pattern> {
        self.0.iter()
    }

    /// Those that stand for something where a reader is no subject; None where that is none of them.
    pub fn of_no_subject(mut self) -> Option<Self> {
        self.0.retain(|pattern| !pattern.has_subject());
        (!self.0.is_empty()).then_some(self)
    }
}

#[cfg(test)]
mod tests;
