"""What one client, one notice or one gateway cannot do to all the others."""

import json
from pathlib import Path

import pytest

from harness.waiting import PATIENCE, wait_for
from stage.gateway import PROGRAM, Outside, Ways, free_port, token

ROW = {"id": 1, "subject": None, "role": "web", "address": "::1", "transport": "sse", "since_us": 0, "channels": [["orders", ""]], "subscriptions": 1,
       "sent": 0, "buffered_notices": 0, "buffered_bytes": 0, "lag_us": 0}


def report(db, *rows, rooms=(), in_all=None):
    db.rows("SELECT pushy_internal.gateway_report(%s, %s, %s)", json.dumps(rows), json.dumps(rooms),
            json.dumps({"open": {"sse": len(rows)}, "rooms": len(rooms)} | (in_all or {})))


@pytest.fixture
def inside(make_cluster):
    cluster = make_cluster({"pushy.gateway_program": PROGRAM})
    db = cluster.database()
    db.sql("CREATE ROLE web; SELECT pushy.channel_grant('orders', 'web')")
    ways = Ways(free_port())
    ways.db = db
    db.sql(f"ALTER DATABASE {db.name} SET pushy.gateway_listen = '127.0.0.1:{ways.port}'")
    return ways.wait_ready(cluster.log.tail)


def bearer(ways, **claims):
    secret = ways.db.value("SELECT pushy.gateway_key_register('app', role => 'web')")
    header = {"Authorization": f"Bearer {token(secret, **claims)}"}
    wait_for("the key to count", lambda: ways.get("/notices?channel=orders&wait=0s", headers=header).status_code, lambda code: code == 200)
    return header


def program(db):
    worker, = db.workers("gateway")
    return Path(f"/proc/{worker}/task/{worker}/children").read_text().split()


def test_a_row_that_is_none_says_nothing_of_the_others(db):
    strange = [{}, None, [], ROW | {"since_us": "x"}, ROW | {"channels": 1}, ROW | {"transport": "x"}, ROW | {"sent": 1 << 70}]
    report(db, ROW, *strange, ROW | {"id": 2, "since_us": -(1 << 62), "lag_us": (1 << 62), "subject": "a\0\nb"},
           ROW | {"id": 3, "subject": "\\u0000"})
    assert db.rows("SELECT id, subject FROM pushy.sockets ORDER BY id") == [(1, None), (2, "a??b"), (3, "\\u0000")]
    assert db.value("SELECT count(*) FROM pushy.sockets WHERE since >= '1970-01-01' AND lag < '9000 years'") == 3
    report(db, rooms=[{"channel": "orders", "topic": "a", "members": ["ann"]}, {"channel": 1}])
    db.sql("SELECT pushy.channel_grant('orders', current_user)")
    assert db.rows("SELECT pushy.presence('orders', 'a')") == [("ann",)]


def test_what_has_no_room_in_a_report_is_counted(db):
    report(db, ROW, in_all={"open": {"sse": 7, "websocket": 5}, "rooms": 3})
    assert dict(db.rows("SELECT labels->>'transport', value FROM pushy.metrics() WHERE name = 'pushy_sockets'")) == {"sse": 7, "websocket": 5}
    assert any("11 sockets and 3 rooms" in reason for reason, in db.rows("SELECT reason FROM pushy.gateway_explain()"))


def test_a_client_with_strange_topics_is_seen_and_spoils_nothing(inside):
    db = inside.db
    long = ["x" * 1000 + str(number) for number in range(7)]
    header = bearer(inside, sub="\\u0000 日本")
    with inside.socket() as socket:
        hear = lambda: json.loads(socket.recv(30 * PATIENCE))  # noqa: E731
        socket.send(json.dumps({"type": "auth", "token": header["Authorization"].split()[1]}))
        for number, topics in enumerate((["\\\\u0000"], ["日本/*"], long)):
            socket.send(json.dumps({"type": "subscribe", "id": number, "channel": "orders", "topics": topics}))
        wait_for("all to be subscribed", hear, lambda said: said["type"] == "subscribed" and said["id"] == 2)
        db.wait_until("SELECT array_agg(subject || ' ' || subscriptions) FROM pushy.sockets", ["\\u0000 日本 3"])
        assert db.value("SELECT topics[1:2] FROM pushy.sockets") == ["\\\\u0000", "日本/*"]
        assert len(db.value("SELECT topics[3] FROM pushy.sockets")) < 1100


