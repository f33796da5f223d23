"""What a watch with delivery relay costs 32 writers: against the same table unwatched, and with NOTIFY for comparison; alone,
while one LISTENer hears it all, with 90 LISTENers of another channel, and while a transaction that has written to the log is held
open. Tables, caches and the server's memory are warm: each has been written to before."""

import contextlib

from ..bars import Bar
from ..rounds import interleave, middle, ratios, spread
from .writing import attentive_listener, idle_listeners, inserts, wait_told

TITLE = "Writers and the event log"
WRITERS, LISTENERS = 32, 90
PLAIN, RELAY, NOTIFY = "plain table", "watch, relay", "watch, notify"
TABLES = {PLAIN: "plain", RELAY: "relayed", NOTIFY: "notified"}
ALONE, HEARD, LISTENED, HELD = "alone", "a LISTENer hears it", f"{LISTENERS} idle LISTENers", "a transaction held open"
CONTESTS = {ALONE: list(TABLES), HEARD: [PLAIN, RELAY], LISTENED: list(TABLES), HELD: [PLAIN, RELAY]}
BARS = {"on": 0.8, "off": 0.7}
# What 90 LISTENers, or an open transaction, may take from that share.
NEARLY = 0.05


def measure(servers, sizes) -> dict:
    seconds, rounds, held = 2, sizes.few(full=10, short=2), sizes.few(full=20, short=5)
    rates, bytes_held = {}, {}
    for synchronous in BARS:
        with servers.server(max_connections=200, synchronous_commit=synchronous) as cluster:
            db = cluster.database("log")
            for table in TABLES.values():
                db.sql(f"CREATE TABLE {table} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v int, s text)")
            db.sql("SELECT pushy.watch('relayed', delivery => 'relay'), pushy.watch('notified', delivery => 'notify')")
            states = {ALONE: contextlib.nullcontext, HEARD: lambda: attentive_listener(db, TABLES[RELAY]),
                      LISTENED: lambda: idle_listeners(db, LISTENERS), HELD: lambda: held_open(db)}
            for what in TABLES:
                one(db, what, contextlib.nullcontext, 1)()
            # All in the same rounds: from state to state the machine is another.
            rates |= interleave({key(what, state, synchronous): one(db, what, states[state], seconds)
                                 for state, contests in CONTESTS.items() for what in contests}, rounds, "transactions/s")
            with held_open(db):
                inserts(db, TABLES[RELAY], WRITERS, held)
                bytes_held[synchronous] = db.value("SELECT bytes FROM pushy.log")
            most = db.value("SELECT pg_size_bytes(current_setting('pushy.log_max_size'))")
    return {"rounds": rounds, "seconds": seconds, "held": held, "rates": rates, "bytes_held": bytes_held, "most_bytes": most}


def key(what: str, state: str, synchronous: str) -> str:
    return f"{what}; {state}; {synchronous}"


def one(db, what: str, state, seconds: int):
    def run() -> float:
        db.sql(f"TRUNCATE {TABLES[what]}")
        wait_told(db)
        with state():
            return inserts(db, TABLES[what], WRITERS, seconds)
    return run


@contextlib.contextmanager
def held_open(db):
    session = db.connect(autocommit=False)
    session.execute("SELECT pg_current_xact_id(), pushy.notify('held', '', delivery => 'relay')")
    yield
    session.rollback()
    session.close()


def shares(data: dict, what: str, state: str, synchronous: str) -> list[float]:
    return ratios(data["rates"][key(what, state, synchronous)], data["rates"][key(PLAIN, state, synchronous)])


def tables(data: dict) -> list[str]:
    lines = [f"Transactions a second of {WRITERS} clients that insert a row each: median of {data['rounds']} rounds of {data['seconds']} s "
             "(lowest to highest).", "", "| synchronous_commit | | " + " | ".join(TABLES) + " |", "| --- | --- |" + " ---: |" * len(TABLES)]
    for synchronous in BARS:
        for state, contests in CONTESTS.items():
            cells = [spread(data["rates"][key(what, state, synchronous)]) if what in contests else "" for what in TABLES]
            lines.append(f"| {synchronous} | {state} | " + " | ".join(cells) + " |")
    sizes = ", ".join(f"{size / 2**20:,.0f} MB (synchronous_commit {synchronous})" for synchronous, size in data["bytes_held"].items())
    return lines + ["", f"The log's size after {data['held']} s of that beside an open transaction: {sizes}; its limit is {data['most_bytes'] / 2**20:,.0f} MB."]


def percent(samples: list[float], form: str = ".0f") -> str:
    return spread([100 * sample for sample in samples], form)


def bars(data: dict) -> list[Bar]:
    found = []
    for synchronous, bar in BARS.items():
        name = f"{WRITERS} writers, relay against unwatched, synchronous_commit {synchronous}"
        alone = shares(data, RELAY, ALONE, synchronous)
        beside = percent(shares(data, NOTIFY, ALONE, synchronous))
        found.append(Bar(name, f"{bar:.0%}", f"{percent(alone)} % (notify: {beside} %)", middle(alone) >= bar))
        for state in (LISTENED, HELD):
            seen = shares(data, RELAY, state, synchronous)
            found.append(Bar(f"the same, {state}", f"within 5 % of that", f"{percent(seen)} %", middle(seen) >= middle(alone) - NEARLY))
    most = max(data["bytes_held"].values())
    found.append(Bar("size of the log behind a transaction held open", f"at most {data['most_bytes'] / 2**20:,.0f} MB", f"{most / 2**20:,.0f} MB",
                     most <= data["most_bytes"]))
    return found
