"""Bytes that are no UTF-8 reach every reader as they were said, in databases of any encoding."""

import json

import psycopg
import pytest

from harness.waiting import wait_for

# What an encoding calls text: a name, and bytes for a payload.
TEXTS = {
    "SQL_ASCII": {"plain": b"abc", "latin": b"caf\xe9", "half": b"\xff\xfe \xc3", "controls": b"\x01\t\"\\\n", "utf8": "é€".encode()},
    "LATIN1": {"plain": b"abc", "latin": b"caf\xe9", "high": bytes(range(0xA0, 0x100)), "controls": b"\x01\t\"\\\n"},
    "EUC_JP": {"plain": b"abc", "kanji": "日本語".encode("euc_jp"), "controls": b"\x01\t\"\\\n"},
    "UTF8": {"plain": b"abc", "utf8": "é€😀日本".encode(), "controls": b"\x01\t\"\\\n"},
}


@pytest.fixture(params=TEXTS)
def encoded(request, shared_cluster):
    """A database of the encoding, with sessions that see its bytes as they are."""
    encoding = request.param
    name = f"enc_{encoding.lower()}"
    with shared_cluster.connect() as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {name}")
        admin.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'")
    sessions: list[psycopg.Connection] = []

    def connect() -> psycopg.Connection:
        sessions.append(shared_cluster.connect(name))
        sessions[-1].execute("SET client_encoding = SQL_ASCII")
        return sessions[-1]
    session = connect()
    session.execute("CREATE EXTENSION pushy")
    yield encoding, session, connect
    for open_session in sessions:
        open_session.close()
    with shared_cluster.connect() as admin:
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def rows(session: psycopg.Connection, query: bytes) -> list[tuple[bytes | None, ...]]:
    """Of a query whose text is bytes: values as the server sends them."""
    result = session.pgconn.exec_(query)
    assert result.status in (psycopg.pq.ExecStatus.TUPLES_OK, psycopg.pq.ExecStatus.COMMAND_OK), result.error_message
    return [tuple(result.get_value(row, column) for column in range(result.nfields)) for row in range(result.ntuples)]


def literal(value: bytes) -> bytes:
    """An E'' string of these bytes."""
    return b"E'" + value.replace(b"\\", b"\\\\").replace(b"'", b"''") + b"'"


def in_json(value: bytes) -> bytes:
    """The string as JSON has it in the database's encoding, with quotes."""
    return b'"' + value.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n").replace(b"\t", b"\\t").replace(b"\x01", b"\\u0001") + b'"'


def heard(listener: psycopg.Connection, until: bytes) -> list[bytes]:
    """Payloads of the raw notices up to one that says `until`."""
    seen: list[bytes] = []
    pgconn = listener.pgconn
    while until not in seen:
        rows(listener, b"SELECT pg_sleep(0)")
        while notice := pgconn.notifies():
            seen.append(notice.extra)
    return seen[:-1]


def test_every_reader_gets_the_bytes(encoded):
    encoding, session, connect = encoded
    listener = connect()
    rows(listener, b"LISTEN c")
    rows(session, b"""
        CREATE TABLE t (id int PRIMARY KEY, v text);
        CREATE FUNCTION nothing() RETURNS void LANGUAGE sql AS '';
        SELECT pushy.queue_register('q', 'nothing()'), pushy.queue_pause('q'), pushy.queue_register('w', 'nothing()'), pushy.queue_pause('w');
        SELECT pushy.subscription_create('reader', '{c}'), pushy.subscription_create('feeder', '{c}', queue => 'q');
        SELECT pushy.watch('t', channel => 'c', payload => 'row', queue => 'w')""")
    for number, (name, value) in enumerate(TEXTS[encoding].items()):
        text = literal(value)
        for delivery in (b"relay", b"notify"):
            rows(session, b"SELECT pushy.notify('c', " + text + b", delivery => '" + delivery + b"')")
            heard(listener, value)
        # A watched column, short and long, told, kept and owed.
        rows(session, b"INSERT INTO t VALUES (%d, %s)" % (number, text))
        member = b'"v":' + in_json(value)
        read_until(session, value)
        notice = read_until(session)
        assert member in notice, (name, notice)
        rows(session, b"INSERT INTO t VALUES (%d, repeat(%s, 9000))" % (number + 100, text))
        id = json.loads(read_until(session).decode("latin1"))["notice"]
        [[whole]] = rows(session, b"SELECT pushy.notice(%d)" % id)
        assert in_json(value * 9000)[1:-1] in whole, name
        [[owed]] = rows(session, b"SELECT args->'new'->>'v' FROM pushy.jobs WHERE queue = 'w' AND args->'key'->>'id' = '%d'" % number)
        assert owed == value, name
    # Each notice by relay became a job, with its bytes, and the subscription goes on.
    expected = len(TEXTS[encoding]) * 3
    assert wait_for_count(session, b"SELECT count(*) FROM pushy.jobs WHERE queue = 'q'", expected) == expected
    fed = [payload for payload, in rows(session, b"SELECT args->>'payload' FROM pushy.jobs WHERE queue = 'q' ORDER BY id")]
    assert [payload for payload in fed if not payload.startswith(b"{")] == list(TEXTS[encoding].values())
    assert rows(session, b"SELECT stopped FROM pushy.subscriptions WHERE name = 'feeder' AND stopped IS NOT NULL") == []


def read_until(session: psycopg.Connection, payload: bytes | None = None) -> bytes:
    """The next notice of the subscription, acknowledged: it says this, or is a change."""
    rows(session, b"CALL pushy.subscription_wait('reader', '60 s')")
    [(cursor, found)] = rows(session, b"SELECT cursor, payload FROM pushy.subscription_read('reader', 1)")
    rows(session, b"SELECT pushy.subscription_ack('reader', '" + cursor + b"')")
    assert found == payload if payload is not None else found.startswith(b"{"), found
    return found


def wait_for_count(session: psycopg.Connection, query: bytes, count: int) -> int:
    return wait_for(query.decode(), lambda: int(rows(session, query)[0][0]), lambda seen: seen == count)


NAMED = [b"SELECT pushy.queue_register('q\xe9', 'x')", b"SELECT pushy.enqueue('q\xe9')", b"SELECT pushy.queue_drop('q\xe9')",
         b"SELECT pushy.queue_grant('q', 'q\xe9', 'enqueue')", b"SELECT pushy.subscription_create('q\xe9')", b"SELECT pushy.unwatch('t', 'q\xe9')",
         b"SELECT pushy.watch('t', name => 'q\xe9')", b"SELECT pushy.channel_grant('c', 'q\xe9')", b"SELECT pushy.enqueue('q', unique_key => 'q\xe9')"]


def test_a_name_that_is_not_utf8_is_told_and_what_to_do(encoded):
    """In SQL_ASCII, where nothing says what its bytes mean."""
    encoding, session, _ = encoded
    if encoding != "SQL_ASCII":
        return
    session.execute("CREATE TABLE t (id int PRIMARY KEY); CREATE FUNCTION x() RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_register('q', 'x()')")
    for statement in NAMED:
        with pytest.raises(psycopg.errors.CharacterNotInRepertoire) as refusal:
            session.execute(statement)
        assert 'q\\xe9" is not UTF-8' in refusal.value.diag.message_primary, statement
        assert "must be UTF-8" in refusal.value.diag.message_hint
