"""Plots for people, of what is kept: bench/plots/*.svg, by section. Each has one message, which is its title."""

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402

from . import BENCH  # noqa: E402
from .rounds import middle  # noqa: E402
from .sections import latency as one_by_one  # noqa: E402
from .sections.enqueue import CLIENTS  # noqa: E402
from .sections.wal import per_job  # noqa: E402

FOLDER = BENCH / "plots"
OURS, OTHERS, LIMITS, SECOND = "#0b6e4f", "#9aa5b1", "#d9a441", "#7fc8a9"

plt.rcParams |= {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.titleweight": "bold",
                 "axes.titlelocation": "left", "figure.dpi": 110, "svg.hashsalt": "pushy", "svg.fonttype": "path"}


def drain(data: dict, synchronous_commit: str = "off"):
    figure, panels = plt.subplots(1, 2, figsize=(13, 5.4), sharey=True, layout="constrained")
    names = [name for name in data["paths"] if name not in data["missing"]]
    names.sort(key=lambda name: middle(data["rates"][f"{name}; noop"]))
    for panel, handler, title in zip(panels, ("noop", "one_row"), ("No-op jobs a second", "Jobs a second that write one row")):
        rates = [data["rates"][f"{name}; {handler}"] for name in names]
        middles = [middle(seen) for seen in rates]
        panel.barh(names, middles, xerr=reach(middles, rates), color=[colour(name) for name in names], error_kw={"lw": 1, "ecolor": "#333"})
        for at, m in enumerate(middles):
            panel.annotate(f" {m:,.0f}", (max(rates[at]), at), va="center", fontsize=9)
        panel.set_xlim(right=max(max(seen) for seen in rates) * 1.15)
        panel.set_title(title)
        panel.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    figure.supxlabel(f"Median, from the lowest to the highest round. synchronous_commit {synchronous_commit} for all.", fontsize=9)
    figure.legend(handles=boxes({"Pushy": OURS, "peers": OTHERS, "hand-written loop inside the server": LIMITS}), frameon=False,
                  loc="outside upper right", ncols=3)
    return figure


def reach(middles: list[float], rates: list[list[float]]) -> list[list[float]]:
    """Error bars."""
    return [[m - min(seen) for m, seen in zip(middles, rates)], [max(seen) - m for m, seen in zip(middles, rates)]]


def drain_durable(data: dict):
    return drain(data, "on")


def colour(name: str) -> str:
    return OURS if name.startswith("Pushy") else LIMITS if name.startswith("hand-written") else OTHERS


def boxes(entries: dict[str, str]) -> list:
    return [plt.Rectangle((0, 0), 1, 1, color=value, label=name) for name, value in entries.items()]


def latency(data: dict):
    figure, panel = plt.subplots(figsize=(9, 4), layout="constrained")
    for name, shade in ((one_by_one.PUSHY, OURS), (one_by_one.PUSHY_ON, SECOND), (one_by_one.GRAPHILE, OTHERS)):
        samples = sorted(sample for seen in data["ms"].get(name, []) for sample in seen)
        if samples:
            panel.step(samples, [100 * (n + 1) / len(samples) for n in range(len(samples))], color=shade, label=name, lw=2)
    panel.set_xscale("log")
    panel.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    panel.set_xlabel("ms from the client's COMMIT to the handler's first clock (logarithmic)")
    panel.set_ylabel("% of jobs started by then")
    panel.set_title("Commit to handler start, idle server")
    panel.grid(axis="x", which="both", alpha=0.2)
    panel.legend(frameon=False, loc="lower right")
    return figure


def rates(data: dict):
    figure, panel = plt.subplots(figsize=(9, 4), layout="constrained")
    shades = {"Pushy": OURS, "graphile-worker, no local queue": OTHERS, "graphile-worker, local queue": LIMITS}
    for name, by_rate in data["seen"].items():
        xs = sorted(int(rate) for rate in by_rate)
        for what, style in (("p50", "--"), ("p99", "-")):
            panel.plot(xs, [middle([seen[what] for seen in by_rate[str(x)]]) for x in xs], style, color=shades[name], marker="o", label=f"{name}, {what}")
    panel.set_yscale("log")
    panel.yaxis.set_major_formatter(lambda y, _: f"{y:g}")
    panel.set_ylabel("ms (logarithmic)")
    panel.set_xlabel("jobs enqueued a second, whatever the server does")
    panel.set_title("Latency under load")
    panel.grid(axis="y", which="both", alpha=0.2)
    panel.legend(frameon=False, fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.18))
    return figure


