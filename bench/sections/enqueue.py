"""Enqueueing into a paused queue: against a plain INSERT of the same row into a table with the same columns and indexes.

One by one from 1, 8 and 32 clients (pgbench, prepared statements, a transaction each); `enqueue_many` and a set-based SELECT."""

import re
import time

from harness.database import Database

from ..bars import Bar
from ..rounds import interleave, middle, ratios, spread

TITLE = "Enqueueing"
CLIENTS = (1, 8, 32)

SETUP = """
CREATE FUNCTION noop(args jsonb) RETURNS void LANGUAGE plpgsql AS $$BEGIN END$$;
SELECT pushy.queue_register('full', 'noop(jsonb)');
SELECT pushy.queue_pause('full');
CREATE TABLE plain_job (LIKE pushy_internal.live_job INCLUDING ALL);
CREATE SEQUENCE plain_seq;
CREATE TABLE orders AS SELECT n AS id FROM generate_series(1, 100000) n;
VACUUM ANALYZE orders;
"""
ENQUEUE = "SELECT pushy.enqueue('full', '{\"n\": 1}');"
INSERT = """INSERT INTO plain_job (id, position, run_at, enqueued_at, queue_id, enqueued_by, priority, depth, state, args)
SELECT n, n, now(), now(), 1, 10, 5, 0, 'a', '{"n": 1}' FROM nextval('plain_seq') n;"""
FROM_ORDERS = {
    "SELECT pushy.enqueue(…) FROM orders": "SELECT count(pushy.enqueue('full', jsonb_build_object('n', id))) FROM orders",
    "enqueue_many": "SELECT count(*) FROM pushy.enqueue_many('full', (SELECT array_agg(jsonb_build_object('n', id)) FROM orders))",
    "plain INSERT … SELECT": """INSERT INTO plain_job (id, position, run_at, enqueued_at, queue_id, enqueued_by, priority, depth, state, args)
        SELECT nextval('plain_seq'), currval('plain_seq'), now(), now(), 1, 10, 5, 0, 'a', jsonb_build_object('n', id) FROM orders""",
}


def measure(servers, sizes) -> dict:
    seconds = sizes.few(full=5, short=3)
    with servers.server() as cluster:
        db = cluster.database("enqueue")
        for statement in SETUP.strip().split(";\n"):
            db.sql(statement)
        contests = {f"{what}; {clients}; {commit}": one_by_one(db, cluster.folder, sql, clients, commit, seconds)
                    for commit in ("off", "on") for clients in CLIENTS
                    for what, sql in (("pushy.enqueue", ENQUEUE), ("plain INSERT", INSERT))}
        single = interleave(contests, sizes.rounds)
        sets = interleave({name: at_once(db, sql) for name, sql in FROM_ORDERS.items()}, sizes.rounds)
    return {"rounds": sizes.rounds, "seconds": seconds, "single": single, "sets": sets}


def one_by_one(db: Database, folder, sql: str, clients: int, synchronous_commit: str, seconds: int):
    script = folder / f"{'plain' if sql == INSERT else 'pushy'}.sql"

    def run() -> float:
        script.write_text(sql.replace("\n", " ") + "\n")
        empty(db)
        db.sql(f"ALTER DATABASE {db.name} SET synchronous_commit = {synchronous_commit}")
        told = db.cluster.run("pgbench", "-h", folder, "-p", db.cluster.port, "-U", "postgres", "-n", "-M", "prepared",
                              "-c", clients, "-j", 2, "-T", seconds, "-f", script, db.name).stdout
        return float(re.search(r"^tps = ([0-9.]+)", told, re.M).group(1))
    return run


def at_once(db: Database, sql: str):
    def run() -> float:
        empty(db)
        began = time.perf_counter()
        db.sql(sql)
        return 100_000 / (time.perf_counter() - began)
    return run


def empty(db: Database) -> None:
    db.sql("TRUNCATE pushy_internal.live_job, plain_job")
    db.sql("CHECKPOINT")


def tables(data: dict) -> list[str]:
    lines = [f"Jobs a second, median of {data['rounds']} rounds of {data['seconds']} s (lowest to highest).", "",
             "| clients, synchronous_commit | pushy.enqueue | plain INSERT, same row and indexes | share |", "| --- | ---: | ---: | ---: |"]
    for commit in ("off", "on"):
        for clients in CLIENTS:
            ours, plain = (data["single"][f"{what}; {clients}; {commit}"] for what in ("pushy.enqueue", "plain INSERT"))
            lines.append(f"| {clients}, {commit} | {spread(ours)} | {spread(plain)} | {share(ours, plain)} |")
    lines += ["", "| 100,000 jobs in one statement | jobs/s |", "| --- | ---: |"]
    return lines + [f"| {name} | {spread(seen)} |" for name, seen in data["sets"].items()]


def bars(data: dict) -> list[Bar]:
    found = []
    for commit in ("off", "on"):
        ours, plain = (data["single"][f"{what}; 32; {commit}"] for what in ("pushy.enqueue", "plain INSERT"))
        found.append(Bar(f"enqueue from 32 clients against plain INSERT, synchronous_commit {commit}", "90 %", share(ours, plain),
                         middle(ratios(ours, plain)) >= 0.9))
    return found


def share(ours: list[float], plain: list[float]) -> str:
    return spread([100 * ratio for ratio in ratios(ours, plain)]) + " %"
