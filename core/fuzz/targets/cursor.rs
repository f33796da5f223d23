//! Cursors: any text is read or refused, and what was read is written so that it is the same place.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pushy_core::log::cursor::Cursor;

fuzz_target!(|text: &str| {
    let Ok(cursor) = text.parse::<Cursor>() else {
        return;
    };
    assert!(cursor >= Cursor::START);
    assert_eq!(cursor.to_string().parse::<Cursor>().as_ref(), Ok(&cursor));
});
