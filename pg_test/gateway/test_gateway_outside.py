"""`pushy-gateway --dsn` beside a server: each way in, resume, revoked grants, keys, restarts, a ledger."""

import asyncio
import json
import re
import signal
import subprocess
import threading
import time

import pytest

from harness.waiting import PATIENCE, wait_for
from stage.gateway import Outside, encoded, read_in_background, token


@pytest.fixture
def outside(cluster, tmp_path):
    """A database with a role `web` that may hear channel orders, and a gateway of it."""
    db = cluster.database()
    db.sql("""CREATE ROLE web; CREATE ROLE gateway LOGIN; SELECT pushy.gateway_grant('gateway'); SELECT pushy.channel_grant('orders', 'web');
        GRANT USAGE ON SCHEMA pushy TO web""")
    log = cluster.folder / "gateway.log"
    gateway = Outside(db, "gateway", log, origins="https://app.example.com")
    gateway.start()
    yield gateway
    if gateway.process.poll() is None:
        gateway.stop()


def ticket(db, channels="{orders}", topics=None, subject=None, role="web"):
    with db.connect() as session:
        session.execute(f"SET ROLE {role}")
        return session.execute("SELECT pushy.ticket_create(%s, %s, %s)", (channels, topics, subject)).fetchone()[0]


def notify(db, *payloads, channel="orders", topic=None):
    for payload in payloads:
        db.sql("SELECT pushy.notify(%s, %s, topic => %s)", channel, payload, topic)


def test_curl_hears_what_was_committed_by_server_sent_events(outside):
    db = outside.db
    curl = subprocess.Popen(["curl", "-sN", f"{outside.url}/events?channel=orders&ticket={ticket(db)}"], stdout=subprocess.PIPE, text=True)
    try:
        lines = iter(curl.stdout.readline, "")
        assert any(line.strip() == "event: subscribed" for line in lines)
        notify(db, "hello")
        data = next(line for line in lines if line.startswith("data:") and "payload" in line)
        assert json.loads(data[5:])["payload"] == "hello"
    finally:
        curl.kill()


def test_a_watched_row_comes_with_its_topic(outside):
    db = outside.db
    db.sql("CREATE TABLE post (id int PRIMARY KEY, title text); SELECT pushy.watch('post', channel => 'orders', topic_expr => '''post/'' || NEW.id', events => '{insert,update}')")
    with outside.events(channel="orders", topic="post/2", ticket=ticket(db)) as stream:
        assert stream.until("subscribed")["channel"] == "orders"
        db.sql("INSERT INTO post VALUES (1, 'a'), (2, 'b'); UPDATE post SET title = 'c'")
        heard = stream.notices(2)
    assert [(one["topic"], json.loads(one["payload"])["op"]) for one in heard] == [("post/2", "insert"), ("post/2", "update")]


def test_a_websocket_has_many_subscriptions(outside):
    db = outside.db
    with outside.socket(ticket=ticket(db)) as socket:
        hear = lambda: json.loads(socket.recv(30 * PATIENCE))  # noqa: E731
        said = []
        for number, topics in enumerate((["a/*"], ["b"], None), 1):
            socket.send(json.dumps({"type": "subscribe", "id": number, "channel": "orders"} | ({"topics": topics} if topics else {})))
            while not (said and said[-1]["type"] == "subscribed" and said[-1]["id"] == number):
                said.append(hear())
        notify(db, "x", topic="a/1")
        notify(db, "y", topic="b")
        notify(db, "z")
        notices = []
        while len(notices) < 3:
            message = hear()
            if message["type"] == "notice":
                notices.append((sorted(message["ids"]), message["payload"]))
        assert notices == [([1, 3], "x"), ([2, 3], "y"), ([3], "z")]
        socket.send(json.dumps({"type": "subscribe", "id": 9, "channel": "secrets"}))
        refused = hear()
        assert (refused["type"], refused["code"], refused["id"]) == ("error", "denied", 9)


def test_a_long_poll_reads_on_from_its_cursor(outside):
    db = outside.db
    secret = db.value("SELECT pushy.gateway_key_register('app', role => 'web')")
    headers = {"Authorization": f"Bearer {token(secret)}"}
    after = db.value("SELECT pushy.log_position()")
    wait_for("the key to count", lambda: outside.get(f"/notices?channel=orders&after={after}&wait=0s", headers=headers).status_code, lambda code: code == 200)
    notify(db, "a", "b")
    heard = []
    while len(heard) < 2:
        page = outside.get(f"/notices?channel=orders&after={after}&wait=30s", headers=headers).json()
        assert not page["resync"]
        heard += [one["payload"] for one in page["notices"]]
        after = page["next"]
    assert heard == ["a", "b"]
    join = read_in_background(lambda: outside.get(f"/notices?channel=orders&after={after}&wait=60s", headers=headers).json())
    notify(db, "c")
    assert [one["payload"] for one in join()["notices"]] == ["c"]


