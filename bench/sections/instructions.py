"""Instructions of what Pushy is made of, by callgrind, which nothing disturbs: to compare one tree with another. Each figure is
the difference of a long and a short run of a session, or an executor, that has done the same before. A call marks the
parts: callgrind writes its counts down when pg_backend_pid() or, for an executor, a reload of the settings is met."""

import re
import shutil
import subprocess
from pathlib import Path

from harness import account
from harness.database import Database
from harness.waiting import wait_for

from ..bars import Bar
from ..progress import progress

TITLE = "Instructions of an enqueue, a watched insert and a job"
SETUP = """
CREATE FUNCTION noop(jsonb) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION bad(jsonb) RETURNS void LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'no'; END$$;
SELECT pushy.queue_register('single', 'public.noop(jsonb)', batch => false);
SELECT pushy.queue_register('failing', 'public.bad(jsonb)', retry_delay => '1 hour', batch => false);
SELECT pushy.queue_register('paused', 'public.noop(jsonb)');
SELECT pushy.queue_pause(q) FROM unnest('{single,failing,paused}'::text[]) q;
CREATE TABLE plain (id bigint PRIMARY KEY, v text);
"""
PAYLOADS = ("key", "row")
WAYS = {"relay": "delivery => 'relay'", "notify": "delivery => 'notify'", "queue": "queue => 'paused'"}
WATCH = """
CREATE TABLE {table} (LIKE plain INCLUDING ALL);
SELECT pushy.watch('{table}', {way}, payload => '{payload}');
"""
ENQUEUE = "PERFORM pushy.enqueue('paused', '{\"a\": 1}'"
INSERT = "INSERT INTO public.%s VALUES (n, 'some text')"
WATCHED = {f"watched insert, {way}, payload {payload}": f"{way}_{payload}" for way in WAYS for payload in PAYLOADS}
# In a transaction each: what, and how many of it are in one.
EACH = {
    "insert, not watched": (INSERT % "plain", 1),
    **{what: (INSERT % table, 1) for what, table in WATCHED.items()},
    "enqueue": (f"{ENQUEUE})", 1),
    "enqueue, a new unique key": (f"{ENQUEUE}, unique_key => 'k' || n)", 1),
    "enqueue_many, a hundred": ("PERFORM pushy.enqueue_many('paused', array_fill('{\"a\": 1}'::jsonb, ARRAY[100]))", 100),
}
# Many in one transaction.
TOGETHER = {
    "enqueue, in one transaction": f"DO $$BEGIN FOR n IN %s..%s LOOP {ENQUEUE}); END LOOP; END$$;",
    **{f"{what}, in one statement": f"INSERT INTO {table} SELECT n, 'some text' FROM generate_series(%s, %s) n;"
       for what, table in ({"insert, not watched": "plain"} | WATCHED).items()},
}
# Not batched: how many jobs a batch holds is a matter of time, of which callgrind takes fifty times as much.
JOBS = {"job, batch => false": "single", "job that fails, batch => false": "failing"}
# A session's own locks are a table that grows with the first transaction that holds many, and is walked at each commit.
MANY_LOCKS = ("DO $$DECLARE r text; BEGIN FOR r IN SELECT oid::regclass FROM pg_class WHERE relkind = 'r' "
              "AND relnamespace = 'pg_catalog'::regnamespace LIMIT 60 LOOP EXECUTE 'LOCK TABLE ' || r || ' IN ACCESS SHARE MODE'; END LOOP; END$$;")


def measure(servers, sizes) -> dict:
    if not shutil.which("valgrind"):
        return {"seen": {}}
    times = sizes.few(full=250, short=250)
    with servers.server(autovacuum="off", synchronous_commit="off", pushy__max_executors=1) as cluster:
        db = cluster.database("instructions")
        db.sql(SETUP + "".join(WATCH.format(table=f"{name}_{payload}", way=way, payload=payload)
                               for name, way in WAYS.items() for payload in PAYLOADS))
        for number, (what, _) in enumerate(EACH.values()):
            db.sql(f"CREATE PROCEDURE each_{number}(low int, high int) LANGUAGE plpgsql AS "
                   f"$p$BEGIN FOR n IN low..high LOOP {what}; COMMIT; END LOOP; END$p$")
        db.close()
        cluster.stop()
        seen = of_session(cluster, times)
        jobs, wal = of_executor(cluster, 4 * times)
    return {"seen": seen | jobs, "wal": wal}


