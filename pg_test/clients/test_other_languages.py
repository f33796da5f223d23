"""Sequelize, Knex, TypeORM, sqlx and JDBC, each with its own package: a program on each does what its users do, in its own words.
All see the same, but for what is said with a tool."""

import asyncio
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.installation import REPOSITORY
from stage.rust import build

CLIENTS = REPOSITORY / "pg_test"
JDBC = Path("/usr/share/java/postgresql.jar")
needs_node = pytest.mark.skipif(shutil.which("npm") is None, reason="no Node.js")

EXPECTED = {
    "committed": {"state": "completed", "result": {"n": 2}},
    "jobs": {"count": 1},
    "named": {"args": {"text": "it's ? :x $1"}, "delay": "01:00:00"},
    "array": {"channels": ["plain", '"Item News"']},
    "dropped": "42704",
    "registered": {"state": "completed", "result": {"n": 3}},
    "created": ("Item News", "insert", {"id": 1, "title": "a", "amount": 1}),
    "updated": ("Item News", "update", {"id": 1, "title": "b", "amount": 2}),
    "watch": {"columns": ["total"], "condition": "(new.total > 0)", "state": "active"},
    "migrated": ("Item News", "update", {"id": 1, "title": "b", "total": 5000000000}),
    "removed": ("Item News", "update", {"id": 1, "total": 3}),
}


@pytest.fixture
def shop(db):
    db.sql("""CREATE FUNCTION see(args jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT $1';
               CREATE TABLE item (id serial PRIMARY KEY, title text, amount int);
               SELECT pushy.queue_register('q', 'see(jsonb)'),
                      pushy.watch('item', channel => '"Item News"', columns => '{amount}', condition => 'NEW.amount > 0', payload => 'row')""")
    return db


def seen(out: str) -> dict:
    """What the lines say; of a notice its channel, its operation and the row."""
    print(out)
    found = dict(map(json.loads, out.splitlines()))
    for what, value in found.items():
        if "payload" in value:
            found[what] = value["channel"], value["payload"]["op"], value["payload"]["new"]
    return found


def run(*command) -> dict:
    """What a program saw. It waits for notices as long as it has to, and is ended after two minutes."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return seen(done.stdout)


def node(program: str, db) -> dict:
    return run("node", CLIENTS / "node_client" / program, db.cluster.folder, str(db.cluster.port), db.name)


@needs_node
def test_sequelize(shop):
    assert node("sequelize.mjs", shop) == EXPECTED


@needs_node
def test_knex(shop):
    assert node("knex.mjs", shop) == EXPECTED


@needs_node
def test_typeorm(shop):
    """Its changeColumn drops a column of another type, and with it what is in it: refused until unwatch."""
    found = node("typeorm.mjs", shop)
    refused = found.pop("refused")
    assert found == EXPECTED
    assert refused["code"] == "2BP01" and "SELECT pushy.unwatch('public.item', 'Item News')" in refused["hint"], refused


def test_sqlx(shop):
    assert run(build("sqlx"), shop.cluster.folder, str(shop.cluster.port), shop.name) == EXPECTED


def test_jdbc(shop):
    """It speaks TCP only, and the server has none: a forwarder on a free port stands between."""
    async def forward(reader, writer) -> None:
        server_reader, server_writer = await asyncio.open_unix_connection(shop.cluster.folder / f".s.PGSQL.{shop.cluster.port}")
        await asyncio.gather(pump(reader, server_writer), pump(server_reader, writer))

    async def pump(reader, writer) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def scenario() -> tuple[int, bytes, bytes]:
        async with await asyncio.start_server(forward, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            program = await asyncio.create_subprocess_exec(
                "java", "-cp", JDBC, CLIENTS / "jdbc_client" / "Client.java", str(port), shop.name,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            out, errors = await asyncio.wait_for(program.communicate(), 120)
            return program.returncode, out.decode(), errors.decode()
    status, out, errors = asyncio.run(scenario())
    assert status == 0, out + errors
    assert seen(out) == EXPECTED
