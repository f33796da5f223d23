"""The tables that README.md and docs/findings.md show, of what is kept: between `<!-- figures: NAME -->` and `<!-- end of figures -->`.

    python -m bench.pages           writes them anew; `make bench` does so too
"""

import re

from . import BENCH, REPOSITORY
from .figures import Figures
from .rounds import middle, quantile

PAGES = [REPOSITORY / "README.md", REPOSITORY / "docs" / "findings.md"]
PLACE = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end of figures -->)", re.S)

# What a reader calls a contestant of the section 'drain', and the one of 'latency' that is the same.
SPEED = {
    "Pushy, batched": ("Pushy, 2 executors", "Pushy"),
    "Pushy, a commit per job": ("Pushy, a commit per job", None),
    "PgQ": ("PgQ, ticks of 10,000", None),
    "plain SKIP LOCKED loop, 50 a commit": ("a SKIP LOCKED loop written by hand, 50 a commit", None),
    "graphile_worker (Rust)": ("graphile_worker (Rust), batches of completions", None),
    "graphile-worker, local queue": ("graphile-worker, local queue", None),
    "graphile-worker, no local queue": ("graphile-worker, no local queue", "graphile-worker, no local queue"),
    "procrastinate": ("procrastinate", None),
    "pg-boss": ("pg-boss", None),
    "pgqueuer": ("pgqueuer", None),
}
DRAIN = {
    "Pushy, batched, done jobs not kept": "Pushy, batched, 2 executors, done jobs not kept",
    "Pushy, batched": "Pushy, batched, 2 executors",
    "PgQ": "PgQ, ticks of 10,000",
    "plain SKIP LOCKED loop, 50 a commit": "the SKIP LOCKED loop written by hand, 50 a commit",
    "Pushy, a commit per job": "Pushy, a commit per job, 2 executors",
    "graphile_worker (Rust)": "graphile_worker (Rust), batches of completions",
    "graphile-worker, local queue": "graphile-worker, local queue",
    "plain SKIP LOCKED loop, a commit per job": "the SKIP LOCKED loop written by hand, a commit per job",
    "graphile-worker, no local queue": "graphile-worker, no local queue",
}


def rounded(rate: float) -> str:
    """To two or three figures, as the rounds lie apart."""
    size = 1000 if rate >= 30_000 else 100 if rate >= 1000 else 10
    return f"{round(rate / size) * size:,}"


def rate(figures: Figures, contestant: str, handler: str) -> str:
    seen = figures.data("drain")["rates"].get(f"{contestant}; {handler}")
    return rounded(middle(seen)) if seen else "not measured"


def speed(figures: Figures) -> list[str]:
    """The README's one table."""
    drain, latency = figures.sections["drain"], figures.data("latency")["ms"]
    version = drain["server"].removeprefix("postgres (PostgreSQL) ").split()[0]
    lines = [f"| {drain['when'][:10]}, PostgreSQL {version}, 2 cores, median of {drain['data']['rounds']} rounds | no-op jobs/s | jobs/s that write a row | COMMIT to start, p50 |",
             "| --- | ---: | ---: | ---: |"]
    rates = drain["data"]["rates"]
    for key, (name, same) in sorted(SPEED.items(), key=lambda entry: -middle(rates.get(f"{entry[0]}; noop", [0]))):
        ms = f"{quantile([one for seen in latency[same] for one in seen], 50):.2f} ms" if same in latency else ""
        lines.append(f"| {name} | {rate(figures, key, 'noop')} | {rate(figures, key, 'one_row')} | {ms} |")
    return lines


def drain(figures: Figures) -> list[str]:
    lines = [f"| median of {figures.data('drain')['rounds']} rounds, jobs/s | a no-op | one row written |", "| --- | ---: | ---: |"]
    return lines + [f"| {name} | {rate(figures, key, 'noop')} | {rate(figures, key, 'one_row')} |" for key, name in DRAIN.items()]


TABLES = {"speed": speed, "drain": drain}


def filled(page: str, figures: Figures) -> str:
    return PLACE.sub(lambda place: place[1] + "\n".join(TABLES[place[2]](figures)) + "\n" + place[3], page)


def write(figures: Figures) -> None:
    for page in PAGES:
        page.write_text(filled(page.read_text(), figures))


if __name__ == "__main__":
    write(Figures(BENCH / "results.json"))