def test_a_backlog_of_the_longest_payloads_ends_no_gateway(inside):
    """Each character of it is six times as long in JSON."""
    db, header = inside.db, bearer(inside)
    first = program(db)
    with inside.events(headers=header, channel="orders") as stream:
        begin = stream.until("subscribed")["cursor"]
    db.sql("SELECT pushy.notify('orders', repeat(E'\\x01', 7900) || n) FROM generate_series(1, 1500) n")
    with inside.events(headers=header, channel="orders", after=begin) as stream:
        assert [one["payload"].lstrip("\x01") for one in stream.notices(1500)] == [str(n) for n in range(1, 1501)]
    assert program(db) == first


def test_what_the_database_has_no_characters_for_concerns_nobody_else(make_cluster):
    cluster = make_cluster({"pushy.gateway_program": PROGRAM})
    cluster.database().sql("CREATE DATABASE latin TEMPLATE template0 ENCODING LATIN1 LC_COLLATE 'C' LC_CTYPE 'C'")
    with cluster.connect("latin") as session:
        session.execute("CREATE EXTENSION pushy")
        session.execute("CREATE ROLE web; CREATE ROLE gateway LOGIN; GRANT CREATE ON SCHEMA pushy TO web")
        session.execute("SELECT pushy.gateway_grant('gateway'); SELECT pushy.channel_grant('orders', 'web')")
        secret = session.execute("SELECT pushy.gateway_key_register('app', role => 'web')").fetchone()[0]

    class Latin:
        name = "latin"
    Latin.cluster = cluster
    ways = Outside(Latin, "gateway", cluster.folder / "gateway.log").start()
    try:
        header = {"Authorization": f"Bearer {token(secret, sub='ann')}"}
        wait_for("the key to count", lambda: ways.get("/notices?channel=orders&wait=0s", headers=header).status_code, lambda code: code == 200)
        with ways.events(headers=header, channel="orders") as stream:
            stream.until("subscribed")
            for asked in ("channel=日本", "channel=orders&topic=日本"):
                assert ways.get(f"/notices?{asked}&wait=0s", headers=header).status_code == 403
            with cluster.connect("latin") as session:
                session.execute("SELECT pushy.notify('orders', 'hello')")
                assert stream.notice()["payload"] == "hello"
                wait_for("the report", lambda: session.execute("SELECT subject FROM pushy.sockets").fetchall(), lambda rows: rows == [("ann",)])
        assert "cannot be reached" not in ways.log.read_text()
    finally:
        ways.stop()


