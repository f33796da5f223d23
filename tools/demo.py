"""The main job, played on a server of its own: `demo.py start` leaves the server running, with a live page (demo_page.py), `demo.py stop` ends
both; `demo.py farm` plays the farm (demo_farm.py) instead, and leaves its server too."""

import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "pg_test"))

from harness.cluster import Cluster  # noqa: E402
from harness.database import Database  # noqa: E402
from harness.installation import Installation  # noqa: E402
from harness.scratch import stop_servers  # noqa: E402

import demo_farm  # noqa: E402
import demo_page  # noqa: E402

REMEMBERED = REPOSITORY / "target" / "demo"  # holds the path of the running demo's folder
BRANCHES = 10
WRITERS = 4
SECONDS = 10
NOTICES_SHOWN = 5


def main() -> None:
    if sys.argv[1:] == ["stop"]:
        stop()
    elif sys.argv[1:] == ["start"]:
        start(main_job)
    elif sys.argv[1:] == ["farm"]:
        start(lambda demo: demo_farm.play(demo, tell))
    else:
        sys.exit("usage: demo.py start | farm | stop")


def main_job(demo: "Demo") -> None:
    demo.roll_up()
    demo.troubles()
    demo_page.play(demo, Path(REMEMBERED.read_text()), tell)


def stop() -> None:
    if not REMEMBERED.exists():
        print("No demo is running.")
        return
    folder = Path(REMEMBERED.read_text())
    if folder.exists():
        demo_page.end(folder)
        stop_servers(folder)
        shutil.rmtree(folder)
    REMEMBERED.unlink()
    print("The demo's server is stopped and deleted.")


def start(played: Callable[["Demo"], None]) -> None:
    if REMEMBERED.exists():
        stop()
    folder = Path(tempfile.mkdtemp(prefix="pushy-demo-", dir=os.environ.get("TMPDIR")))
    folder.chmod(0o755)
    REMEMBERED.write_text(str(folder))
    try:
        play(folder, played)
    except BaseException:
        stop()
        raise


def play(folder: Path, played: Callable[["Demo"], None]) -> None:
    tell("A PostgreSQL of its own, with Pushy preloaded")
    installation = Installation.of_build(folder / "pg", "release")
    cluster = Cluster(folder / "s", installation, {
        "fsync": "on", "full_page_writes": "on", "shared_buffers": "128MB", "pushy.max_executors": 2,
        "track_commit_timestamp": "on", "pushy.gateway_program": REPOSITORY / "target/gateway/release/pushy-gateway"},
        port=random.randint(20000, 32000)).create().start()
    print(f"   {installation.version}, in {folder}")
    played(Demo(cluster, cluster.database("shop")))
    tell("The server keeps running. Look around:")
    print(f"   psql -h {cluster.folder} -p {cluster.port} -U postgres shop")
    print(r"   \df+ pushy.*      SELECT * FROM pushy.queues;      SELECT * FROM pushy.stats;")
    print("   make demo-stop    ends and deletes it")


