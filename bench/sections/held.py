"""2,000,000 jobs while a transaction holds its snapshot open: no dead row may be cleaned away. The last against the first."""

from ..bars import Bar
from ..progress import progress
from ..rounds import middle, ratios, spread
from .ugly import pushy_in

TITLE = "A transaction held open meanwhile"
STEP = 100_000


def measure(servers, sizes) -> dict:
    step = sizes.jobs(STEP)
    steps = max(sizes.millions(2_000_000) // STEP, 3)
    rounds = min(sizes.rounds, 3)
    series = {"held open": [], "not held": []}
    with servers.server() as cluster:
        for number in range(rounds):
            for name, seen in series.items():
                pushy = pushy_in(cluster, f"{name.replace(' ', '_')}_{number}")
                pushy.drain("noop", max(step // 10, 10))
                old = pushy.db.connect(autocommit=False)
                if name == "held open":
                    old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                    old.execute("SELECT txid_current()")
                seen.append([pushy.drain("noop", step) for _ in range(steps)])
                old.close()
                progress(f"  round {number + 1} of {rounds}: {name}: first {seen[-1][0]:,.0f}, last {seen[-1][-1]:,.0f} jobs/s")
    return {"step": step, "steps": steps, "rounds": rounds, "series": series}


def tables(data: dict) -> list[str]:
    lines = [f"No-op jobs a second, batched, {data['steps']} drains of {data['step']:,} one after the other, "
             f"median of {data['rounds']} rounds (lowest to highest).", "",
             "| | the first | the last | last to first |", "| --- | ---: | ---: | ---: |"]
    for name, rounds in data["series"].items():
        first, last = ends(rounds)
        lines.append(f"| a transaction {name} | {spread(first)} | {spread(last)} | "
                     f"{spread([100 * ratio for ratio in ratios(last, first)], '.0f')} % |")
    return lines


def ends(rounds: list[list[float]]) -> tuple[list[float], list[float]]:
    return [seen[0] for seen in rounds], [seen[-1] for seen in rounds]


def bars(data: dict) -> list[Bar]:
    first, last = ends(data["series"]["held open"])
    seen = ratios(last, first)
    return [Bar(f"a transaction held open while {data['step'] * data['steps']:,} jobs pass, the last {data['step']:,} to the first",
                "at least 90 %", spread([100 * ratio for ratio in seen], ".0f") + " %", middle(seen) >= 0.9)]
