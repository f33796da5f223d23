//! Tokens that are none.

use std::time::Duration;

use jsonwebtoken::{encode, Algorithm, EncodingKey, Header};
use pushy_gateway::clock;
use pushy_gateway::source::KeyText;
use pushy_gateway::who::token::{Keys, Rejected};
use pushy_gateway::who::Principal;
use serde_json::{json, Value};

use crate::stage::{hs256, signed, Stage, SECRET};

const LEEWAY: Duration = Duration::ZERO;
const MAX_AGE: Duration = Duration::from_secs(3_600);

/// A key pair, in PEM, and the public half as a document's key.
struct Pair {
    algorithm: Algorithm,
    name: &'static str,
    private: String,
    public: String,
}

fn ec() -> Pair {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    Pair {
        algorithm: Algorithm::ES256,
        name: "ES256",
        private: pair.serialize_pem(),
        public: pair.public_key_pem(),
    }
}

fn ed() -> Pair {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    Pair {
        algorithm: Algorithm::EdDSA,
        name: "EdDSA",
        // The library of tokens reads version 1 of the format, the one that makes keys writes 2: the seed is the same.
        private: ed_v1(&pair.serialize_der()),
        public: pair.public_key_pem(),
    }
}

fn base64(bytes: &[u8], url: bool) -> String {
    let digits: Vec<char> = ('A'..='Z')
        .chain('a'..='z')
        .chain('0'..='9')
        .chain(if url { ['-', '_'] } else { ['+', '/'] })
        .collect();
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = three
            .iter()
            .fold(0u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - three.len()));
        for n in 0..=three.len() {
            text.push(digits[(bits >> (18 - 6 * n) & 63) as usize]);
        }
        if !url {
            text.push_str(&"=".repeat(3 - three.len()));
        }
    }
    text
}

fn ed_v1(der: &[u8]) -> String {
    let seed = der
        .windows(2)
        .position(|pair| pair == [0x04, 0x20])
        .unwrap()
        + 2;
    let mut v1 = vec![
        0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04,
        0x20,
    ];
    v1.extend_from_slice(&der[seed..seed + 32]);
    format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        base64(&v1, false)
    )
}

fn rsa() -> Pair {
    Pair {
        algorithm: Algorithm::RS256,
        name: "RS256",
        private: include_str!("rsa.pem").to_owned(),
        public: include_str!("rsa.pub.pem").to_owned(),
    }
}

impl Pair {
    fn key(&self) -> KeyText {
        KeyText {
            algorithm: self.name.to_owned(),
            material: self.public.clone(),
            ..hs256("pair", "")
        }
    }

    fn encoding(&self) -> EncodingKey {
        let pem = self.private.as_bytes();
        match self.algorithm {
            Algorithm::RS256 => EncodingKey::from_rsa_pem(pem),
            Algorithm::ES256 => EncodingKey::from_ec_pem(pem),
            _ => EncodingKey::from_ed_pem(pem),
        }
        .unwrap()
    }

    fn sign(&self, header: &Header, claims: &Value) -> String {
        encode(header, claims, &self.encoding()).unwrap()
    }
}

fn claims() -> Value {
    json!({"sub": "ann", "role": "app", "exp": clock::now_s() + 60})
}

fn with(name: &str, value: impl Into<Value>) -> Value {
    let mut claims = claims();
    claims[name] = value.into();
    claims
}

fn verify(keys: &[KeyText], token: &str) -> Result<Principal, Rejected> {
    let keys = Keys::read(keys);
    assert_eq!(keys.unusable, []);
    keys.verify(token, LEEWAY, MAX_AGE, clock::now_s())
}

#[test]
fn each_of_the_four_algorithms_lets_in() {
    for pair in [rsa(), ec(), ed()] {
        let who = verify(
            &[pair.key()],
            &pair.sign(&Header::new(pair.algorithm), &claims()),
        )
        .unwrap();
        assert_eq!(
            (who.role.as_str(), who.subject.as_deref()),
            ("app", Some("ann"))
        );
    }
    assert!(verify(&[hs256("main", SECRET)], &signed(&claims())).is_ok());
}