def test_age_of_the_oldest_ready_job_and_histograms_are_counted(db):
    db.sql("CREATE FUNCTION work() RETURNS void LANGUAGE sql AS 'SELECT'")
    db.sql("SELECT pushy.queue_register('q', 'work()')")
    metric = lambda name: db.rows("SELECT labels, value FROM pushy.metrics() WHERE name = %s AND labels->>'queue' = 'q'", name)  # noqa: E731
    assert metric("pushy_queue_oldest_ready_seconds") == [({"queue": "q"}, 0)]
    db.job_wait(db.value("SELECT pushy.enqueue('q')"))
    for of in ("wait", "run"):
        buckets = wait_for("the job to be counted", lambda: metric(f"pushy_queue_{of}_seconds_bucket"), lambda rows: rows and rows[-1][1] == 1)
        bounds = [labels["le"] for labels, _ in buckets]
        assert bounds[0] == "0.000064" and bounds[-1] == "+Inf" and len(bounds) == 23
        assert [float(one) for one in bounds] == sorted(float(one) for one in bounds)
        assert [value for _, value in buckets] == sorted(value for _, value in buckets)
        assert metric(f"pushy_queue_{of}_seconds_count") == [({"queue": "q"}, 1)]
    db.sql("SELECT pushy.channel_grant('orders', current_user); SELECT pushy.notify('orders', 'x')")
    wait_for("a tick to be counted", lambda: db.rows("SELECT value FROM pushy.metrics() WHERE name = 'pushy_log_tick_seconds_count'"), lambda rows: rows[0][0] >= 1)
    db.sql("SELECT pushy.queue_pause('q'); SELECT pushy.enqueue('q')")
    [(_, age)] = wait_for("the age", lambda: metric("pushy_queue_oldest_ready_seconds"), lambda rows: rows[0][1] > 0)
    later = wait_for("it to grow", lambda: metric("pushy_queue_oldest_ready_seconds"), lambda rows: rows[0][1] > age)
    assert later[0][1] < 3600


def test_sockets_are_told_of_a_failover_and_hear_on(make_cluster):
    """A ledger of two hundred: all of before, in order, a resync, and all of what comes after it."""
    import asyncio
    import threading

    from websockets.asyncio.client import connect

    primary = make_cluster({"wal_level": "replica", "hot_standby": "on"})
    db, count, before, after = primary.database(), 200, 20, 20
    db.sql("CREATE ROLE web; SELECT pushy.channel_grant('orders', 'web'); CREATE ROLE gateway LOGIN; SELECT pushy.gateway_grant('gateway')")
    standby = primary.standby()
    dsn = f"host={primary.folder},{standby.folder} port={primary.port},{standby.port} user=gateway dbname={db.name} target_session_attrs=read-write"
    gateway = Outside(db, "gateway", standby.folder / "gateway.log", dsn=dsn).start()
    header = bearer(gateway)
    heard = [[] for _ in range(count)]

    async def one(number):
        async with connect(f"ws://127.0.0.1:{gateway.port}/socket", additional_headers=header, open_timeout=60 * PATIENCE, ping_interval=None) as socket:
            await socket.send(json.dumps({"type": "subscribe", "id": 1, "channel": "orders"}))
            async for text in socket:
                said = json.loads(text)
                if said["type"] in ("notice", "resync", "subscribed"):
                    heard[number].append(said.get("payload") or said["type"])
                if heard[number][-1:] == [f"after {after}"]:
                    return

    async def everybody():
        await asyncio.gather(*(one(number) for number in range(count)))

    reader = threading.Thread(target=lambda: asyncio.run(everybody()), daemon=True)
    reader.start()
    try:
        wait_for("all to be subscribed", lambda: sum(map(len, heard)), lambda lines: lines == count)
        for number in range(1, before + 1):
            db.sql("SELECT pushy.notify('orders', %s)", f"before {number}")
        wait_for("all to have heard that", lambda: min(map(len, heard)), lambda least: least == 1 + before)
        there = db.of(standby)
        there.wait_until("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", True, params=(db.value("SELECT pg_current_wal_lsn()"),))
        primary.stop("immediate")
        standby.promote()
        wait_for("all to be told", lambda: min(map(len, heard)), lambda least: least > 1 + before, 120)
        for number in range(1, after + 1):
            there.sql("SELECT pushy.notify('orders', %s)", f"after {number}")
        reader.join(120 * PATIENCE)
        assert not reader.is_alive()
    finally:
        gateway.stop()
    expected = ["subscribed", *(f"before {n}" for n in range(1, before + 1)), "resync", *(f"after {n}" for n in range(1, after + 1))]
    for said in heard:
        # It may be told more than once: by the source, and for what was said before the grant was looked at anew.
        assert [one for at, one in enumerate(said) if one != "resync" or said[at - 1] != "resync"] == expected
