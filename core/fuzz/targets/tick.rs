//! What a tick's row holds: any bytes are read or refused, and what was read is written so that it is read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pushy_core::log::{runs, seen::Seen};

fuzz_target!(|bytes: &[u8]| {
    if let Some(found) = runs::decode(bytes) {
        assert_eq!(runs::decode(&runs::encode(&found)), Some(found));
    }
    if let Some(seen) = Seen::decode(bytes) {
        let again = Seen::decode(&seen.encode()).expect("what was written is read");
        assert_eq!(again.encode(), seen.encode());
        for xid in bytes.iter().map(|byte| u64::from(*byte)) {
            assert_eq!(again.is_over(xid), seen.is_over(xid));
        }
    }
});
