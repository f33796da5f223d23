"""What a watch costs the writers: the same table plain, watched, and with triggers that people write by hand.

One row a transaction from 1, 8 and 32 clients (pgbench), with nobody listening and with 90 idle LISTENers of another
channel, which NOTIFY wakes all the same, and each of which reads every notice; and a COPY of many rows. The hand-written
trigger says what the watch says. With synchronous_commit on whoever uses NOTIFY waits for the disk one after the other, and what a
trigger costs is behind that; off, it is seen."""

from harness.database import Database

from ..bars import Bar
from ..rounds import interleave, median_confidence, middle, ratios, spread
from .writing import copy, idle_listeners, inserts, rows_to_copy

TITLE = "What a watch costs"
CLIENTS = (1, 8, 32)
# Listeners, and the writers' synchronous_commit.
STATES = ((0, "off"), (0, "on"), (90, "off"))

PLAIN, NOTIFY, QUEUE, STATEMENT, HAND, TCN = (
    "plain table", "watch, notify", "watch, queue", "watch, per statement", "plpgsql trigger, pg_notify", "tcn")
# The two that are compared are neighbours: the machine is the same for both.
SINGLE = [PLAIN, NOTIFY, HAND, QUEUE, TCN]

TABLES = {PLAIN: "plain", NOTIFY: "told", QUEUE: "worked", STATEMENT: "counted", HAND: "hand", TCN: "tcned"}
SETUP = [f"CREATE TABLE {table} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v int, s text)" for table in TABLES.values()] + [
    "CREATE FUNCTION noop(args jsonb) RETURNS void LANGUAGE plpgsql AS $$BEGIN END$$",
    "SELECT pushy.queue_register('q', 'noop(jsonb)')",
    "SELECT pushy.watch('told', delivery => 'notify'), pushy.watch('worked', queue => 'q'), "
    "pushy.watch('counted', level => 'statement', delivery => 'notify')",
    """CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
       BEGIN
           PERFORM pg_notify('hand', json_build_object('v', 1, 'op', lower(TG_OP), 'schema', TG_TABLE_SCHEMA, 'table', TG_TABLE_NAME,
                                                       'key', json_build_object('id', coalesce(NEW.id, OLD.id)),
                                                       'pid', pg_backend_pid(), 'xid', pg_current_xact_id()::text::bigint)::text);
           RETURN NULL;
       END $$""",
    "CREATE TRIGGER tell AFTER INSERT OR UPDATE OR DELETE ON hand FOR EACH ROW EXECUTE FUNCTION tell()",
    "CREATE EXTENSION tcn",
    "CREATE TRIGGER tell AFTER INSERT OR UPDATE OR DELETE ON tcned FOR EACH ROW EXECUTE FUNCTION triggered_change_notification('tcn')",
]
EVERY_NOTICE = 2**31 - 1


def measure(servers, sizes) -> dict:
    seconds, rows = sizes.few(full=2, short=1), sizes.jobs(1_000_000)
    # Nothing runs: it is the writer's side that is measured.
    with servers.server(pushy__enabled="off", max_connections=200) as cluster:
        db = cluster.database("watch")
        for statement in SETUP:
            db.sql(statement)
        single = {}
        for listeners, synchronous in STATES:
            with idle_listeners(db, listeners):
                single |= interleave({key(what, clients, listeners, synchronous): one_by_one(db, what, clients, seconds, synchronous)
                                      for clients in CLIENTS for what in SINGLE}, sizes.rounds, "transactions/s")
        path = rows_to_copy(db, rows)
        copies = interleave({what: copy_into(db, path, what) for what in TABLES}, sizes.rounds, "s")
    return {"rounds": sizes.rounds, "seconds": seconds, "rows": rows, "single": single, "copies": copies}


def key(what: str, clients: int, listeners: int, synchronous: str) -> str:
    return f"{what}; {clients}; {listeners}; {synchronous}"


def one_by_one(db: Database, what: str, clients: int, seconds: int, synchronous: str):
    def run() -> float:
        empty(db)
        return inserts(db, TABLES[what], clients, seconds, synchronous)
    return run


def copy_into(db: Database, path, what: str):
    def run() -> float:
        empty(db)
        # Each trigger tells of every row, as the hand-written ones do.
        return copy(db, TABLES[what], path, pushy__max_notices=EVERY_NOTICE)[0]
    return run


def empty(db: Database) -> None:
    db.sql(f"TRUNCATE {', '.join(TABLES.values())}, pushy_internal.live_job")
    db.sql("CHECKPOINT")


def tables(data: dict) -> list[str]:
    lines = []
    for listeners, synchronous in STATES:
        lines += [f"Transactions a second that insert a row, synchronous_commit {synchronous}, {listeners} idle listeners: median of "
                  f"{data['rounds']} rounds of {data['seconds']} s (lowest to highest).", "",
                  "| | " + " | ".join(f"{clients} client{'s' * (clients > 1)}" for clients in CLIENTS) + " |",
                  "| --- |" + " ---: |" * len(CLIENTS)]
        lines += ["| " + " | ".join([what] + [spread(data["single"][key(what, clients, listeners, synchronous)]) for clients in CLIENTS]) + " |"
                  for what in SINGLE]
        lines.append("")
    lines += [f"| COPY of {data['rows']:,} rows | s |", "| --- | ---: |"]
    return lines + [f"| {what} | {spread(seen, '.2f')} |" for what, seen in data["copies"].items()]


def bars(data: dict) -> list[Bar]:
    found, all_shares = [], []
    for listeners, synchronous in STATES:
        for clients in CLIENTS:
            shares = ratios(*(data["single"][key(what, clients, listeners, synchronous)] for what in (NOTIFY, HAND)))
            all_shares += shares
            found.append(Bar(f"inserts with a watch against the hand-written trigger, {clients} clients, {listeners} listeners, "
                             f"synchronous_commit {synchronous}", "1 time", spread(shares, ".2f") + " times", middle(shares) >= 1))
    middle_of_all, low, high = median_confidence(all_shares)
    found.append(Bar(f"all {len(all_shares)} of these pairs: the median and its 95 % interval", "1 time",
                     f"{middle_of_all:.2f} ({low:.2f} to {high:.2f}) times", low >= 1))
    for what in (NOTIFY, STATEMENT):
        shares = ratios(data["copies"][what], data["copies"][HAND])
        found.append(Bar(f"time of a COPY, {what}, against the hand-written trigger", "below 0.5", spread(shares, ".2f"),
                         middle(shares) < 0.5))
    return found
