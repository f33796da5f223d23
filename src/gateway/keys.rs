//! gateway_key_register, gateway_key_drop, and the keys as the gateway reads them.

use pushy_core::public_key::{self, Flaw};
use serde_json::Value;

use crate::errors::{quote_literal, Error, Result, SqlState};
use crate::params;
use crate::pg::function::{Answer, Call};
use crate::pg::spi::{self, Plan};
use crate::pg::{identifier, identity, random, statement_text, transaction, BuiltinOid, Oid};
use crate::queue::gateway_event::{self, GatewayEvent};
use crate::{row, sql_function};

use BuiltinOid::{BOOLOID, OIDOID, TEXTOID};

/// Bytes of a secret, at least (RFC 7518, 3.2).
const SHORTEST_SECRET: usize = 32;
/// Bytes of a document, and of anything else that is said of a key.
const LONGEST_DOCUMENT: usize = 64 * 1024;
const LONGEST: usize = 1024;

sql_function!(pushy_gateway_key_register_v1, |call| register(call));
sql_function!(pushy_gateway_key_drop_v1, |call| {
    transaction::require_writable(c"pushy.gateway_key_drop()");
    let name = call.text("name", 0)?;
    let dropped = identity::as_owner(|| Ok(spi::run(&DROP, params![name.as_str()]) > 0))?;
    if dropped {
        gateway_event::publish(&GatewayEvent::Keys)?;
    }
    Result::Ok(dropped)
});

static DROP: Plan = Plan::new(
    "DELETE FROM pushy_internal.gateway_key k WHERE k.name OPERATOR(pg_catalog.=) $1",
    &[TEXTOID],
);

// $10: keeps the secret that is there.
static REGISTER: Plan = Plan::new(
    "INSERT INTO pushy_internal.gateway_key AS k (name, algorithm, material, kid, issuer, audience, role_claim, role) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
     ON CONFLICT (name) DO UPDATE SET algorithm = excluded.algorithm, \
       material = CASE WHEN $9 AND k.algorithm OPERATOR(pg_catalog.=) 'HS256' THEN k.material ELSE excluded.material END, \
       kid = excluded.kid, issuer = excluded.issuer, audience = excluded.audience, role_claim = excluded.role_claim, role = excluded.role, \
       registered_at = pg_catalog.clock_timestamp() \
     RETURNING k.material OPERATOR(pg_catalog.=) $3",
    &[
        TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, OIDOID, BOOLOID,
    ],
);

fn register(call: Call) -> Result<Option<String>> {
    statement_text::hide(c"SELECT pushy.gateway_key_register(...)");
    transaction::require_writable(c"pushy.gateway_key_register()");
    let name = call.text("name", 0)?;
    identifier::require_name("name", &name)?;
    let given = Given::read(call)?;
    let kid = short(call, 4, "kid")?;
    let issuer = short(call, 5, "issuer")?;
    let audience = short(call, 6, "audience")?;
    let role_claim = short(call, 7, "role_claim")?;
    let role = role(call)?;
    require_role(role_claim.as_deref(), role)?;
    let (algorithm, material, is_made) = given.checked()?;
    let is_this = identity::as_owner(|| {
        let written = params![
            name.as_str(),
            algorithm,
            material.as_str(),
            kid.as_deref(),
            issuer.as_deref(),
            audience.as_deref(),
            role_claim.as_deref(),
            role,
            is_made
        ];
        Ok(spi::connect(|spi| {
            spi.run(&REGISTER, written).row(0).bool(1)
        }))
    })?;
    gateway_event::publish(&GatewayEvent::Keys)?;
    Ok((is_made && is_this).then_some(material))
}

fn short(call: Call, index: usize, argument: &str) -> Result<Option<String>> {
    let given = call.opt_text(index)?;
    match given {
        Some(given) if given.is_empty() || given.len() > LONGEST => Err(Error::out_of_range(
            argument,
            format!("a text of {} bytes", given.len()),
            "1 to 1024 bytes; leave it out for none",
        )),
        given => Ok(given),
    }
}

