"""Who applies notices in their order ends with what the table has, however often the same was said in one transaction."""

import json
import random

import pytest

from stage.watching import Watching, paused_queue, watch

IDS, VALUES = range(1, 4), range(1, 3)


def statements(random: random.Random) -> list[str]:
    """One transaction over few keys and few values, so that much of it is said twice."""
    def change():
        id, other, value = random.choice(IDS), random.choice(IDS), random.choice(VALUES)
        return random.choice([
            f"UPDATE t SET v = {value} WHERE id = {id}",
            f"UPDATE t SET v = 3 - v",
            f"UPDATE t SET v = v WHERE id = {id}",
            f"DELETE FROM t WHERE id = {id}",
            f"INSERT INTO t VALUES ({id}, {value}) ON CONFLICT (id) DO UPDATE SET v = excluded.v",
            f"INSERT INTO t SELECT n, {value} FROM generate_series(1, 3) n ON CONFLICT DO NOTHING",
            f"UPDATE t SET id = {other} WHERE id = {id} AND NOT EXISTS (SELECT FROM t o WHERE o.id = {other})",
        ])
    said, open = [], 0
    for _ in range(random.randint(4, 14)):
        kind = random.random()
        if kind < 0.15:
            open += 1
            said.append(f"SAVEPOINT s{open}")
        elif kind < 0.3 and open:
            said.append(random.choice([f"ROLLBACK TO s{open}; RELEASE s{open}", f"RELEASE s{open}"]))
            open -= 1
        else:
            said.append(change())
    return said


class Replica:
    """Rows as the notices tell them. With payload row it also knows what each row was before."""

    def __init__(self, db, payload: str):
        self.db, self.payload = db, payload
        self.rows: dict[int, int | None] = dict(db.rows("SELECT id, v FROM t"))

    def apply(self, notice: dict) -> None:
        id = notice["key"]["id"]
        before = notice.get("old_key", notice["key"])["id"]
        if notice["op"] != "insert":
            known = self.rows.pop(before) if self.payload != "key" else self.rows.pop(before, None)
            if self.payload == "row":
                assert notice["old"] == {"id": before, "v": known}
            if self.payload == "diff":
                assert notice["old"].items() <= {"id": before, "v": known}.items()
        if notice["op"] == "delete":
            return
        if self.payload == "key":
            self.rows[id] = None
        else:
            now = {"id": before, "v": known} if notice["op"] == "update" else {}
            now |= notice["new"]
            if self.payload == "row" or notice["op"] == "insert":
                assert id not in self.rows
            self.rows[id] = now["v"]

    def seen(self) -> dict[int, int]:
        """Of keys: the rows that there are, as the table has them."""
        if self.payload == "key":
            table = dict(self.db.rows("SELECT id, v FROM t"))
            return {id: table.get(id) for id in self.rows}
        return self.rows


@pytest.mark.parametrize("payload", ["row", "diff", "key"])
@pytest.mark.parametrize("delivery", ["relay", "notify"])
def test_a_replica_ends_with_the_table(db, payload, delivery):
    """LISTENers, readers of a subscription, jobs of a subscription and jobs of the watch: each is one."""
    seed = f"{payload} {delivery}"
    dice = random.Random(seed)
    db.sql("CREATE TABLE t (id int PRIMARY KEY, v int)")
    paused_queue(db), paused_queue_again(db, "fed")
    watch(db, "t", payload=payload, delivery=delivery, queue="q")
    if delivery == "relay":
        db.sql("SELECT pushy.subscription_create('reader', '{heard}'), pushy.subscription_create('feeder', '{heard}', queue => 'fed')")
    heard = Watching(db, "heard")
    replicas = {"listener": Replica(db, payload), "jobs": Replica(db, payload)}
    if delivery == "relay":
        replicas |= {"reader": Replica(db, payload), "feeder": Replica(db, payload)}
    done = 0
    with db.connect(autocommit=False) as session:
        for _ in range(60):
            said = statements(dice)
            for statement in said:
                session.execute(statement)
            if dice.random() < 0.1:
                session.rollback()
            else:
                session.commit()
            done += 1
            told = {"listener": [json.loads(notice.payload) for notice in heard.until_now()],
                    "jobs": [args for args, in db.rows("WITH gone AS (DELETE FROM pushy_internal.live_job l USING pushy_internal.queue q WHERE q.queue_id = l.queue_id "
                                                       "AND q.queue = 'q' RETURNING l.id, l.args) SELECT args FROM gone ORDER BY id")]}
            if delivery == "relay":
                told["reader"] = [json.loads(text) for text in read_one_by_one(db)]
                expected = len(told["listener"])
                db.wait_until("SELECT count(*) FROM pushy.jobs WHERE queue = 'fed'", expected)
                told["feeder"] = [json.loads(args["payload"]) for args, in db.rows(
                    "WITH gone AS (DELETE FROM pushy_internal.live_job l USING pushy_internal.queue q WHERE q.queue_id = l.queue_id "
                    "AND q.queue = 'fed' RETURNING l.id, l.args) SELECT args FROM gone ORDER BY id")]
            table = dict(db.rows("SELECT id, v FROM t"))
            for name, replica in replicas.items():
                for notice in told[name]:
                    replica.apply(notice)
                assert replica.seen() == table, f"{name}, seed {seed!r}, transaction {done}: {said}\n{told[name]}"


def paused_queue_again(db, queue: str) -> None:
    db.sql(f"SELECT pushy.queue_register('{queue}', 'nothing()'), pushy.queue_pause('{queue}')")


