"""A commit that does not touch Pushy, with and without the preload: two servers, a loop of UPDATE and COMMIT inside each,
synchronous_commit off. CPU time of the backend, which other load disturbs least; and, where valgrind is installed, the instructions
of a commit in a single-user server, which nothing disturbs.

Where in memory a session happens to lie makes it some percent faster or slower than the next (3 to 4 % on the machine of
RESULTS.md, of two servers without Pushy as well), however long it runs. So each pair of sessions counts once, by its median turn, and
sessions are short and many: 500 pairs of five times as many commits left an interval of 1.6 points. And the server made first is
slower than the second: two without Pushy differed by 1.6 % (95 % 0.5 to 2.4). So there are two couples, made in either order."""

import contextlib
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

TITLE = "A commit that does not touch Pushy"
TURNS = 10  # of a pair
PAIRS_A_START = 20
SETUP = """
CREATE TABLE counter (id int PRIMARY KEY, n int) WITH (fillfactor = 50);
INSERT INTO counter VALUES (1, 0);
CREATE PROCEDURE commits(times int) LANGUAGE plpgsql AS
    $$BEGIN FOR n IN 1..times LOOP UPDATE counter SET n = counter.n + 1 WHERE id = 1; COMMIT; END LOOP; END$$;
"""


def measure(servers, sizes) -> dict:
    pairs, commits = sizes.few(full=1500, short=200), sizes.jobs(2_000)
    cpu, wall, instructions = [], [], {}
    with contextlib.ExitStack() as running:
        couples = [couple(servers, running, order) for order in (("with", "without"), ("without", "with"))]
        if shutil.which("valgrind"):
            instructions = {name: count(db.cluster, sizes.few(full=2000, short=1000)) for name, db in couples[0].items()}
        for number in range(pairs):
            databases = couples[number // PAIRS_A_START % len(couples)]
            if number % PAIRS_A_START == 0:
                for db in databases.values():
                    db.close()
                    db.cluster.restart()
            turns = pair(databases, max(commits // TURNS, 1))
            for at, into in enumerate((cpu, wall)):
                into.append(round(statistics.median(excess(turn["with"][at], turn["without"][at]) for turn in turns), 3))
            progress(f"  pair {number + 1} of {pairs}: {cpu[-1]:+.2f} % CPU time, {wall[-1]:+.2f} % time")
    return {"pairs": pairs, "commits": commits, "cpu": cpu, "wall": wall, "instructions": instructions or None}


def couple(servers, running: contextlib.ExitStack, order: tuple[str, str]) -> dict[str, Database]:
    """A database in a server with the preload and in one without, made in this order."""
    settings = {"with": {}, "without": {"shared_preload_libraries": "", "pushy.max_executors": None}}
    databases = {}
    for name in order:
        databases[name] = running.enter_context(servers.server(**settings[name])).database("bystander", extension=name == "with")
        databases[name].sql(SETUP)
    return databases


def pair(databases: dict[str, Database], commits: int) -> list[dict[str, tuple[float, float]]]:
    """CPU time and time of a session each, turn by turn, so that both meet the same load."""
    with contextlib.ExitStack() as open_ones:
        sessions = {name: open_ones.enter_context(db.connect()) for name, db in databases.items()}
        for session in sessions.values():
            session.execute("SET synchronous_commit = off")
            run(session, 5 * commits)  # warm
        return [{name: run(sessions[name], commits) for name in random.sample(["with", "without"], 2)} for _ in range(TURNS)]


def excess(of: float, to: float) -> float:
    """%."""
    return 100 * (of / to - 1)


def run(session, commits: int) -> tuple[float, float]:
    """CPU time and time, in seconds."""
    before, began = cpu_time(session.info.backend_pid), time.perf_counter()
    session.execute("CALL commits(%s)", (commits,))
    return cpu_time(session.info.backend_pid) - before, time.perf_counter() - began


def count(cluster, commits: int) -> float:
    """Instructions of a commit: the difference of a short and a long run. In a fresh server, stopped for it."""
    progress("  instructions are counted")
    cluster.stop()
    few = commits // 10
    seen = (collected(cluster, commits + few) - collected(cluster, few)) / commits
    cluster.start()
    return seen


def collected(cluster, commits: int) -> int:
    postgres = [cluster.installation.program("postgres"), "--single", "-D", cluster.data, "-c", "synchronous_commit=off", "bystander"]
    told = account.run(["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", *postgres], cwd=cluster.folder,
                       input=f"CALL commits({commits});\n").stdout
    return int(re.search(r"Collected : (\d+)", told).group(1))


def cpu_time(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def tables(data: dict) -> list[str]:
    lines = [f"{data['pairs']} pairs of sessions with {data['commits']:,} commits each, by turns of {data['commits'] // TURNS} in random order; servers "
             f"started anew for each {PAIRS_A_START}. A pair's figure is that of its median turn.", "",
             "| with the preload against without | the median pair | 95 % interval |", "| --- | ---: | ---: |"]
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
