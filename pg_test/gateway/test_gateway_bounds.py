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
    long = ["x" * 1000 + str(number) for number in range(50)]
    with inside.socket() as socket:
        hear = lambda: json.loads(socket.recv(30 * PATIENCE))  # noqa: E731
        header = bearer(inside, sub="\\u0000 日本")
        socket.send(json.dumps({"type": "auth", "token": header["Authorization"].split()[1]}))
        for number, topics in enumerate((["\\\\u0000"], ["日本/*"], long)):
            socket.send(json.dumps({"type": "subscribe", "id": number, "channel": "orders", "topics": topics}))
        wait_for("all to be subscribed", hear, lambda said: said["type"] == "subscribed" and said["id"] == 2)
        db.wait_until("SELECT array_agg(subject || ' ' || subscriptions) FROM pushy.sockets", ["\\u0000 日本 3"])
        assert db.value("SELECT topics[1:2] FROM pushy.sockets") == ["\\\\u0000", "日本/*"]
        assert len(db.value("SELECT topics[3] FROM pushy.sockets")) < 1100


@pytest.mark.parametrize("where", ["inside", "outside"])
def test_a_payload_that_no_socket_can_hear_is_told_as_missing(request, where, make_cluster, tmp_path):
    if where == "inside":
        ways = request.getfixturevalue("inside")
        db = ways.db
    else:
        db = make_cluster().database()
        db.sql("CREATE ROLE web; SELECT pushy.channel_grant('orders', 'web'); CREATE ROLE gateway LOGIN; SELECT pushy.gateway_grant('gateway')")
        ways = Outside(db, "gateway", db.cluster.folder / "gateway.log").start()
    header = bearer(ways)
    first = program(db) if where == "inside" else ways.process.pid
    with ways.events(headers=header, channel="orders") as stream:
        begin = stream.until("subscribed")["cursor"]
        # One of 20 MB, a backlog that has no room in one answer, and characters that are six times as long in JSON.
        db.sql("SELECT pushy.notify('orders', repeat('x', 20 << 20))")
        assert stream.until("resync")["cursor"]
        db.sql("SELECT pushy.notify('orders', repeat(E'\\x01', 1000000) || n) FROM generate_series(1, 20) n")
        assert [one["payload"].lstrip("\x01") for one in stream.notices(20)] == [str(n) for n in range(1, 21)]
    with ways.events(headers=header, channel="orders", after=begin) as stream:
        assert stream.until("resync")["cursor"]
        assert len(stream.notices(20)) == 20
    assert (program(db) if where == "inside" else ways.process.pid) == first
    if where == "outside":
        ways.stop()


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
        header = {"Authorization": f"Bearer {token(secret, sub='日本')}"}
        wait_for("the key to count", lambda: ways.get("/notices?channel=orders&wait=0s", headers=header).status_code, lambda code: code == 200)
        with ways.events(headers=header, channel="orders") as stream:
            stream.until("subscribed")
            for asked in ("channel=日本", "channel=orders&topic=日本"):
                assert ways.get(f"/notices?{asked}&wait=0s", headers=header).status_code == 403
            with cluster.connect("latin") as session:
                session.execute("SELECT pushy.notify('orders', 'hello')")
                assert stream.notice()["payload"] == "hello"
                wait_for("the report", lambda: session.execute("SELECT subject FROM pushy.sockets").fetchall(), lambda rows: rows == [("??",)])
        assert "cannot be reached" not in ways.log.read_text()
    finally:
        ways.stop()


def test_a_program_without_memory_ends_and_its_sockets_go_on(inside):
    """One socket after another has more buffered than there is memory for: the program ends, comes back, and nobody has missed anything."""
    db = inside.db
    header = bearer(inside)
    first = program(db)
    db.sql(f"ALTER DATABASE {db.name} SET pushy.gateway_options = 'recent_bytes=900000000 all_buffer_bytes=900000000'")
    db.sql(f"ALTER DATABASE {db.name} SET pushy.gateway_memory = '64MB'")
    another = lambda before: wait_for("another program", lambda: inside.is_ready() and (db.workers("gateway") or None) and program(db), lambda now: now and now != before)  # noqa: E731
    second = another(first)
    with inside.events(headers=header, channel="orders") as stream:
        cursor = stream.until("subscribed")["cursor"]
    for number in range(100):
        db.sql("SELECT pushy.notify('orders', repeat('x', 1000000) || %s)", str(number))
    another(second)
    heard = []
    while len(heard) < 100:
        page = inside.get(f"/notices?channel=orders&after={cursor}&wait=10s&max=10", headers=header)
        if page.status_code == 200:
            heard += [int(one["payload"].lstrip("x")) for one in page.json()["notices"]]
            cursor = page.json()["next"]
        else:
            inside.wait_ready()
    assert heard == list(range(100))


def test_age_of_the_oldest_ready_job_and_histograms_are_counted(db):
    db.sql("CREATE FUNCTION h(jsonb) RETURNS void LANGUAGE sql AS 'SELECT'")
    db.sql("SELECT pushy.queue_create('q', 'h')")
    metric = lambda name: db.rows("SELECT labels, value FROM pushy.metrics() WHERE name = %s AND labels->>'queue' = 'q'", name)  # noqa: E731
    assert metric("pushy_queue_oldest_ready_seconds") == [({"queue": "q"}, 0)]
    db.sql("SELECT pushy.job_wait(pushy.enqueue('q'))")
    for of in ("wait", "run"):
        buckets = wait_for("the job to be counted", lambda: metric(f"pushy_queue_{of}_seconds_bucket"), lambda rows: rows and rows[-1][1] == 1)
        bounds = [labels["le"] for labels, _ in buckets]
        assert bounds[0] == "0.000064" and bounds[-1] == "+Inf" and len(bounds) == 23
        assert [float(one) for one in bounds] == sorted(float(one) for one in bounds)
        assert [value for _, value in buckets] == sorted(value for _, value in buckets)
        assert metric(f"pushy_queue_{of}_seconds_count") == [({"queue": "q"}, 1)]
    db.sql("SELECT pushy.queue_pause('q'); SELECT pushy.enqueue('q', run_at => now() - interval '1 hour')")
    [(_, age)] = wait_for("the age", lambda: metric("pushy_queue_oldest_ready_seconds"), lambda rows: rows[0][1] > 0)
    assert 3600 <= age < 3900