class Demo:
    def __init__(self, cluster: Cluster, shop: Database):
        self.cluster, self.shop = cluster, shop

    def roll_up(self) -> None:
        tell(f"pgbench makes a bank of {BRANCHES} branches")
        self.cluster.run("pgbench", "-i", "-q", "-s", BRANCHES, *self.where())
        tell("A watch of pgbench_history makes jobs; their handler keeps a roll-up per branch (demo/rollup.sql)")
        self.play_file("rollup.sql")
        self.show_file("rollup.sql")

        tell(f"pgbench writes for {SECONDS} seconds, {WRITERS} clients, while the jobs run; a client LISTENs to large amounts")
        self.write()
        began = time.monotonic()
        assert self.shop.value("CALL pushy.jobs_wait('branch_kpi', '1 minute')"), "the roll-up is late"
        print(f"   The roll-up was up to date {1000 * (time.monotonic() - began):.0f} ms after the last write.")

        tell("The roll-up, and the truth beside it")
        self.show("""
            SELECT k.branch, k.transactions, k.turnover, k.net,
                   (k.transactions, k.turnover, k.net) = (count(h), coalesce(sum(abs(h.delta)), 0), coalesce(sum(h.delta), 0)) AS is_true
              FROM branch_kpi k LEFT JOIN pgbench_history h ON h.bid = k.branch
             GROUP BY k.branch ORDER BY k.branch""")
        if self.shop.value("""
                SELECT count(*) FROM (
                    (SELECT branch, transactions, net FROM branch_kpi WHERE transactions > 0
                     EXCEPT SELECT bid, count(*), sum(delta) FROM pgbench_history GROUP BY bid)
                    UNION ALL
                    (SELECT bid, count(*), sum(delta) FROM pgbench_history GROUP BY bid
                     EXCEPT SELECT branch, transactions, net FROM branch_kpi)) difference"""):
            sys.exit("The roll-up differs from the truth.")
        tell("What the queue did, and how long after the writer's COMMIT its jobs started")
        self.show("""
            SELECT completed, failed, batches, round(completed / %s.0) AS jobs_per_s,
                   round(extract(epoch FROM run_mean) * 1000, 3) AS handler_mean_ms
              FROM pushy.stats WHERE queue = 'branch_kpi'""" % SECONDS)
        self.show("""
            SELECT round(p[1]::numeric, 2) AS p50_ms, round(p[2]::numeric, 2) AS p99_ms, jobs
              FROM (SELECT percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY 1000 * extract(epoch FROM
                               started_at - pg_xact_commit_timestamp((args->>'written_by')::xid8::xid))) AS p, count(*) AS jobs
                      FROM pushy.jobs WHERE queue = 'branch_kpi') AS commit_to_start""")

    def write(self) -> None:
        """Runs pgbench, showing how far it and the jobs are."""
        installation = self.cluster.installation
        writer = subprocess.Popen(
            [installation.program("pgbench"), "-n", "-c", str(WRITERS), "-j", "2", "-T", str(SECONDS), *map(str, self.where())],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        began = time.monotonic()
        heard = 0
        with self.shop.connect() as listener:
            listener.execute("LISTEN large_amounts")
            while writer.poll() is None:
                for notice in listener.notifies(timeout=0.25):
                    heard += 1
                    if heard <= NOTICES_SHOWN:
                        clear_line()
                        print(f"   {notice.channel}, told by process {notice.pid}: {notice.payload}")
                if sys.stdout.isatty():
                    done = self.shop.value("SELECT sum(transactions) FROM branch_kpi")
                    clear_line()
                    print(f"   {time.monotonic() - began:.0f} s, {done:,} jobs done", end="", flush=True)
        clear_line()
        print(f"   {heard:,} notices of large amounts were heard.")
        report = writer.communicate()[0]
        if writer.returncode != 0:
            sys.exit(f"pgbench failed:\n{report}")
        for line in report.splitlines():
            if line.startswith(("number of transactions actually", "latency average", "tps")):
                print(f"   {line}")

    def troubles(self) -> None:
        self.play_file("troubles.sql")

        tell("A job that fails is tried again, and tells why")
        job = self.shop.value("SELECT pushy.enqueue('mail', '{\"to\": \"nobody@example.org\"}')")
        self.shop.job_wait(job)
        self.show(f"SELECT id, state, attempt, max_attempts, last_error FROM pushy.jobs WHERE id = {job}")
        self.show(f"SELECT attempt, failed_at::time(0), sqlstate, message FROM pushy.failures WHERE job_id = {job} ORDER BY attempt")

        tell("A job is cancelled while it runs")
        job = self.shop.value("SELECT pushy.enqueue('reports')")
        self.shop.wait_until("SELECT state::text FROM pushy.jobs WHERE id = %s", "running", params=(job,))
        self.show(f"SELECT pushy.job_cancel({job})")
        self.shop.job_wait(job)
        self.show(f"SELECT id, state, last_error FROM pushy.jobs WHERE id = {job}")

        tell("A queue is paused; it says so, and what to do")
        self.shop.sql("SELECT pushy.queue_pause('nightly')")
        self.shop.sql("SELECT pushy.enqueue('nightly', '{\"day\": \"Friday\"}')")
        self.show("SELECT * FROM pushy.queue_explain('nightly')")

    def play_file(self, name: str) -> None:
        self.cluster.psql(self.shop.name, (REPOSITORY / "demo" / name).read_text(), "-q")

    def show_file(self, name: str) -> None:
        """What a file asks of Pushy, without its comments."""
        for statement in re.findall(r"^SELECT pushy\..*?;$", (REPOSITORY / "demo" / name).read_text(), re.M | re.S):
            print("\n".join(f"   {'shop=#' if n == 0 else '      '} {line}" for n, line in enumerate(statement.splitlines())))

    def show(self, query: str) -> None:
        """Prints a query as one would type it, and its table."""
        lines = [line for line in query.splitlines() if line.strip()]
        margin = min(len(line) - len(line.lstrip()) for line in lines)
        print("\n".join(f"   {'shop=#' if n == 0 else '      '} {line[margin:]}" for n, line in enumerate(lines)) + ";")
        for line in self.cluster.psql(self.shop.name, query, "-P", "footer=off").strip("\n").splitlines():
            print(f"   {line}".rstrip())
        print()

    def where(self) -> list:
        return ["-h", self.cluster.folder, "-p", self.cluster.port, "-U", "postgres", "shop"]


def clear_line() -> None:
    if sys.stdout.isatty():
        print("\r\033[K", end="")


_steps = 0


def tell(text: str) -> None:
    global _steps
    _steps += 1
    print(f"\n{_steps}. {text}" if _steps > 1 else f"1. {text}", flush=True)


if __name__ == "__main__":
    main()