def enqueue(data: dict):
    figure, panels = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for panel, commit in zip(panels, ("off", "on")):
        for shift, what, shade in ((-0.2, "pushy.enqueue", OURS), (0.2, "plain INSERT", OTHERS)):
            rates = [data["single"][f"{what}; {clients}; {commit}"] for clients in CLIENTS]
            middles = [middle(seen) for seen in rates]
            panel.bar([at + shift for at in range(len(CLIENTS))], middles, 0.38, yerr=reach(middles, rates), color=shade, label=what, error_kw={"lw": 1})
        panel.set_xticks(range(len(CLIENTS)), [f"{clients} client{'s' * (clients > 1)}" for clients in CLIENTS])
        panel.set_title(f"Enqueued a second, synchronous_commit {commit}", fontsize=10)
        panel.yaxis.set_major_formatter(lambda y, _: f"{y:,.0f}")
    figure.legend(handles=boxes({"pushy.enqueue": OURS, "plain INSERT of the same row, same indexes": OTHERS}), frameon=False,
                  loc="outside lower center", ncols=2)
    return figure


def wal(data: dict):
    figure, panel = plt.subplots(figsize=(10, 3.2), layout="constrained")
    shades = plt.get_cmap("tab20").colors
    kinds = sorted({name for seen in data["seen"].values() for part in seen.values() for name in part},
                   key=lambda name: -sum(part.get(name, [0, 0])[1] for seen in data["seen"].values() for part in seen.values()))
    for at, (how, seen) in enumerate(data["seen"].items()):
        left = 0.0
        for number, kind in enumerate(kinds):
            size = sum(part.get(kind, [0, 0])[1] for part in seen.values()) / data["jobs"]
            panel.barh(at, size, left=left, color=shades[number % 20], label=kind if at == 0 and number < 10 else None)
            if size > 30:
                panel.text(left + size / 2, at, f"{size:.0f}", ha="center", va="center", fontsize=9)
            left += size
        panel.text(left + 5, at, f"{per_job(seen, data['jobs']):.0f} bytes", va="center", weight="bold")
    panel.axvline(700, color="#b00", lw=1, ls=":")
    panel.set_xlim(right=860)
    panel.set_yticks(range(len(data["seen"])), list(data["seen"]))
    panel.set_title("WAL of a no-op job, enqueue to completion (bytes, by record)")
    panel.legend(frameon=False, fontsize=8, ncols=5, loc="upper center", bbox_to_anchor=(0.5, -0.12))
    return figure


def held(data: dict):
    figure, panel = plt.subplots(figsize=(9, 3.6), layout="constrained")
    for name, shade in (("held open", OURS), ("not held", OTHERS)):
        for number, seen in enumerate(data["series"][name]):
            panel.plot([(at + 1) * data["step"] / 1e6 for at in range(len(seen))], seen, color=shade, marker=".",
                       label=f"a transaction {name}" if number == 0 else None)
    panel.set_ylim(bottom=0)
    panel.set_xlabel("million jobs done")
    panel.set_ylabel("jobs/s")
    panel.set_title("Speed while an old snapshot keeps every dead row")
    panel.legend(frameon=False)
    return figure


def memory(data: dict):
    figure, panel = plt.subplots(figsize=(9, 3), layout="constrained")
    panel.plot([jobs / 1e6 for jobs, _ in data["seen"]], [kilobytes / 1024 for _, kilobytes in data["seen"]], color=OURS, marker="o")
    panel.set_ylim(0, 1.4 * max(kilobytes for _, kilobytes in data["seen"]) / 1024)
    panel.set_xlabel("million jobs done by this executor")
    panel.set_ylabel("MB of its own")
    panel.set_title("Memory of an executor")
    return figure


DRAWINGS = {"drain": drain, "drain_durable": drain_durable, "latency": latency, "rates": rates, "enqueue": enqueue, "wal": wal, "held": held, "memory": memory}


def draw(figures) -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, drawing in DRAWINGS.items():
        if data := figures.data(name):
            figure = drawing(data)
            figure.savefig(FOLDER / f"{name}.svg", metadata={"Date": None})
            plt.close(figure)
