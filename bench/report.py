"""Tables of what is kept: those just measured in the terminal, all of them in bench/RESULTS.md."""

from pathlib import Path

from . import BENCH
from .figures import Figures
from .plots import DRAWINGS
from .sections import SECTIONS
from .server import CHANGED

HEAD = """# Results

Written by `make bench` and `make bench-full`; each section says when and in which form. `bench/sections` says how a number
is taken; a contestant is described beside its figures and in `bench/contestants`. All figures of a section are of one run on
one temporary server, in interleaved rounds. Settings are stock, but for:
"""


def write(figures: Figures, just_measured: list[str], into: Path | None) -> None:
    for name in just_measured:
        print("\n".join(section(name, figures)), flush=True)
    print("\n".join(bars(figures, just_measured)), flush=True)
    if into:
        known = [name for name in SECTIONS if name in figures.sections]
        lines = [HEAD + settings(), "", "## What it must show", "", *bars(figures, known), "", (BENCH / "findings.md").read_text().rstrip()]
        for name in known:
            lines += ["", *section(name, figures)]
        into.write_text("\n".join(lines) + "\n")


def settings() -> str:
    return "\n".join(f"- `{name} = {value}`: {why}" for name, (value, why) in CHANGED.items() if why)


def bars(figures: Figures, names: list[str]) -> list[str]:
    lines = ["| | bar | measured | reached |", "| --- | --- | --- | --- |"]
    for name in names:
        lines += [bar.row() for bar in SECTIONS[name].bars(figures.data(name))]
    return lines


def section(name: str, figures: Figures) -> list[str]:
    kept = figures.sections[name]
    lines = [f"## {SECTIONS[name].TITLE}", "", f"{kept['when']}, {kept['form']} form, {kept['server']}, {kept['machine']}.", ""]
    if name in DRAWINGS:
        lines += [f"![{SECTIONS[name].TITLE}](plots/{name}.svg)", ""]
    return lines + SECTIONS[name].tables(kept["data"])
