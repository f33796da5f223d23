"""Topics: computed by the writer, kept in the log, chosen by readers and by grants."""

import itertools
import json

import psycopg
import pytest

from stage.watching import Watching, jobs, paused_queue, settled, watch

POSTS = "CREATE TABLE post (id int PRIMARY KEY, author int, title text)"


def read(db, name="s", session=None):
    """(topic, payload) of what comes next."""
    settled(db)
    return (session or db.main).execute("SELECT topic, payload FROM pushy.subscription_read(%s) WHERE channel = 'heard'", (name,)).fetchall()


def subscribe(db, topics=None, name="s", session=None, **options):
    named = "".join(f", {option} => %s" for option in options)
    return (session or db.main).execute(f"SELECT pushy.subscription_create(%s, '{{heard}}', topics => %s{named})", (name, topics, *options.values())).fetchone()[0]


def tell(db, *topics, channel="heard"):
    for topic in topics:
        db.sql("SELECT pushy.notify(%s, %s, topic => %s)", channel, f"on {topic}", topic)


# -- what is said -------------------------------------------------------------------------------------------------

def test_a_notice_has_the_topic_of_its_row_and_listeners_hear_the_channel(db):
    db.sql(POSTS)
    watch(db, "post", topic_expr="'post/' || coalesce(NEW.id, OLD.id)")
    subscribe(db)
    heard = Watching(db, "heard")
    assert heard.after("INSERT INTO post VALUES (1), (2); UPDATE post SET title = 'a' WHERE id = 2; DELETE FROM post WHERE id = 1") == \
        [("insert", 1), ("insert", 2), ("update", 2), ("delete", 1)]
    assert [(topic, json.loads(payload)["op"]) for topic, payload in read(db)] == \
        [("post/1", "insert"), ("post/2", "insert"), ("post/2", "update"), ("post/1", "delete")]
    assert db.value("SELECT topic_expr FROM pushy.watches") == "'post/' || coalesce(NEW.id, OLD.id)"


@pytest.mark.parametrize("options", [{}, {"payload": "row"}, {"payload": "none"}, {"payload_expr": "'text'"}, {"condition": "NEW.author > 0"},
                                     {"columns": ["author"], "events": ["update"]}])
def test_any_payload_has_a_topic_and_null_is_none(db, options):
    db.sql(POSTS + "; INSERT INTO post VALUES (1, 0), (2, 0)")
    watch(db, "post", topic_expr="'author/' || nullif(NEW.author, 9)", **options)
    subscribe(db)
    db.sql("UPDATE post SET author = 7 WHERE id = 1; UPDATE post SET author = 9 WHERE id = 2")
    assert [topic for topic, _ in read(db)] == ["author/7", None]


@pytest.mark.parametrize("topic, sqlstate", [
    ("1 / 0 || ''", "22012"), ("repeat('a', 1025)", "22023"), ("E'a\\nb'", "22023"), ("E'a\\u0085'", "22023"), ("''", "22023"), ("repeat('a', 300000000)", "22023")])
@pytest.mark.parametrize("more", [{}, {"queue": "q"}, {"queue": "q", "args_expr": "jsonb_build_object('a', NEW.id)"}, {"payload_expr": "'x' || NEW.id"}])
def test_a_topic_that_fails_fails_no_write_and_no_job(db, topic, sqlstate, more):
    db.sql(POSTS)
    paused_queue(db)
    watch(db, "post", topic_expr=topic.replace("1 /", "NEW.id /"), **more)
    subscribe(db)
    subscribe(db, ["**"], "chosen")
    db.sql("INSERT INTO post VALUES (5)")
    (told, payload), = read(db)
    assert told is None
    assert (json.loads(payload)["error"]["sqlstate"], json.loads(payload)["key"]) in [(sqlstate, {"id": 5}), ("54000", {"id": 5})]
    assert read(db, "chosen") == []
    assert db.rows("SELECT notices, errors FROM pushy.watches") == [(1, 1)]
    if "queue" in more:
        (args,) = jobs(db)
        assert args == {"a": 5} if "args_expr" in more else args["key"] == {"id": 5} and "error" not in args


