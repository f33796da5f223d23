"""channel_name and channel_inspect say what LISTEN does, text by text, in three encodings."""

import psycopg
import pytest

from stage.channel_names import ENCODINGS, LIMIT, NAME_TOO_LONG, SYNTAX_ERROR, names_in

TOO_LONG = "a" * 62 + "é"

# What one writes after LISTEN, and the channel it listens on; a SQLSTATE where it refuses.
KEPT = {
    "FooBar": "foobar",
    '"FooBar"': "FooBar",
    "a" * LIMIT: "a" * LIMIT,
    "A" * LIMIT: "a" * LIMIT,
    f'"{"A" * LIMIT}"': "A" * LIMIT,
    r'U&"d\0061t"': "dat",
    """u&"d!0061t" UESCAPE '!'""": "dat",
    r'U&"\+000064at"': "dat",
    "listen": "listen", "LISTEN": "listen", "timestamp": "timestamp", "values": "values",
    '" a b "': " a b ", '"a""b"': 'a"b', '"1x"': "1x", '"public.t"': "public.t", '"a\nb"': "a\nb",
    '"*"': "*", '"user"': "user", '"\x01\x7f"': "\x01\x7f", '";"': ";",
    " x ": "x", "\t\r\n\fx": "x", "x -- comment": "x", "/* a /* b */ c */ x/**/": "x",
    "_": "_", "x1$": "x1$", "u": "u",
}
KEPT_BY_ENCODING = {
    "UTF8": {
        "ÉCOLE_X": "École_x", '"École"': "École", r'U&"\00C9cole"': "École",
        r'U&"\d83d\de00"': "😀", r'U&"\+01f600"': "😀", "é" * 31 + "a": "é" * 31 + "a",
    },
    "LATIN1": {'"École"': "École", r'U&"\00C9cole"': "École", "é" * LIMIT: "é" * LIMIT, TOO_LONG: TOO_LONG},
    "SQL_ASCII": {'"École"': "École"},
}
CUT = {
    "a" * 64: "a" * LIMIT,
    "A" * 64: "a" * LIMIT,
    f'"{"A" * 64}"': "A" * LIMIT,
    '"' + '""' * 64 + '"': '"' * LIMIT,
    r'U&"' + r"\0061" * 64 + '"': "a" * LIMIT,
    """U&"!0061""" + "b" * 63 + """" UESCAPE '!'""": "a" + "b" * 62,
}
CUT_BY_ENCODING = {
    "UTF8": {
        TOO_LONG: "a" * 62, "é" * 32: "é" * 31, f'"{"é" * 32}"': "é" * 31, r'U&"' + r"\00e9" * 32 + '"': "é" * 31,
        "a" * 60 + "😀": "a" * 60, "日" * 22: "日" * 21,
    },
    "LATIN1": {"é" * 64: "é" * LIMIT, r'U&"' + r"\00e9" * 64 + '"': "é" * LIMIT},
    # Bytes are no characters here: the cut goes through one.
    "SQL_ASCII": {},
}
REFUSED = {
    r'U&"a\0000b"': SYNTAX_ERROR, r'U&"a\d83d"': SYNTAX_ERROR, r'U&"a\de00"': SYNTAX_ERROR,
    r'U&"a\00g0"': SYNTAX_ERROR, r'U&"a\+110000"': SYNTAX_ERROR, r"""U&"a" UESCAPE '+'""": SYNTAX_ERROR,
    """U&"a" UESCAPE 'xy'""": SYNTAX_ERROR, """U&"a" UESCAPE""": SYNTAX_ERROR,
    '""': SYNTAX_ERROR, 'U&""': SYNTAX_ERROR,
    "user": SYNTAX_ERROR, "table": SYNTAX_ERROR, "all": SYNTAX_ERROR, "left": SYNTAX_ERROR, "verbose": SYNTAX_ERROR,
    "1x": SYNTAX_ERROR, "public.t": SYNTAX_ERROR, "a-b": SYNTAX_ERROR, "'foo'": SYNTAX_ERROR, "$1": SYNTAX_ERROR,
    "*": SYNTAX_ERROR, "": SYNTAX_ERROR, "  ": SYNTAX_ERROR, "-- x": SYNTAX_ERROR, "/* x": SYNTAX_ERROR,
    "x y": SYNTAX_ERROR, '"x': SYNTAX_ERROR, 'x"y"': SYNTAX_ERROR, "x, y": SYNTAX_ERROR, "x\x01": SYNTAX_ERROR,
    "x UESCAPE '!'": SYNTAX_ERROR, f"{'x' * 64} y": SYNTAX_ERROR, "x /* y": SYNTAX_ERROR,
}
REFUSED_BY_ENCODING = {
    "UTF8": {},
    "LATIN1": {r'U&"\20AC"': "22P05", r'U&"\d83d\de00"': "22P05"},
    "SQL_ASCII": {r'U&"\00e9"': "0A000"},
}


