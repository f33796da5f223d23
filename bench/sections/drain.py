"""Draining a full queue: Pushy, every peer and the limits, synchronous_commit off for all who work."""

import math
import subprocess

import psycopg

from ..bars import Bar
from ..contestants import ALL, PEERS
from ..contestants.contestant import HANDLERS, Contestant
from ..progress import progress
from ..rounds import interleave, middle, ratios, spread

TITLE = "Draining a full queue"


def measure(servers, sizes, synchronous_commit: bool = False) -> dict:
    missing = {contestant.name: reason for contestant in ALL if (reason := contestant.missing())}
    present = [contestant for contestant in ALL if contestant.name not in missing]
    with servers.server(pushy__synchronous_commit=synchronous_commit) as cluster:
        for contestant in present:
            progress(f"  {contestant.name} is made ready")
            guarded(contestant, missing, lambda: contestant.prepare(cluster))
        rates = interleave({key(contestant, handler): contest(contestant, handler, sizes, synchronous_commit, missing)
                            for contestant in present for handler in HANDLERS}, sizes.rounds)
    return {"rates": {name: seen for name, seen in rates.items() if name.rpartition(";")[0] not in missing}, "rounds": sizes.rounds,
            "paths": {contestant.name: contestant.path for contestant in ALL},
            "jobs": {contestant.name: {handler: sizes.jobs(contestant.jobs[handler]) for handler in HANDLERS} for contestant in ALL},
            "missing": missing}


def contest(contestant: Contestant, handler: str, sizes, synchronous_commit: bool, missing: dict[str, str]):
    jobs = sizes.jobs(contestant.jobs[handler])
    return lambda: guarded(contestant, missing, lambda: contestant.drain(handler, jobs, synchronous_commit))


def guarded(contestant: Contestant, missing: dict[str, str], work):
    """A peer that fails is reported, and the others go on without it."""
    if contestant not in PEERS:
        return work()
    if contestant.name not in missing:
        try:
            return work()
        except (RuntimeError, psycopg.Error, subprocess.SubprocessError) as failure:
            progress(f"  {contestant.name}: {failure}")
            missing[contestant.name] = "it failed: " + str(failure).strip().replace("|", "/").splitlines()[0]
    return math.nan


def key(contestant: Contestant | str, handler: str) -> str:
    name = contestant if isinstance(contestant, str) else contestant.name
    return f"{name}; {handler}"


def tables(data: dict) -> list[str]:
    return rate_table(data, "off") + [""] + how_table(data)


def rate_table(data: dict, synchronous_commit: str) -> list[str]:
    lines = [f"Jobs a second, synchronous_commit {synchronous_commit} for all who work, median of {data['rounds']} rounds (lowest to highest).",
             "", "| | a no-op | one row written |", "| --- | ---: | ---: |"]
    for name in data["paths"]:
        if name in data["missing"]:
            lines.append(f"| {name} | not measured: {data['missing'][name]} | |")
        else:
            lines.append(f"| {name} | " + " | ".join(spread(data["rates"][key(name, handler)]) for handler in HANDLERS) + " |")
    return lines


def how_table(data: dict) -> list[str]:
    return ["| | how it was run | jobs: no-op, one row |", "| --- | --- | ---: |",
            *(f"| {name} | {path} | {data['jobs'][name]['noop']:,}, {data['jobs'][name]['one_row']:,} |" for name, path in data["paths"].items())]


def bars(data: dict) -> list[Bar]:
    rates = data["rates"]
    found = []

    def against(bar: str, least: float, ours: str, theirs: str, handler: str, form: str = ".1f") -> None:
        if key(theirs, handler) in rates:
            seen = ratios(rates[key(ours, handler)], rates[key(theirs, handler)])
            found.append(Bar(bar, f"{least:g} times", spread(seen, form) + " times", middle(seen) >= least))

    against("drain, batched, no-op, against graphile-worker's local queue", 30, "Pushy, batched", "graphile-worker, local queue", "noop")
    against("the same, done jobs not kept, as graphile-worker does not keep them", 30, "Pushy, batched, done jobs not kept",
            "graphile-worker, local queue", "noop")
    against("drain, a commit per job, against graphile-worker without local queue", 15,
            "Pushy, a commit per job", "graphile-worker, no local queue", "noop")
    here = [peer.name for peer in PEERS if key(peer, "one_row") in rates]
    packages = [name for name in here if not name.startswith("plain")]
    if packages:
        best = max(packages, key=lambda name: middle(rates[key(name, "one_row")]))
        against(f"a job that writes one row, batched, against the best package ({best})", 10, "Pushy, batched", best, "one_row")
    against("the same against the plain loop written by hand, batched too", 1, "Pushy, batched", "plain SKIP LOCKED loop, 50 a commit", "one_row")
    loop = next(name for name in data["paths"] if name.startswith("hand-written") and "50" in name)
    against("the same against the hand-written loop inside the server, its limit", 0.7, "Pushy, batched", loop, "one_row", ".2f")
    return found
