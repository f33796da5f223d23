"""A commit that does not touch Pushy, with and without the preload: two servers, pairs of runs in turn, a loop of UPDATE
and COMMIT inside the server, synchronous_commit off. CPU time of the backend, which other load disturbs least; and, where
valgrind is installed, the instructions of a commit in a single-user server, which nothing disturbs."""

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
from ..rounds import confidence, median_confidence

TITLE = "A commit that does not touch Pushy"
SLICES = 100  # of a run
SETUP = """
CREATE TABLE counter (id int PRIMARY KEY, n int) WITH (fillfactor = 50);
INSERT INTO counter VALUES (1, 0);
CREATE PROCEDURE commits(times int) LANGUAGE plpgsql AS
    $$BEGIN FOR n IN 1..times LOOP UPDATE counter SET n = counter.n + 1 WHERE id = 1; COMMIT; END LOOP; END$$;
"""


def measure(servers, sizes) -> dict:
    pairs, commits = sizes.few(full=40, short=20), sizes.jobs(20_000)
    cpu, wall, turns, instructions = [], [], [], {}
    with servers.server() as preloaded, servers.server(shared_preload_libraries="", **{"pushy.max_executors": None}) as bare:
        clusters = {"with": preloaded, "without": bare}
        databases = {name: cluster.database("bystander", extension=name == "with") for name, cluster in clusters.items()}
        for name, db in databases.items():
            db.sql(SETUP)
            db.close()
            if shutil.which("valgrind"):
                instructions[name] = count(clusters[name], sizes.few(full=2000, short=1000))
        for number in range(pairs):
            # Where in memory a server happens to lie counts too: each few pairs have new ones.
            if number % 4 == 0:
                sessions = {name: begin(db, commits) for name, db in databases.items()}
            seen = pair(sessions, commits)
            turns += [excess(turn["with"][0], turn["without"][0]) for turn in seen]
            for at, into in enumerate((cpu, wall)):
                into.append(excess(*(sum(turn[name][at] for turn in seen) for name in ("with", "without"))))
            progress(f"  pair {number + 1} of {pairs}: {cpu[-1]:+.2f} % CPU time, {wall[-1]:+.2f} % time")
    return {"pairs": pairs, "commits": commits, "cpu": cpu, "wall": wall, "turns": [round(turn, 2) for turn in turns],
            "instructions": instructions or None}


def begin(db: Database, commits: int):
    """A session of the server started anew, warm."""
    db.close()
    db.cluster.restart()
    session = db.connect()
    session.execute("SET synchronous_commit = off")
    run(session, commits // 10)
    return session


def pair(sessions: dict, commits: int) -> list[dict[str, tuple[float, float]]]:
    """CPU time and time of each, turn by turn, so that both meet the same load."""
    return [{name: run(sessions[name], max(commits // SLICES, 1)) for name in random.sample(["with", "without"], 2)} for _ in range(SLICES)]


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
    lines = [f"{data['pairs']} pairs of {data['commits']:,} commits each, by turns of {data['commits'] // SLICES} in random order.", "",
             "| with the preload against without | mean | 95 % interval | median |", "| --- | ---: | ---: | ---: |"]
    for what, seen in (("CPU time of the backend", data["cpu"]), ("time", data["wall"])):
        mean, low, high = confidence(seen)
        lines.append(f"| {what} | {mean:+.2f} % | {low:+.2f} to {high:+.2f} % | {statistics.median(seen):+.2f} % |")
    middle, low, high = median_confidence(data["turns"])
    lines.append(f"| CPU time, turn by turn: the median | {middle:+.2f} % | {low:+.2f} to {high:+.2f} % | |")
    if data["instructions"]:
        lines.append(f"| instructions (callgrind): {data['instructions']['with']:,.0f} against {data['instructions']['without']:,.0f} a commit | "
                     f"{more(data):+.2f} % | | |")
    return lines


def more(data: dict) -> float:
    return 100 * (data["instructions"]["with"] / data["instructions"]["without"] - 1)


def bars(data: dict) -> list[Bar]:
    middle, low, high = median_confidence(data["turns"])
    found = [Bar("a commit that does not touch Pushy, CPU time", "under 1 % (95 % interval)", f"{middle:+.2f} % ({low:+.2f} to {high:+.2f} %)", high < 1)]
    if data["instructions"]:
        found.append(Bar("a commit that does not touch Pushy, instructions", "under 1 %", f"{more(data):+.2f} %", more(data) < 1))
    return found