#[test]
fn a_token_without_a_signature_is_none() {
    let body = base64(claims().to_string().as_bytes(), true);
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        let header = base64(
            json!({"alg": alg, "typ": "JWT"}).to_string().as_bytes(),
            true,
        );
        for signature in ["", "AAAA"] {
            let rejected = verify(
                &[hs256("main", SECRET)],
                &format!("{header}.{body}.{signature}"),
            );
            assert_eq!(rejected, Err(Rejected::Algorithm), "{alg}");
        }
    }
}

#[test]
fn a_public_key_is_no_secret() {
    for pair in [rsa(), ec(), ed()] {
        for material in [pair.public.clone(), pair.public.trim().to_owned()] {
            let forged = encode(
                &Header::new(Algorithm::HS256),
                &claims(),
                &EncodingKey::from_secret(material.as_bytes()),
            )
            .unwrap();
            assert_eq!(verify(&[pair.key()], &forged), Err(Rejected::Algorithm));
            // A key for HS256 beside it is not the one that was used.
            assert_eq!(
                verify(&[pair.key(), hs256("main", SECRET)], &forged),
                Err(Rejected::Signature)
            );
        }
        let as_secret = Keys::read(&[hs256("wrong", &pair.public)]);
        assert_eq!(as_secret.unusable.len(), 1);
    }
}

#[test]
fn other_algorithms_of_the_same_key_are_refused() {
    for algorithm in [Algorithm::HS384, Algorithm::HS512] {
        let token = encode(
            &Header::new(algorithm),
            &claims(),
            &EncodingKey::from_secret(SECRET.as_bytes()),
        )
        .unwrap();
        assert_eq!(
            verify(&[hs256("main", SECRET)], &token),
            Err(Rejected::Algorithm)
        );
    }
    let rsa = rsa();
    for algorithm in [Algorithm::RS384, Algorithm::PS256] {
        assert_eq!(
            verify(&[rsa.key()], &rsa.sign(&Header::new(algorithm), &claims())),
            Err(Rejected::Algorithm)
        );
    }
    for algorithm in ["HS512", "none", "RS512", "hs256", ""] {
        let key = KeyText {
            algorithm: algorithm.to_owned(),
            ..hs256("odd", SECRET)
        };
        assert_eq!(Keys::read(&[key]).unusable.len(), 1, "{algorithm}");
    }
}

#[test]
fn times_are_kept() {
    let now = clock::now_s();
    for (claims, rejected) in [
        (with("exp", now - 10), Rejected::Expired),
        (with("nbf", now + 60), Rejected::NotYetValid),
        (with("exp", "soon"), Rejected::Claims),
        (with("exp", Value::Null), Rejected::Claims),
        (with("nbf", "now"), Rejected::Claims),
        (json!({"sub": "ann", "role": "app"}), Rejected::Claims),
    ] {
        assert_eq!(
            verify(&[hs256("main", SECRET)], &signed(&claims)),
            Err(rejected),
            "{claims}"
        );
    }
    let who = verify(
        &[hs256("main", SECRET)],
        &signed(&with("exp", now + 1_000_000_000)),
    )
    .unwrap();
    assert!(who.until_s <= clock::now_s() + 3_600);
    let endless = verify(&[hs256("main", SECRET)], &signed(&with("exp", 1e300)));
    assert!(endless.is_err() || endless.is_ok_and(|who| who.until_s <= clock::now_s() + 3_600));
}

