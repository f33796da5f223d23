"""A commit that does not touch Pushy, with and without the preload: two servers, a loop of UPDATE and COMMIT inside each,
synchronous_commit off. CPU time of the backend, which other load disturbs least; and, where valgrind is installed, the instructions
of a commit in a single-user server, which nothing disturbs.

Two servers without Pushy differ too, and what each form of this section does about that was tried with such (the machine of
RESULTS.md, 2026-11-23). What the host does elsewhere makes one core half as fast as the other for a tenth of a second: both backends
run on the same core, by turns of a millisecond, which took the standard deviation of a pair of sessions from 31 to 2.4 %. A server
is up to 1 % faster than another from its creation on: each is loaded with Pushy once and once not, and both blocks together count
once. Where in memory a server happens to lie after a start makes 1.5 % more or less: so starts are many, and sessions in each few."""

import contextlib
import ctypes
import os
import random
import re
import shutil
import statistics
import time

from harness import account
from harness.database import Database

from ..bars import Bar
from ..progress import progress
from ..rounds import median_confidence
from ..server import EXECUTORS

TITLE = "A commit that does not touch Pushy"
PAIRS = 2  # of sessions, a start of the servers
TURNS = 100  # of a pair
WITH = {"shared_preload_libraries": "pushy", "pushy__max_executors": EXECUTORS}
WITHOUT = {"shared_preload_libraries": "", "pushy__max_executors": None}
ROW = "INSERT INTO counter VALUES (1, 0);"
SETUP = """
CREATE TABLE counter (id int PRIMARY KEY, n int) WITH (fillfactor = 50);
CREATE PROCEDURE commits(times int) LANGUAGE plpgsql AS
    $$BEGIN FOR n IN 1..times LOOP UPDATE counter SET n = counter.n + 1 WHERE id = 1; COMMIT; END LOOP; END$$;
"""


def measure(servers, sizes) -> dict:
    swaps, commits = sizes.few(full=160, short=40), sizes.few(full=100, short=100)
    cpu, wall, instructions = [], [], {}
    with servers.server() as one, servers.server() as other, on_a_core_of_its_own() as core:
        databases = [cluster.database("bystander") for cluster in (one, other)]
        for db in databases:
            db.sql(SETUP + ROW)
        if shutil.which("valgrind"):
            instructions = {name: count(one, settings, sizes.few(full=2000, short=1000))
                            for name, settings in (("with", WITH), ("without", WITHOUT))}
        for number in range(swaps):
            blocks = [block(*order, core, commits) for order in random.sample([databases, databases[::-1]], 2)]
            for figures, into in zip(zip(*blocks), (cpu, wall)):
                into.append(round(statistics.mean(figures), 3))
            progress(f"  {number + 1} of {swaps}: {cpu[-1]:+.2f} % CPU time, {wall[-1]:+.2f} % time")
    return {"swaps": swaps, "commits": commits, "cpu": cpu, "wall": wall, "instructions": instructions or None}


@contextlib.contextmanager
def on_a_core_of_its_own():
    """A core for the sessions that are measured, while this process keeps to the others if there are any."""
    before = os.sched_getaffinity(0)
    core = max(before)
    os.sched_setaffinity(0, before - {core} or before)
    try:
        yield core
    finally:
        os.sched_setaffinity(0, before)


def block(loaded: Database, bare: Database, core: int, commits: int) -> tuple[float, float]:
    """How much more CPU time and time, in %, a commit takes in the server of `loaded`, started with Pushy, than in that of `bare`."""
    servers = [(loaded, WITH), (bare, WITHOUT)]
    for db, settings in random.sample(servers, 2):
        db.close()
        db.cluster.configure(**settings).restart()
    pairs = [pair({"with": loaded, "without": bare}, core, commits) for _ in range(PAIRS)]
    return tuple(statistics.median(figures) for figures in zip(*pairs))


