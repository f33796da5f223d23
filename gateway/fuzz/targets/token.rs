//! Tokens: no text that was not signed lets anybody in.
#![no_main]

use std::sync::OnceLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use pushy_gateway::source::KeyText;
use pushy_gateway::who::token::Keys;

static KEYS: OnceLock<Keys> = OnceLock::new();

fn keys() -> Keys {
    let key = |algorithm: &str, material: &str| KeyText {
        name: algorithm.to_owned(),
        algorithm: algorithm.to_owned(),
        material: material.to_owned(),
        kid: None,
        issuer: None,
        audience: None,
        role_claim: Some("role".to_owned()),
        role: None,
    };
    Keys::read(&[
        key("HS256", "a secret of thirty-two bytes, or more"),
        key("RS256", include_str!("../../tests/gateway/rsa.pub.pem")),
    ])
}

fuzz_target!(|text: &str| {
    let keys = KEYS.get_or_init(keys);
    let answer = keys.verify(text, Duration::from_secs(5), Duration::from_secs(60), 1_800_000_000);
    assert!(answer.is_err());
    // And as a document of keys.
    let document = KeyText {
        name: "document".to_owned(),
        algorithm: "JWKS".to_owned(),
        material: text.to_owned(),
        kid: None,
        issuer: None,
        audience: None,
        role_claim: None,
        role: Some("web".to_owned()),
    };
    let _ = Keys::read(&[document]);
});