def test_a_ticket_lets_one_connection_in(outside):
    used = ticket(outside.db)
    with outside.events(channel="orders", ticket=used) as stream:
        stream.until("subscribed")
        assert outside.get(f"/events?channel=orders&ticket={used}").status_code == 401
    assert outside.get("/events?channel=orders&ticket=t_nothing").status_code == 401
    assert outside.get("/events?channel=orders").status_code == 401
    assert outside.get(f"/events?channel=other&ticket={ticket(outside.db)}").status_code == 403
    narrow = ticket(outside.db, topics="user/{sub}", subject="7")
    assert outside.get(f"/events?channel=orders&topic=user/8&ticket={narrow}").status_code == 403
    assert outside.get(f"/events?channel=orders&ticket={ticket(outside.db)}", headers={"Origin": "https://evil.example.com"}).status_code == 403


def test_a_token_is_for_its_role_and_its_subjects_topics(outside):
    db = outside.db
    secret = db.value("SELECT pushy.gateway_key_register('app', role => 'web', issuer => 'me')")
    db.sql("SELECT pushy.channel_grant('private', 'web', topics => 'user/{sub}/**')")
    own = {"Authorization": f"Bearer {token(secret, sub='7', iss='me')}"}
    wait_for("the key to count", lambda: outside.get("/notices?channel=orders&wait=0s", headers=own).status_code, lambda code: code == 200)
    with outside.events(headers=own, channel="private", topic="user/{sub}/**") as stream:
        stream.until("subscribed")
        notify(db, "for 8", channel="private", topic="user/8/a")
        notify(db, "for 7", channel="private", topic="user/7/a")
        assert stream.notice()["payload"] == "for 7"
    assert outside.get("/notices?channel=private&topic=user/8/a&wait=0s", headers=own).status_code == 403
    for bad in (token("x" * 40, sub="7", iss="me"), token(secret, sub="7", iss="you"), token(secret, sub="7", iss="me", exp=1), "x.y.z",
                f"{encoded({'alg': 'none'})}.{encoded({'exp': 9999999999, 'sub': '7', 'iss': 'me'})}."):
        assert outside.get("/notices?channel=private&topic=user/7/a&wait=0s", headers={"Authorization": f"Bearer {bad}"}).status_code == 401
    assert secret not in outside.log.read_text() and secret not in outside.get("/metrics").text


def test_a_revoked_grant_a_dropped_key_and_a_closed_socket_are_felt_within_a_second(outside):
    db = outside.db
    secret = db.value("SELECT pushy.gateway_key_register('app', role => 'web')")
    of_key = {"Authorization": f"Bearer {token(secret, sub='7')}"}
    wait_for("the key to count", lambda: outside.get("/notices?channel=orders&wait=0s", headers=of_key).status_code, lambda code: code == 200)
    for end, headers, code in (("SELECT pushy.channel_revoke('orders', 'web')", None, 4102), ("SELECT pushy.gateway_key_drop('app')", of_key, 4100),
                               ("SELECT pushy.socket_close('ann')", None, 4002)):
        parameters = {"channel": "orders"} | ({} if headers else {"ticket": ticket(db, subject="ann")})
        with outside.events(headers=headers, **parameters) as stream:
            stream.until("subscribed")
            db.sql(end)
            since = time.monotonic()
            assert stream.until("close")["code"] == code
            assert time.monotonic() - since < 1 * PATIENCE
        db.sql("SELECT pushy.channel_grant('orders', 'web')")


def test_who_is_revoked_hears_nothing_that_is_said_after_it(outside):
    db = outside.db
    with outside.events(channel="orders", ticket=ticket(db)) as stream:
        stream.until("subscribed")
        db.sql("BEGIN; SELECT pushy.notify('orders', 'before'); COMMIT; BEGIN; SELECT pushy.channel_revoke('orders', 'web'); COMMIT; SELECT pushy.notify('orders', 'after')")
        heard = []
        while (said := stream.next()) is not None:
            heard.append(said[1].get("payload") or said[1].get("code"))
        assert "after" not in heard and 4102 in heard


def test_a_stream_goes_on_over_restarts_of_gateway_and_server(outside):
    db, heard, cursor = outside.db, [], None
    restarts = [lambda: outside.restart(), lambda: outside.restart(signal.SIGTERM), lambda: db.cluster.restart(), lambda: db.cluster.crash()]
    for number, restart in enumerate([None, *restarts]):
        if restart:
            restart()
            outside.wait_ready(outside.log.read_text)
            # While nobody was connected.
            notify(db, f"{number}.a")
        with outside.events(headers={"Last-Event-ID": cursor} if cursor else None, channel="orders", ticket=ticket(db)) as stream:
            stream.until("subscribed")
            notify(db, f"{number}.b")
            heard += [one["payload"] for one in stream.notices(2 if restart else 1)]
            cursor = stream.cursor
    assert heard == ["0.b", *(f"{number}.{part}" for number in range(1, 5) for part in "ab")]