def test_a_payload_that_fails_says_so_whatever_the_topic(db):
    db.sql(POSTS)
    watch(db, "post", payload_expr="(NEW.id / 0)::text", topic_expr="'a' || 1 / (NEW.id - 5)")
    subscribe(db)
    db.sql("INSERT INTO post VALUES (5)")
    (told, payload), = read(db)
    assert (told, json.loads(payload)["error"]["message"]) == (None, "division by zero")
    assert db.rows("SELECT notices, errors FROM pushy.watches") == [(1, 1)]


def test_a_topic_is_evaluated_once_by_the_writer(db, role):
    """With the writer's rights and settings; a function with side effects runs once for each row."""
    writer = role()
    db.sql(f"""{POSTS}; GRANT INSERT ON post TO {writer}; CREATE TABLE ran (as_role name); GRANT INSERT ON ran TO {writer};
        CREATE FUNCTION said() RETURNS text LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.ran VALUES (current_user); RETURN current_user; END $$""")
    watch(db, "post", topic_expr="said()", condition="NEW.id > 0")
    subscribe(db)
    with db.connect(user=writer) as session:
        session.execute("INSERT INTO post VALUES (1), (2)")
    assert [topic for topic, _ in read(db)] == [writer, writer]
    assert db.rows("SELECT as_role FROM ran") == [(writer,), (writer,)]


def test_a_payload_that_leaves_no_room_for_its_topic_is_a_reference(db):
    db.sql(POSTS)
    watch(db, "post", payload_expr="NEW.title", topic_expr="repeat('t', 1024)")
    subscribe(db)
    for length in (7_999 - 1024, 7_999 - 1023, 7_999, 100_000):
        db.sql("INSERT INTO post VALUES (%s, 0, %s)", length, "x" * length)
    lengths = []
    for topic, payload in read(db):
        assert topic == "t" * 1024
        lengths.append(len(payload) if payload.startswith("x") else len(db.value("SELECT pushy.notice(%s)", json.loads(payload)["notice"])))
    assert lengths == [7_999 - 1024, 7_999 - 1023, 7_999, 100_000]


def test_notify_says_a_topic(db):
    subscribe(db)
    heard = Watching(db, "heard")
    tell(db, "post/42", None)
    assert [(notice.channel, notice.payload) for notice in heard.until_now()] == [("heard", "on post/42"), ("heard", "on None")]
    assert read(db) == [("post/42", "on post/42"), (None, "on None")]


@pytest.mark.parametrize("arguments, words", [
    ("topic => ''", 'topic "" is empty'), ("topic => repeat('a', 1025)", "is too long: 1025 bytes, at most 1024"), ("topic => E'a\\tb'", 'topic "a\\u0009b" has control characters'),
    ("topic => E'a\\u0090'", "has control characters"), ("topic => repeat('a/', 16)", "has 17 levels, at most 16"), ("topic => 'a', delivery => 'notify'", "topic \"a\" does not go with delivery => 'notify'"),
    ("payload => repeat('x', 7999), topic => 'a'", "is too long: 7999 bytes, at most 7998")])
def test_a_bad_topic_is_named(db, arguments, words):
    with pytest.raises(psycopg.errors.InvalidParameterValue) as error:
        db.sql(f"SELECT pushy.notify('heard', {arguments})")
    assert words in str(error.value) and error.value.diag.message_hint


@pytest.mark.parametrize("options, words", [
    ({"level": "statement"}, "level => 'statement' does not go with topic_expr"), ({"delivery": "notify"}, "topic_expr does not go with delivery => 'notify'"),
    ({"events": ["truncate"]}, "topic_expr is given, and only truncate is watched"), ({"channel": None, "queue": "q"}, "topic_expr is given without a channel")])
