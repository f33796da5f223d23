"""Jobs that write one row while 8 sessions read that table, an old snapshot is held, and a standby is attached: how much the
readers lose, against the plain loop (batched) that does the same writes."""

import re
import threading

from .. import page_cache
from ..bars import Bar
from ..contestants.hand_loop import HandLoop
from ..contestants.pushy import Pushy
from ..contestants.prototype import Prototype
from ..progress import progress
from ..rounds import middle, ratios, spread

TITLE = "One row written, with readers, an old snapshot and a standby"
READERS = 8
# Enough for the readers' time, alone and with 8 readers beside.
BACKLOG = 60_000  # jobs a second
READ = "\\set n random(-100000, -20)\nSELECT count(*) FROM written WHERE n BETWEEN :n AND :n + 20;\n"
NOBODY = "nobody writes"


def measure(servers, sizes) -> dict:
    seconds = sizes.few(full=8, short=4)
    reads: dict[str, list[float]] = {}
    rates: dict[str, list[float]] = {}
    with servers.server() as cluster:
        cluster.standby()
        writers = [Pushy(batch=True), *[writer for writer in (HandLoop(batch=50), Prototype(batch=50)) if writer.missing() is None]]
        for writer in writers:
            writer.prepare(cluster)
        for number in range(sizes.rounds):
            for writer in [None, *writers]:
                name = writer.name if writer else NOBODY
                page_cache.fill()
                read, rate = contest(cluster, writer or writers[0], writer is not None, sizes.jobs(BACKLOG * seconds), seconds)
                reads.setdefault(name, []).append(read)
                if writer:
                    rates.setdefault(name, []).append(rate)
                progress(f"  round {number + 1} of {sizes.rounds}: {name}: {read:,.0f} reads/s, {rate:,.0f} jobs/s")
    return {"seconds": seconds, "rounds": sizes.rounds, "reads": reads, "rates": rates}


def contest(cluster, writer, writes: bool, jobs: int, seconds: int) -> tuple[float, float]:
    """Reads a second for as long as the readers read, and jobs a second until the last job."""
    db = writer.database()
    db.sql("CREATE INDEX IF NOT EXISTS written_n ON written (n)")
    db.sql("TRUNCATE written")
    db.sql("INSERT INTO written SELECT n FROM generate_series(-100000, 0) n")
    rate: list[float] = []
    if writes:
        drain = writer.filled(db, "one_row", jobs)
    old = db.connect(autocommit=False)
    old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    old.execute("SELECT 1")
    script = cluster.folder / "read.sql"
    script.write_text(READ)
    work = threading.Thread(target=lambda: rate.append(jobs / drain()) if writes else rate.append(0.0))
    work.start()
    told = cluster.run("pgbench", "-h", cluster.folder, "-p", cluster.port, "-U", "postgres", "-n", "-M", "prepared",
                       "-c", READERS, "-j", 2, "-T", seconds, "-f", script, db.name).stdout
    if writes and not work.is_alive():
        progress("  (the jobs were done before the readers)")
    work.join()
    old.close()
    writer.done_with(db)
    return float(re.search(r"^tps = ([0-9.]+)", told, re.M).group(1)), rate[0]


def tables(data: dict) -> list[str]:
    lines = [f"Median of {data['rounds']} rounds of {data['seconds']} s (lowest to highest). {READERS} readers by pgbench.", "",
             "| who writes | reads/s | jobs/s |", "| --- | ---: | ---: |"]
    return lines + [f"| {name} | {spread(seen)} | {spread(data['rates'][name]) if name in data['rates'] else ''} |"
                    for name, seen in data["reads"].items()]


def bars(data: dict) -> list[Bar]:
    plain = next((name for name in data["reads"] if name.startswith("plain")), None)
    if plain is None:
        return []
    seen = ratios(data["reads"]["Pushy, batched"], data["reads"][plain])
    return [Bar("readers of the table that jobs write to, beside Pushy against beside the plain loop", "at least as many reads",
                spread([100 * ratio for ratio in seen]) + " %", middle(seen) >= 1)]
