"""How soon a notice with delivery relay arrives: from the client's clock before the commit to a LISTENer's, or to that of a
reader of a subscription. One at a time, each when all is at rest; and with so many a second from 32 clients."""

import threading
import time

from ..bars import Bar
from ..rounds import quantile
from .writing import pgbench

TITLE = "Latency of the event log"
WRITERS = 32
# Seconds from one notice to the next where each is to find a relay at rest.
PACE = 0.05
RATES = (1_000, 5_000)
STAMPED = "SELECT pushy.notify('{channel}', extract(epoch FROM clock_timestamp())::text, delivery => 'relay')"


def measure(servers, sizes) -> dict:
    samples, seconds = sizes.few(full=300, short=60), sizes.few(full=10, short=3)
    ms: dict[str, list[float]] = {}
    achieved: dict[str, float] = {}
    with servers.server(max_connections=200) as cluster:
        db = cluster.database("log")
        db.sql("SELECT pushy.subscription_create('s', '{read}')")
        writer = db.connect()
        for synchronous in ("off", "on"):
            writer.execute(f"SET synchronous_commit = {synchronous}")
            with Heard(db, "quiet") as heard:
                for _ in range(samples):
                    writer.execute(STAMPED.format(channel="quiet"))
                    time.sleep(PACE)
            ms[quiet("LISTENer", synchronous)] = heard.ms
            ms[quiet("subscription_read", synchronous)] = read(db, writer, samples)
        for many in RATES:
            with Heard(db, "busy") as heard:
                achieved[str(many)] = pgbench(db, STAMPED.format(channel="busy") + ";", WRITERS, seconds, "-R", many)
            ms[busy(many)] = heard.ms
    return {"ms": {name: [round(one, 3) for one in seen] for name, seen in ms.items()}, "achieved": achieved}


def quiet(to: str, synchronous: str) -> str:
    return f"commit to {to}, one at a time, synchronous_commit {synchronous}"


def busy(many: int) -> str:
    return f"commit to LISTENer, {many:,} a second"


class Heard:
    """Listens in a thread of its own and takes the time of what it hears, until the block ends and all is heard."""

    END = "end"

    def __init__(self, db, channel: str):
        self.db, self.channel, self.ms = db, channel, []
        self.session = db.connect()
        self.session.execute(f"LISTEN {channel}")
        self.thread = threading.Thread(target=self._hear)

    def __enter__(self) -> "Heard":
        self.thread.start()
        return self

    def _hear(self) -> None:
        for notice in self.session.notifies():
            if notice.payload == self.END:
                return
            self.ms.append((time.time() - float(notice.payload)) * 1000)

    def __exit__(self, *exception) -> None:
        # What was notified before is heard before.
        self.db.sql("SELECT pushy.notify(%s, %s, delivery => 'relay')", self.channel, self.END)
        self.thread.join()
        self.session.close()


def read(db, writer, samples: int) -> list[float]:
    ms: list[float] = []
    reader = db.connect()

    def wait() -> None:
        reader.execute("CALL pushy.subscription_wait('s', '5 s')")
        payload, cursor = reader.execute("SELECT payload, cursor FROM pushy.subscription_read('s')").fetchone()
        ms.append((time.time() - float(payload)) * 1000)
        reader.execute("SELECT pushy.subscription_ack('s', %s)", (cursor,))
    for _ in range(samples):
        waiting = threading.Thread(target=wait)
        waiting.start()
        db.wait_until("SELECT wait_event_type = 'Extension' FROM pg_stat_activity WHERE pid = %s", params=(reader.info.backend_pid,))
        time.sleep(PACE)
        writer.execute(STAMPED.format(channel="read"))
        waiting.join()
    reader.close()
    return ms


def tables(data: dict) -> list[str]:
    lines = ["In ms.", "", "| | n | p50 | p90 | p99 | max |", "| --- | ---: | ---: | ---: | ---: | ---: |"]
    lines += [f"| {name} | {len(seen)} | {quantile(seen, 50):.2f} | {quantile(seen, 90):.2f} | {quantile(seen, 99):.2f} | {max(seen):.2f} |"
              for name, seen in data["ms"].items()]
    reached = ", ".join(f"{rate:,.0f} of {int(many):,}" for many, rate in data["achieved"].items())
    return lines + ["", f"Notices a second that were reached: {reached}."]


def bars(data: dict) -> list[Bar]:
    under = {quiet("LISTENer", "off"): 5, quiet("LISTENer", "on"): 5, busy(RATES[-1]): 5,
             quiet("subscription_read", "off"): 2, quiet("subscription_read", "on"): 2}
    return [Bar(f"{name}, p50", f"under {bar} ms", f"{quantile(data['ms'][name], 50):.2f} ms", quantile(data["ms"][name], 50) < bar)
            for name, bar in under.items()]