def test_what_does_not_go_with_a_topic_is_refused(db, options, words):
    db.sql(POSTS)
    paused_queue(db)
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=words):
        watch(db, "post", topic_expr="'a'", **options)


def test_a_row_without_a_topic_is_as_long_as_before(db):
    db.sql("SELECT pushy.notify('heard', 'x'), pushy.notify('heard', 'x', topic => 'a')")
    part = db.value("SELECT part FROM pushy_internal.log_state")
    lengths = dict(db.rows(f"SELECT topic, pg_column_size(l.*) FROM pushy_internal.log_{part} l WHERE channel = 'heard'"))
    # 24 for the header, whose bitmap has eight columns; xid and position; merge; two texts, each with its header and padding.
    assert lengths[None] == 24 + 8 + 8 + 1 + 3 + (4 + 5 + 3) + (4 + 1), lengths


def test_equal_notices_of_two_topics_are_two(db):
    db.sql(POSTS)
    watch(db, "post", payload="none", merge=True, topic_expr="'author/' || NEW.author")
    subscribe(db)
    db.sql("INSERT INTO post SELECT n, n % 3 FROM generate_series(1, 30) n")
    assert sorted(topic for topic, _ in read(db)) == ["author/0", "author/1", "author/2"]
    subscribe(db, ["author/1"], "one", from_oldest=True)
    assert read(db, "one") == [("author/1", "")]


# -- what is chosen -----------------------------------------------------------------------------------------------

TOPICS = ["post/1", "post/2/new", "post", "user/1", "*", "a,b", "post//x", "Größe/1"]


@pytest.mark.parametrize("patterns, chosen", [
    (None, [*TOPICS, None]), (["**"], TOPICS), (["post/*"], ["post/1"]), (["post/**"], ["post/1", "post/2/new", "post", "post//x"]),
    (["*"], ["post", "*", "a,b"]), (["\\*"], ["*"]), (["a\\,b", "user/1"], ["user/1", "a,b"]), (["post/*/x"], ["post//x"]), (["Größe/*"], ["Größe/1"]), (["none"], [])])
def test_a_subscription_reads_what_its_patterns_match(db, patterns, chosen):
    subscribe(db, patterns)
    tell(db, *TOPICS, None)
    assert [topic for topic, _ in read(db)] == chosen
    assert db.rows("SELECT topics, lag_notices FROM pushy.subscriptions") == [(patterns, len(chosen))]


@pytest.mark.parametrize("patterns, words", [
    (["a*"], r'topics\[1\] "a\*" has a \* that is not a whole level'), (["a", "**/b"], r'topics\[2\] "\*\*/b"'), ([""], "is empty"), ([], "an empty array"),
    (["a,b"], "has a comma"), (["{sub}/a"], "without {sub}"), (["{x}"], "has a brace"), (["a\\b"], "before one of"), (["x" * 1025], "1025 bytes"),
    (["a\tb"], "control characters"), (["a"] * 99 + ["b", "c", "d"] + [f"t{n}" for n in range(99)], "more than 100"),
    (["/" * 16], "has 17 levels, at most 16"), (["x" * 1000 + str(n) for n in range(9)], "bytes of patterns, at most 8192")])
def test_a_bad_pattern_is_named(db, patterns, words):
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=words):
        subscribe(db, patterns)


def test_a_subscription_declared_again_takes_the_new_patterns_and_keeps_its_cursor(db):
    first = subscribe(db, ["post/*"])
    tell(db, "post/1", "user/1")
    assert subscribe(db, ["user/*"]) == first
    assert [topic for topic, _ in read(db)] == ["user/1"]


