"""Draining a full queue: Pushy, every peer and the limits, with synchronous_commit off and on."""

from ..bars import Bar
from ..contestants import ALL, PEERS
from ..contestants.contestant import HANDLERS, Contestant, on_off
from ..rounds import interleave, middle, ratios, spread

TITLE = "Draining a full queue"


def measure(servers, sizes) -> dict:
    present = [contestant for contestant in ALL if contestant.missing() is None]
    rates: dict[str, list[float]] = {}
    with servers.server() as cluster:
        for contestant in present:
            contestant.prepare(cluster)
        for synchronous_commit in (False, True):
            cluster.configure(pushy__synchronous_commit=synchronous_commit).restart()
            rates |= interleave({key(contestant, handler, synchronous_commit): contest(contestant, handler, sizes, synchronous_commit)
                                 for contestant in present for handler in HANDLERS}, sizes.rounds)
    return {"rates": rates, "rounds": sizes.rounds,
            "paths": {contestant.name: contestant.path for contestant in ALL},
            "jobs": {contestant.name: {handler: sizes.jobs(contestant.jobs[handler]) for handler in HANDLERS} for contestant in ALL},
            "missing": {contestant.name: contestant.missing() for contestant in ALL if contestant.missing()}}


def contest(contestant: Contestant, handler: str, sizes, synchronous_commit: bool):
    return lambda: contestant.drain(handler, sizes.jobs(contestant.jobs[handler]), synchronous_commit)


def key(contestant: Contestant | str, handler: str, synchronous_commit: bool) -> str:
    name = contestant if isinstance(contestant, str) else contestant.name
    return f"{name}; {handler}; {on_off(synchronous_commit)}"


def tables(data: dict) -> list[str]:
    lines = [f"Jobs a second, median of {data['rounds']} rounds (lowest to highest); synchronous_commit of those who work."]
    for handler, what in HANDLERS.items():
        lines += ["", f"| {what} | synchronous_commit off | on |", "| --- | ---: | ---: |"]
        for name in data["paths"]:
            if name in data["missing"]:
                lines.append(f"| {name} | not installed: {data['missing'][name]} | |")
            else:
                lines.append(f"| {name} | " + " | ".join(spread(data["rates"][key(name, handler, on)]) for on in (False, True)) + " |")
    lines += ["", "| | how it was run | jobs: no-op, one row |", "| --- | --- | ---: |"]
    lines += [f"| {name} | {path} | {data['jobs'][name]['noop']:,}, {data['jobs'][name]['one_row']:,} |"
              for name, path in data["paths"].items()]
    return lines


def bars(data: dict) -> list[Bar]:
    rates = data["rates"]
    found = []

    def against(bar: str, least: float, ours: str, theirs: str, handler: str, form: str = ".1f") -> None:
        if key(theirs, handler, False) in rates:
            seen = ratios(rates[key(ours, handler, False)], rates[key(theirs, handler, False)])
            found.append(Bar(bar, f"{least:g} times", spread(seen, form) + " times", middle(seen) >= least))

    against("drain, batched, no-op, against graphile-worker's local queue", 30, "Pushy, batched", "graphile-worker, local queue", "noop")
    against("drain, a commit per job, against graphile-worker without local queue", 15,
            "Pushy, a commit per job", "graphile-worker, no local queue", "noop")
    here = [peer.name for peer in PEERS if key(peer, "one_row", False) in rates]
    if here:
        best = max(here, key=lambda name: middle(rates[key(name, "one_row", False)]))
        against(f"a job that writes one row, batched, against the best peer ({best})", 10, "Pushy, batched", best, "one_row")
    loop = next(name for name in data["paths"] if name.startswith("hand-written") and "50" in name)
    against("the same against the hand-written loop in the server", 0.7, "Pushy, batched", loop, "one_row", ".2f")
    return found
