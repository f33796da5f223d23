//! Messages on the socket: a length, four bytes, the most significant first, and so many bytes of JSON, as gateway/src/source/framed.rs has it.

use serde::Deserialize;

/// The version of the protocol that both sides begin with.
const VERSION: u32 = 1;
/// Bytes of one question: of a report, the longest there is, some twelve.
const LONGEST: usize = 16 * 1024 * 1024;

#[derive(Default)]
pub struct Frames {
    has_greeted: bool,
}

#[derive(Deserialize)]
struct Hello {
    pushy: u32,
}

pub fn put(out: &mut Vec<u8>, message: &str) {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(message.as_bytes());
}

impl Frames {
    /// What this side says first.
    pub fn hello() -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, &format!("{{\"pushy\":{VERSION}}}"));
        out
    }

    /// Takes whole messages off what was read.
    pub fn take(&mut self, read: &mut Vec<u8>) -> Result<Vec<Vec<u8>>, String> {
        let (mut taken, mut at) = (Vec::new(), 0);
        while let Some(head) = read.get(at..at + 4) {
            let length = u32::from_be_bytes(head.try_into().unwrap_or_default()) as usize;
            if length > LONGEST {
                return Err(format!("it sends a message of {length} bytes"));
            }
            let Some(message) = read.get(at + 4..at + 4 + length) else {
                break;
            };
            at += 4 + length;
            if self.has_greeted {
                taken.push(message.to_vec());
                continue;
            }
            let hello: Option<Hello> = serde_json::from_slice(message).ok();
            match hello {
                Some(hello) if hello.pushy == VERSION => self.has_greeted = true,
                _ => return Err("it is of another version".to_owned()),
            }
        }
        read.drain(..at);
        Ok(taken)
    }
}
