"""The JSON of a notice: what a client reads back is what the table has."""

import json
import math
import re
import shutil
import subprocess

import pytest
from harness.database import Database
from harness.installation import REPOSITORY
from stage.watching import Watching

# What NOTIFY sends at most, in bytes.
LIMIT = 7_999

PRELUDE = """
    CREATE TYPE mood AS ENUM ('sad', 'so "so"', 'happy');
    CREATE DOMAIN year AS int CHECK (VALUE > 0);
    CREATE DOMAIN years AS year[];
    CREATE TYPE inner_type AS (big bigint, at timestamptz);
    CREATE TYPE outer_type AS (name text, "in ner" inner_type, moods mood[], gone text);
    ALTER TYPE outer_type DROP ATTRIBUTE gone;
    CREATE DOMAIN checked_outer AS outer_type;
    CREATE TYPE temperatures AS RANGE (subtype = float8);
    CREATE TABLE "Shown" (x int);
    CREATE EXTENSION citext;
    CREATE EXTENSION hstore;
"""

# Type, SQL value, what Python's json makes of it, a JavaScript expression over v that holds.
VALUES = [
    ("bool", "true", True, "v === true"),
    ("int2", "-32768", -32768, "v === -32768"),
    ("int4", "2147483647", 2147483647, "v === 2147483647"),
    ("int8", "9007199254740992", 2**53, "BigInt(v) === 9007199254740992n"),
    ("int8", "-9007199254740992", -2**53, "BigInt(v) === -9007199254740992n"),
    ("int8", "9007199254740993", "9007199254740993", "BigInt(v) === 9007199254740993n"),
    ("int8", "-9223372036854775808", "-9223372036854775808", "BigInt(v) === -9223372036854775808n"),
    ("numeric", "1.50", 1.5, "v === 1.5"),
    ("numeric(20,4)", "-12345678901.2345", -12345678901.2345, "v.toFixed(4) === '-12345678901.2345'"),
    ("numeric", "1234567890.123456789", "1234567890.123456789", "v === '1234567890.123456789'"),
    ("numeric", "1e40", "1" + 40 * "0", "BigInt(v) === 10n ** 40n"),
    ("numeric", "1e-400", "0." + 399 * "0" + "1", "v.length === 402"),
    ("numeric", "'NaN'", "NaN", "Number.isNaN(Number(v))"),
    ("numeric", "'Infinity'", "Infinity", "Number(v) === Infinity"),
    ("float4", "0.1", 0.1, "Math.fround(v) === Math.fround(0.1)"),
    ("float4", "'-Infinity'", "-Infinity", "Number(v) === -Infinity"),
    ("float8", "0.1::float8 + 0.2", 0.1 + 0.2, "v === 0.1 + 0.2"),
    ("float8", "1e-300", 1e-300, "v === 1e-300"),
    ("float8", "'-0'", 0.0, "Object.is(v, -0)"),
    ("float8", "5e-324", 5e-324, "v === Number.MIN_VALUE"),
    ("float8", "1.7976931348623157e308", 1.7976931348623157e308, "v === Number.MAX_VALUE"),
    ("float8", "'NaN'", "NaN", "Number.isNaN(Number(v))"),
    ("float8", "'Infinity'", "Infinity", "Number(v) === Infinity"),
    ("money", "12345.67::numeric", 12345.67, "v === 12345.67"),
    ("text", r"E'a\"b\\c/\b\f\n\r\t\x01\x7fé€😀\u2028'", "a\"b\\c/\b\f\n\r\t\x01\x7fé€😀\u2028",
     r"v === 'a\"b\\c/\b\f\n\r\t\x01\x7fé€😀\u2028'"),
    ("text", "''", "", "v === ''"),
    ("varchar(5)", "'varch'", "varch", "v === 'varch'"),
    ("char(5)", "'a'", "a    ", "v === 'a    '"),
    ("name", "'a name'", "a name", "v === 'a name'"),
    ('"char"', "'x'", "x", "v === 'x'"),
    ('"char"', "(-1)::int::\"char\"", "\\377", r"v === '\\377'"),
    ("uuid", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "v.length === 36"),
    ("bytea", r"'\x00ff5c22'", r"\x00ff5c22", r"Buffer.from(v.slice(2), 'hex').equals(Buffer.from([0, 255, 92, 34]))"),
    ("date", "'2026-11-22'", "2026-11-22", "new Date(v).getTime() === Date.UTC(2026, 10, 22)"),
    ("date", "'0044-03-15 BC'", "0044-03-15 BC", "v.endsWith('BC')"),
    ("date", "'infinity'", "infinity", "v === 'infinity'"),
    ("time", "'13:14:15.5'", "13:14:15.5", "v === '13:14:15.5'"),
    ("timetz", "'13:14:15+02'", "13:14:15+02", "v === '13:14:15+02'"),
    ("timestamp", "'2026-11-22 14:00:00.25'", "2026-11-22T14:00:00.25", "v === '2026-11-22T14:00:00.25'"),
    ("timestamptz", "'2026-11-22 15:00:00+01'", "2026-11-22T14:00:00+00:00",
     "new Date(v).getTime() === Date.UTC(2026, 10, 22, 14)"),
    ("timestamptz", "'1890-01-01 00:00:00.000001 UTC'", "1890-01-01T00:00:00.000001+00:00",
     "new Date(v).getTime() === Date.UTC(1890, 0, 1)"),
    ("timestamptz", "'-infinity'", "-infinity", "v === '-infinity'"),
    ("interval", "'1 year 2 months -3 days 04:05:06.7'", "P1Y2M-3DT4H5M6.7S", "v === 'P1Y2M-3DT4H5M6.7S'"),
    ("interval", "'0'", "PT0S", "v === 'PT0S'"),
    ("mood", "'so \"so\"'", 'so "so"', "v === 'so \"so\"'"),
    ("year", "2026", 2026, "v === 2026"),
    ("inet", "'10.0.0.1/8'", "10.0.0.1/8", "v === '10.0.0.1/8'"),
    ("macaddr", "'08:00:2b:01:02:03'", "08:00:2b:01:02:03", "v.length === 17"),
    ("bit(5)", "'10101'", "10101", "v === '10101'"),
    ("oid", "4294967295", "4294967295", "v === '4294967295'"),
    ("pg_lsn", "'16/B374D848'", "16/B374D848", "v === '16/B374D848'"),
    ("tsvector", "'a fat \"cat\"'", "'\"cat\"' 'a' 'fat'", "v.includes('fat')"),
    ("regclass", "'\"Shown\"'", 'public."Shown"', "v === 'public.\"Shown\"'"),
    ("citext", "'Case'", "Case", "v === 'Case'"),
    ("int4[]", "'{1,NULL,3}'", [1, None, 3], "v.length === 3 && v[1] === null"),
    ("int4[]", "'[5:6][2:3]={{1,2},{3,4}}'", [[1, 2], [3, 4]], "v[1][0] === 3"),
    ("text[]", "'{}'", [], "v.length === 0"),
    ("text[]", "ARRAY['a\"b', 'c,d', 'null']", ['a"b', "c,d", "null"], "v[0] === 'a\"b'"),
    ("int8[]", "'{1,9223372036854775807}'", [1, "9223372036854775807"], "BigInt(v[1]) === 9223372036854775807n"),
    ("timestamptz[]", "ARRAY['2026-11-22 15:00+01'::timestamptz]", ["2026-11-22T14:00:00+00:00"], "v.length === 1"),
    ("years", "'{2026,2027}'", [2026, 2027], "v[1] === 2027"),
    ("int4range", "'[1,5)'", "[1,5)", "v === '[1,5)'"),
    ("tstzrange", "'[2026-11-22 15:00+01,)'", '["2026-11-22 14:00:00+00",)', "v.startsWith('[\"2026-11-22 14:00:00+00')"),
    ("datemultirange", "'{[2026-01-01,2026-01-03)}'", "{[2026-01-01,2026-01-03)}", "v.length === 25"),
    ("temperatures", "'[0.1,0.30000000000000004]'", "[0.1,0.30000000000000004]", "v.includes('0.30000000000000004')"),
]

