//! Channel identifiers, `U&"…"` and UESCAPE included: any bytes are read or refused, and a name that was read is written so that
//! it is read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pushy_core::channel::{hash, is_plain, longest_operator, quoted, Form, Identifier, Server};

fuzz_target!(|input: (bool, Vec<u8>)| {
    let (standard_conforming_strings, text) = input;
    let server = Server {
        standard_conforming_strings,
        encode: &|char| char.to_string().into_bytes(),
    };
    assert!(longest_operator(&text) <= text.len());
    let Some(identifier) = Identifier::read(&text, &server) else {
        return;
    };
    // An escape of four characters stands for three bytes at most.
    assert!(identifier.name.len() <= text.len());
    if identifier.form == Form::Plain {
        assert!(is_plain(&identifier.name));
    }
    let again =
        Identifier::read(&quoted(&identifier.name), &server).expect("a quoted name is read");
    assert_eq!(again.name, identifier.name);
    assert_eq!(again.form, Form::Quoted);
    assert_eq!(hash(&again.name), hash(&identifier.name));
});