def parts(written: Path) -> list[int]:
    """Instructions of each part."""
    files = sorted(written.parent.glob(f"{written.name}.*"), key=lambda file: int(file.name.rsplit(".", 1)[1]))
    return [int(re.search(r"^totals: (\d+)", file.read_text(errors="replace"), re.M).group(1)) for file in files]


def of_session(cluster, times: int) -> dict[str, float]:
    """In a single-user server: every operation `times`, as often again, and twice as often."""
    progress("  instructions of sessions")
    per = {what: (times // of or 1, f"CALL each_{number}(%s, %s);") for number, (what, (_, of)) in enumerate(EACH.items())}
    per |= {what: (times, command) for what, command in TOGETHER.items()}
    lines, low = [MANY_LOCKS], 1
    for count, command in per.values():
        for more in (count, count, 2 * count):
            lines += [command % (low, low + more - 1), "SELECT pg_backend_pid();"]
            low += more
    written = cluster.folder / "session"
    account.run(["valgrind", "--tool=callgrind", f"--callgrind-out-file={written}", "--dump-before=pg_backend_pid",
                 cluster.installation.program("postgres"), "--single", "-D", cluster.data, "instructions"],
                cwd=cluster.folder, input="\n".join(lines) + "\n", timeout=3600)
    counts = parts(written)
    of = {what: many for what, (_, many) in EACH.items()}
    return {what: (counts[3 * at + 2] - counts[3 * at + 1]) / count / of.get(what, 1) for at, (what, (count, _)) in enumerate(per.items())}


def of_executor(cluster, times: int) -> tuple[dict[str, float], dict[str, float]]:
    """Of one executor, from claim to completion; and the bytes of WAL that are written meanwhile."""
    progress("  instructions of jobs")
    who = account.unprivileged()
    with open(cluster.folder / "log", "ab") as log:
        server = subprocess.Popen(
            ["valgrind", "--tool=callgrind", "--dump-before=ProcessConfigFile", f"--callgrind-out-file={cluster.folder}/of.%p",
             cluster.installation.program("postgres"), "-D", cluster.data],
            cwd=cluster.folder, stdout=log, stderr=log, user=who.pw_uid, group=who.pw_gid, extra_groups=[])
    try:
        cluster.wait_ready(600)
        db = Database(cluster, "instructions")
        drains = {}
        for what, queue in JOBS.items():
            drains[what] = [drain(cluster, db, queue, many) for many in (times // 4, times, 3 * times)]
        db.close()
    finally:
        cluster.stop(timeout=600)
        server.wait()
    jobs, wal = {}, {}
    for what, (_, short, long) in drains.items():
        counts = parts(cluster.folder / f"of.{long[0]}")
        jobs[what] = (counts[long[1]] - counts[short[1]]) / (2 * times)
        wal[what] = (long[2] - short[2]) / (2 * times)
    return jobs, wal


def drain(cluster, db, queue: str, jobs: int) -> tuple[int, int, int]:
    """The executor's process, which part this is of what it writes, and bytes of WAL."""
    db.sql("SELECT pushy.queue_pause(%s)", queue)
    db.sql("SELECT count(*) FROM pushy.enqueue_many(%s, array_fill('{\"a\": 1}'::jsonb, ARRAY[%s]))", queue, jobs)
    before = db.value("SELECT pg_current_wal_insert_lsn()")
    db.sql("SELECT pushy.queue_resume(%s)", queue)
    wait_for("the jobs to have run", lambda: db.value("SELECT count(*) FROM pushy_internal.live_job WHERE attempt = 0 AND queue_id = "
                                                      "(SELECT queue_id FROM pushy_internal.queue WHERE queue = %s)", queue), lambda left: left == 0, 600)
    wal = db.value("SELECT pg_current_wal_insert_lsn() - %s::pg_lsn", before)
    executor = db.value("SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'pushy executor%'")
    written = len(parts(cluster.folder / f"of.{executor}"))
    cluster.reload()
    wait_for("the executor to write its counts", lambda: len(list(cluster.folder.glob(f"of.{executor}.*"))), lambda now: now > written, 60)
    return executor, written, int(wal)


def tables(data: dict) -> list[str]:
    lines = ["| | instructions | WAL, bytes |", "| --- | ---: | ---: |"]
    for what, count in data["seen"].items():
        wal = data["wal"].get(what)
        lines.append(f"| {what} | {count:,.0f} | {'' if wal is None else f'{wal:,.0f}'} |")
    return lines


def bars(data: dict) -> list[Bar]:
    return []
