//! Patterns of topics, as the server reads them: levels with `/` between them; `*` is any one level, `**` at the end all that
//! follows or nothing, `{sub}` the reader's subject. What means something (`*`, `{`, `}`, `,`, `\`) stands for itself behind a `\`.

/// Bytes of a topic and of a pattern, at most.
pub const LONGEST: usize = 1024;
/// Levels of a pattern, at most: a trie is walked as deep as that.
pub const DEEPEST: usize = 32;

const SPECIAL: &str = r"*{},\";

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    Literal(Box<str>),
    /// `*`
    Any,
    /// `{sub}`
    Subject,
    /// `**`
    Rest,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern(Vec<Level>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    Empty,
    TooLong,
    TooDeep,
    Control,
    /// A `*` that is no level of its own, or a `**` that is not the last.
    Star,
    Brace,
    Comma,
    Escape,
}

impl std::fmt::Display for Flaw {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str(match self {
            Self::Empty => "is empty",
            Self::TooLong => "is longer than 1,024 bytes",
            Self::TooDeep => "has more than 32 levels",
            Self::Control => "has a control character in it",
            Self::Star => "has a * that is no level of its own, or a ** that is not the last one",
            Self::Brace => "has a brace that is not {sub}: write \\{",
            Self::Comma => "has a comma in it: write \\,",
            Self::Escape => "has a \\ that stands before nothing that means something",
        })
    }
}

impl Level {
    fn read(written: &str) -> Result<Self, Flaw> {
        match written {
            "*" => return Ok(Self::Any),
            "**" => return Ok(Self::Rest),
            "{sub}" => return Ok(Self::Subject),
            _ => {}
        }
        let mut literal = String::with_capacity(written.len());
        let mut rest = written.chars();
        while let Some(char) = rest.next() {
            literal.push(match char {
                '\\' => rest
                    .next()
                    .filter(|next| SPECIAL.contains(*next))
                    .ok_or(Flaw::Escape)?,
                '*' => return Err(Flaw::Star),
                '{' | '}' => return Err(Flaw::Brace),
                ',' => return Err(Flaw::Comma),
                other => other,
            });
        }
        Ok(Self::Literal(literal.into()))
    }

    /// Whether each topic level that the other stands for is one that this stands for.
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, Self::Any | Self::Literal(_)) => true,
            (Self::Literal(own), Self::Literal(other)) => own == other,
            _ => false,
        }
    }
}

impl Pattern {
    pub fn read(written: &str) -> Result<Self, Flaw> {
        if written.is_empty() {
            return Err(Flaw::Empty);
        }
        if written.len() > LONGEST {
            return Err(Flaw::TooLong);
        }
        if written.bytes().any(|byte| byte.is_ascii_control()) {
            return Err(Flaw::Control);
        }
        let levels: Vec<Level> = written
            .split('/')
            .map(Level::read)
            .collect::<Result<_, _>>()?;
        if levels.len() > DEEPEST {
            return Err(Flaw::TooDeep);
        }
        let before_last = levels.iter().rev().skip(1);
        if before_last.into_iter().any(|level| *level == Level::Rest) {
            return Err(Flaw::Star);
        }
        Ok(Self(levels))
    }

    /// Those of a text: with a `,` between them, and maybe spaces behind it.
    pub fn read_list(written: &str) -> Result<Vec<Self>, Flaw> {
        let mut is_escaped = false;
        let between = |char: char| {
            let ends = char == ',' && !is_escaped;
            is_escaped = char == '\\' && !is_escaped;
            ends
        };
        written
            .split(between)
            .map(|one| Self::read(one.trim_start()))
            .collect()
    }

    pub fn levels(&self) -> &[Level] {
        &self.0
    }

    /// The topic that it is, if it stands for one only.
    pub fn exact(&self) -> Option<String> {
        let levels = self.0.iter().map(|level| match level {
            Level::Literal(text) => Some(&**text),
            _ => None,
        });
        Some(levels.collect::<Option<Vec<&str>>>()?.join("/"))
    }

    /// With the reader's subject in place of `{sub}`; None where there is none, or one that is no level.
    pub fn of_subject(&self, subject: Option<&str>) -> Option<Self> {
        let level = |level: &Level| match level {
            Level::Subject => {
                let is_level = |subject: &&str| !subject.is_empty() && !subject.contains('/');
                subject
                    .filter(is_level)
                    .map(|subject| Level::Literal(subject.into()))
            }
            other => Some(other.clone()),
        };
        Some(Self(self.0.iter().map(level).collect::<Option<_>>()?))
    }

    pub fn matches(&self, topic: &str) -> bool {
        let mut said = topic.split('/');
        for level in &self.0 {
            if *level == Level::Rest {
                return true;
            }
            let fits = match (level, said.next()) {
                (Level::Literal(literal), Some(said)) => **literal == *said,
                (Level::Any, Some(_)) => true,
                _ => false,
            };
            if !fits {
                return false;
            }
        }
        said.next().is_none()
    }

    /// Whether each topic that the other matches is one that this matches. `{sub}` covers nothing: put the subject in first.
    pub fn covers(&self, other: &Self) -> bool {
        let mut asked = other.0.iter();
        for level in &self.0 {
            if *level == Level::Rest {
                return !other.0.contains(&Level::Subject);
            }
            match asked.next() {
                Some(asked) if level.covers(asked) => {}
                _ => return false,
            }
        }
        asked.next().is_none()
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use std::fmt::Write as _;
        for (n, level) in self.0.iter().enumerate() {
            if n > 0 {
                to.write_char('/')?;
            }
            match level {
                Level::Any => to.write_str("*")?,
                Level::Rest => to.write_str("**")?,
                Level::Subject => to.write_str("{sub}")?,
                Level::Literal(text) => {
                    for char in text.chars() {
                        if SPECIAL.contains(char) {
                            to.write_char('\\')?;
                        }
                        to.write_char(char)?;
                    }
                }
            }
        }
        Ok(())
    }
}
