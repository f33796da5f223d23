//! What a public key of tokens is for, as the key itself says: nobody can take it for another algorithm's.

/// Why a text is no public key that tokens are checked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// No PEM with one public key.
    NoPem,
    /// There is a private key in it.
    Private,
    /// A certificate, not the key in it.
    Certificate,
    /// Of another kind than RSA, P-256 and Ed25519.
    Kind,
}

const BEGIN: &str = "-----BEGIN ";
const DASHES: &str = "-----";

/// Names of kinds of keys as DER has them, with tag and length.
const RSA: &[u8] = &[
    0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01,
];
const P_256: &[u8] = &[
    0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d,
    0x03, 0x01, 0x07,
];
const ED25519: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];

/// The one algorithm of RS256, ES256 and EdDSA that a public key in PEM is for.
pub fn algorithm(pem: &str) -> Result<&'static str, Flaw> {
    let text = pem.trim();
    let (label, rest) = text
        .strip_prefix(BEGIN)
        .and_then(|rest| rest.split_once(DASHES))
        .ok_or(Flaw::NoPem)?;
    if text.contains("PRIVATE KEY") {
        return Err(Flaw::Private);
    }
    match label {
        "PUBLIC KEY" => {}
        "CERTIFICATE" => return Err(Flaw::Certificate),
        _ => return Err(Flaw::NoPem),
    }
    let (body, after) = rest.split_once("-----END ").ok_or(Flaw::NoPem)?;
    if after != "PUBLIC KEY-----" {
        return Err(Flaw::NoPem);
    }
    let der = base64(body).ok_or(Flaw::NoPem)?;
    // SEQUENCE { SEQUENCE { name of the kind, … }, BIT STRING }
    let inside = content(&der, 0x30).ok_or(Flaw::NoPem)?;
    let kind = content(inside, 0x30).ok_or(Flaw::NoPem)?;
    let is = |name: &[u8]| kind.starts_with(name);
    if is(RSA) {
        Ok("RS256")
    } else if is(P_256) {
        Ok("ES256")
    } else if is(ED25519) {
        Ok("EdDSA")
    } else {
        Err(Flaw::Kind)
    }
}

/// What is in the first element of DER, which has this tag.
fn content(der: &[u8], tag: u8) -> Option<&[u8]> {
    let (first, rest) = der.split_first()?;
    let (length, rest) = rest.split_first()?;
    if *first != tag {
        return None;
    }
    if *length < 0x80 {
        return rest.get(..usize::from(*length));
    }
    let digits = usize::from(*length & 0x7f);
    let (digits, rest) = (
        rest.get(..digits).filter(|_| digits <= 3)?,
        rest.get(digits..)?,
    );
    let length = digits
        .iter()
        .fold(0usize, |length, digit| length << 8 | usize::from(*digit));
    rest.get(..length)
}

fn base64(text: &str) -> Option<Vec<u8>> {
    let mut bits: u32 = 0;
    let mut count = 0;
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let written = text.bytes().filter(|byte| !byte.is_ascii_whitespace());
    for byte in written {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => continue,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
    const EC: &str = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEEVs/o5+uQbTjL3chynL4wXgUg2R9\nq9UU8I5mEovUf86QZ7kOBIjJwqnzD1omageEHWwHdBO6B+dFabmdT9POxg==\n-----END PUBLIC KEY-----";

    #[test]
    fn each_kind_is_for_one_algorithm() {
        assert_eq!(algorithm(ED), Ok("EdDSA"));
        assert_eq!(algorithm(EC), Ok("ES256"));
        let rsa = include_str!("../../gateway/tests/gateway/rsa.pub.pem");
        assert_eq!(algorithm(rsa), Ok("RS256"));
        let private = include_str!("../../gateway/tests/gateway/rsa.pem");
        assert_eq!(algorithm(private), Err(Flaw::Private));
    }

    #[test]
    fn what_is_none_is_refused() {
        for (text, flaw) in [
            ("", Flaw::NoPem),
            ("a secret", Flaw::NoPem),
            ("-----BEGIN PUBLIC KEY-----", Flaw::NoPem),
            (
                "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----",
                Flaw::NoPem,
            ),
            (
                "-----BEGIN PUBLIC KEY-----\n*\n-----END PUBLIC KEY-----",
                Flaw::NoPem,
            ),
            (
                "-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----",
                Flaw::Certificate,
            ),
            (
                "-----BEGIN RSA PUBLIC KEY-----\nAA\n-----END RSA PUBLIC KEY-----",
                Flaw::NoPem,
            ),
            (
                "-----BEGIN EC PRIVATE KEY-----\nAA\n-----END EC PRIVATE KEY-----",
                Flaw::Private,
            ),
        ] {
            assert_eq!(algorithm(text), Err(flaw), "{text}");
        }
        // The curve P-384.
        let other = EC.replace(
            "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE",
            "MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAE",
        );
        assert_ne!(algorithm(&other).ok(), Some("ES256"));
        // Every cut of a key is refused, or has its kind still.
        for cut in 0..ED.len() {
            let _ = algorithm(&ED[..cut]);
        }
    }
}