def pair(databases: dict[str, Database], core: int, commits: int) -> tuple[float, float]:
    """As `block`, of a session in each: the median turn. Who is first is left to chance, whatever it is that is done."""
    def in_any_order() -> list[str]:
        return random.sample(list(databases), len(databases))

    with contextlib.ExitStack() as open_ones:
        sessions = {name: open_ones.enter_context(databases[name].connect()) for name in in_any_order()}
        for name in in_any_order():
            sessions[name].execute("SET synchronous_commit = off")
            os.sched_setaffinity(sessions[name].info.backend_pid, {core})
            run(sessions[name], 10 * commits)  # warm
        turns = [{name: run(sessions[name], commits) for name in in_any_order()} for _ in range(TURNS)]
    return tuple(statistics.median(excess(turn["with"][at], turn["without"][at]) for turn in turns) for at in (0, 1))


def excess(of: float, to: float) -> float:
    """%."""
    return 100 * (of / to - 1)


def run(session, commits: int) -> tuple[float, float]:
    """CPU time and time, in seconds."""
    before, began = cpu_time(session.info.backend_pid), time.perf_counter()
    session.execute("CALL commits(%s)", (commits,))
    return cpu_time(session.info.backend_pid) - before, time.perf_counter() - began


def count(cluster, settings: dict, commits: int) -> float:
    """Instructions of a commit: the difference of a short and a long run, from one row on. The server is stopped for it."""
    progress("  instructions are counted")
    cluster.stop()
    cluster.configure(**settings)
    few = commits // 10
    seen = (collected(cluster, commits + few) - collected(cluster, few)) / commits
    cluster.start()
    return seen


def collected(cluster, commits: int) -> int:
    postgres = [cluster.installation.program("postgres"), "--single", "-D", cluster.data, "-c", "synchronous_commit=off", "bystander"]
    told = account.run(["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", *postgres], cwd=cluster.folder,
                       input=f"TRUNCATE counter;\n{ROW}\nCALL commits({commits});\n").stdout
    return int(re.search(r"Collected : (\d+)", told).group(1))


def cpu_time(pid: int) -> float:
    """Of a process, asked of its clock: what /proc/PID/schedstat says may be some milliseconds old while it still runs."""
    clock = ctypes.c_int()
    failed = ctypes.CDLL(None).clock_getcpuclockid(pid, ctypes.byref(clock))
    if failed:
        raise OSError(failed, os.strerror(failed))
    return time.clock_gettime(clock.value)


def tables(data: dict) -> list[str]:
    lines = [f"{data['swaps']} times two starts of both servers, so that each has Pushy once; {PAIRS} pairs of sessions a start, on one core, "
             f"{TURNS} turns each of {data['commits']} commits in random order. The figure of a pair is that of its median turn, that of a start its "
             f"median pair.", "",
             f"| with the preload against without | median of {data['swaps']} | 95 % interval |", "| --- | ---: | ---: |"]
    for what, seen in (("CPU time of the backend", data["cpu"]), ("time", data["wall"])):
        middle, low, high = median_confidence(seen)
        lines.append(f"| {what} | {middle:+.2f} % | {low:+.2f} to {high:+.2f} % |")
    if data["instructions"]:
        lines.append(f"| instructions (callgrind): {data['instructions']['with']:,.0f} against {data['instructions']['without']:,.0f} a commit | "
                     f"{more(data):+.2f} % | |")
    return lines


def more(data: dict) -> float:
    return 100 * (data["instructions"]["with"] / data["instructions"]["without"] - 1)


def bars(data: dict) -> list[Bar]:
    middle, low, high = median_confidence(data["cpu"])
    found = [Bar("a commit that does not touch Pushy, CPU time", "under 1 % (95 % interval)", f"{middle:+.2f} % ({low:+.2f} to {high:+.2f} %)", high < 1)]
    if data["instructions"]:
        found.append(Bar("a commit that does not touch Pushy, instructions", "under 1 %", f"{more(data):+.2f} %", more(data) < 1))
    return found