def test_sockets_presence_and_metrics_are_seen_from_sql(outside):
    db = outside.db
    db.sql("SELECT pushy.channel_grant('room', 'web')")
    with outside.socket(ticket=ticket(db, "{room}", subject="ann")) as socket:
        socket.send(json.dumps({"type": "subscribe", "id": 1, "channel": "room", "topics": ["lobby"], "presence": True}))
        db.wait_until("SELECT array_agg(concat_ws(' ', subject, role, transport, channels, topics)) FROM pushy.sockets", ["ann web websocket {room} {lobby}"])
        assert db.rows("SELECT * FROM pushy.presence('room', 'lobby')") == [("ann",)]
        assert db.value("SELECT value FROM pushy.metrics() WHERE name = 'pushy_sockets'") == 1
        db.sql("CREATE ROLE stranger LOGIN; GRANT USAGE ON SCHEMA pushy TO stranger")
        with db.connect(user="stranger") as session:
            assert session.execute("SELECT count(*) FROM pushy.sockets").fetchone() == (0,)
        assert db.value("SELECT reason FROM pushy.gateway_explain()").startswith("no key of tokens is registered")
    db.wait_until("SELECT count(*) FROM pushy.sockets", 0)
    text = outside.get("/metrics").text
    assert re.search(r"^pushy_log_bytes\{\} \d+$", text, re.M) and "pushy_gateway_connections" in text


def test_three_hundred_sockets_hear_all_in_order_from_their_cursors_while_everything_is_restarted(outside):
    """A ledger: each socket has heard each notice of its topic once, in order, from its cursor on, or was told to resync."""
    from websockets.asyncio.client import connect
    from websockets.exceptions import WebSocketException

    db, topics, count = outside.db, 30, 300
    secret = db.value("SELECT pushy.gateway_key_register('app', role => 'web')")
    bearer = {"Authorization": f"Bearer {token(secret)}"}
    wait_for("the key to count", lambda: outside.get("/notices?channel=orders&wait=0s", headers=bearer).status_code, lambda code: code == 200)
    begin = db.value("SELECT pushy.log_position()")
    stop_writing, errors, written = threading.Event(), [], [0] * topics

    def write(number):
        try:
            while not stop_writing.is_set():
                try:
                    with db.connect() as session:
                        while not stop_writing.is_set():
                            for topic in range(number, topics, 3):
                                session.execute("SELECT pushy.notify('orders', %s, topic => %s)", (str(written[topic] + 1), f"t/{topic}"))
                                written[topic] += 1
                            stop_writing.wait(0.02)
                except Exception as error:
                    if "server" not in str(error) and "connection" not in str(error):
                        raise
                    stop_writing.wait(0.2)
        except Exception as error:
            errors.append(error)

    heard = [[] for _ in range(count)]
    resyncs = [0] * count
    last = {}

    async def one(number):
        cursor = begin
        while not (last and heard[number] and heard[number][-1] >= last[number % topics]):
            try:
                async with connect(f"ws://127.0.0.1:{outside.port}/socket", additional_headers=bearer, open_timeout=60, ping_interval=None) as socket:
                    await socket.send(json.dumps({"type": "subscribe", "id": 1, "channel": "orders", "topics": [f"t/{number % topics}"], "after": cursor}))
                    async for text in socket:
                        said = json.loads(text)
                        if said["type"] == "notice":
                            heard[number].append(int(said["payload"]))
                        resyncs[number] += said["type"] == "resync"
                        cursor = said.get("cursor") or cursor
                        if last and heard[number] and heard[number][-1] >= last[number % topics]:
                            return
            except (OSError, WebSocketException, TimeoutError):
                await asyncio.sleep(0.1)

    async def everybody():
        await asyncio.gather(*(one(number) for number in range(count)))

    reader = threading.Thread(target=lambda: asyncio.run(everybody()), daemon=True)
    writers = [threading.Thread(target=write, args=(number,), daemon=True) for number in range(3)]
    for thread in [reader, *writers]:
        thread.start()
    most = lambda: min(len(one) for one in heard)  # noqa: E731
    for restart in (lambda: outside.restart(), lambda: db.cluster.restart(), lambda: outside.restart(signal.SIGTERM), lambda: db.cluster.crash()):
        seen = most()
        wait_for("everybody to hear more", most, lambda now: now > seen, 120)
        restart()
    seen = most()
    wait_for("everybody to hear more", most, lambda now: now > seen, 120)
    stop_writing.set()
    for writer in writers:
        writer.join(60 * PATIENCE)
    assert not errors
    # A commit whose answer was lost with the server is not in `written`, and counts in the log.
    for topic in range(topics):
        notify(db, str(written[topic] + 1), topic=f"t/{topic}")
    last.update({topic: written[topic] + 1 for topic in range(topics)})
    reader.join(120 * PATIENCE)
    assert not reader.is_alive(), [len(one) for one in heard]
    for number, numbers in enumerate(heard):
        if not resyncs[number]:
            without_repeats = sorted(set(numbers))
            assert without_repeats == list(range(1, last[number % topics] + 1)), number
            # The same number twice is a commit whose answer was lost, written again.
            assert all(after in (before, before + 1) for before, after in zip(numbers, numbers[1:])), number
