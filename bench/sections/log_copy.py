"""A COPY of many rows into a table watched with delivery relay, a notice per row: its time against the plain COPY, and the memory
of the session that does it."""

from ..bars import Bar
from ..progress import progress
from ..rounds import middle, ratios, spread
from .writing import copy, rows_to_copy, wait_told

TITLE = "COPY and the event log"
PLAIN, RELAY = "plain table", "watch, relay"
TABLES = {PLAIN: "plain", RELAY: "relayed"}
MOST_MB = 64


def measure(servers, sizes) -> dict:
    rows = sizes.jobs(1_000_000)
    seconds: dict[str, list[float]] = {what: [] for what in TABLES}
    memory: dict[str, list[float]] = {what: [] for what in TABLES}
    # All are kept: a log that is full would be the faster one.
    with servers.server(pushy__log_max_size="2GB") as cluster:
        db = cluster.database("log")
        for table in TABLES.values():
            db.sql(f"CREATE TABLE {table} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v int, s text)")
        db.sql("SELECT pushy.watch('relayed', delivery => 'relay')")
        path = rows_to_copy(db, rows)
        for number in range(sizes.rounds):
            for what in list(TABLES)[::1 if number % 2 else -1]:
                db.sql(f"TRUNCATE {TABLES[what]}")
                wait_told(db)
                db.sql("CHECKPOINT")
                taken, used = copy(db, TABLES[what], path)
                seconds[what].append(taken)
                memory[what].append(used)
                progress(f"  round {number + 1} of {sizes.rounds}: {what}: {taken:.2f} s, {used:.0f} MB")
    return {"rows": rows, "rounds": sizes.rounds, "seconds": seconds, "memory": memory}


def tables(data: dict) -> list[str]:
    lines = [f"COPY of {data['rows']:,} rows, median of {data['rounds']} rounds (lowest to highest); memory of the session's process "
             "that is its own, at the end: the server's queue of trigger events is in it.", "",
             "| | s | µs a row | MB |", "| --- | ---: | ---: | ---: |"]
    for what, seen in data["seconds"].items():
        lines.append(f"| {what} | {spread(seen, '.2f')} | {middle(seen) / data['rows'] * 1e6:.2f} | {spread(data['memory'][what], '.0f')} |")
    return lines


def bars(data: dict) -> list[Bar]:
    times, most = ratios(data["seconds"][RELAY], data["seconds"][PLAIN]), max(data["memory"][RELAY])
    return [Bar(f"COPY of {data['rows']:,} rows, relay, a notice per row, against the plain one", "under 2 times",
                spread(times, ".2f") + " times", middle(times) < 2),
            Bar("memory of its session", f"at most {MOST_MB} MB", f"{most:.0f} MB", most <= MOST_MB)]
