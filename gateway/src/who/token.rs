//! JSON Web Tokens: HS256, RS256, ES256, EdDSA, each with a key that is for that algorithm and no other.

use std::collections::HashMap;
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{decode, decode_header, Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::Value;

use super::Principal;
use crate::source::KeyText;

/// Keys that are tried for one token, at most: each costs a signature.
const MOST_TRIED: usize = 8;
/// Bytes of a secret, at least (RFC 7518, 3.2).
const SHORTEST_SECRET: usize = 32;
/// Bytes of a subject and of a role, at most.
const LONGEST_NAME: usize = 256;

struct Key {
    name: Arc<str>,
    algorithm: Algorithm,
    decoding: DecodingKey,
    kid: Option<String>,
    issuer: Option<String>,
    audience: Option<String>,
    role_claim: Option<String>,
    role: Option<String>,
}

#[derive(Default)]
pub struct Keys {
    keys: Vec<Key>,
    pub unusable: Vec<(String, String)>,
}

/// Why a token is none; a word for counters, which tells a stranger nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    Malformed,
    /// None of the four, or not that of any key.
    Algorithm,
    /// No key has its `kid`.
    UnknownKey,
    Signature,
    Expired,
    NotYetValid,
    Audience,
    Issuer,
    /// A claim is missing, or is not what it should be.
    Claims,
}

impl Rejected {
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "token_malformed",
            Self::Algorithm => "token_algorithm",
            Self::UnknownKey => "token_unknown_key",
            Self::Signature => "token_signature",
            Self::Expired => "token_expired",
            Self::NotYetValid => "token_not_yet_valid",
            Self::Audience => "token_audience",
            Self::Issuer => "token_issuer",
            Self::Claims => "token_claims",
        }
    }
}

fn algorithm(name: &str) -> Option<Algorithm> {
    match name {
        "HS256" => Some(Algorithm::HS256),
        "RS256" => Some(Algorithm::RS256),
        "ES256" => Some(Algorithm::ES256),
        "EdDSA" => Some(Algorithm::EdDSA),
        _ => None,
    }
}

/// A key of a document: for what its kind is for, whatever a token says.
fn of_jwk(jwk: &Jwk) -> Option<Algorithm> {
    if matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption)) {
        return None;
    }
    let by_kind = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => {
            Algorithm::ES256
        }
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
            Algorithm::EdDSA
        }
        // A document is public: there is no secret in it.
        _ => return None,
    };
    let of = |algorithm| match algorithm {
        Algorithm::RS256 => KeyAlgorithm::RS256,
        Algorithm::ES256 => KeyAlgorithm::ES256,
        _ => KeyAlgorithm::EdDSA,
    };
    let is_for_it = jwk
        .common
        .key_algorithm
        .is_none_or(|said| said == of(by_kind));
    is_for_it.then_some(by_kind)
}

impl Keys {
    pub fn read(texts: &[KeyText]) -> Self {
        let mut keys = Self::default();
        for text in texts {
            match keys.add(text) {
                Ok(()) => {}
                Err(why) => keys.unusable.push((text.name.clone(), why)),
            }
        }
        keys
    }

    fn add(&mut self, text: &KeyText) -> Result<(), String> {
        // Another key of the same name is another key.
        let mut hasher = std::hash::DefaultHasher::new();
        (
            &text.algorithm,
            &text.material,
            &text.issuer,
            &text.audience,
        )
            .hash(&mut hasher);
        (&text.role_claim, &text.role).hash(&mut hasher);
        let name: Arc<str> = format!("{}#{:016x}", text.name, hasher.finish()).into();
        let key = |algorithm, decoding, kid| Key {
            name: name.clone(),
            algorithm,
            decoding,
            kid,
            issuer: text.issuer.clone(),
            audience: text.audience.clone(),
            role_claim: text.role_claim.clone(),
            role: text.role.clone(),
        };
        if text.algorithm == "JWKS" {
            let read: Document = serde_json::from_str(&text.material)
                .map_err(|error| format!("is no JWKS document: {error}"))?;
            let before = self.keys.len();
            // A key of a kind that is not known here is for somebody else, and says nothing of those beside it.
            let known = read.keys.into_iter();
            for jwk in known.filter_map(|one| serde_json::from_value::<Jwk>(one).ok()) {
                let Some(algorithm) = of_jwk(&jwk) else {
                    continue;
                };
                if let Ok(decoding) = DecodingKey::from_jwk(&jwk) {
                    let named = jwk.common.key_id.clone();
                    self.keys.push(key(algorithm, decoding, named));
                }
            }
            return if self.keys.len() > before {
                Ok(())
            } else {
                Err("has no key of RS256, ES256 or EdDSA".to_owned())
            };
        }
        let algorithm = algorithm(&text.algorithm).ok_or_else(|| {
            format!(
                "\"{}\" is none of HS256, RS256, ES256, EdDSA, JWKS",
                text.algorithm
            )
        })?;
        let material = text.material.as_bytes();
        let decoding = match algorithm {
            Algorithm::HS256 if text.material.contains("-----BEGIN") => {
                return Err("is a key in PEM, which is no secret".to_owned())
            }
            Algorithm::HS256 if material.len() < SHORTEST_SECRET => {
                return Err(format!("is a secret of less than {SHORTEST_SECRET} bytes"))
            }
            Algorithm::HS256 => Ok(DecodingKey::from_secret(material)),
            Algorithm::RS256 => DecodingKey::from_rsa_pem(material),
            Algorithm::ES256 => DecodingKey::from_ec_pem(material),
            _ => DecodingKey::from_ed_pem(material),
        };
        let decoding = decoding
            .map_err(|error| format!("is no public key for {}: {error}", text.algorithm))?;
        self.keys.push(key(algorithm, decoding, text.kid.clone()));
        Ok(())
    }