#[test]
fn a_token_for_somebody_else_is_none() {
    let key = KeyText {
        audience: Some("pushy".to_owned()),
        issuer: Some("https://id.example".to_owned()),
        ..hs256("main", SECRET)
    };
    let right = |aud: Value, iss: &str| {
        let mut claims = claims();
        claims["aud"] = aud;
        claims["iss"] = iss.into();
        signed(&claims)
    };
    let iss = "https://id.example";
    assert!(verify(std::slice::from_ref(&key), &right(json!("pushy"), iss)).is_ok());
    assert!(verify(
        std::slice::from_ref(&key),
        &right(json!(["x", "pushy"]), iss)
    )
    .is_ok());
    assert_eq!(
        verify(std::slice::from_ref(&key), &right(json!("other"), iss)),
        Err(Rejected::Audience)
    );
    assert_eq!(
        verify(std::slice::from_ref(&key), &right(json!([]), iss)),
        Err(Rejected::Audience)
    );
    assert_eq!(
        verify(std::slice::from_ref(&key), &right(Value::Null, iss)),
        Err(Rejected::Audience)
    );
    assert_eq!(
        verify(
            std::slice::from_ref(&key),
            &right(json!("pushy"), "https://evil.example")
        ),
        Err(Rejected::Issuer)
    );
    let mut nobody = claims();
    nobody["aud"] = "pushy".into();
    assert_eq!(verify(&[key], &signed(&nobody)), Err(Rejected::Issuer));
    // A key that was registered for no audience lets in no token for one.
    assert_eq!(
        verify(&[hs256("main", SECRET)], &signed(&nobody)),
        Err(Rejected::Audience)
    );
}

#[test]
fn the_name_of_a_key_cannot_be_borrowed() {
    let other = "another secret of thirty-two bytes and more";
    let named = |kid: &str, secret: &str| KeyText {
        kid: Some(kid.to_owned()),
        ..hs256(kid, secret)
    };
    let header = |kid: &str| Header {
        kid: Some(kid.to_owned()),
        ..Header::new(Algorithm::HS256)
    };
    let sign = |kid: &str, secret: &str| {
        encode(
            &header(kid),
            &claims(),
            &EncodingKey::from_secret(secret.as_bytes()),
        )
        .unwrap()
    };
    let keys = [named("a", SECRET), named("b", other)];
    assert!(verify(&keys, &sign("a", SECRET)).is_ok() && verify(&keys, &sign("b", other)).is_ok());
    assert_eq!(verify(&keys, &sign("a", other)), Err(Rejected::Signature));
    assert_eq!(verify(&keys, &sign("c", SECRET)), Err(Rejected::UnknownKey));
    for kid in ["../../dev/null", "a' OR '1'='1", "\0", ""] {
        assert_eq!(verify(&keys, &sign(kid, SECRET)), Err(Rejected::UnknownKey));
    }
    // A key that the token brings along is none of ours.
    let pair = ed();
    let jwk =
        json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
    let brought = Header {
        jwk: Some(serde_json::from_value(jwk).unwrap()),
        jku: Some("https://evil.example/jwks".to_owned()),
        ..Header::new(Algorithm::EdDSA)
    };
    assert_eq!(
        verify(&[ed().key()], &pair.sign(&brought, &claims())),
        Err(Rejected::Signature)
    );
}

#[test]
fn who_it_is_must_be_said_and_be_a_name() {
    for claims in [
        with("role", Value::Null),
        with("role", 7),
        with("role", ""),
        with("role", "x".repeat(300)),
        with("sub", 7),
        with("sub", json!(["ann"])),
        with("sub", "a\0b"),
        with("sub", ""),
    ] {
        assert_eq!(
            verify(&[hs256("main", SECRET)], &signed(&claims)),
            Err(Rejected::Claims),
            "{claims}"
        );
    }
    let key = KeyText {
        role_claim: None,
        role: Some("web".to_owned()),
        ..hs256("main", SECRET)
    };
    // What a token says of a role counts only where the key says so.
    assert_eq!(verify(&[key], &signed(&claims())).unwrap().role, "web");
}

#[test]
fn what_is_no_token_is_refused() {
    let token = signed(&claims());
    let parts: Vec<&str> = token.split('.').collect();
    let (header, body, signature) = (parts[0], parts[1], parts[2]);
    let other = base64(
        json!({"sub": "bob", "role": "postgres", "exp": clock::now_s() + 60})
            .to_string()
            .as_bytes(),
        true,
    );
    for text in [
        String::new(),
        ".".repeat(2),
        "a.b.c".to_owned(),
        format!("{header}.{body}"),
        format!("{header}.{body}."),
        format!("{header}.{other}.{signature}"),
        format!("{token}.{signature}"),
        format!("{header}.{body}.{signature}A"),
        format!(" {token}"),
        "x".repeat(100_000),
    ] {
        assert!(verify(&[hs256("main", SECRET)], &text).is_err(), "{text}");
    }
    let crit = base64(
        json!({"alg": "HS256", "crit": ["exp"]})
            .to_string()
            .as_bytes(),
        true,
    );
    assert_eq!(
        verify(
            &[hs256("main", SECRET)],
            &format!("{crit}.{body}.{signature}")
        ),
        Err(Rejected::Malformed)
    );
    assert_eq!(Keys::read(&[hs256("short", "too short")]).unusable.len(), 1);
}

