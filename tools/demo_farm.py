"""The farm of the demo: three workers outside, one of which is killed. Nothing is lost, and nothing done twice."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
CLIENTS = REPOSITORY / "clients"
VICTIM = "bob"
KILLED_AFTER = 150  # jobs
STEP_S = 0.1


def play(demo, tell) -> None:
    """`demo` is what tools/demo.py plays on, `tell` how it numbers its steps."""
    tell("A queue without a handler, and 600 jobs for it (demo/farm.sql)")
    demo.play_file("farm.sql")
    demo.show_file("farm.sql")
    demo.show("SELECT reason FROM pushy.queue_explain('pictures')")

    workers = {"ann": python("ann"), VICTIM: python(VICTIM), "cid": node("cid") or python("cid")}
    tell("Three workers, each a program of its own: " + ", ".join(f"{name} ({what[1]})" for name, what in workers.items()))
    where = {"PGHOST": str(demo.cluster.folder), "PGPORT": str(demo.cluster.port), "PGUSER": "postgres", "PGDATABASE": demo.shop.name}
    processes = {name: start(command, where) for name, (command, _) in workers.items()}
    try:
        until(lambda: finished(demo) >= KILLED_AFTER, demo)
        tell(f"{VICTIM} is killed, with the jobs that it has")
        processes[VICTIM].kill()
        print(f"   kill -9 {processes[VICTIM].pid}, {finished(demo)} jobs are done")
        demo.show("""
            SELECT count(*) AS leased, min(until - clock_timestamp()) AS first_is_over_in, max(until - clock_timestamp()) AS last_is_over_in
              FROM pushy.leases""")
        tell("The others go on, and get what it held when its leases are over")
        began = time.monotonic()
        until(lambda: unfinished(demo) == 0, demo)
        clear_line()
        print(f"   All is done {time.monotonic() - began:.1f} s later.")
        for name, process in processes.items():
            if name != VICTIM:
                process.send_signal(signal.SIGTERM)
                if process.wait(40) != 0:
                    sys.exit(f"{name} did not end as it should: {process.returncode}")
    finally:
        for process in processes.values():
            process.kill()
            process.wait()

    tell("Who has done what")
    demo.show("SELECT worker, count(*) AS jobs, count(*) FILTER (WHERE attempt > 1) AS taken_over FROM made GROUP BY worker ORDER BY worker")
    tell("What the killed one left behind: attempts that are charged, and say so")
    demo.show(r"""
            SELECT count(*) AS attempts, sqlstate, regexp_replace(message, ' "[^"]*"', '') AS message
              FROM pushy.failures WHERE queue = 'pictures' GROUP BY sqlstate, 3""")
    tell("The account: each job once")
    demo.show("""
        SELECT count(*) AS jobs, count(*) FILTER (WHERE state = 'completed') AS completed,
               (SELECT count(DISTINCT job) FROM made) AS made, (SELECT count(*) - count(DISTINCT job) FROM made) AS made_twice
          FROM pushy.jobs WHERE queue = 'pictures'""")
    lost = demo.shop.value("SELECT count(*) FROM pushy.jobs j WHERE queue = 'pictures' AND (SELECT count(*) FROM made WHERE job = j.id) <> 1")
    if lost or not demo.shop.value("SELECT count(*) = 600 FROM made"):
        sys.exit(f"{lost} jobs were not done exactly once.")


def python(name: str) -> tuple[list, str]:
    return [sys.executable, REPOSITORY / "demo" / "farm_worker.py", name], "Python"


def node(name: str) -> tuple[list, str] | None:
    """With the client as it was built; None where there is no Node.js."""
    client = CLIENTS / "typescript"
    if shutil.which("npm") is None or not (client / "node_modules").exists():
        return None
    subprocess.run(["npm", "run", "--silent", "build"], cwd=client, check=True)
    return ["node", REPOSITORY / "demo" / "farm_worker.mjs", name], "Node.js"


def start(command: list, where: dict[str, str]) -> subprocess.Popen:
    return subprocess.Popen(command, env=os.environ | where | {"PYTHONPATH": str(CLIENTS / "python" / "src")}, stderr=subprocess.DEVNULL)


def finished(demo) -> int:
    return demo.shop.value("SELECT completed FROM pushy.stats WHERE queue = 'pictures'")


def unfinished(demo) -> int:
    return demo.shop.value("SELECT enqueued - completed FROM pushy.stats WHERE queue = 'pictures'")


def until(came, demo) -> None:
    """Shows how far the jobs are."""
    give_up = time.monotonic() + 120
    while not came():
        if time.monotonic() > give_up:
            sys.exit("The workers do not get on.")
        if sys.stdout.isatty():
            clear_line()
            print(f"   {finished(demo)} jobs done", end="", flush=True)
        threading.Event().wait(STEP_S)
    clear_line()


def clear_line() -> None:
    if sys.stdout.isatty():
        print("\r\033[K", end="")
