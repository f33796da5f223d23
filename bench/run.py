"""Jobs a second and latency, on a temporary server with the release build: prints tables, writes bench/RESULTS.md.

A drain: the queue is paused, the jobs are enqueued, CHECKPOINT, and the clock runs from resume until
`CALL pushy.jobs_wait` returns. Latency: from the client's clock just before COMMIT to the handler's first
clock_timestamp(), on an otherwise idle server.
"""

import argparse
import datetime
import os
import platform
import statistics
import sys
import threading
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "pg_test"))

from harness.cluster import Cluster  # noqa: E402
from harness.database import Database  # noqa: E402
from harness.installation import Installation  # noqa: E402
from harness.scratch import Scratch  # noqa: E402

EXECUTORS = 2
SETTINGS = {"fsync": None, "full_page_writes": None, "deadlock_timeout": None, "shared_buffers": "256MB",
            "max_wal_size": "4GB", "pushy.max_executors": EXECUTORS}
HANDLERS = {"noop": "a no-op", "one_row": "writes one row"}


def main() -> None:
    options = arguments()
    scratch = Scratch.create()
    try:
        pg_config = os.environ.get("PG_CONFIG", "/usr/lib/postgresql/15/bin/pg_config")
        installation = Installation.create(scratch.path / "pg", REPOSITORY / "target" / "package-release", pg_config)
        cluster = Cluster(scratch.path / "s", installation, SETTINGS).create().start()
        report = Report(options, cluster)
        report.add(drain_table(cluster, options))
        report.add(latency_table(cluster, options))
        report.write(options.output)
    finally:
        scratch.remove()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warm", type=int, default=1000, help="latency samples with a warm executor")
    parser.add_argument("--cold", type=int, default=30, help="latency samples with a cold executor")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "bench" / "RESULTS.md")
    return parser.parse_args()


# -- drains ----------------------------------------------------------------------------------------------------

def drain_table(cluster: Cluster, options: argparse.Namespace) -> list[str]:
    db = cluster.database("drain")
    db.sql("""
        CREATE TABLE written (n int, at timestamptz DEFAULT now());
        CREATE FUNCTION noop(args jsonb) RETURNS void LANGUAGE plpgsql AS $$BEGIN END$$;
        CREATE FUNCTION one_row(args jsonb) RETURNS void LANGUAGE plpgsql AS
            $$BEGIN INSERT INTO written VALUES ((args->>'n')::int); END$$;""")
    db.sql((REPOSITORY / "bench" / "prototype.sql").read_text())
    for handler in HANDLERS:
        for batch in (True, False):
            db.sql("SELECT pushy.queue_register(%s, %s, batch => %s)", f"{handler}_{batch}", f"{handler}(jsonb)", batch)

    contests = [(f"Pushy, {HANDLERS[handler]}, {'batched' if batch else 'one commit each'}",
                 lambda handler=handler, batch=batch: drain(db, f"{handler}_{batch}", handler, options.jobs))
                for handler in HANDLERS for batch in (True, False)]
    contests += [(f"prototype, {HANDLERS[handler]}, {'50 a commit' if batch > 1 else 'one commit each'}",
                  lambda handler=handler, batch=batch: drain_prototype(db, handler, batch, options.jobs))
                 for handler in HANDLERS for batch in (50, 1)]
    rates: dict[str, list[float]] = {name: [] for name, _ in contests}
    for round_number in range(options.rounds):
        for name, contest in contests:
            rates[name].append(contest())
            progress(f"round {round_number + 1} of {options.rounds}: {name}: {rates[name][-1]:,.0f} jobs/s")
    return [f"## Draining {options.jobs:,} jobs, {EXECUTORS} executors, {options.rounds} rounds", "",
            "| | jobs/s, median | lowest | highest |", "| --- | ---: | ---: | ---: |",
            *(f"| {name} | {statistics.median(seen):,.0f} | {min(seen):,.0f} | {max(seen):,.0f} |"
              for name, seen in rates.items())]


def drain(db: Database, queue: str, handler: str, jobs: int) -> float:
    db.sql("TRUNCATE written")
    db.sql("SELECT pushy.queue_pause(%s)", queue)
    db.value("SELECT count(*) FROM pushy.enqueue_many(%s, (SELECT array_agg(jsonb_build_object('n', n)) "
             "FROM generate_series(1, %s) n))", queue, jobs)
    db.sql("CHECKPOINT")
    began = time.perf_counter()
    db.sql("SELECT pushy.queue_resume(%s)", queue)
    db.sql("CALL pushy.jobs_wait(%s, '10 minutes')", queue)
    took = time.perf_counter() - began
    if handler == "one_row":
        check(db.value("SELECT count(*) = %s AND count(DISTINCT n) = %s FROM written", jobs, jobs), "a job was lost or ran twice")
    check(db.value("SELECT count(*) = 0 FROM pushy.failures WHERE queue = %s", queue), "jobs failed")
    return jobs / took