    pub fn has(&self, name: &str) -> bool {
        self.keys.iter().any(|key| *key.name == *name)
    }

    pub fn verify(
        &self,
        token: &str,
        leeway: Duration,
        max_age: Duration,
        now_s: i64,
    ) -> Result<Principal, Rejected> {
        let header = decode_header(token).map_err(|error| match error.kind() {
            // Another algorithm than the library knows, `none` among them, is a word it cannot read.
            ErrorKind::Json(_) => Rejected::Algorithm,
            _ => Rejected::Malformed,
        })?;
        // Extensions that must be understood (RFC 7515, 4.1.11): none are.
        if header.crit.is_some() {
            return Err(Rejected::Malformed);
        }
        let of_algorithm = || self.keys.iter().filter(|key| key.algorithm == header.alg);
        if of_algorithm().next().is_none() {
            return Err(Rejected::Algorithm);
        }
        // Who names a key means that one; a key that was registered without a name is any.
        let is_meant = |key: &&Key| match (&header.kid, &key.kid) {
            (Some(named), Some(own)) => named == own,
            _ => true,
        };
        let mut rejected = Rejected::UnknownKey;
        for key in of_algorithm().filter(is_meant).take(MOST_TRIED) {
            match key.verify(token, leeway, max_age, now_s) {
                Ok(principal) => return Ok(principal),
                // Of several keys, the one that has signed it says why.
                Err(Rejected::Signature) if rejected != Rejected::UnknownKey => {}
                Err(why) => rejected = why,
            }
        }
        Err(rejected)
    }
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Claims {
    exp: f64,
    sub: Option<Value>,
    #[serde(flatten)]
    rest: HashMap<String, Value>,
}

fn name(value: Option<&Value>) -> Result<Option<String>, Rejected> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(name))
            if !name.is_empty() && name.len() <= LONGEST_NAME && !name.contains('\0') =>
        {
            Ok(Some(name.clone()))
        }
        Some(_) => Err(Rejected::Claims),
    }
}

impl Key {
    fn validation(&self, leeway: Duration) -> Validation {
        let mut validation = Validation::new(self.algorithm);
        let mut required = vec!["exp"];
        validation.leeway = leeway.as_secs();
        validation.validate_nbf = true;
        // A token for somebody is not for a key that names nobody.
        validation.validate_aud = true;
        if let Some(audience) = &self.audience {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        validation
    }

    fn verify(
        &self,
        token: &str,
        leeway: Duration,
        max_age: Duration,
        now_s: i64,
    ) -> Result<Principal, Rejected> {
        let data =
            decode::<Claims>(token, &self.decoding, &self.validation(leeway)).map_err(|error| {
                match error.kind() {
                    ErrorKind::InvalidSignature => Rejected::Signature,
                    ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => {
                        Rejected::Algorithm
                    }
                    ErrorKind::ExpiredSignature => Rejected::Expired,
                    ErrorKind::ImmatureSignature => Rejected::NotYetValid,
                    ErrorKind::InvalidAudience => Rejected::Audience,
                    ErrorKind::InvalidIssuer => Rejected::Issuer,
                    ErrorKind::MissingRequiredClaim(claim) if claim == "aud" => Rejected::Audience,
                    ErrorKind::MissingRequiredClaim(claim) if claim == "iss" => Rejected::Issuer,
                    ErrorKind::MissingRequiredClaim(_)
                    | ErrorKind::InvalidClaimFormat(_)
                    | ErrorKind::Json(_) => Rejected::Claims,
                    _ => Rejected::Malformed,
                }
            })?;
        let Claims { exp, sub, rest } = data.claims;
        let said = match &self.role_claim {
            Some(claim) if claim == "sub" => name(sub.as_ref())?,
            Some(claim) => name(rest.get(claim))?,
            None => None,
        };
        let role = said.or_else(|| self.role.clone()).ok_or(Rejected::Claims)?;
        let longest = now_s.saturating_add(i64::try_from(max_age.as_secs()).unwrap_or(i64::MAX));
        // As long as it is taken for good, or whoever comes in that time is sent away at once. A cast of a float saturates.
        let leeway_s = i64::try_from(leeway.as_secs()).unwrap_or(i64::MAX);
        let until_s = (exp as i64).saturating_add(leeway_s).min(longest);
        Ok(Principal {
            role,
            subject: name(sub.as_ref())?,
            until_s,
            scope: None,
            key: Some(self.name.clone()),
        })
    }
}