# These have no order: they cannot be in a key.
UNORDERED = [
    ("json", """'{"b": 1,\n "a": [1e400, "\\u0000"]}'""", {"b": 1, "a": [math.inf, "\0"]}, "v.a[1] === '\\0'"),
    ("jsonb", """'{"b": 12345678901234567890.5, "a": {"t": "x\\"y"}, "n": null}'""",
     {"b": 12345678901234567890.5, "a": {"t": 'x"y'}, "n": None}, "v.a.t === 'x\"y' && v.n === null"),
    ("jsonb", "'null'", None, "v === null"),
    ("json[]", """ARRAY['{"a":1}'::json, '[2]']""", [{"a": 1}, [2]], "v[1][0] === 2"),
    ("point", "'(0.1,0.30000000000000004)'", "(0.1,0.30000000000000004)", "v === '(0.1,0.30000000000000004)'"),
    ("xml", "'<a b=\"c\"/>'", '<a b="c"/>', "v === '<a b=\"c\"/>'"),
    ("hstore", "'k=>v, n=>NULL'", {"k": "v", "n": None}, "v.k === 'v' && v.n === null"),
    ("hstore[]", "ARRAY['k=>1'::hstore]", [{"k": "1"}], "v[0].k === '1'"),
    ("outer_type", "ROW('n', ROW(9223372036854775807, '2026-11-22 15:00+01'), '{sad,happy}')",
     {"name": "n", "in ner": {"big": "9223372036854775807", "at": "2026-11-22T14:00:00+00:00"}, "moods": ["sad", "happy"]},
     "BigInt(v['in ner'].big) === 9223372036854775807n"),
    ("checked_outer", "ROW(NULL, NULL, NULL)", {"name": None, "in ner": None, "moods": None}, "v.moods === null"),
    ("inner_type[]", "ARRAY[ROW(1, 'infinity')::inner_type, NULL]", [{"big": 1, "at": "infinity"}, None], "v[0].big === 1"),
]

