"""Programs on other people's drivers hear what the relay tells, and a pooler stands between. (tokio-postgres: see
test_rust_client.py.)"""

import asyncio
import json
import shutil
import subprocess
import threading

import asyncpg
import psycopg
import pytest

from harness.installation import REPOSITORY
from stage import bouncer

NOTIFY = "SELECT pushy.notify('\"News\"', n::text, delivery => 'relay') FROM generate_series(1, 20) n"
EXPECTED = [("News", str(n)) for n in range(1, 21)]


def test_psql_shows_the_notices(db):
    out = db.cluster.psql(db.name, f'LISTEN "News";\n{NOTIFY};\nCREATE TABLE t ();\nSELECT pushy.subscription_create(\'s\');\n'
                          "SELECT pushy.notify('\"News\"', 'end', delivery => 'relay');\n"
                          "CALL pushy.subscription_wait('s', '20 s');\nSELECT pg_sleep(0.2);\nSELECT 1;\n")
    assert [line.split('"')[3] for line in out.splitlines() if line.startswith("Asynchronous")][:20] == [n for _, n in EXPECTED]


def test_asyncpg(db):
    async def scenario() -> list[tuple[str, str]]:
        session = await asyncpg.connect(host=str(db.cluster.folder), port=db.cluster.port, database=db.name, user="postgres")
        heard: asyncio.Queue = asyncio.Queue()
        await session.add_listener("News", lambda _session, _pid, channel, payload: heard.put_nowait((channel, payload)))
        await asyncio.to_thread(db.sql, NOTIFY)
        found = [await asyncio.wait_for(heard.get(), 30) for _ in EXPECTED]
        await session.close()
        return found
    assert asyncio.run(scenario()) == EXPECTED


@pytest.mark.skipif(shutil.which("npm") is None, reason="no Node.js")
def test_node_postgres(db):
    program = subprocess.Popen(
        ["node", REPOSITORY / "pg_test" / "node_client" / "listen.js", str(db.cluster.folder), str(db.cluster.port), db.name, '"News"', "20"],
        stdout=subprocess.PIPE, text=True)
    try:
        assert json.loads(program.stdout.readline()) == "listening"
        db.sql(NOTIFY)
        out, _ = program.communicate(timeout=60)
    finally:
        program.kill()
    assert [(notice["channel"], notice["payload"]) for notice in map(json.loads, out.splitlines())] == EXPECTED


@bouncer.needed
def test_subscriptions_through_pgbouncer_in_transaction_mode(db):
    """Nothing is kept in a session: two readers share one server connection between their transactions."""
    with bouncer.in_transaction_mode(db) as dsn:
        db.sql("SELECT pushy.subscription_create('a', '{\"News\"}'); SELECT pushy.subscription_create('b', '{\"News\"}')".replace('"News"', '\\"News\\"'))
        taken: dict[str, list[str]] = {"a": [], "b": []}

        def reader(name: str) -> None:
            with psycopg.connect(dsn, autocommit=True, prepare_threshold=None) as session:
                while len(taken[name]) < 20:
                    session.execute(f"CALL pushy.subscription_wait('{name}', '5 s')")
                    with session.transaction():
                        for cursor, payload in session.execute(
                                f"SELECT cursor, payload FROM pushy.subscription_read('{name}', 7)").fetchall():
                            taken[name].append(payload)
                            session.execute(f"SELECT pushy.subscription_ack('{name}', '{cursor}')")
        readers = [threading.Thread(target=reader, args=(name,), daemon=True) for name in taken]
        for thread in readers:
            thread.start()
        db.sql(NOTIFY)
        for thread in readers:
            thread.join(60)
        assert taken == {"a": [n for _, n in EXPECTED], "b": [n for _, n in EXPECTED]}
