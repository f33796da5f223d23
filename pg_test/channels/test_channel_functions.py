"""The four channel functions: arguments, answers, errors, and where they may run."""

import psycopg
import pytest

from stage.channel_names import LIMIT, names_in

PAYLOAD_LIMIT = 7999


def refusal(db, query, *params) -> psycopg.errors.Diagnostic:
    with pytest.raises(psycopg.Error) as raised:
        db.value(query, *params)
    return raised.value.diag


@pytest.mark.parametrize("query, argument", [
    ("SELECT pushy.channel_name(NULL)", "channel"),
    ("SELECT pushy.channel_ident(NULL)", "channel_name"),
    ("SELECT pushy.notify(NULL)", "channel"),
    ("SELECT pushy.notify(NULL, 'x')", "channel"),
])
def test_null_is_an_error_that_names_the_argument(db, query, argument):
    said = refusal(db, query)
    assert said.sqlstate == "22004"
    assert f'"{argument}"' in said.message_primary


def test_inspecting_null_says_so(db):
    row = db.row("SELECT * FROM pushy.channel_inspect(NULL)")
    assert row.pop("error") == 'argument "channel" must not be null'
    assert set(row.values()) == {None}


def test_an_inspection_tells_all(db):
    assert db.row("SELECT * FROM pushy.channel_inspect('NewUser')") == {
        "input": "NewUser", "channel_name": "newuser", "byte_length": 7, "folded": True, "truncated": False, "quoted": False,
        "listen_sql": "LISTEN newuser", "notify_sql": "NOTIFY newuser", "error": None}
    assert db.row("SELECT * FROM pushy.channel_inspect(%s)", ' "New ""User""" ') == {
        "input": ' "New ""User""" ', "channel_name": 'New "User"', "byte_length": 10, "folded": False, "truncated": False,
        "quoted": True, "listen_sql": 'LISTEN "New ""User"""', "notify_sql": 'NOTIFY "New ""User"""', "error": None}
    long, cut = '"' + "é" * 40 + '"', "é" * 31
    assert db.row("SELECT * FROM pushy.channel_inspect(%s)", long) == {
        "input": long, "channel_name": cut, "byte_length": 80, "folded": False, "truncated": True, "quoted": True,
        "listen_sql": f"LISTEN {cut}", "notify_sql": f"NOTIFY {cut}",
        "error": refusal(db, "SELECT pushy.channel_name(%s)", long).message_primary}
    assert db.row("SELECT * FROM pushy.channel_inspect('a-b')") == {
        "input": "a-b", "channel_name": None, "byte_length": None, "folded": None, "truncated": None, "quoted": None,
        "listen_sql": None, "notify_sql": None,
        "error": refusal(db, "SELECT pushy.channel_name('a-b')").message_primary}


def test_a_refused_text_is_named_with_the_reason_and_a_way_out(db):
    said = refusal(db, "SELECT pushy.channel_name('a-b')")
    assert said.message_primary == 'invalid channel identifier "a-b": syntax error at or near "-"'
    assert "channel_ident" in said.message_hint
    assert said.message_detail is None


def test_a_cut_is_told_with_its_bytes(db):
    said = refusal(db, "SELECT pushy.channel_name(%s)", "é" * 40)
    assert said.sqlstate == "42622"
    assert said.message_primary == f'channel identifier "{"é" * 40}" is too long: 80 bytes, at most 63'
    assert said.message_detail == f'LISTEN would cut it to "{"é" * 31}" (62 bytes).'
    assert "channel_inspect" in said.message_hint


def test_a_message_is_in_the_encoding_of_the_database(shared_cluster):
    with names_in(shared_cluster, "LATIN1") as names:
        db = names.database
        db.sql("SET client_encoding = 'UTF8'")
        assert refusal(db, "SELECT pushy.channel_name(%s)", "é" * 64).message_detail == \
            f'LISTEN would cut it to "{"é" * 63}" (63 bytes).'
        said = refusal(db, "SELECT pushy.channel_name(%s)", "é-b")
        assert said.message_primary == 'invalid channel identifier "é-b": syntax error at or near "-"'
        assert db.row("SELECT error FROM pushy.channel_inspect(%s)", "é-b")["error"] == said.message_primary
        # Two LATIN1 letters whose bytes are one letter in UTF-8.
        assert '"a ßµ"' in refusal(db, "SELECT pushy.channel_name(%s)", "a ßµ").message_primary


def test_bytes_that_are_no_characters_are_told_as_numbers(shared_cluster):
    with names_in(shared_cluster, "SQL_ASCII") as names:
        with pytest.raises(psycopg.errors.SyntaxError, match=r'"a \\xff"'):
            names.database.sql("SELECT pushy.channel_name(text_of(%s))", b"a \xff")