# What a session may set and a notice must not show; each is as far from the default as it goes.
SETTINGS = ["SET DateStyle = 'SQL, DMY'", "SET TimeZone = 'Asia/Kathmandu'", "SET IntervalStyle = 'sql_standard'",
            "SET bytea_output = 'escape'", "SET extra_float_digits = -15", "SET lc_monetary = 'C.UTF-8'",
            "SET quote_all_identifiers = on", "SET xmlbinary = 'hex'", "SET search_path = public, pg_catalog"]

class Watched:
    """A watched table, a session that writes it, and one that listens."""

    def __init__(self, db, table: str, payload: str, level: str = "row"):
        self.db = db
        self.channel = db.value("SELECT pushy.watch(%s, payload => %s, level => %s, channel => 'heard', "
                                "events => '{insert,update,delete,truncate}')", table, payload, level)
        self.writer, self.listener = db.connect(), db.listen(self.channel)

    def sent_after(self, statement: str) -> str:
        """The payload of the one notice that a statement makes, as it is sent."""
        self.writer.execute(statement)
        return self.listener.wait_for().payload

    def text_after(self, statement: str) -> str:
        """The same, followed where it is a reference."""
        sent = self.sent_after(statement)
        reference = json.loads(sent).get("notice") if sent else None
        if reference is None:
            return sent
        whole = self.db.value("SELECT pushy.notice(%s)", reference)
        assert json.loads(sent)["bytes"] == len(whole.encode()) > LIMIT
        return whole

    def after(self, statement: str) -> dict:
        return json.loads(self.text_after(statement))


def columns_of(values) -> dict[str, tuple]:
    return {f"c{number}": value for number, value in enumerate(values)}


def create(db, table: str, columns: dict[str, tuple], key: str = "") -> str:
    """Makes a table with a column per value; answers the INSERT of a row with them all."""
    db.sql(f"CREATE TABLE {table} ({', '.join(f'{name} {value[0]}' for name, value in columns.items())}{key})")
    return f"INSERT INTO {table} VALUES ({', '.join(f'({value[1]})::{value[0]}' for value in columns.values())})"


def check(payload: str, members: list[str], columns: dict[str, tuple]) -> None:
    """Each of the payload's members has each column's value, for Python and for JavaScript."""
    notice = json.loads(payload)
    for member in members:
        assert list(notice[member]) == list(columns)
        for name, (kind, literal, expected, _) in columns.items():
            seen = notice[member][name]
            assert (seen, type(seen)) == (expected, type(seen)), f"{kind} {literal}: {seen!r}"
            assert isinstance(seen, str) == isinstance(expected, str), f"{kind} {literal}: {seen!r}"
    in_javascript(payload, [f"[{json.dumps(kind + ' ' + literal)}, (v => {holds})(notice.{member}.{name})]"
                            for member in members for name, (kind, literal, _, holds) in columns.items()])