def test_a_queue_gets_the_topic_with_the_notice(db):
    db.sql("CREATE FUNCTION nothing(args jsonb) RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_register('q', 'nothing(jsonb)'), pushy.queue_pause('q')")
    subscribe(db, ["post/*"], queue="q")
    tell(db, "post/1", "user/1", None)
    subscribe(db, name="all", queue="q", from_oldest=True)
    db.wait_until("SELECT count(*) FROM pushy.jobs WHERE queue = 'q'", 4)
    assert sorted(json.dumps(args) for args in jobs(db)) == sorted(json.dumps(args) for args in [
        {"topic": "post/1", "channel": "heard", "payload": "on post/1"}, {"topic": "post/1", "channel": "heard", "payload": "on post/1"},
        {"topic": "user/1", "channel": "heard", "payload": "on user/1"}, {"channel": "heard", "payload": "on None"}])


# -- what is granted ----------------------------------------------------------------------------------------------

@pytest.fixture
def granted(db, role):
    db.owner, db.friend = role(), role()

    def grant(topics=None, to=db.friend):
        with db.connect(user=db.owner) as session:
            session.execute("SELECT pushy.channel_grant('heard', %s, topics => %s)", (to, topics))
    db.grant = grant
    return db


@pytest.mark.parametrize("topics, chosen", [
    ("post/*", ["post/1"]), ("post/**, user/*", ["post/1", "post/2/new", "post", "user/1", "post//x"]), ("a\\,b", ["a,b"]), (None, [*TOPICS, None]),
    ("**, {sub}/x", TOPICS)])
@pytest.mark.parametrize("patterns", [None, ["**"], ["post/*", "user/*"]])
@pytest.mark.parametrize("to", ["friend", "public"])
def test_a_grantee_reads_the_topics_that_it_was_granted(granted, topics, chosen, patterns, to):
    db = granted
    db.grant(topics, db.friend if to == "friend" else "public")
    with db.connect(user=db.friend) as session:
        subscribe(db, patterns, session=session)
        session.execute("SELECT pushy.subscription_create('all', topics => %s)", (patterns,))
        tell(db, *TOPICS, None)
        expected = [topic for topic in chosen if patterns is None or topic is not None and (patterns == ["**"] or topic in ("post/1", "user/1"))]
        assert [topic for topic, _ in read(db, session=session)] == expected
        assert [topic for topic, _ in read(db, "all", session=session)] == expected
    assert db.rows("SELECT topics FROM pushy.channel_grants") == [(topics,)]


@pytest.mark.parametrize("topics, words", [("a*", "has a \\*"), ("a,,b", "empty pattern"), ("{user}", "brace"), ("a\nb", "control characters"), ("", "empty"),
                                            ("/" * 16, "17 levels"), (",".join(["a"] * 101), "more than 100"), ("a," * 10_000_000, "20000000 bytes of patterns, at most 8192")])
def test_a_bad_grant_is_named(granted, topics, words):
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=words):
        granted.grant(topics)


def test_what_is_granted_to_a_subject_is_granted_to_no_role(granted):
    """{sub} stands for whom the gateway lets in: a role, whatever it is called, is none."""
    db = granted
    db.grant("user/{sub}/**")
    with db.connect(user=db.friend) as session, pytest.raises(psycopg.errors.InsufficientPrivilege):
        subscribe(db, session=session)


def test_other_topics_are_not_read_from_before_they_were_granted(granted):
    db = granted
    db.grant("post/*")
    with db.connect(user=db.friend) as session:
        subscribe(db, session=session)
        tell(db, "post/1", "user/1")
        settled(db)
        db.grant("user/*")
        tell(db, "post/2", "user/2")
        assert [topic for topic, _ in read(db, session=session)] == ["user/2"]
        # What is fewer than before is none that it has not read.
        db.grant(None)
        tell(db, "user/3")
        settled(db)
        db.grant("user/*")
        assert [topic for topic, _ in read(db, session=session)] == ["user/3"]


