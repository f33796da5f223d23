"""A watched table, who writes it and who listens: exactly what was heard of some statements, and nothing else."""

import itertools
import json

import psycopg

_numbers = itertools.count(1)


class Watching:
    """Listens to channels from now on; `after(…)` runs statements and answers what they made the channels say. Without a relay
    (`relayed`) it hears of watches with delivery notify only."""

    def __init__(self, db, *channels: str, relayed: bool = True):
        self.db = db
        # Behind what the relay has to tell, and what was told without it.
        self.say = "SELECT pushy.notify(%s, '', delivery => 'relay')" if relayed else "SELECT pg_notify(%s, '')"
        self.fence = f"fence_{next(_numbers)}"
        self.listener = db.listen(*channels, self.fence)

    def until_now(self) -> list[psycopg.Notify]:
        """The notices of everything that has been committed, in order: the next one after them is a fence."""
        self.db.sql(self.say, self.fence)
        start = len(self.listener.heard)
        self.listener.wait_for(lambda notice: notice.channel == self.fence)
        return self.listener.heard[start:-1]

    def payloads(self) -> list[dict]:
        """What those say; a reference is followed."""
        return [self._whole(json.loads(notice.payload)) for notice in self.until_now()]

    def after(self, *statements: str, session: psycopg.Connection | None = None) -> list[tuple]:
        """(op, key) of each change that the statements told; of a statement's notice (op, count, keys)."""
        for statement in statements:
            (session or self.db.main).execute(statement)
        return [brief(payload) for payload in self.payloads()]

    def _whole(self, payload: dict) -> dict:
        if "notice" in payload:
            return json.loads(self.db.value("SELECT pushy.notice(%s)", payload["notice"]))
        return payload


def brief(payload: dict) -> tuple:
    if payload.get("level") == "statement":
        return payload["op"], payload["count"], [flat(key) for key in payload["keys"]]
    if "error" in payload:
        return payload["op"], flat(payload.get("key")), payload["error"]["sqlstate"]
    if payload["op"] == "resync":
        return payload["op"], payload["left_out"]
    return payload["op"], flat(payload.get("key"))


def flat(key: dict | None):
    """The key's value; a tuple where it has several."""
    if key is None:
        return None
    values = tuple(key.values())
    return values[0] if len(values) == 1 else values


def watch(db, table: str, session: psycopg.Connection | None = None, **options) -> str:
    """Declares a watch of `table` on channel `heard` unless options say otherwise, as a superuser or in `session`; answers the
    channel."""
    options.setdefault("channel", "heard")
    named = "".join(f", {name} => %s" for name in options)
    call = f"SELECT pushy.watch(%s{named})"
    return (session or db.main).execute(call, [table, *options.values()]).fetchone()[0]


def jobs(db, queue: str = "q") -> list:
    """The arguments of a queue's jobs, in the order in which they were enqueued."""
    return [args for args, in db.rows("SELECT args FROM pushy.jobs WHERE queue = %s ORDER BY id", queue)]


def paused_queue(db, queue: str = "q") -> None:
    """A queue whose jobs stay to be looked at."""
    db.sql("CREATE FUNCTION nothing() RETURNS void LANGUAGE sql AS ''")
    db.sql(f"SELECT pushy.queue_register('{queue}', 'nothing()'), pushy.queue_pause('{queue}')")


def settled(db) -> None:
    """Waits until what was committed before is where readers of the log find it: behind it comes a fence."""
    fence, cursor = f"fence {next(_numbers)}", db.value("SELECT pushy.log_position()")
    db.sql("SELECT pushy.notify('settled', %s, delivery => 'relay')", fence)
    db.wait_until("SELECT EXISTS (SELECT FROM pushy_internal.log_read(%s, '{settled}') WHERE payload = %s)", True, params=(cursor, fence))