def in_javascript(payload: str, checks: list[str]) -> None:
    """Fails with the checks, `[what, whether it holds]` each, that do not hold for `notice`."""
    node = shutil.which("node")
    if node is None:
        return
    script = f"""
        const notice = JSON.parse(require('fs').readFileSync(0, 'utf8'));
        const wrong = [{', '.join(checks)}].filter(([, holds]) => !holds).map(([what]) => what);
        process.stdout.write(JSON.stringify(wrong));"""
    done = subprocess.run([node, "-e", script], input=payload.encode(), capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout) == []


def test_javascript_reads_them_too():
    """The other tests here ask Node.js as well, where there is one."""
    if shutil.which("node") is None:
        pytest.skip("no Node.js on this machine: values are read back in Python only")
    in_javascript('{"big": 9007199254740993}', ["['loses one', notice.big === 9007199254740992]"])


@pytest.mark.parametrize("settings", [[], SETTINGS], ids=["as they come", "far from the default"])
def test_every_value_is_read_back_whatever_the_settings(db, settings):
    db.sql(PRELUDE)
    columns = columns_of(VALUES + UNORDERED)
    # The values are read as they are written here, then told under the settings.
    db.sql(create(db, "source", columns))
    db.sql("CREATE TABLE t (LIKE source)")
    watched = Watched(db, "t", "row")
    for setting in settings:
        watched.writer.execute(setting)
    before = watched.writer.execute("SELECT name, setting FROM pg_settings ORDER BY 1").fetchall()
    check(watched.text_after("INSERT INTO t SELECT * FROM source"), ["new"], columns)
    check(watched.text_after("UPDATE t SET c0 = c0"), ["old", "new"], columns)
    check(watched.text_after("DELETE FROM t"), ["old"], columns)
    assert watched.writer.execute("SELECT name, setting FROM pg_settings ORDER BY 1").fetchall() == before


def test_every_value_is_read_back_from_a_diff(db):
    db.sql(PRELUDE)
    columns = columns_of(VALUES + [value for value in UNORDERED if value[2] is not None])
    insert = create(db, "t", columns)
    watched = Watched(db, "t", "diff")
    check(watched.text_after(insert), ["new"], columns)
    to_null = watched.text_after("UPDATE t SET " + ", ".join(f"{name} = NULL" for name in columns))
    check(to_null, ["old"], columns)
    assert json.loads(to_null)["new"] == dict.fromkeys(columns)


@pytest.mark.parametrize("start", range(0, len(VALUES), 30))
def test_every_value_is_read_back_from_a_key(db, start):
    db.sql(PRELUDE)
    columns = columns_of(VALUES[start:start + 30])
    # A key of citext and the like is compared by their own operators: nothing here looks at that.
    insert = create(db, "t", columns, f", PRIMARY KEY ({', '.join(columns)})")
    watched = Watched(db, "t", "key")
    check(watched.text_after(insert), ["key"], columns)
    assert "new" not in watched.after("DELETE FROM t")


# -- the envelope ------------------------------------------------------------------------------------------------

def test_the_envelope_says_what_where_and_who(db):
    db.sql("CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text)")
    watched = Watched(db, "t", "row")
    common = {"v": 1, "schema": "public", "table": "t", "pid": watched.writer.info.backend_pid}
    for statement, change in [
        ("INSERT INTO t (v) VALUES ('a')", {"op": "insert", "key": {"id": 1}, "new": {"id": 1, "v": "a"}}),
        ("UPDATE t SET v = NULL", {"op": "update", "key": {"id": 1}, "new": {"id": 1, "v": None}, "old": {"id": 1, "v": "a"}}),
        ("DELETE FROM t", {"op": "delete", "key": {"id": 1}, "old": {"id": 1, "v": None}}),
        ("TRUNCATE t", {"op": "truncate", "key": None}),
    ]:
        watched.writer.execute("BEGIN")
        watched.writer.execute(statement)
        xid = watched.writer.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()[0]
        notice = watched.after("COMMIT")
        assert notice == common | change | {"xid": xid}


