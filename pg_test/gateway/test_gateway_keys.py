"""Keys of tokens: what is one, whose, and where its secret is not."""

import json

import psycopg
import pytest

ED = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n"
SECRET = "a secret that is long enough for HS256"
JWKS = json.dumps({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": "GbvECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE"}]})


def keys(db):
    return db.rows("SELECT name, algorithm, material, role_claim, role FROM pushy_internal.gateway_keys()")


def refused(session, statement, *params):
    with pytest.raises(psycopg.Error) as caught:
        session.execute(statement, params)
    return caught.value.sqlstate, caught.value.diag.message_primary


def test_a_key_is_a_secret_a_public_key_or_a_document(db, role):
    web = role()
    db.sql("SELECT pushy.gateway_key_register('a', secret => %s, role => %s)", SECRET, web)
    db.sql("SELECT pushy.gateway_key_register('b', public_key => %s, role_claim => 'role')", ED)
    db.sql("SELECT pushy.gateway_key_register('c', jwks => %s, role => %s)", JWKS, web)
    assert keys(db) == [("a", "HS256", SECRET, None, web), ("b", "EdDSA", ED, "role", None), ("c", "JWKS", JWKS, None, web)]
    assert db.value("SELECT pushy.gateway_key_drop('b')") and not db.value("SELECT pushy.gateway_key_drop('b')")
    assert [name for name, *_ in keys(db)] == ["a", "c"]


def test_the_server_makes_a_secret_and_tells_it_once(db, role):
    web = role()
    secret = db.value("SELECT pushy.gateway_key_register('app', role => %s)", web)
    assert len(secret) == 64 and keys(db) == [("app", "HS256", secret, None, web)]
    assert db.value("SELECT pushy.gateway_key_register('app', role => %s, issuer => 'me')", web) is None
    assert keys(db) == [("app", "HS256", secret, None, web)]
    db.sql("SELECT pushy.gateway_key_register('app', public_key => %s, role => %s)", ED, web)
    assert db.value("SELECT pushy.gateway_key_register('app', role => %s)", web) not in (None, secret)


def test_what_is_no_key_is_refused_and_no_message_has_it(db, role):
    web = role()
    for given, what in [({"secret": "short"}, "a secret of less than 32 bytes"), ({"secret": ED}, "a key in PEM, which is no secret"),
                        ({"public_key": "x" * 40}, "no public key in PEM"), ({"jwks": "[]"}, "no JWKS document"),
                        ({"jwks": '{"keys": [{"kty": "oct", "k": "x"}]}'}, "a document with a secret or a private key in it"),
                        ({"jwks": '{"keys": [{"kty": "EC", "crv": "P-384"}]}'}, "a document without a key for RS256, ES256 or EdDSA")]:
        (name, value), = given.items()
        assert refused(db.main, f"SELECT pushy.gateway_key_register('k', {name} => %s, role => %s)", value, web) == \
            ("22023", f'invalid value for "{name}": {what}')
    assert refused(db.main, "SELECT pushy.gateway_key_register('k', secret => %s, jwks => %s, role => %s)", SECRET, JWKS, web) == \
        ("22023", "a key is one of secret, public_key and jwks")
    assert refused(db.main, "SELECT pushy.gateway_key_register('k', secret => %s)", SECRET) == ("22023", "a key needs role or role_claim")
    assert refused(db.main, "SELECT pushy.gateway_key_register('k', role => 'nobody here')")[0] == "42704"
    assert keys(db) == []


def test_keys_are_for_superusers_and_whom_they_let(db, role):
    admin, web, other = role(), role(), role()
    db.sql(f"GRANT USAGE ON SCHEMA pushy TO {admin}")
    with db.connect(user=admin) as session:
        register = "SELECT pushy.gateway_key_register('k', role => %s)"
        assert refused(session, register, web)[0] == "42501"
        db.sql(f"GRANT EXECUTE ON FUNCTION pushy.gateway_key_register TO {admin}; GRANT {web} TO {admin}")
        assert refused(session, register, other) == ("42501", f"must be a member of role {other} to register a key for it")
        assert refused(session, "SELECT pushy.gateway_key_register('k', role_claim => 'role')") == \
            ("42501", "must be superuser to register a key whose tokens name their role")
        assert session.execute(register, (web,)).fetchone()[0]
        assert refused(session, "SELECT * FROM pushy_internal.gateway_keys()")[0] == "42501"
        assert refused(session, "SELECT * FROM pushy_internal.gateway_key")[0] == "42501"


def test_a_secret_is_in_no_view_and_no_log_of_a_failure(cluster, ):
    db = cluster.database()
    since = cluster.log.position()
    with db.connect() as session:
        session.execute("CREATE ROLE web")
        # As a literal: what psql sends.
        session.execute(f"SELECT pushy.gateway_key_register('k', secret => '{SECRET}', role => 'web')")
        pid = session.info.backend_pid
        assert db.value("SELECT query FROM pg_stat_activity WHERE pid = %s", pid) == "SELECT pushy.gateway_key_register(...)"
        with pytest.raises(psycopg.Error):
            session.execute(f"SELECT pushy.gateway_key_register('k', secret => '{SECRET}', role => 'nobody')")
        with pytest.raises(psycopg.Error):
            session.execute("SELECT 1 / 0")
    log = cluster.log.wait_for("division by zero", since) and cluster.log.since(since)
    assert SECRET not in log and "SELECT pushy.gateway_key_register(...)" in log and "STATEMENT:  SELECT 1 / 0" in log


def test_a_key_of_a_role_that_is_gone_counts_no_more(db, role):
    web = role()
    db.sql("SELECT pushy.gateway_key_register('a', role => %s)", web)
    db.sql("SELECT pushy.gateway_key_register('b', role => %s, role_claim => 'r')", web)
    db.sql(f"DROP ROLE {web}")
    assert [(name, role) for name, _, _, _, role in keys(db)] == [("b", None)]
