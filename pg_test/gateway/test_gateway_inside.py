"""The gateway that the server runs: by a setting, at the other end of a socketpair, with nothing of the server's."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from harness.waiting import PATIENCE, wait_for
from stage.gateway import PROGRAM, Ways, free_port, token


@pytest.fixture
def inside(make_cluster):
    cluster = make_cluster({"pushy.gateway_program": PROGRAM})
    db = cluster.database()
    db.sql("CREATE ROLE web; SELECT pushy.channel_grant('orders', 'web')")
    ways = Ways(free_port())
    ways.db = db
    listen(ways)
    ways.wait_ready(cluster.log.tail)
    return ways


def listen(ways, address=None):
    address = f"127.0.0.1:{ways.port}" if address is None else address
    ways.db.sql(f"ALTER DATABASE {ways.db.name} SET pushy.gateway_listen = '{address}'")


def ticket(db, **more):
    with db.connect() as session:
        session.execute("SET ROLE web")
        return session.execute("SELECT pushy.ticket_create('{orders}', subject => %s)", (more.get("subject"),)).fetchone()[0]


def program(db):
    """The process of the program, as the child of its worker."""
    worker, = db.workers("gateway")
    children = Path(f"/proc/{worker}/task/{worker}/children").read_text().split()
    return int(children[0]) if children else None


def test_a_setting_starts_it_and_takes_it_away_without_a_restart(inside):
    db = inside.db
    with inside.events(channel="orders", ticket=ticket(db, subject="ann")) as stream:
        stream.until("subscribed")
        db.sql("SELECT pushy.notify('orders', 'hello', topic => 'a/b')")
        heard = stream.notice()
        assert (heard["payload"], heard["topic"], heard["channel"]) == ("hello", "a/b", "orders")
        db.wait_until("SELECT array_agg(concat_ws(' ', gateway, subject, role)) FROM pushy.sockets", ["inside ann web"])
        first = program(db)
        db.sql(f"ALTER DATABASE {db.name} SET pushy.gateway_options = 'origins=https://app.example.com'")
        assert stream.until("close") is not None
    wait_for("another program", lambda: inside.is_ready() and db.workers("gateway") and program(db), lambda pid: pid not in (first, None, False, []))
    denied = inside.get(f"/events?channel=orders&ticket={ticket(db)}", headers={"Origin": "https://other.example.com"})
    assert denied.status_code == 403
    db.sql(f"ALTER DATABASE {db.name} RESET pushy.gateway_listen")
    wait_for("the worker to be gone", lambda: db.workers("gateway"), lambda found: found == [])
    wait_for("the port to be closed", inside.is_ready, lambda ready: not ready)


def test_the_program_has_no_environment_no_descriptor_and_no_shared_memory_of_the_server(inside):
    pid = program(inside.db)
    of = Path(f"/proc/{pid}")
    environment = (of / "environ").read_bytes().rstrip(b"\0").split(b"\0")
    assert all(one.startswith(b"PUSHY_GATEWAY_") for one in environment), environment
    # What stands there anybody on the machine could read.
    assert (of / "cmdline").read_bytes().split(b"\0")[1:] == [b""]
    opened = {number: os.readlink(of / "fd" / number) for number in os.listdir(of / "fd")}
    assert opened["0"].startswith("socket:") and opened["1"] == "/dev/null"
    data = str(inside.db.cluster.data)
    assert not [path for path in opened.values() if data in path or "pgsql" in path or "PostgreSQL" in path]
    maps = (of / "maps").read_text()
    assert "pushy.so" not in maps and "/dev/shm" not in maps and "PostgreSQL" not in maps and "SYSV" not in maps
    limits = (of / "limits").read_text()
    assert any(line.startswith("Max data size") and str(1 << 30) in line for line in limits.splitlines())
    assert "NoNewPrivs:\t1" in (of / "status").read_text()
    soft, hard = next(line for line in limits.splitlines() if line.startswith("Max open files")).split()[3:5]
    assert soft == hard


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGABRT])
def test_a_program_that_ends_comes_back_and_sockets_go_on(inside, how):
    db = inside.db
    with inside.events(channel="orders", ticket=ticket(db)) as stream:
        stream.until("subscribed")
        db.sql("SELECT pushy.notify('orders', 'a')")
        assert stream.notice()["payload"] == "a"
        cursor, first = stream.cursor, program(db)
    os.kill(first, how)
    db.sql("SELECT pushy.notify('orders', 'b')")
    wait_for("another program", lambda: inside.is_ready() and program(db), lambda pid: pid not in (first, None, False))
    with inside.events(headers={"Last-Event-ID": cursor}, channel="orders", ticket=ticket(db)) as stream:
        assert stream.notice()["payload"] == "b"
    assert len(db.workers("gateway")) == 1


def test_a_program_that_is_stopped_holds_up_nobody(inside):
    db = inside.db
    pid = program(db)
    os.kill(pid, signal.SIGSTOP)
    try:
        for number in range(200):
            db.sql("SELECT pushy.notify('orders', %s)", "x" * 4000)
        listen(inside, "")
        wait_for("the worker to be gone", lambda: db.workers("gateway"), lambda found: found == [])
        assert not Path(f"/proc/{pid}").exists()
    finally:
        if Path(f"/proc/{pid}").exists():
            os.kill(pid, signal.SIGKILL)


def test_it_ends_with_its_worker_and_with_the_server(inside):
    db, cluster = inside.db, inside.db.cluster
    worker, pid = db.workers("gateway")[0], program(db)
    os.kill(worker, signal.SIGTERM)
    wait_for("the program to be gone", lambda: Path(f"/proc/{pid}").exists(), lambda there: not there)
    inside.wait_ready(cluster.log.tail)
    pid = program(db)
    cluster.restart()
    wait_for("the program to be gone", lambda: Path(f"/proc/{pid}").exists(), lambda there: not there)
    inside.wait_ready(cluster.log.tail)
    pid = program(db)
    cluster.kill_server()
    wait_for("the program to be gone", lambda: Path(f"/proc/{pid}").exists(), lambda there: not there)
    cluster.start()
    inside.wait_ready(cluster.log.tail)


def test_a_stream_goes_on_over_a_restart_and_a_crash_of_the_server(inside):
    db, cluster, heard, cursor = inside.db, inside.db.cluster, [], None
    for number, restart in enumerate([None, cluster.restart, cluster.crash]):
        if restart:
            restart()
            inside.wait_ready(cluster.log.tail)
            db.sql("SELECT pushy.notify('orders', %s)", f"{number}.a")
        with inside.events(headers={"Last-Event-ID": cursor} if cursor else None, channel="orders", ticket=ticket(db)) as stream:
            stream.until("subscribed")
            db.sql("SELECT pushy.notify('orders', %s)", f"{number}.b")
            heard += [one["payload"] for one in stream.notices(2 if restart else 1)]
            cursor = stream.cursor
    assert heard == ["0.b", "1.a", "1.b", "2.a", "2.b"]


def test_a_revoked_grant_a_dropped_key_and_a_closed_socket_are_felt_within_a_second(inside):
    db = inside.db
    for end, code in (("SELECT pushy.channel_revoke('orders', 'web')", 4102), ("SELECT pushy.socket_close('ann')", 4002)):
        with inside.events(channel="orders", ticket=ticket(db, subject="ann")) as stream:
            stream.until("subscribed")
            db.sql(end)
            since = time.monotonic()
            assert stream.until("close")["code"] == code
            assert time.monotonic() - since < 1 * PATIENCE
        db.sql("SELECT pushy.channel_grant('orders', 'web')")


def test_what_cannot_be_started_is_said_and_tried_again(make_cluster, tmp_path):
    cluster = make_cluster({"pushy.gateway_program": "/nonexistent/pushy-gateway"})
    db = cluster.database()
    since = cluster.log.position()
    db.sql(f"ALTER DATABASE {db.name} SET pushy.gateway_listen = '127.0.0.1:{free_port()}'")
    cluster.log.wait_for('the gateway "/nonexistent/pushy-gateway" could not be started', since)
    assert "has not reported" in db.rows("SELECT reason FROM pushy.gateway_explain()")[0][0]
    db.sql(f"ALTER DATABASE {db.name} SET pushy.gateway_listen = '0.0.0.0:1'")
    cluster.configure(pushy__gateway_program=PROGRAM)
    cluster.reload()
    # Plain text on another address than the loopback is refused.
    cluster.log.wait_for("0.0.0.0:1 is not the loopback", since)


def test_a_program_that_wants_more_memory_than_it_may_have_ends_and_comes_back(inside):
    db = inside.db
    db.sql(f"ALTER DATABASE {db.name} SET pushy.gateway_memory = '64MB'")
    first = program(db)
    wait_for("a program with that limit", lambda: inside.is_ready() and (db.workers("gateway") or None) and program(db), lambda pid: pid not in (first, None, False))
    assert str(64 << 20) in Path(f"/proc/{program(db)}/limits").read_text()
    with inside.events(channel="orders", ticket=ticket(db)) as stream:
        stream.until("subscribed")
        db.sql("SELECT pushy.notify('orders', 'hello')")
        assert stream.notice()["payload"] == "hello"


def test_a_database_with_a_gateway_can_be_dropped(inside):
    db = inside.db
    pid = program(db)
    other = db.cluster.database()
    db.main.close()
    other.sql(f"DROP DATABASE {db.name}")
    wait_for("the program to be gone", lambda: Path(f"/proc/{pid}").exists(), lambda there: not there)


def test_metrics_and_keys_come_by_the_same_way(inside):
    db = inside.db
    assert "pushy_log_bytes" in inside.get("/metrics").text
    secret = db.value("SELECT pushy.gateway_key_register('app', role => 'web')")
    bearer = {"Authorization": f"Bearer {token(secret)}"}
    page = wait_for("the key to count", lambda: inside.get("/notices?channel=orders&wait=0s", headers=bearer), lambda answer: answer.status_code == 200)
    assert json.loads(page.text)["notices"] == []