def test_a_key_has_its_columns_in_its_order(db):
    db.sql("CREATE TABLE t (a int, b text, c date, PRIMARY KEY (c, a))")
    watched = Watched(db, "t", "key")
    assert list(watched.after("INSERT INTO t VALUES (1, 'b', '2026-11-22')")["key"].items()) == [("c", "2026-11-22"), ("a", 1)]


def test_an_update_that_changes_the_key_tells_both(db):
    db.sql("CREATE TABLE t (a int, b text, v int, PRIMARY KEY (a, b)); INSERT INTO t VALUES (1, 'x', 0)")
    watched = Watched(db, "t", "key")
    notice = watched.after("UPDATE t SET b = 'y'")
    assert (notice["key"], notice["old_key"]) == ({"a": 1, "b": "y"}, {"a": 1, "b": "x"})
    assert "old_key" not in watched.after("UPDATE t SET v = 1")


def test_a_table_without_a_key_tells_null(db):
    db.sql("CREATE TABLE t (a int)")
    assert Watched(db, "t", "row").after("INSERT INTO t VALUES (1)")["key"] is None


def test_payload_none_is_empty(db):
    db.sql("CREATE TABLE t (a int)")
    assert Watched(db, "t", "none").text_after("INSERT INTO t VALUES (1)") == ""


# -- columns -----------------------------------------------------------------------------------------------------

def test_names_may_hold_anything(db):
    names = ['quote"d', "back\\slash", "line\nbreak\x01", "É €", "a b", "key", "'"]
    quoted = ['"' + name.replace('"', '""') + '"' for name in names]
    table = '"T ""x\\"'
    db.sql(f"CREATE TABLE {table} ({', '.join(f'{name} text' for name in quoted)}, PRIMARY KEY ({quoted[0]}, {quoted[2]}))")
    watched = Watched(db, table, "row")
    payload = watched.text_after(f"INSERT INTO {table} VALUES ({', '.join(repr(str(number)) for number in range(len(names)))})")
    notice = json.loads(payload)
    assert notice["table"] == 'T "x\\'
    assert notice["new"] == {name: str(number) for number, name in enumerate(names)}
    assert notice["key"] == {names[0]: "0", names[2]: "2"}
    in_javascript(payload, [f"[{json.dumps(name)}, notice.new[{json.dumps(name)}] === '{number}']"
                            for number, name in enumerate(names)])


def test_dropped_columns_are_gone_and_generated_ones_there(db):
    db.sql("""CREATE TABLE t (gone int, id int PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED, last text);
              INSERT INTO t VALUES (0, 1, 10, DEFAULT, 'l');
              ALTER TABLE t DROP COLUMN gone;
              ALTER TABLE t ADD COLUMN late int DEFAULT 7""")
    watched = Watched(db, "t", "row")
    notice = watched.after("UPDATE t SET a = 11")
    assert notice["new"] == {"id": 1, "a": 11, "twice": 22, "last": "l", "late": 7}
    assert notice["old"] == {"id": 1, "a": 10, "twice": 20, "last": "l", "late": 7}


def test_a_diff_has_what_changed(db):
    db.sql("""CREATE TABLE t (id int PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED, n numeric, f float8, u text);
              INSERT INTO t VALUES (1, 10, DEFAULT, 1.0, 0, NULL)""")
    watched = Watched(db, "t", "diff")
    def changed(change):
        notice = watched.after(f"UPDATE t SET {change}")
        assert notice["key"] == {"id": notice["key"]["id"]} and list(notice["old"]) == list(notice["new"])
        return {name: (value, notice["new"][name]) for name, value in notice["old"].items()}
    assert changed("a = a") == {}
    assert changed("a = 11") == {"a": (10, 11), "twice": (20, 22)}
    assert changed("u = ''") == {"u": (None, "")}
    assert changed("u = NULL") == {"u": ("", None)}
    # As the table shows them: equal, yet not the same.
    assert list(changed("n = 1.00")) == ["n"]
    assert list(changed("f = '-0'")) == ["f"]
    assert changed("id = 2") == {"id": (1, 2)}