def read_one_by_one(db) -> list[str]:
    read = []
    while rows := db.rows("SELECT cursor, payload FROM pushy.subscription_read('reader', 1)"):
        [(cursor, payload)] = rows
        db.sql("SELECT pushy.subscription_ack('reader', %s)", cursor)
        read.append(payload)
    return read


@pytest.mark.parametrize("delivery", ["relay", "notify"])
def test_there_and_back_and_there_again_is_told_in_full(db, delivery):
    db.sql("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'x')")
    watch(db, "t", payload="diff", delivery=delivery)
    heard = Watching(db, "heard")
    db.sql("BEGIN; UPDATE t SET v = '1'; UPDATE t SET v = '2'; UPDATE t SET v = '1'; UPDATE t SET v = '2'; UPDATE t SET v = '1'; COMMIT")
    told = heard.payloads()
    assert [notice["new"]["v"] for notice in told] == ["1", "2", "1", "2", "1"]
    assert [notice.get("repeat") for notice in told] == ([None] * 5 if delivery == "relay" else [None, None, None, 1, 1])


@pytest.mark.parametrize("delivery", ["relay", "notify"])
def test_each_row_of_a_table_without_a_key_is_told(db, delivery):
    db.sql("CREATE TABLE t (v int)")
    watch(db, "t", payload="row", delivery=delivery)
    heard = Watching(db, "heard")
    db.sql("INSERT INTO t SELECT 7 FROM generate_series(1, 5)")
    assert [notice["new"]["v"] for notice in heard.payloads()] == [7] * 5


@pytest.mark.parametrize("delivery", ["relay", "notify"])
def test_counts_of_statements_add_up(db, delivery):
    db.sql("CREATE TABLE t (v int)")
    watch(db, "t", level="statement", delivery=delivery)
    heard = Watching(db, "heard")
    db.sql("BEGIN; INSERT INTO t VALUES (1), (2); INSERT INTO t VALUES (1), (2); SAVEPOINT a; INSERT INTO t VALUES (1), (2); RELEASE a; COMMIT")
    assert sum(notice["count"] for notice in heard.payloads()) == db.value("SELECT count(*) FROM t") == 6


@pytest.mark.parametrize("delivery", ["relay", "notify"])
def test_a_key_is_told_again_where_something_else_was_said_in_between(db, delivery):
    db.sql("CREATE TABLE t (id int PRIMARY KEY)")
    watch(db, "t", delivery=delivery)
    heard = Watching(db, "heard")
    db.sql("BEGIN; INSERT INTO t VALUES (1); DELETE FROM t; INSERT INTO t VALUES (1); UPDATE t SET id = 1; UPDATE t SET id = 1; COMMIT")
    assert heard.after() == [("insert", 1), ("delete", 1), ("insert", 1), ("update", 1)]


@pytest.mark.parametrize("delivery", ["relay", "notify"])
def test_a_text_of_the_users_ends_with_the_last(db, delivery):
    db.sql("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 0)")
    watch(db, "t", payload_expr="NEW.v", delivery=delivery)
    heard = Watching(db, "heard")
    with db.connect(autocommit=False) as session:
        for v in (1, 2, 3, 1, 2, 3, 4, 5, 6, 7, 1, 2, 1, 2):
            session.execute(f"SAVEPOINT a; UPDATE t SET v = {v}; RELEASE a")
        session.commit()
    assert [notice.payload for notice in heard.until_now()] == ["3", "4", "5", "6", "7", "1", "2"]


def test_what_relay_is_told_by_hand_keeps_its_order(db):
    heard = Watching(db, "heard")
    db.sql("SELECT pushy.notify('heard', v, delivery => 'relay') FROM unnest('{1,2,2,1,2}'::text[]) v")
    assert [notice.payload for notice in heard.until_now()] == ["1", "2", "1", "2"]


def test_a_payload_that_only_a_repeat_makes_too_long_is_sent_by_reference(db):
    """By NOTIFY the member that tells it apart must fit as well."""
    db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    watch(db, "t", payload="row", delivery="notify")
    heard = Watching(db, "heard")
    db.sql("SET pushy.notice_keep = '1 h'; INSERT INTO t VALUES (1, '')")
    short = len(heard.until_now()[0].payload)
    for length in range(7_960 - short, 8_000 - short):
        db.sql(f"BEGIN; DELETE FROM t; INSERT INTO t VALUES (1, repeat('x', {length})); DELETE FROM t; INSERT INTO t VALUES (1, repeat('x', {length})); COMMIT")
        told = heard.payloads()
        assert [notice["op"] for notice in told[-3:]] == ["insert", "delete", "insert"], length
        assert [len(notice["new"]["v"]) for notice in told if notice["op"] == "insert"] == [length] * 2


@pytest.mark.parametrize("most", [1, 2, 100])
def test_merged_notices_of_several_transactions_end_with_the_last_however_they_are_read(make_cluster, most):
    db = make_cluster({"pushy.enabled": "off"}).database()
    db.sql("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 0)")
    watch(db, "t", payload_expr="NEW.v", merge=True, delivery="relay")
    db.sql("SELECT pushy.subscription_create('s', '{heard}')")
    # With no relay about they wait for one, and are met together.
    for v in (1, 2, 1, 2, 3, 1, 2, 1, 2):
        db.sql(f"UPDATE t SET v = {v}")
    db.sql("ALTER SYSTEM SET pushy.enabled = on")
    db.sql("SELECT pg_reload_conf()")
    db.sql("CALL pushy.subscription_wait('s', '60 s')")
    read = []
    while rows := db.rows("SELECT cursor, payload FROM pushy.subscription_read('s', %s)", most):
        read.extend(payload for _, payload in rows)
        db.sql("SELECT pushy.subscription_ack('s', %s)", rows[-1][0])
    assert read == ["3", "1", "2"]
