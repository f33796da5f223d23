"""Workers outside: Pushy's and those of the peers of the same language, one process each, no-op jobs, synchronous_commit off; and how
soon after its commit a job starts, on an idle server."""

import json
import time

from ..bars import Bar
from ..contestants.graphile_worker import GraphileWorker
from ..contestants.outside import OutsideNode, OutsidePython
from ..contestants.pg_boss import PgBoss
from ..contestants.pgqueuer import PgQueuer
from ..contestants.procrastinate import Procrastinate
from ..progress import progress
from ..rounds import interleave, middle, quantile, ratios, spread
from .drain import contest, guarded, key
from .latency import GRAPHILE, through_graphile

TITLE = "Workers outside"
LANGUAGES = {"Python": [OutsidePython(), Procrastinate(), PgQueuer()], "Node.js": [OutsideNode(), GraphileWorker(local_queue=True), PgBoss()]}
ALL = [contestant for contestants in LANGUAGES.values() for contestant in contestants]
OURS = [contestants[0].name for contestants in LANGUAGES.values()]


def measure(servers, sizes) -> dict:
    missing = {contestant.name: reason for contestant in ALL if (reason := contestant.missing())}
    present = [contestant for contestant in ALL if contestant.name not in missing]
    with servers.server() as cluster:
        for contestant in present:
            progress(f"  {contestant.name} is made ready")
            guarded(contestant, missing, lambda: contestant.prepare(cluster))
        rates = interleave({key(contestant, "noop"): contest(contestant, "noop", sizes, False, missing) for contestant in present}, sizes.rounds)
        latencies = {} if missing.keys() & {OutsideNode.name, GraphileWorker(local_queue=True).name} else latency(cluster, sizes)
    return {"rates": {name: seen for name, seen in rates.items() if name.rpartition(";")[0] not in missing}, "rounds": sizes.rounds,
            "paths": {contestant.name: contestant.path for contestant in ALL}, "missing": missing,
            "jobs": {contestant.name: sizes.jobs(contestant.jobs["noop"]) for contestant in ALL}, "ms": latencies}


def latency(cluster, sizes) -> dict[str, list[list[float]]]:
    samples = sizes.few(full=500, short=200)
    ours, theirs = OutsideNode(), GraphileWorker(local_queue=False)
    ours.prepare(cluster)
    theirs.prepare(cluster)
    our_db = ours.database()
    their_db = cluster.database("farm_latency", extension=False, options=f"TEMPLATE {theirs.key}_template")
    seen: dict[str, list[list[float]]] = {ours.name: [], GRAPHILE: []}
    for number in range(sizes.rounds):
        seen[ours.name].append(through_pushy(ours, our_db, samples))
        seen[GRAPHILE].append(through_graphile(theirs, their_db, samples))
        progress(f"  round {number + 1} of {sizes.rounds}: " + ", ".join(f"{name} p50 {quantile(rounds[-1], 50):.3f} ms" for name, rounds in seen.items()))
    return {name: [[round(ms, 4) for ms in one] for one in rounds] for name, rounds in seen.items()}


def through_pushy(ours: OutsideNode, db, samples: int) -> list[float]:
    """One job at a time, as through_graphile: each is over in the database before the next is enqueued."""
    commits = []
    with ours.program(db, "latency", 0) as program:
        program.expect("ready")
        program.tell("go")
        program.expect("running")
        db.wait_until("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'Extension' AND query LIKE %s", 2,
                      params=("%job_claim_wait%",))
        for n in range(samples):
            db.main.execute("BEGIN")
            db.main.execute("SET LOCAL synchronous_commit = off")
            job = db.main.execute("SELECT pushy.enqueue('latency', jsonb_build_object('n', %s::int))", (n,)).fetchone()[0]
            commits.append(time.time())
            db.main.execute("COMMIT")
            db.job_wait(job)
        program.tell("stop")
        starts = json.loads(program.after("starts "))
    return [microseconds / 1000 - commits[n] * 1000 for n, microseconds in starts]


def tables(data: dict) -> list[str]:
    lines = [f"No-op jobs a second, synchronous_commit off for all who work, median of {data['rounds']} rounds (lowest to highest).", "",
             "| | jobs a second | how it was run | jobs |", "| --- | ---: | --- | ---: |"]
    for name, path in data["paths"].items():
        rate = f"not measured: {data['missing'][name]}" if name in data["missing"] else spread(data["rates"][key(name, "noop")])
        lines.append(f"| {name} | {rate} | {path} | {data['jobs'][name]:,} |")
    if data["ms"]:
        lines += ["", "From the client's clock before COMMIT to the handler's first, one job at a time on an idle server, in ms; all samples of all rounds.", "",
                  "| | p50 | p95 | p99 |", "| --- | ---: | ---: | ---: |"]
        for name, rounds in data["ms"].items():
            every = [ms for one in rounds for ms in one]
            lines.append(f"| {name} | " + " | ".join(f"{quantile(every, percent):.3f}" for percent in (50, 95, 99)) + " |")
    return lines


def bars(data: dict) -> list[Bar]:
    found = []
    for language, (ours, *theirs) in LANGUAGES.items():
        here = [peer.name for peer in theirs if key(peer, "noop") in data["rates"]]
        if here and key(ours, "noop") in data["rates"]:
            best = max(here, key=lambda name: middle(data["rates"][key(name, "noop")]))
            seen = ratios(data["rates"][key(ours, "noop")], data["rates"][key(best, "noop")])
            found.append(Bar(f"a worker outside in {language}, no-op, against the best of its peers ({best})", "2 times", spread(seen, ".1f") + " times", middle(seen) >= 2))
    if data["ms"]:
        ours, theirs = ([quantile(one, 50) for one in data["ms"][name]] for name in (OutsideNode.name, GRAPHILE))
        seen = ratios(ours, theirs)
        found.append(Bar("commit to start of a handler outside, p50, against graphile-worker", "no more", spread(seen, ".2f") + " times", middle(seen) <= 1))
    return found