@pytest.mark.parametrize("storage", ["PLAIN", "MAIN", "EXTERNAL", "EXTENDED"])
def test_large_values_are_told_whole_and_only_when_they_changed(db, storage):
    size = 3_000 if storage == "PLAIN" else 100_000
    db.sql("CREATE TABLE t (id int PRIMARY KEY, v int, big text, bytes bytea)")
    db.sql(f"ALTER TABLE t ALTER big SET STORAGE {storage}, ALTER bytes SET STORAGE {storage}")
    watched = Watched(db, "t", "diff")
    bytes_of = f"decode(repeat('00ff', {size // 4}), 'hex')"
    inserted = watched.after(f"INSERT INTO t VALUES (1, 0, repeat('ab\\', {size // 3}), {bytes_of})")
    assert inserted["new"]["big"] == "ab\\" * (size // 3)
    assert inserted["new"]["bytes"] == "\\x" + "00ff" * (size // 4)
    assert watched.after("UPDATE t SET v = 1")["new"] == {"v": 1}
    # The same content written anew is the same.
    assert watched.after("UPDATE t SET v = 2, big = big || ''")["new"] == {"v": 2}
    changed = watched.after("UPDATE t SET big = left(big, -1) || 'z'")
    assert list(changed["new"]) == ["big"] and changed["new"]["big"].endswith("abz") and changed["old"]["big"].endswith("ab\\")
    assert watched.after("DELETE FROM t")["old"]["bytes"] == inserted["new"]["bytes"]


def test_1600_columns(db):
    db.sql(f"CREATE TABLE t ({', '.join(f'column_{number} smallint' for number in range(1, 1601))}, PRIMARY KEY (column_1600))")
    watched = Watched(db, "t", "row")
    expected = {f"column_{number}": number for number in range(1, 1601)}
    notice = watched.after(f"INSERT INTO t VALUES ({', '.join(str(number) for number in range(1, 1601))})")
    assert (notice["new"], notice["key"]) == (expected, {"column_1600": 1600})
    assert watched.after("UPDATE t SET column_800 = 0")["old"] == expected


def test_a_composite_type_that_grows_is_followed(db):
    db.sql("CREATE TYPE pair AS (a int); CREATE TABLE t (id int PRIMARY KEY, p pair, ps pair[])")
    watched = Watched(db, "t", "row")
    assert watched.after("INSERT INTO t VALUES (1, ROW(1), ARRAY[ROW(2)::pair])")["new"] == {"id": 1, "p": {"a": 1}, "ps": [{"a": 2}]}
    db.sql("ALTER TYPE pair ADD ATTRIBUTE b text")
    assert watched.after("UPDATE t SET id = 2")["new"] == {"id": 2, "p": {"a": 1, "b": None}, "ps": [{"a": 2, "b": None}]}
    db.sql("ALTER TYPE pair RENAME ATTRIBUTE a TO first")
    assert watched.after("UPDATE t SET id = 3, p.b = 'b'")["new"]["p"] == {"first": 1, "b": "b"}


# -- encodings ---------------------------------------------------------------------------------------------------

def database_in(cluster, encoding: str):
    """A database of another encoding; the caller drops it."""
    with cluster.connect() as admin:
        name = f"in_{encoding.lower()}"
        admin.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'")
    database = Database(cluster, name)
    database.sql("CREATE EXTENSION pushy")
    return database


def test_a_latin1_database_tells_its_letters(shared_cluster):
    db = database_in(shared_cluster, "LATIN1")
    try:
        db.sql("CREATE TABLE \"É\" (\"ü\" text PRIMARY KEY, j jsonb)")
        watched = Watched(db, '"É"', "row")
        notice = watched.after("INSERT INTO \"É\" VALUES ('éÿ\\\"', '{\"ä\": \"ö\"}')")
        assert (notice["table"], notice["key"]) == ("É", {"ü": 'éÿ\\"'})
        assert notice["new"] == {"ü": 'éÿ\\"', "j": {"ä": "ö"}}
    finally:
        db.drop()


def test_an_sql_ascii_database_tells_its_bytes(shared_cluster):
    db = database_in(shared_cluster, "SQL_ASCII")
    try:
        db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
        db.sql("SELECT pushy.watch('t', payload => 'row', channel => 'heard', delivery => 'notify')")
        # A session hears itself; psycopg would make text of it.
        heard = []
        writer = db.connect()
        writer.execute("SET client_encoding = 'SQL_ASCII'")
        writer.execute("LISTEN heard")
        writer.pgconn.notify_handler = heard.append
        writer.execute(rb"INSERT INTO t VALUES (1, E'\xff\"\xe9')")
        assert b'"v":"\xff\\"\xe9"' in heard[0].extra
    finally:
        db.drop()


# -- statements, references, errors ------------------------------------------------------------------------------

def test_a_statement_tells_the_keys_of_its_rows(db):
    db.sql("CREATE TABLE t (id int PRIMARY KEY, v int)")
    watched = Watched(db, "t", "key", level="statement")
    inserted = watched.after("INSERT INTO t SELECT g, 0 FROM generate_series(1, 3) g")
    assert {name: inserted[name] for name in ("op", "level", "count", "keys")} == {
        "op": "insert", "level": "statement", "count": 3, "keys": [{"id": 1}, {"id": 2}, {"id": 3}]}
    assert not {"key", "old_keys", "keys_complete"} & set(inserted)
    moved = watched.after("UPDATE t SET id = id + 10 WHERE id > 1")
    assert (moved["keys"], moved["old_keys"]) == ([{"id": 12}, {"id": 13}], [{"id": 2}, {"id": 3}])
    emptied = watched.after("TRUNCATE t")
    assert (emptied["count"], emptied["keys"], emptied["keys_complete"]) == (None, [], False)


def test_keys_that_do_not_fit_are_left_out_and_it_says_so(db):
    name = "t" * 63
    db.sql(f"CREATE TABLE {name} (id bigint PRIMARY KEY)")
    watched = Watched(db, name, "key", level="statement")
    sent = watched.sent_after(f"INSERT INTO {name} SELECT g FROM generate_series(1000000, 1009999) g")
    notice = json.loads(sent)
    assert (notice["count"], notice["keys_complete"]) == (10_000, False)
    assert [key["id"] for key in notice["keys"]] == list(range(1_000_000, 1_000_000 + len(notice["keys"])))
    assert LIMIT - 200 < len(sent) <= LIMIT


def test_a_statement_on_a_table_without_a_key_only_counts(db):
    db.sql("CREATE TABLE t (v int)")
    notice = Watched(db, "t", "key", level="statement").after("INSERT INTO t SELECT generate_series(1, 5)")
    assert (notice["count"], notice["keys"], notice["keys_complete"]) == (5, [], False)


def test_a_statement_with_payload_none_is_empty(db):
    db.sql("CREATE TABLE t (id int PRIMARY KEY)")
    assert Watched(db, "t", "none", level="statement").text_after("INSERT INTO t SELECT generate_series(1, 5)") == ""


def test_a_value_that_cannot_be_written_does_not_stop_the_writer(db):
    db.sql("""CREATE TYPE fragile AS ENUM ('fine', 'broken');
              CREATE FUNCTION to_json(fragile) RETURNS json LANGUAGE plpgsql AS $$
              BEGIN
                IF $1 = 'broken' THEN RAISE 'it "broke"' USING ERRCODE = '22012'; END IF;
                RETURN '{"state": "fine"}';
              END $$;
              CREATE CAST (fragile AS json) WITH FUNCTION to_json(fragile);
              CREATE TABLE t (id int PRIMARY KEY, v fragile);
              CREATE TABLE k (v fragile PRIMARY KEY)""")
    row = Watched(db, "t", "row")
    assert row.after("INSERT INTO t VALUES (1, 'fine')")["new"] == {"id": 1, "v": {"state": "fine"}}
    notice = row.after("INSERT INTO t VALUES (2, 'broken')")
    assert notice["error"] == {"sqlstate": "22012", "message": 'it "broke"'} and "new" not in notice
    notice = Watched(db, "k", "key").after("INSERT INTO k VALUES ('broken')")
    assert (notice["key"], notice["error"]["sqlstate"]) == (None, "22012")
    assert db.value("SELECT count(*) FROM t, k") == 2


# -- the documentation -------------------------------------------------------------------------------------------

def documented() -> list[str]:
    """The notices that docs/notice-json.md shows, in order."""
    page = (REPOSITORY / "docs" / "notice-json.md").read_text()
    return [line for block in re.findall(r"^```json\n(.*?)^```$", page, re.M | re.S) for line in block.splitlines()]


def anonymous(payload: str) -> str:
    return re.sub(r'"pid":\d+,"xid":\d+', '"pid":0,"xid":0', payload)


def test_the_page_shows_what_is_sent(db):
    shown = [anonymous(notice) for notice in documented()]
    db.sql("CREATE TABLE parcel (id int PRIMARY KEY, grams int, label text)")
    def sent(payload, statement, level="row"):
        watched = Watched(db, "parcel", payload, level)
        return anonymous(watched.sent_after(statement))

    seen = [
        sent("key", "INSERT INTO parcel VALUES (7, 500, NULL)"),
        sent("key", "UPDATE parcel SET id = 8"),
        sent("row", "UPDATE parcel SET grams = 520"),
        sent("diff", "UPDATE parcel SET label = 'P-8'"),
    ]
    db.sql("SET session_replication_role = replica; INSERT INTO parcel VALUES (9); RESET session_replication_role")
    seen.append(sent("key", "DELETE FROM parcel", level="statement"))
    reference = sent("row", "INSERT INTO parcel VALUES (10, 0, repeat('x', 90018))")
    seen.append(re.sub(r'"notice":\d+,"bytes":\d+', '"notice":4263370125104811,"bytes":90149', reference))
    assert seen == shown[:-3]
    db.value("SELECT pushy.watch('parcel', channel => 'heard', payload_expr => '(1 / NEW.grams)::text')")
    listener = db.listen("heard")
    db.sql("INSERT INTO parcel VALUES (11, 0)")
    assert anonymous(listener.wait_for().payload) == shown[-3]
    db.sql("SELECT pushy.unwatch('parcel'); DELETE FROM parcel; INSERT INTO parcel VALUES (8)")
    db.sql("SELECT pushy.watch('parcel', channel => 'heard', payload => 'diff', delivery => 'notify')")
    db.sql("BEGIN; UPDATE parcel SET label = 'P-8'; UPDATE parcel SET label = NULL; UPDATE parcel SET label = 'P-8'; COMMIT")
    listener.wait_for(), listener.wait_for()
    assert anonymous(listener.wait_for().payload) == shown[-2]
    db.sql("BEGIN; SET LOCAL pushy.max_notices = 1; INSERT INTO parcel SELECT n FROM generate_series(11, 14) n; COMMIT")
    listener.wait_for()
    assert anonymous(listener.wait_for().payload) == shown[-1]


def test_types_nested_without_end_take_neither_stack_nor_memory_and_are_told_as_an_error(db):
    """Sixty levels are told as they are, 300 are an error in the notice. A type of 16 levels of two columns each has 65,536 in the end: no more than
    10,000 are looked at. (The server itself walks all of them for each type.)"""
    db.sql("CREATE TYPE c0 AS (x int); CREATE TYPE w0 AS (x int)")
    for level in range(1, 301):
        db.sql(f"CREATE TYPE c{level} AS (x c{level - 1})")
    for level in range(1, 17):
        db.sql(f"CREATE TYPE w{level} AS (a w{level - 1}, b w{level - 1})")

    def value(levels: int) -> str:
        return "".join("row(" for _ in range(levels + 1)) + "1" + "".join(f")::c{level}" for level in range(levels + 1))
    db.sql(f"CREATE TABLE kept AS SELECT {value(300)} AS v; CREATE TABLE s (id int PRIMARY KEY, v c60); CREATE TABLE t (id int PRIMARY KEY, v c300);"
           "CREATE TABLE u (id int PRIMARY KEY, v w16);"
           "SELECT pushy.watch(t, channel => 'c', payload => 'row', delivery => 'notify') FROM unnest('{s,t,u}'::regclass[]) t")
    ear = Watching(db, "c", relayed=False)
    db.sql(f"INSERT INTO s VALUES (1, {value(60)})")
    [told] = [json.loads(notice.payload) for notice in ear.until_now()]
    inside, depth = told["new"]["v"], 0
    while isinstance(inside, dict):
        inside, depth = inside["x"], depth + 1
    assert (inside, depth) == (1, 61)
    with db.connect() as session:
        session.execute("SET statement_timeout = '20 s'")
        session.execute("INSERT INTO t VALUES (1, NULL); INSERT INTO t SELECT 2, v FROM kept; INSERT INTO u VALUES (1, NULL), (2, row(NULL, NULL))")
    told = [json.loads(notice.payload) for notice in ear.until_now()]
    assert [payload.get("error", {}).get("sqlstate") for payload in told] == [None, "54001", None, None], told
    assert told[1]["key"] == {"id": 2} and told[3]["new"]["v"] == {"a": None, "b": None}