@pytest.fixture(params=ENCODINGS)
def names(request, shared_cluster):
    with names_in(shared_cluster, request.param) as names:
        yield names


def test_a_text_names_the_channel_that_listen_hears(names):
    expected = KEPT | KEPT_BY_ENCODING[names.encoding]
    tried = names.try_all(text.encode(names.codec) for text in expected)
    heard = {t.text.decode(names.codec): t.heard.decode(names.codec) for t in tried}
    assert heard == expected
    assert names.disagreements() == []


def test_a_name_that_listen_cuts_is_an_error(names):
    expected = CUT | CUT_BY_ENCODING[names.encoding]
    tried = names.try_all(text.encode(names.codec) for text in expected)
    heard = {t.text.decode(names.codec): t.heard.decode(names.codec) for t in tried}
    assert heard == expected
    assert all(t.uncut_length > LIMIT for t in tried)
    assert names.disagreements() == []


def test_a_text_that_listen_refuses_is_refused_alike(names):
    expected = REFUSED | REFUSED_BY_ENCODING[names.encoding]
    tried = names.try_all(text.encode(names.codec) for text in expected)
    assert {t.text.decode(names.codec): t.refused for t in tried} == expected
    assert names.disagreements() == []


def test_bytes_that_are_no_characters_are_cut_as_bytes(shared_cluster):
    with names_in(shared_cluster, "SQL_ASCII") as names:
        tried = names.try_all([b"\xff\xfe", b'"\x80"', b"a" * 62 + "é".encode(), b'"' + b"\xff" * 64 + b'"'])
        assert [t.heard for t in tried] == [b"\xff\xfe", b"\x80", b"a" * 62 + b"\xc3", b"\xff" * LIMIT]
        assert names.disagreements() == []


def test_a_backslash_may_escape_without_standard_conforming_strings(names):
    names.database.sql("SET standard_conforming_strings = off")
    texts = [rb"""U&"a\\0061" UESCAPE '\\'""", rb"""U&"a\0061" UESCAPE '\\'""", rb"""U&"!0061" UESCAPE '\x21'""",
             rb"""U&"a\0061" UESCAPE '\'""", rb"""U&"\0061" """]
    longer = [text.replace(b'U&"', b'U&"' + b"x" * 64) for text in texts]
    tried = names.try_all(texts + longer)
    assert [t.heard for t in tried[:5]] == [rb"a\0061", b"aa", b"a", None, b"a"]
    assert names.disagreements() == []


def test_only_one_identifier_is_taken(db):
    for text in ("x;", "x; LISTEN y", ";", "x;;", "x; -- comment", "x; SELECT 1"):
        with pytest.raises(psycopg.errors.SyntaxError):
            db.value("SELECT pushy.channel_name(%s)", text)
        inspected = db.row("SELECT * FROM pushy.channel_inspect(%s)", text)
        assert inspected["channel_name"] is None and inspected["error"]


def test_no_name_is_too_long_to_be_told(db):
    # With 1 MB it is refused unread.
    length = 1 << 17
    for text in ("x" * length, '"' + "é" * length + '"', 'U&"' + r"\00e9" * length + '"'):
        inspected = db.row("SELECT channel_name, byte_length, truncated FROM pushy.channel_inspect(%s)", text)
        assert inspected["truncated"]
        assert inspected["byte_length"] in (length, 2 * length)
        with pytest.raises(psycopg.Error) as raised:
            db.value("SELECT pushy.channel_name(%s)", text)
        assert raised.value.sqlstate == NAME_TOO_LONG
        assert len(raised.value.diag.message_primary) < 300
    for text in ("(" * length, '"' + "x" * length, " " * length, "x y" * length):
        inspected = db.row("SELECT channel_name, error FROM pushy.channel_inspect(%s)", text)
        assert inspected["channel_name"] is None and len(inspected["error"]) < 300
    for text in (" " * length + "x", "x" + "/* - */" * length, f"x -- {'=' * 999}"):
        assert db.value("SELECT pushy.channel_name(%s)", text) == "x"


def test_a_text_that_would_stall_the_server_is_refused(db):
    # The scanner takes minutes for the first two, without looking for a cancel.
    for text in ("/*" * (1 << 20), "x" + "+-" * (1 << 20), "x -- " + "=" * 1001):
        with pytest.raises(psycopg.errors.StatementTooComplex):
            db.value("SELECT pushy.channel_name(%s)", text)
        assert "too complex" in db.row("SELECT * FROM pushy.channel_inspect(%s)", text)["error"]
    # Between quotes such a row is a name like any other.
    assert db.row("SELECT * FROM pushy.channel_inspect(%s)", '"' + "/*" * (1 << 18) + '"')["byte_length"] == 1 << 19