def test_a_reference_is_resolved_for_who_may_read_its_topic(granted):
    db = granted
    db.sql(POSTS)
    db.grant("post/*")
    watch(db, "post", payload="row", topic_expr="CASE WHEN NEW.author > 0 THEN 'post/' ELSE 'draft/' END || NEW.id")
    subscribe(db)
    db.sql("INSERT INTO post SELECT n, n - 1, repeat('x', 9000) FROM generate_series(1, 2) n")
    said = {topic: json.loads(payload)["notice"] for topic, payload in read(db)}
    with db.connect(user=db.friend) as session:
        assert json.loads(session.execute("SELECT pushy.notice(%s)", (said["post/2"],)).fetchone()[0])["new"]["id"] == 2
        with pytest.raises(psycopg.errors.UndefinedObject):
            session.execute("SELECT pushy.notice(%s)", (said["draft/1"],))


# -- through DDL, dumps and copies: what the expression is kept in ---------------------------------------------------

def test_a_topic_follows_its_columns(db):
    db.sql(POSTS)
    watch(db, "post", topic_expr="'author/' || NEW.author", args_expr=None)
    subscribe(db)
    db.sql("ALTER TABLE post RENAME author TO writer; INSERT INTO post VALUES (1, 7)")
    db.sql("ALTER TABLE post ALTER writer TYPE text; INSERT INTO post VALUES (2, 'eight')")
    assert [topic for topic, _ in read(db)] == ["author/7", "author/eight"]
    assert "writer" in db.value("SELECT topic_expr FROM pushy.watches")


def test_a_watch_without_a_topic_keeps_its_triggers_of_four_expressions(db):
    """As 0.1.0 has made them."""
    db.sql(POSTS)
    definitions = []
    for topic in (None, "'a'"):
        watch(db, "post", payload_expr="'x'", topic_expr=topic)
        definitions.append(db.value("SELECT pg_get_triggerdef(expression_trigger) FROM pushy_internal.watch"))
    assert ["ROW(NULL::unknown, NULL::unknown, 'x'::text, NULL::unknown)" in text for text in definitions] == [True, False], definitions


def test_parts_of_savepoints_and_partitions_have_their_topics(db):
    db.sql("CREATE TABLE p (id int PRIMARY KEY, v int) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);"
           "CREATE TABLE p2 (v int, id int NOT NULL); ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (10) TO (20)")
    watch(db, "p", topic_expr="coalesce(NEW.id, OLD.id) || '/' || coalesce(NEW.v, OLD.v)")
    subscribe(db)
    db.sql("BEGIN; INSERT INTO p VALUES (1, 5); SAVEPOINT s; INSERT INTO p VALUES (2, 5); ROLLBACK TO s; UPDATE p SET id = 11, v = 6; COMMIT; DELETE FROM p")
    assert [topic for topic, _ in read(db)] == ["1/5", "11/6", "11/6"]


@pytest.mark.parametrize("expressions", list(itertools.product([None, "condition"], [None, "payload_expr"], [None, "args_expr"])), ids=str)
def test_a_topic_goes_with_every_other_expression(db, expressions):
    db.sql(POSTS)
    paused_queue(db)
    given = {"condition": "NEW.id > 1", "payload_expr": "'p' || NEW.id", "args_expr": "jsonb_build_object('a', NEW.id)"}
    options = {name: given[name] for name in expressions if name}
    watch(db, "post", topic_expr="'t/' || NEW.id", queue="q", **options)
    subscribe(db)
    db.sql("INSERT INTO post VALUES (1), (2)")
    ids = [2] if "condition" in options else [1, 2]
    found = read(db)
    assert [topic for topic, _ in found] == [f"t/{n}" for n in ids]
    if "payload_expr" in options:
        assert [payload for _, payload in found] == [f"p{n}" for n in ids]
    assert [args.get("a") for args in jobs(db)] == ([*ids] if "args_expr" in options else [None] * len(ids))
