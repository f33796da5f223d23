"""A row whose payload is too long, or cannot be built at all, is written all the same, and its notice says why."""

import sys

import pytest

from stage.watching import Watching, jobs, paused_queue, watch

LIMIT = 64 << 10

# Numbers of a jsonb may be long.
sys.set_int_max_str_digits(0)

# What grows in JSON, each in its way: the type, and SQL for a value of about n bytes of it.
GROWING = [
    ("text", "repeat('x', {n})"),
    ("text", "repeat(E'\\x01', {n} / 6)"),
    ("varchar", "repeat('\"', {n} / 2)"),
    ("bytea", "decode(repeat('00', {n} / 2), 'hex')"),
    ("json", "('\"' || repeat('y', {n} - 2) || '\"')::json"),
    ("jsonb", "to_jsonb(repeat(E'\\x01', {n} / 6))"),
    ("jsonb", "('[' || repeat('1e16383,', {n} / 16384) || '1]')::jsonb"),
    ("numeric", "('1e' || least({n}, 131071))::numeric"),
    ("numeric[]", "array_fill(('1e' || {n} / 64)::numeric, ARRAY[64])"),
    ("bool[]", "array_fill(false, ARRAY[{n} / 6])"),
    ("int[]", "array_fill(NULL::int, ARRAY[{n} / 5])"),
    ("text[]", "array_fill(repeat('x', 61), ARRAY[{n} / 64])"),
    ("pair", "ROW(1, repeat('x', {n} - 16))"),
    ("pair[]", "array_fill(ROW(1, repeat('x', {n} / 64 - 16))::pair, ARRAY[64])"),
    ("tsvector", "to_tsvector('simple', (SELECT string_agg('w' || i, ' ') FROM generate_series(1, {n} / 14) i))"),
    ("varbit", "repeat('1', {n})::varbit"),
    ("int4multirange", "(SELECT range_agg(int4range(i * 2, i * 2 + 1)) FROM generate_series(1, {n} / 14) i)"),
    ("xml", "('<a>' || repeat('x', {n}) || '</a>')::xml"),
]


@pytest.mark.parametrize("payload", ["row", "diff"])
def test_a_payload_over_the_limit_is_told_as_an_error_with_the_key(db, payload):
    """Of each type: what fits is told whole, what does not is not, whichever of them makes it too long."""
    db.sql("CREATE TYPE pair AS (n int, t text)")
    paused_queue(db)
    heard = Watching(db, "heard")
    for number, (kind, value) in enumerate(GROWING):
        table = f"t{number}"
        db.sql(f"CREATE TABLE {table} (id int PRIMARY KEY, v {kind}, w text)")
        watch(db, table, payload=payload, queue="q")
        for rows, share in enumerate((LIMIT // 2, LIMIT * 3)):
            db.sql(f"SET pushy.max_payload = '64 kB'; INSERT INTO {table} VALUES ({rows}, {value.format(n=share)}, 'w')")
        seen = [(notice["key"]["id"], notice.get("error", {}).get("sqlstate"), "new" in notice) for notice in heard.payloads()]
        assert seen == [(0, None, True), (1, "54000", False)], f"{kind} {value}: {seen}"
        db.sql(f"DELETE FROM {table}")
        deleted = [(notice["key"]["id"], notice.get("error", {}).get("sqlstate"), "old" in notice) for notice in heard.payloads()]
        assert deleted == [(0, None, True), (1, "54000", False)], f"{kind} {value}: {deleted}"
        assert db.row("SELECT errors FROM pushy.watches WHERE relation = %s::regclass", table) == {"errors": 2}
    assert [args.get("error", {}).get("sqlstate") for args in jobs(db)] == [None, "54000"] * 2 * len(GROWING)
    assert all("pushy.max_payload" in args["error"]["message"] for args in jobs(db) if "error" in args)


def test_an_expression_over_the_limit_is_told_as_an_error(db):
    db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    watch(db, "t", payload_expr="NEW.v || NEW.v")
    heard = Watching(db, "heard")
    db.sql("SET pushy.max_payload = '64 kB'; INSERT INTO t VALUES (1, repeat('x', 40000))")
    assert heard.after() == [("insert", 1, "54000")]


def test_an_update_whose_halves_fit_and_not_both(db):
    db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    watch(db, "t", payload="row")
    watch(db, "t", payload="diff", name="diff", columns=["v"])
    heard = Watching(db, "heard")
    db.sql("SET pushy.max_payload = '64 kB'; INSERT INTO t VALUES (1, repeat('x', 40000)); UPDATE t SET v = v || 'y'; UPDATE t SET id = 2")
    assert heard.after() == [("insert", 1)] * 2 + [("update", 1, "54000")] * 2 + [("update", 2, "54000")]


def test_only_a_superuser_sets_the_limit(db, role):
    with db.connect(user=role()) as session, pytest.raises(Exception, match="permission denied"):
        session.execute("SET pushy.max_payload = '64 kB'")


def test_what_the_server_cannot_build_does_not_fail_the_write(db):
    """1.2 GB of JSON, out of a row that compresses well; with the highest limit there is."""
    db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    watch(db, "t", payload="row")
    heard = Watching(db, "heard")
    db.sql("SET pushy.max_payload = '1048575 kB'; INSERT INTO t VALUES (1, repeat(E'\\x01', 200000000))")
    assert heard.after() == [("insert", 1, "54000")]
    assert db.value("SELECT length(v) FROM t") == 200_000_000


def test_arguments_that_jsonb_cannot_hold_are_an_error_with_the_key(db):
    """A string in jsonb has 256 MB at most."""
    db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    paused_queue(db)
    watch(db, "t", payload="row", queue="q", channel=None)
    db.sql("SET pushy.max_payload = '400 MB'; INSERT INTO t VALUES (1, repeat('x', 270000000))")
    assert [(args["key"], args["error"]["sqlstate"]) for args in jobs(db)] == [({"id": 1}, "54000")]