#[test]
fn a_document_has_keys_for_what_they_are_for() {
    let pair = ed();
    let x = |public: &str| {
        let body: String = public
            .lines()
            .filter(|line| !line.starts_with('-'))
            .collect();
        // The last 32 bytes of the structure are the key: 44 bytes in all.
        let digits = |char: char| match char {
            'A'..='Z' => char as u32 - 'A' as u32,
            'a'..='z' => char as u32 - 'a' as u32 + 26,
            '0'..='9' => char as u32 - '0' as u32 + 52,
            '+' => 62,
            _ => 63,
        };
        let bits: Vec<u8> = body
            .trim_end_matches('=')
            .chars()
            .map(|char| digits(char) as u8)
            .collect();
        let bytes: Vec<u8> = bits
            .chunks(4)
            .flat_map(|four| {
                let all = four
                    .iter()
                    .fold(0u32, |all, six| all << 6 | u32::from(*six))
                    << (6 * (4 - four.len()));
                all.to_be_bytes()[1..four.len()].to_vec()
            })
            .collect();
        base64(&bytes[bytes.len() - 32..], true)
    };
    let document = |change: &dyn Fn(&mut Value)| {
        let mut key = json!({"kty": "OKP", "crv": "Ed25519", "kid": "1", "x": x(&pair.public)});
        change(&mut key);
        KeyText {
            algorithm: "JWKS".to_owned(),
            material: json!({"keys": [key]}).to_string(),
            ..hs256("document", "")
        }
    };
    let header = Header {
        kid: Some("1".to_owned()),
        ..Header::new(Algorithm::EdDSA)
    };
    let token = pair.sign(&header, &claims());
    // Keys that nobody here knows what to do with stand beside those that are for us.
    let mut beside = document(&|_| {});
    let mut read: Value = serde_json::from_str(&beside.material).unwrap();
    let strange = [
        json!({"kty": "AKP", "alg": "ML-DSA-44", "kid": "2", "pub": "x"}),
        json!({"kty": "RSA", "n": "!", "e": "AQAB", "kid": "3"}),
        json!("nothing"),
    ];
    let keys = read["keys"].as_array_mut().unwrap();
    keys.splice(0..0, strange);
    beside.material = read.to_string();
    assert!(verify(&[beside], &token).is_ok());
    assert!(verify(&[document(&|_| {})], &token).is_ok());
    assert_eq!(
        verify(&[document(&|key| key["kid"] = "2".into())], &token),
        Err(Rejected::UnknownKey)
    );
    for change in [
        (&|key: &mut Value| key["use"] = "enc".into()) as &dyn Fn(&mut Value),
        &|key| key["alg"] = "HS256".into(),
        &|key| *key = json!({"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "kid": "1"}),
    ] {
        assert_eq!(Keys::read(&[document(change)]).unusable.len(), 1);
    }
}

#[tokio::test]
async fn a_key_that_is_gone_closes_what_it_let_in() {
    let stage = Stage::open(|_| {}).await;
    let mut socket = stage.socket("ann").await;
    socket.subscribe(1, "orders", &[]).await;
    stage.memory.set_keys(vec![
        hs256("main", SECRET),
        hs256("second", "another secret of thirty-two bytes and more"),
    ]);
    socket.hears_nothing_more().await;
    stage.memory.set_keys(vec![hs256(
        "main",
        "another secret of thirty-two bytes and more",
    )]);
    assert_eq!(socket.closed().await["closed"], 4100);
    assert_eq!(stage.get("/events?channel=orders").await.status, 401);
    assert_eq!(stage.refused("token_signature"), 1);
}
