"""Whatever text a caller passes, an error repeats no more of it than a reader wants; and nobody reads a huge one for long."""

import psycopg
import pytest

HUGE = "repeat('a', 20000000)"
WHOLE = {
    "text": HUGE, "text[]": f"ARRAY[{HUGE}]", "jsonb": f"to_jsonb({HUGE})", "jsonb[]": f"ARRAY[to_jsonb({HUGE})]",
}
# For arguments that must be passed beside the huge one.
PLAIN = {
    "text": "'q'", "text[]": "'{q}'", "jsonb": "'{}'", "jsonb[]": "'{}'", "uuid": "gen_random_uuid()", "bigint": "1", "integer": "1",
    "interval": "'1 s'", "regclass": "'t'", "double precision": "0.5", "boolean": "true", "oid": "1", "name": "'q'",
    "timestamp with time zone": "now()",
}
# Not in a transaction, and none of a role's: each is a procedure that waits.
PROCEDURES = {"CALL pushy.job_claim_wait({huge}, '0')", "CALL pushy.jobs_wait({huge}, '0')", "CALL pushy.subscription_wait({huge}, '0')"}


def calls(db):
    """A call of each function of the interface with a huge value of each argument that takes one."""
    found = db.rows("""
        SELECT p.proname, p.pronargs - p.pronargdefaults, array_agg(coalesce(a.name, '') ORDER BY a.n), array_agg(format_type(a.type, NULL) ORDER BY a.n)
          FROM pg_proc p, unnest(p.proargtypes::oid[], p.proargnames[1:p.pronargs]) WITH ORDINALITY a(type, name, n)
         WHERE p.pronamespace = 'pushy'::regnamespace AND p.prokind = 'f' GROUP BY p.oid""")
    for name, required, names, types in found:
        for huge, kind in enumerate(types):
            if kind not in WHOLE:
                continue
            values = [WHOLE[kind] if at == huge else PLAIN[other] for at, other in enumerate(types) if at == huge or at < required]
            named = [said for at, said in enumerate(names) if at == huge or at < required]
            yield f"SELECT pushy.{name}({', '.join(f'{said} => {value}' for said, value in zip(named, values))})"


def test_no_message_repeats_a_huge_argument(db, role):
    db.sql("CREATE TABLE t (id int); SELECT pushy.queue_register('q')")
    user = role()
    db.sql(f"GRANT ALL ON t TO {user}")
    session = db.connect(user=user)
    session.execute("SET client_min_messages = error; SET statement_timeout = '60 s'")
    tried, long = 0, []
    for call in [*calls(db), *(call.format(huge=HUGE) for call in PROCEDURES)]:
        tried += 1
        try:
            session.execute(call)
        except psycopg.errors.QueryCanceled:
            long.append((call, "took too long"))
        except psycopg.Error as error:
            said = [error.diag.message_primary, error.diag.message_detail, error.diag.message_hint, error.diag.context]
            length = sum(len(part or "") for part in said)
            if length > 20_000:
                long.append((call, length))
    assert tried > 60 and long == []


@pytest.mark.parametrize("text", ["'a' || repeat(' ', 20000000)", "repeat('/* */', 5000000) || 'x'", "'\"' || repeat('\"\"', 10000000) || '\"'"])
def test_a_huge_channel_is_refused_by_its_beginning(db, text):
    with pytest.raises(psycopg.errors.StatementTooComplex, match="too complex to read") as refused:
        db.sql(f"SELECT pushy.channel_name({text})")
    assert len(str(refused.value)) < 1_000
