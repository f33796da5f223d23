"""2,000,000 jobs while a transaction holds its snapshot open: no dead row may be cleaned away. The last against the first, and both
beside a second server without such a transaction, whose drains take turns with them: what the machine does meanwhile hits both.
An end is the middle one of a quarter of the drains: a single one takes 0.3 s, and what others do on the machine changes it by half."""

from .. import page_cache
from ..bars import Bar
from ..progress import progress
from ..rounds import middle, ratios, spread
from .ugly import pushy_in

TITLE = "A transaction held open meanwhile"
STEP = 100_000
HELD, CONTROL = "held open", "not held"


def measure(servers, sizes) -> dict:
    step = sizes.jobs(STEP)
    steps = max(sizes.millions(2_000_000) // STEP, 2)
    series: dict[str, list[list[float]]] = {HELD: [], CONTROL: []}
    with servers.server() as held, servers.server() as control:
        for number in range(sizes.rounds):
            pushies = {HELD: pushy_in(held, f"round_{number}"), CONTROL: pushy_in(control, f"round_{number}")}
            for pushy in pushies.values():
                pushy.drain("noop", step)  # it has the executors of the round before now
            old = pushies[HELD].db.connect(autocommit=False)
            old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            old.execute("SELECT txid_current()")
            for seen in series.values():
                seen.append([])
            for turn in range(steps):
                for name in (HELD, CONTROL) if turn % 2 == 0 else (CONTROL, HELD):
                    page_cache.fill()
                    series[name][-1].append(pushies[name].drain("noop", step))
                progress(f"  round {number + 1} of {sizes.rounds}, drain {turn + 1} of {steps}: "
                         + ", ".join(f"{name} {seen[-1][-1]:,.0f}" for name, seen in series.items()) + " jobs/s")
            old.close()
    return {"step": step, "steps": steps, "rounds": sizes.rounds, "series": series}


def tables(data: dict) -> list[str]:
    lines = [f"No-op jobs a second, batched, {data['steps']} drains of {data['step']:,} one after the other, the two servers in turn; the first and the "
             f"last are the middle one of a quarter of them. Median of {data['rounds']} rounds (lowest to highest).", "",
             "| | the first | the last | last to first |", "| --- | ---: | ---: | ---: |"]
    for name, rounds in data["series"].items():
        first, last = ends(rounds)
        lines.append(f"| a transaction {name} | {spread(first)} | {spread(last)} | "
                     f"{spread([100 * ratio for ratio in ratios(last, first)], '.0f')} % |")
    return lines


def ends(rounds: list[list[float]]) -> tuple[list[float], list[float]]:
    quarter = max(len(rounds[0]) // 4, 1)
    return [middle(seen[:quarter]) for seen in rounds], [middle(seen[-quarter:]) for seen in rounds]


def bars(data: dict) -> list[Bar]:
    held, control = (ratios(last, first) for first, last in (ends(data["series"][name]) for name in (HELD, CONTROL)))
    what = f"a transaction held open while {data['step'] * data['steps']:,} jobs pass, the last {data['step']:,} to the first"
    return [Bar(name, "at least 90 %", spread([100 * ratio for ratio in seen], ".0f") + " %", middle(seen) >= 0.9)
            for name, seen in ((what, held), ("the same, against a server without it", ratios(held, control)))]