fn role(call: Call) -> Result<Option<Oid>> {
    let Some(name) = call.opt_text(8)? else {
        return Ok(None);
    };
    let role = identity::find_role(&name).ok_or_else(|| Error::no_such_role(&name))?;
    let caller = identity::current_user();
    if !identity::has_rights_of(caller, role) {
        return Err(Error::new(
            SqlState::INSUFFICIENT_PRIVILEGE,
            format!(
                "must be a member of role {} to register a key for it",
                identifier::quoted(&name)
            ),
        )
        .hint(format!(
            "GRANT {} TO {}",
            identifier::quoted(&name),
            identifier::quoted(&identity::role_name(caller))
        )));
    }
    Ok(Some(role))
}

/// Whoever signs tokens says by a claim which role they are for: any one.
fn require_role(role_claim: Option<&str>, role: Option<Oid>) -> Result<()> {
    if role_claim.is_some() && !identity::is_superuser(identity::current_user()) {
        return Err(Error::new(
            SqlState::INSUFFICIENT_PRIVILEGE,
            "must be superuser to register a key whose tokens name their role",
        )
        .hint("Pass role instead of role_claim."));
    }
    if role_claim.is_none() && role.is_none() {
        return Err(Error::new(
            SqlState::INVALID_PARAMETER_VALUE,
            "a key needs role or role_claim",
        )
        .hint("role => 'web' is the role of its tokens; role_claim => 'role' is the claim in which each token names its own."));
    }
    Ok(())
}

/// At most one of them.
enum Given {
    Secret(String),
    PublicKey(String),
    Jwks(String),
    Nothing,
}

impl Given {
    fn read(call: Call) -> Result<Self> {
        let all = [call.opt_text(1)?, call.opt_text(2)?, call.opt_text(3)?];
        match all {
            [None, None, None] => Ok(Self::Nothing),
            [Some(secret), None, None] => Ok(Self::Secret(secret)),
            [None, Some(key), None] => Ok(Self::PublicKey(key)),
            [None, None, Some(document)] => Ok(Self::Jwks(document)),
            _ => Err(Error::new(
                SqlState::INVALID_PARAMETER_VALUE,
                "a key is one of secret, public_key and jwks",
            )
            .hint("Register several keys, each by a name of its own.")),
        }
    }

    /// The algorithm, the text that is kept, and whether that was made here. What somebody gave is in no message.
    fn checked(self) -> Result<(&'static str, String, bool)> {
        match self {
            Self::Nothing => {
                let mut made = String::new();
                for _ in 0..2 {
                    for byte in random::secret_uuid()?.0 {
                        made.push_str(&format!("{byte:02x}"));
                    }
                }
                Ok(("HS256", made, true))
            }
            Self::Secret(secret) => check_secret(&secret).map(|()| ("HS256", secret, false)),
            Self::PublicKey(key) if key.len() > LONGEST_DOCUMENT => {
                Err(too_long("public_key", key.len()))
            }
            Self::PublicKey(key) => match public_key::algorithm(&key) {
                Ok(algorithm) => Ok((algorithm, key, false)),
                Err(flaw) => Err(no_public_key(flaw)),
            },
            Self::Jwks(document) => check_jwks(&document).map(|()| ("JWKS", document, false)),
        }
    }
}

fn too_long(argument: &str, length: usize) -> Error {
    Error::out_of_range(
        argument,
        format!("a text of {length} bytes"),
        &format!("{LONGEST_DOCUMENT} bytes at most"),
    )
}

fn check_secret(secret: &str) -> Result<()> {
    let invalid = |what: &str, hint: &str| {
        Err(Error::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("invalid value for \"secret\": {what}"),
        )
        .hint(hint))
    };
    if secret.contains("-----BEGIN") {
        return invalid("a key in PEM, which is no secret", "Pass it as public_key.");
    }
    if secret.len() < SHORTEST_SECRET {
        return invalid(
            "a secret of less than 32 bytes",
            "Leave it out, and the server makes one that nobody can guess.",
        );
    }
    if secret.len() > LONGEST {
        return Err(too_long("secret", secret.len()));
    }
    Ok(())
}

