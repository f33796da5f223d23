"""Thousands of generated texts: Pushy's channel names against what LISTEN has done, in three encodings."""

import os
import random

import pytest

from stage.channel_generator import Generator
from stage.channel_names import ENCODINGS, LIMIT, Names, names_in, notices

COUNT = 4000


@pytest.fixture(params=ENCODINGS)
def names(request, shared_cluster):
    with names_in(shared_cluster, request.param) as names:
        yield names


@pytest.fixture
def generator(names: Names) -> Generator:
    seed = int(os.environ.get("PUSHY_TEST_SEED") or random.randrange(1 << 32))
    print(f"PUSHY_TEST_SEED={seed}")
    keywords = [bytes(word) for word, in names.database.rows("SELECT bytes(word) FROM pg_get_keywords() ORDER BY word")]
    return Generator(seed, names.encoding, keywords)


def test_generated_texts_are_named_as_listen_names_them(names, generator):
    tried = names.try_all(generator.texts(COUNT))
    assert names.disagreements() == []
    # The texts are worth trying: a good part of each fate.
    assert sum(t.refused is not None for t in tried) > COUNT / 10
    assert sum(t.uncut_length is not None for t in tried) > COUNT / 10
    assert sum(t.refused is None and t.uncut_length is None for t in tried) > COUNT / 10


def test_an_escape_may_be_written_without_standard_conforming_strings(names, generator):
    names.database.sql("SET standard_conforming_strings = off")
    names.try_all(generator.unicode() for _ in range(1000))
    assert names.disagreements() == []


def test_every_keyword_is_named_as_listen_names_it(names, generator):
    tried = names.try_all(word for word in generator.keywords)
    assert names.disagreements() == []
    categories = dict(names.database.rows("SELECT bytes(word), bytes(catcode::text) FROM pg_get_keywords()"))
    assert {categories[t.text] for t in tried if t.refused is None} == {b"U", b"C"}
    assert {categories[t.text] for t in tried if t.refused is not None} == {b"R", b"T"}


def test_the_identifier_of_a_name_leads_back_to_it(names, generator):
    # Whatever was heard, and every text of a fitting length taken as a name.
    tried = names.try_all(generator.texts(COUNT))
    wanted = sorted({t.heard for t in tried if t.heard} | {t.text for t in tried if 0 < len(t.text) <= LIMIT})
    names.database.sql("CREATE TABLE wanted (id int PRIMARY KEY, name text)")
    with names.database.main.cursor() as cursor:
        cursor.executemany("INSERT INTO wanted VALUES (%s, text_of(%s))", list(enumerate(wanted)))
    assert names.database.rows("""
        SELECT bytes(name), bytes(pushy.channel_ident(name)) FROM wanted
         WHERE pushy.channel_name(pushy.channel_ident(name)) <> name""") == []
    # LISTEN agrees, and quotes stand only where the bare text is not heard as this name.
    idents = [bytes(ident) for ident, in names.database.rows("SELECT bytes(pushy.channel_ident(name)) FROM wanted ORDER BY id")]
    assert [t.heard for t in names.try_all(idents)] == wanted
    bare = [t.heard == t.text and t.uncut_length is None for t in names.try_all(wanted)]
    assert [ident == name for ident, name in zip(idents, wanted)] == bare


def test_what_is_heard_is_what_is_told(names, generator):
    names.try_all(generator.texts(COUNT))
    assert names.database.rows("""
        SELECT bytes(t.input), bytes(listen_sql), bytes(notify_sql)
          FROM tried t, pushy.channel_inspect(t.input)
         WHERE CASE WHEN heard IS NULL THEN num_nonnulls(listen_sql, notify_sql) > 0
               ELSE (listen_sql, notify_sql) IS DISTINCT FROM
                    ('LISTEN ' || pushy.channel_ident(heard), 'NOTIFY ' || pushy.channel_ident(heard)) END""") == []
    # A text as long as its name is a bare word: folded if the name differs. A quoted one never is.
    assert names.database.rows("""
        SELECT bytes(t.input), quoted, folded
          FROM tried t, pushy.channel_inspect(t.input)
         WHERE quoted AND (folded OR strpos(t.input, '"') = 0)
            OR octet_length(t.input) = byte_length AND NOT truncated AND folded <> (t.input <> channel_name)""") == []


def test_a_notice_is_heard_by_who_listens_to_the_same_text(names, generator):
    names.try_all(generator.texts(1000))
    names.database.sql("""
        CREATE PROCEDURE listen_to_accepted() LANGUAGE plpgsql AS $$
        DECLARE
            accepted text;
        BEGIN
            FOR accepted IN SELECT input FROM tried WHERE name IS NOT NULL LOOP
                EXECUTE 'LISTEN ' || accepted;
            END LOOP;
        END $$""")
    session = names.database.connect()
    heard = []
    session.pgconn.notify_handler = lambda notice: heard.append((bytes(notice.relname), int(notice.extra)))
    session.execute("CALL listen_to_accepted()")
    session.execute("SELECT pushy.notify(input, id::text, 'notify') FROM tried WHERE name IS NOT NULL ORDER BY id")
    session.execute("")  # a notice to oneself comes at the latest before the next answer
    assert heard == [(bytes(name), number) for name, number in names.database.rows(
        "SELECT bytes(heard), id FROM tried WHERE name IS NOT NULL ORDER BY id")]
    assert len(heard) > 200


def test_nothing_is_said_of_a_cut_beside_the_error(names, generator):
    names.try_all(generator.texts(1000))
    names.database.sql("SET client_min_messages = debug1")
    with notices(names.database.main) as said:
        names.database.sql("SELECT pushy.channel_inspect(input) FROM tried")
        assert said == []
        names.database.sql("DO $$ BEGIN RAISE NOTICE 'the level is what it was'; END $$")
    assert len(said) == 1
