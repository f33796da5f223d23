"""Contests, interleaved: each round runs every one of them once, so that what else the machine does hits all alike."""

import math
import statistics
from typing import Callable

from . import page_cache
from .progress import progress

Samples = dict[str, list[float]]


def interleave(contests: dict[str, Callable[[], float]], rounds: int, unit: str = "jobs/s") -> Samples:
    """Every contest's figure in every round. Each round starts with another contest, and each contest with the
    memory that the one before it left in use."""
    seen: Samples = {name: [] for name in contests}
    names = list(contests)
    for number in range(rounds):
        for name in names[number % len(names):] + names[:number % len(names)]:
            page_cache.fill()
            seen[name].append(contests[name]())
            progress(f"  round {number + 1} of {rounds}: {name}: {seen[name][-1]:,.4g} {unit}")
    return seen


def middle(samples: list[float]) -> float:
    return statistics.median(samples)


def ratios(above: list[float], below: list[float]) -> list[float]:
    """Round by round."""
    return [a / b for a, b in zip(above, below)]


def spread(samples: list[float], form: str = ",.0f") -> str:
    """`median (lowest to highest)`."""
    low, high = min(samples), max(samples)
    return f"{middle(samples):{form}} ({low:{form}} to {high:{form}})" if len(samples) > 1 else f"{samples[0]:{form}}"


def median_confidence(samples: list[float]) -> tuple[float, float, float]:
    """The median and its 95 % interval by the order of the samples, whatever their distribution: those of a machine that others use
    have long tails."""
    ordered, reach = sorted(samples), statistics.NormalDist().inv_cdf(0.975) * math.sqrt(len(samples)) / 2
    low, high = math.floor(len(samples) / 2 - reach), math.ceil(len(samples) / 2 + reach)
    if low < 0 or high >= len(samples):
        return statistics.median(samples), -math.inf, math.inf
    return statistics.median(samples), ordered[low], ordered[high]


def quantile(samples: list[float], percent: float) -> float:
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
