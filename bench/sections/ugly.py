"""Not a section: drains of one server in two states, interleaved: an empty start, and something that makes queues slow elsewhere."""

from ..bars import Bar
from ..contestants.pushy import Pushy
from ..rounds import interleave, middle, ratios, spread

EMPTY = "an empty start"


def pushy_in(cluster, database: str) -> Pushy:
    return Pushy(batch=True).prepare(cluster, database)


def contests(cluster, states: dict[str, Pushy], jobs: int, rounds: int) -> dict[str, list[float]]:
    """The same drain in each state's own database."""
    for pushy in states.values():
        pushy.drain("noop", max(jobs // 20, 10))  # caches filled
    return interleave({name: lambda pushy=pushy: pushy.drain("noop", jobs) for name, pushy in states.items()}, rounds)


def table(rates: dict[str, list[float]], rounds: int) -> list[str]:
    lines = [f"No-op jobs a second, batched, median of {rounds} rounds (lowest to highest).", "",
             "| | jobs/s | of an empty start |", "| --- | ---: | ---: |"]
    return lines + [f"| {name} | {spread(seen)} | {share(seen, rates[EMPTY])} |" for name, seen in rates.items()]


def share(seen: list[float], empty: list[float]) -> str:
    return spread([100 * ratio for ratio in ratios(seen, empty)], ".0f") + " %"


def bar(what: str, rates: dict[str, list[float]], name: str, least: float) -> Bar:
    return Bar(what, f"at least {100 * least:.0f} % of an empty start", share(rates[name], rates[EMPTY]),
               middle(ratios(rates[name], rates[EMPTY])) >= least)
