"""A commit that does not touch Pushy, with and without the preload: two servers, a loop of UPDATE and COMMIT inside each,
synchronous_commit off. CPU time of the backend, which other load disturbs least; and, where valgrind is installed, the instructions
of a commit in a single-user server, which nothing disturbs.

Two servers without Pushy differ too, and the form of this section was found with such (the machine of RESULTS.md, 2026-11-23): what
the host does elsewhere makes one core 0.6 times as fast as the other for some tenths of a second, so both backends share a core, by turns of a
millisecond (a pair's standard deviation was 31 %, 2.2 with that). A server is up to 1 % faster than another from its creation on, so
each has Pushy once and once not, and both pairs together count once. Where in memory a server lies after a start makes 1.5 % (four
pairs a start tell no more than one), so there are many starts."""

import contextlib
import os
import random
import re
import shutil
import statistics
import time
from pathlib import Path

from harness import account
from harness.database import Database

from ..bars import Bar
from ..progress import progress
from ..rounds import median_confidence
from ..server import EXECUTORS

TITLE = "A commit that does not touch Pushy"
TURNS = 100  # of a pair
COMMITS = 100  # of a turn
STARTED = {
    "with": {"shared_preload_libraries": "pushy", "pushy__max_executors": EXECUTORS},
    "without": {"shared_preload_libraries": "", "pushy__max_executors": None},
}
ROW = "INSERT INTO counter VALUES (1, 0);"
SETUP = """
CREATE TABLE counter (id int PRIMARY KEY, n int) WITH (fillfactor = 50);
CREATE PROCEDURE commits(times int) LANGUAGE plpgsql AS
    $$BEGIN FOR n IN 1..times LOOP UPDATE counter SET n = counter.n + 1 WHERE id = 1; COMMIT; END LOOP; END$$;
"""


def measure(servers, sizes) -> dict:
    swaps = sizes.few(full=300, short=40)
    cpu, wall, instructions = [], [], {}
    with servers.server() as one, servers.server() as other:
        databases = [cluster.database("bystander") for cluster in (one, other)]
        for db in databases:
            db.sql(SETUP + ROW)
        if shutil.which("valgrind"):
            instructions = {name: count(one, settings, sizes.few(full=2000, short=1000)) for name, settings in STARTED.items()}
        for number in range(swaps):
            pairs = [pair(*order) for order in random.sample([databases, databases[::-1]], 2)]
            for figures, into in zip(zip(*pairs), (cpu, wall)):
                into.append(round(statistics.mean(figures), 3))
            progress(f"  {number + 1} of {swaps}: {cpu[-1]:+.2f} % CPU time, {wall[-1]:+.2f} % time")
    return {"swaps": swaps, "commits": COMMITS, "cpu": cpu, "wall": wall, "instructions": instructions or None}


def pair(loaded: Database, bare: Database) -> tuple[float, float]:
    """How much more CPU time and time, in %, a commit takes in the server of `loaded`, started with Pushy, than in that of `bare`: of a
    session in each the median turn. Who is first is left to chance, whatever it is that is done."""
    databases = {"with": loaded, "without": bare}

    def in_any_order() -> list[str]:
        return random.sample(list(databases), len(databases))

    for name in in_any_order():
        databases[name].close()
        databases[name].cluster.configure(**STARTED[name]).restart()
    with contextlib.ExitStack() as open_ones:
        sessions = {name: open_ones.enter_context(databases[name].connect()) for name in in_any_order()}
        open_ones.enter_context(on_one_core(0, *(session.info.backend_pid for session in sessions.values())))
        for name in in_any_order():
            sessions[name].execute("SET synchronous_commit = off")
            run(sessions[name], 10 * COMMITS)  # warm
        turns = [{name: run(sessions[name], COMMITS) for name in in_any_order()} for _ in range(TURNS)]
    return tuple(statistics.median(excess(turn["with"][at], turn["without"][at]) for turn in turns) for at in (0, 1))


@contextlib.contextmanager
def on_one_core(*pids: int):
    """These processes (0: this one) all run on the last core."""
    before = os.sched_getaffinity(0)
    for pid in pids:
        os.sched_setaffinity(pid, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


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
    """Exact on the process's own core: while we run there it does not, and the kernel has counted what it ran."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def tables(data: dict) -> list[str]:
    lines = [f"{data['swaps']} times two starts of both servers, so that each has Pushy once: a pair of sessions on one core, "
             f"{TURNS} turns each of {data['commits']} commits in random order. The figure of a pair is that of its median turn; two pairs count once.", "",
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
