"""The gateway with clients of Node.js that nobody here wrote: `ws`, and undici's WebSocket, EventSource and fetch."""

import json
import shutil
import subprocess

import pytest

from harness.installation import REPOSITORY
from harness.waiting import PATIENCE, wait_for
from stage.gateway import PROGRAM, Ways, free_port, token

pytestmark = pytest.mark.skipif(shutil.which("npm") is None, reason="no Node.js")


def test_ws_and_undici_hear_what_is_committed(make_cluster):
    cluster = make_cluster({"pushy.gateway_program": PROGRAM})
    db, ways = cluster.database(), Ways(free_port())
    db.sql("CREATE ROLE web; SELECT pushy.channel_grant('orders', 'web')")
    secret = db.value("SELECT pushy.gateway_key_register('app', role => 'web')")
    db.sql(f"ALTER DATABASE {db.name} SET pushy.gateway_listen = '127.0.0.1:{ways.port}'")
    ways.wait_ready(cluster.log.tail)
    bearer = token(secret)
    wait_for("the key to count", lambda: ways.get("/notices?channel=orders&wait=0s", headers={"Authorization": f"Bearer {bearer}"}).status_code,
             lambda code: code == 200)
    with db.connect() as session:
        session.execute("SET ROLE web")
        tickets = [session.execute("SELECT pushy.ticket_create('{orders}')").fetchone()[0] for _ in range(3)]
    program = subprocess.Popen(["node", REPOSITORY / "pg_test" / "node_client" / "streams.mjs", str(ways.port), *tickets, bearer],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    try:
        lines = (json.loads(line) for line in iter(program.stdout.readline, ""))
        there = [next(lines) for _ in range(4)]
        assert sorted(there) == [[name, "subscribed"] for name in ("EventSource", "fetch", "undici", "ws")]
        # A poll is not there before the server has said that it may be.
        db.wait_until("SELECT count(*) FROM pushy.sockets", 4)
        db.sql("SELECT pushy.notify('orders', 'hello')")
        out, _ = program.communicate(timeout=60 * PATIENCE)
        heard = dict(map(json.loads, out.splitlines()))
        assert heard == {"ws": "hello", "undici": "hello", "EventSource": "hello", "EventSource id": True, "fetch": "hello",
                         "ws closed": [4200, "bad_message"], "undici closed": [4200, "bad_message"]}
    finally:
        program.kill()
        program.wait()
