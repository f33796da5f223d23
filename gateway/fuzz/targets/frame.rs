//! Frames of the worker: bytes are messages or an error, and a chunk of the log is in them or not.
#![no_main]

use futures_util::FutureExt as _;
use libfuzzer_sys::fuzz_target;
use pushy_gateway::source::framed::{read_frame, ChunkText};

fuzz_target!(|bytes: &[u8]| {
    let mut left = bytes;
    while let Some(Ok(frame)) = read_frame(&mut left).now_or_never() {
        assert!(frame.len() <= bytes.len());
        let Ok(chunk) = serde_json::from_slice::<ChunkText>(&frame) else {
            continue;
        };
        if let Ok(chunk) = chunk.read() {
            for event in &chunk.events {
                let _ = format!("{event:?}");
            }
        }
    }
});
