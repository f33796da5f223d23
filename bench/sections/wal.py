"""WAL of a no-op job, from enqueue to completion, by record type (pg_waldump --stats=record). Without full-page images:
after a checkpoint they depend on how many jobs follow, and they are shown apart."""

import re

from harness.database import Database

from ..bars import Bar
from ..contestants.pushy import Pushy

TITLE = "WAL of a no-op job"


def measure(servers, sizes) -> dict:
    jobs = sizes.jobs(100_000)
    seen = {}
    with servers.server(autovacuum="off", wal_keep_size="4GB") as cluster:
        pushy = Pushy(batch=True).prepare(cluster)
        pushy.drain("noop", max(jobs // 10, 10))  # settled
        for how, enqueue in {
            "enqueue_many, batched": "SELECT count(*) FROM pushy.enqueue_many('noop_batched', (SELECT array_agg(jsonb_build_object('n', n)) "
                                     "FROM generate_series(1, %s) n))",
            "one by one, batched": "DO $$BEGIN FOR n IN 1..%s LOOP PERFORM pushy.enqueue('noop_batched', jsonb_build_object('n', n)); COMMIT; END LOOP; END$$",
        }.items():
            db = pushy.db
            db.sql("SELECT pushy.queue_pause('noop_batched')")
            db.sql("CHECKPOINT")
            begin = db.value("SELECT pg_current_wal_insert_lsn()")
            db.sql(enqueue % jobs)
            enqueued = db.value("SELECT pg_current_wal_insert_lsn()")
            pushy.run("noop")
            db.sql("SELECT txid_current()")  # flushed below, so that all before it is too
            db.sql("CHECKPOINT")
            end = db.value("SELECT pg_current_wal_flush_lsn()")
            seen[how] = {"enqueue": dump(db, begin, enqueued), "run": dump(db, enqueued, end)}
    return {"jobs": jobs, "seen": seen}


def dump(db: Database, begin: str, end: str) -> dict[str, list[int]]:
    """Records, their bytes, and those of full-page images, by record type."""
    # Files are named: of a folder pg_waldump may look at one that is still empty.
    files = [db.cluster.data / "pg_wal" / db.value("SELECT pg_walfile_name(%s)", at) for at in (begin, end)]
    text = db.cluster.run("pg_waldump", "--stats=record", "-s", begin, "-e", end, *files).stdout
    row = re.compile(r"^(\S+)\s+(\d+) \(\s*[\d.]+\)\s+(\d+) \(\s*[\d.]+\)\s+(\d+) \(", re.M)
    return {name: [int(count), int(size), int(images)] for name, count, size, images in row.findall(text)
            if int(count) and name != "Total"}


def per_job(seen: dict, jobs: int) -> float:
    return sum(size for part in seen.values() for _, size, _ in part.values()) / jobs


def tables(data: dict) -> list[str]:
    lines = []
    for how, seen in data["seen"].items():
        lines += ["", f"| {how}: {data['jobs']:,} jobs | records a job | bytes a job | full-page images, bytes a job |",
                  "| --- | ---: | ---: | ---: |"]
        for part, what in (("enqueue", "enqueue"), ("run", "claim to completion")):
            for name, (count, size, images) in sorted(seen[part].items(), key=lambda entry: -entry[1][1]):
                if size / data["jobs"] >= 0.5 or images / data["jobs"] >= 0.5:
                    lines.append(f"| {what}: {name} | {count / data['jobs']:.3f} | {size / data['jobs']:.1f} | {images / data['jobs']:.1f} |")
        images = sum(images for part in seen.values() for _, _, images in part.values()) / data["jobs"]
        lines.append(f"| all | | {per_job(seen, data['jobs']):.0f} | {images:.0f} |")
    return lines[1:]


def bars(data: dict) -> list[Bar]:
    found = []
    for how, seen in data["seen"].items():
        size = per_job(seen, data["jobs"])
        found.append(Bar(f"WAL per no-op job, {how}", "under 700 bytes", f"{size:.0f} bytes", size < 700))
    return found