@pytest.mark.parametrize("name, ident", [
    ("newuser", "newuser"), ("NewUser", '"NewUser"'), ("école", "école"), ("École", "École"), ("a b", '"a b"'),
    ('a"b', '"a""b"'), ("user", '"user"'), ("left", '"left"'), ("listen", "listen"), ("timestamp", "timestamp"),
    ("1x", '"1x"'), ("x$1", "x$1"), ("*", '"*"'), (" ", '" "'), ("a" * LIMIT, "a" * LIMIT), ("A" * LIMIT, f'"{"A" * LIMIT}"'),
    ('"x"', '"""x"""'), ("x;", '"x;"'), ("x -- c", '"x -- c"'), (r'U&"\0061"', r'"U&""\0061"""'),
])
def test_a_name_is_quoted_only_where_it_must_be(db, name, ident):
    assert db.value("SELECT pushy.channel_ident(%s)", name) == ident
    assert db.value("SELECT pushy.channel_name(%s)", ident) == name


def test_an_exact_name_has_1_to_63_bytes(db):
    assert refusal(db, "SELECT pushy.channel_ident('')").sqlstate == "22023"
    said = refusal(db, "SELECT pushy.channel_ident(%s)", "é" * 32)
    assert said.sqlstate == "42622"
    assert "64 bytes, at most 63" in said.message_primary


def test_quote_all_identifiers_changes_no_identifier(db):
    db.sql("SET quote_all_identifiers = on")
    assert db.value("SELECT pushy.channel_ident('newuser')") == "newuser"


def test_a_notice_reaches_who_listens_to_the_same_text(db):
    listener = db.listen("NewUser", '"New User"')
    db.sql("SELECT pushy.notify('NEWUSER', 'folded')")
    db.sql("""SELECT pushy.notify(channel => '"New User"', payload => 'quoted')""")
    db.sql("SELECT pushy.notify('NewUser')")
    db.sql("SELECT pushy.notify('NewUser', NULL)")
    heard = [listener.wait_for() for _ in range(4)]
    assert [(notice.channel, notice.payload) for notice in heard] == [
        ("newuser", "folded"), ("New User", "quoted"), ("newuser", ""), ("newuser", "")]


def test_a_rolled_back_notice_is_not_sent(db):
    listener = db.listen("c")
    with db.connect(autocommit=False) as session:
        session.execute("SELECT pushy.notify('c', 'rolled back')")
        session.rollback()
        session.execute("SELECT pushy.notify('c', 'committed')")
        session.commit()
    assert listener.wait_for().payload == "committed"


def test_a_payload_has_at_most_7999_bytes(db):
    listener = db.listen("c")
    db.sql("SELECT pushy.notify('c', %s)", "x" * PAYLOAD_LIMIT)
    assert listener.wait_for().payload == "x" * PAYLOAD_LIMIT
    for payload in ("x" * (PAYLOAD_LIMIT + 1), "é" * 4000, "x" * (1 << 20)):
        said = refusal(db, "SELECT pushy.notify('c', %s)", payload)
        assert said.sqlstate == "22023"
        assert said.message_primary == \
            f'payload for channel "c" is too long: {len(payload.encode())} bytes, at most {PAYLOAD_LIMIT}'
        assert said.message_hint


def test_notify_checks_its_channel_as_channel_name_does(db):
    for text in ("a-b", '""', "user", "x;", "a" * 64):
        assert refusal(db, "SELECT pushy.notify(%s)", text).message_primary == \
            refusal(db, "SELECT pushy.channel_name(%s)", text).message_primary


def test_names_are_read_in_parallel_workers_too(db):
    version = db.value("SELECT current_setting('server_version_num')::int")
    db.sql(f"SET {'debug_parallel_query' if version >= 160000 else 'force_parallel_mode'} = on")
    query = """SELECT pushy.channel_name('Name_' || n), pushy.channel_ident('Name ' || n),
                      (pushy.channel_inspect(repeat('x', 60 + n))).truncated FROM generate_series(1, 5) n"""
    assert "Gather" in str(db.rows("EXPLAIN " + query))
    assert db.rows(query) == [(f"name_{n}", f'"Name {n}"', n > 3) for n in range(1, 6)]
    said = refusal(db, "SELECT pushy.channel_name(repeat('x', 60 + n)) FROM generate_series(1, 5) n")
    assert said.sqlstate == "42622"


def test_a_notice_is_not_left_to_a_parallel_worker(db):
    assert db.rows("""
        SELECT proname::text, provolatile::text, proparallel::text, proisstrict FROM pg_proc
         WHERE pronamespace = 'pushy'::regnamespace AND proname IN ('channel_name', 'channel_inspect', 'channel_ident', 'notify')
         ORDER BY 1""") == [("channel_ident", "s", "s", False), ("channel_inspect", "s", "s", False),
                            ("channel_name", "s", "s", False), ("notify", "v", "r", False)]


def test_every_channel_function_is_described(db):
    assert db.rows("""
        SELECT proname FROM pg_proc p
         WHERE pronamespace = 'pushy'::regnamespace AND proname IN ('channel_name', 'channel_inspect', 'channel_ident', 'notify')
           AND obj_description(p.oid, 'pg_proc') IS NULL""") == []