fn no_public_key(flaw: Flaw) -> Error {
    let (what, hint) = match flaw {
        Flaw::NoPem => (
            "no public key in PEM",
            "It begins with -----BEGIN PUBLIC KEY-----, as openssl pkey -pubout writes it.",
        ),
        Flaw::Private => (
            "a private key, which the server must not have",
            "Pass what openssl pkey -pubout makes of it.",
        ),
        Flaw::Certificate => (
            "a certificate",
            "Pass the key in it, as openssl x509 -pubkey -noout writes it.",
        ),
        Flaw::Kind => (
            "a key of another kind than RSA, P-256 and Ed25519",
            "Tokens are checked by HS256, RS256, ES256 and EdDSA, and nothing else.",
        ),
    };
    Error::new(
        SqlState::INVALID_PARAMETER_VALUE,
        format!("invalid value for \"public_key\": {what}"),
    )
    .hint(hint)
}

fn check_jwks(document: &str) -> Result<()> {
    let invalid = |what: &str, hint: &str| {
        Error::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("invalid value for \"jwks\": {what}"),
        )
        .hint(hint)
    };
    if document.len() > LONGEST_DOCUMENT {
        return Err(too_long("jwks", document.len()));
    }
    let read: Option<Value> = serde_json::from_str(document).ok();
    let keys = read.as_ref().and_then(|read| read.get("keys")?.as_array());
    let keys = keys.ok_or_else(|| {
        invalid(
            "no JWKS document",
            "It is JSON with the keys in its member keys, as the issuer publishes it.",
        )
    })?;
    let is = |key: &Value, member: &str, value: &str| {
        key.get(member).and_then(Value::as_str) == Some(value)
    };
    for key in keys {
        if is(key, "kty", "oct") || key.get("d").is_some() {
            return Err(invalid(
                "a document with a secret or a private key in it",
                "A JWKS document is public: register a secret by itself.",
            ));
        }
    }
    let is_usable = |key: &Value| {
        is(key, "kty", "RSA")
            || is(key, "kty", "EC") && is(key, "crv", "P-256")
            || is(key, "kty", "OKP") && is(key, "crv", "Ed25519")
    };
    if !keys.iter().any(is_usable) {
        return Err(invalid(
            "a document without a key for RS256, ES256 or EdDSA",
            "Tokens are checked by HS256, RS256, ES256 and EdDSA, and nothing else.",
        ));
    }
    Ok(())
}

static ALL: Plan = Plan::new(
    "SELECT k.name, k.algorithm, k.material, k.kid, k.issuer, k.audience, k.role_claim, r.rolname::pg_catalog.text \
       FROM pushy_internal.gateway_key k LEFT JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) k.role \
      WHERE r.oid IS NOT NULL OR k.role_claim IS NOT NULL ORDER BY k.name",
    &[],
);

sql_function!(pushy_gateway_keys_v1, |call| keys(call));

/// Those whose role is gone, and that have no claim, are left out.
fn keys(call: Call) -> Result<Answer> {
    gateway_event::note_gateway(c"pushy_internal.gateway_keys()");
    call.answer_rows(|rows| {
        identity::as_owner(|| {
            spi::connect(|spi| {
                for row in spi.run(&ALL, &[]).rows() {
                    rows.put(row![
                        row.text(1)?,
                        row.text(2)?,
                        row.text(3)?,
                        row.opt_text(4)?,
                        row.opt_text(5)?,
                        row.opt_text(6)?,
                        row.opt_text(7)?,
                        row.opt_text(8)?,
                    ]);
                }
                Ok(())
            })
        })
    })
}

/// For messages: how a key is registered.
pub(super) fn example() -> String {
    format!(
        "SELECT pushy.gateway_key_register({}, role => {})",
        quote_literal("app"),
        quote_literal("web")
    )
}