def drain_prototype(db: Database, handler: str, batch: int, jobs: int) -> float:
    db.sql("TRUNCATE written; TRUNCATE prototype_job")
    db.sql("INSERT INTO prototype_job SELECT n, jsonb_build_object('n', n) FROM generate_series(1, %s) n", jobs)
    db.sql("CHECKPOINT")
    sessions = [db.connect() for _ in range(EXECUTORS)]
    for session in sessions:
        session.execute("SET synchronous_commit = off")
    threads = [threading.Thread(target=session.execute, args=("CALL prototype_drain(%s::regproc, %s)", (handler, batch)))
               for session in sessions]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - began
    for session in sessions:
        session.close()
    check(db.value("SELECT NOT EXISTS (SELECT FROM prototype_job)"), "the prototype left jobs")
    return jobs / took


# -- latency ---------------------------------------------------------------------------------------------------

def latency_table(cluster: Cluster, options: argparse.Namespace) -> list[str]:
    db = cluster.database("latency")
    db.sql("""
        CREATE FUNCTION started(args jsonb) RETURNS jsonb LANGUAGE plpgsql AS
            $$BEGIN RETURN to_jsonb(extract(epoch FROM clock_timestamp())); END$$;
        SELECT pushy.queue_register('latency', 'started(jsonb)')""")
    rows = []
    for commit in ("on", "off"):
        samples = [sample(db, commit) for _ in range(options.warm)]
        rows.append((f"warm executor, client's synchronous_commit = {commit}", samples))
        progress(f"latency: {rows[-1][0]}: p50 {quantile(samples, 50):.2f} ms")
    cluster.configure(pushy__executor_linger="1s").restart()
    samples = []
    for n in range(options.cold):
        db.wait_until("SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'pushy executor%'", 0)
        samples.append(sample(db, "on"))
        progress(f"latency: cold executor: {n + 1} of {options.cold}: {samples[-1]:.1f} ms")
    rows.append(("cold executor (none running)", samples))
    return ["## From the client's clock before COMMIT to the handler's first clock_timestamp(), in ms", "",
            "| | n | p50 | p90 | p99 | max |", "| --- | ---: | ---: | ---: | ---: | ---: |",
            *(f"| {name} | {len(seen)} | {quantile(seen, 50):.2f} | {quantile(seen, 90):.2f} | {quantile(seen, 99):.2f} | {max(seen):.2f} |"
              for name, seen in rows)]


def sample(db: Database, synchronous_commit: str) -> float:
    """One job's latency, in ms."""
    session = db.main
    session.execute("BEGIN")
    session.execute(f"SET LOCAL synchronous_commit = {synchronous_commit}")
    job = session.execute("SELECT pushy.enqueue('latency')").fetchone()[0]
    committed = time.time()
    session.execute("COMMIT")
    started = float(db.job_wait(job)["result"])
    return (started - committed) * 1000


def quantile(samples: list[float], percent: int) -> float:
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


# -- report ----------------------------------------------------------------------------------------------------

class Report:
    def __init__(self, options: argparse.Namespace, cluster: Cluster):
        with cluster.connect() as session:
            settings = session.execute(
                "SELECT string_agg(format('%s = %s', name, current_setting(name)), ', ' ORDER BY name) FROM pg_settings "
                "WHERE name IN ('shared_buffers', 'max_wal_size', 'fsync', 'synchronous_commit', 'wal_level', "
                "'max_worker_processes') OR name LIKE 'pushy.%'").fetchone()[0]
        self.lines = [
            "# Results", "", "Written by `make bench`; `bench/run.py` says how each number is taken.", "",
            f"- {datetime.date.today().isoformat()}, {cpu()}, {os.cpu_count()} cores, {memory()}, "
            f"{platform.system()} {platform.release().split('-')[0]}",
            f"- {cluster.installation.version}; Pushy {version(cluster)}, release build",
            f"- {settings}"]

    def add(self, table: list[str]) -> None:
        self.lines += ["", *table]

    def write(self, path: Path) -> None:
        text = "\n".join(self.lines) + "\n"
        path.write_text(text)
        print(text)


def cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def memory() -> str:
    kilobytes = int(Path("/proc/meminfo").read_text().split("\n", 1)[0].split()[1])
    return f"{kilobytes / 2**20:.0f} GB"


def version(cluster: Cluster) -> str:
    with cluster.connect() as session:
        return session.execute("SELECT default_version FROM pg_available_extensions WHERE name = 'pushy'").fetchone()[0]


def check(fine: bool, complaint: str) -> None:
    if not fine:
        sys.exit(f"bench: {complaint}")


def progress(text: str) -> None:
    """One line that lives; plain lines when nobody watches."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
    else:
        print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
