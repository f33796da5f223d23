//! What LISTEN makes of a text, and what it would lose on the way.

use pushy_core::channel::{longest_operator, Form, Identifier, Server};

use super::refusals;
use crate::errors::Result;
use crate::pg::identifier;

/// Operator characters in a row that the server is asked to read; a ruler of dashes in a comment is shorter.
const LONGEST_OPERATOR: usize = 1000;

/// Bytes of a text that the server is asked to read, which nothing interrupts.
const LONGEST: usize = 1 << 20;

/// A text that LISTEN takes. Names are in the server's encoding.
pub struct Reading {
    /// The channel that LISTEN ends up with.
    pub channel: Vec<u8>,
    /// Bytes of the name before the cut.
    pub byte_length: usize,
    /// Folding changed a letter.
    pub folded: bool,
    /// `"name"` or `U&"name"`.
    pub quoted: bool,
}

impl Reading {
    /// The server's parser says whether `text` is one identifier and what name comes out; the name
    /// before the cut is our own reading, which has to agree with it.
    pub fn of(text: &[u8]) -> Result<Self> {
        if text.len() > LONGEST || longest_operator(text) > LONGEST_OPERATOR {
            return Err(refusals::too_complex(text));
        }
        let channel =
            identifier::listened(text).map_err(|refusal| refusals::invalid(text, &refusal))?;
        let server = Server {
            standard_conforming_strings: identifier::standard_conforming_strings(),
            encode: &identifier::encoded,
        };
        let written =
            Identifier::read(text, &server).ok_or_else(|| refusals::unread(text, &channel))?;
        let name = match written.form {
            Form::Plain => identifier::folded(&written.name),
            Form::Quoted => written.name.clone(),
        };
        let cut = name.len() > identifier::LIMIT;
        if !(channel == name || cut && name.starts_with(&channel)) {
            return Err(refusals::unread(text, &channel));
        }
        Ok(Self {
            channel,
            byte_length: name.len(),
            folded: name != written.name,
            quoted: written.form == Form::Quoted,
        })
    }

    pub fn truncated(&self) -> bool {
        self.byte_length > self.channel.len()
    }
}
