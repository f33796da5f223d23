#!/usr/bin/env python3
"""Draws docs/demo.svg, the README's picture: plays the demo (the release build) on a terminal of its own and keeps what came when,
of the steps below. The picture shows the lines at the times at which they came, again and again; where nothing moves, all of them.

    tools/demo_picture.py           plays, draws, and ends the demo's server
"""

import html
import os
import pty
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "demo.svg"
PYTHON = ROOT / "target" / "venv" / "bin" / "python"
STEPS = ("A watch of", "pgbench writes", "The roll-up, and the truth", "A queue is paused")
LONG_QUERY = "The roll-up"  # of this step only the answer is shown

COLUMNS, ROW, LEFT, TOP, CHARACTER = 108, 17, 16, 46, 7.83
STILL = 7.0  # seconds for which the last line stands before the first comes again
BRISK = 0.4  # no pause between two lines is longer, but while pgbench runs

PAPER, INK, DIM, HEADING, PROMPT, NOTICE, GOOD = "#0f1720", "#d5dde5", "#7d8b99", "#ffffff", "#7fc8a9", "#e5b567", "#7fc8a9"


@dataclass
class Line:
    text: str
    came: float
    gone: float | None = None  # overwritten then by the next state of the same line


def play() -> list[Line]:
    """The demo's lines. `\\r\\033[K` begins a line anew."""
    os.environ["COLUMNS"] = str(COLUMNS)
    chunks: list[tuple[float, str]] = []
    began = time.monotonic()

    def read(terminal: int) -> bytes:
        data = os.read(terminal, 1 << 16)
        chunks.append((time.monotonic() - began, data.decode(errors="replace")))
        return data

    try:
        if pty.spawn([str(PYTHON), str(ROOT / "tools" / "demo.py"), "start"], read) != 0:
            sys.exit("The demo failed.")
    finally:
        subprocess.run([PYTHON, ROOT / "tools" / "demo.py", "stop"], check=True)
    lines, current, since = [], "", 0.0
    for at, text in chunks:
        for part in re.split(r"(\r\n|\r\033\[K)", text):
            if part == "\r\n":
                lines.append(Line(current, since))
                current, since = "", at
            elif part == "\r\033[K":
                if current:
                    lines.append(Line(current, since, at))
                current, since = "", at
            else:
                since = at if not current else since
                current += part
    return lines


def chosen(lines: list[Line]) -> list[Line]:
    """Those of the steps that are shown, renumbered, without blank lines in a row."""
    found, inside, number, step, query = [Line("$ make demo", 0.0)], False, 0, "", False
    for line in lines:
        if heading := re.match(r"\d+\. (.*)", line.text):
            step = heading[1]
            inside = step.startswith(STEPS)
            number += inside
            line = Line(f"{number}. {step}", line.came, line.gone)
            if inside and found[-1].text:
                found.append(Line("", line.came))
        query = query or "shop=#" in line.text
        if inside and (line.text.strip() or found[-1].text.strip()) and not (query and step.startswith(LONG_QUERY)):
            found.append(line)
        query = query and not line.text.endswith(";")
    while not found[-1].text.strip():
        found.pop()
    return found


def brisk(lines: list[Line]) -> list[Line]:
    """Without the pauses in which nothing is seen."""
    shift, before, shown = 0.0, 0.0, []
    for line in lines:
        shift += max(0.0, line.came - before - BRISK)
        before = line.came
        shown.append(Line(line.text, line.came - shift, None if line.gone is None else line.gone - shift))
    return shown


def colour(text: str) -> str:
    if text.startswith(("$", " " * 20)) or "shop=#" in text:
        return PROMPT
    if re.match(r"\d+\.", text):
        return HEADING
    if re.match(r"   \w+, told by process", text):
        return NOTICE
    if "up to date" in text or "jobs done" in text:
        return GOOD
    return INK if text.startswith("   ") else DIM


def draw(lines: list[Line]) -> str:
    length = max(line.came for line in lines) + STILL
    rows, frames, row = [], [], 0
    for number, line in enumerate(lines):
        start = 100 * line.came / length
        end = None if line.gone is None else 100 * line.gone / length
        text = line.text.rstrip()
        # Where nothing moves, the last state of a line stands.
        hidden = ' opacity="0"' if end is not None else ""
        if text:
            y = TOP + ROW * row
            rows.append(f'<text class="l" style="animation-name:k{number}" x="{LEFT}" y="{y}" fill="{colour(text)}"{hidden}>{html.escape(text[:COLUMNS])}</text>')
            shown = f"{start:.2f}%{{opacity:1}}" + (f"{end:.2f}%,100%{{opacity:0}}" if end is not None else "100%{opacity:1}")
            frames.append(f"@keyframes k{number}{{0%{{opacity:0}}{shown}}}")
        if end is None:
            row += 1
    width, height = round(COLUMNS * CHARACTER + 2 * LEFT), TOP + ROW * row
    lights = "".join(f'<circle cx="{22 + 18 * n}" cy="16" r="5" fill="{fill}"/>' for n, fill in enumerate(("#e0655f", "#e5b567", "#7fc8a9")))
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">
<title>make demo: pgbench writes, a watch makes a job of each row, and the roll-up follows</title>
<style>
text{{font:13px/1 ui-monospace,"DejaVu Sans Mono",Menlo,Consolas,monospace;white-space:pre}}
.l{{animation-duration:{length:.2f}s;animation-iteration-count:infinite;animation-timing-function:step-end}}
@media (prefers-reduced-motion:reduce){{.l{{animation:none}}}}
{chr(10).join(frames)}
</style>
<rect width="{width}" height="{height}" rx="8" fill="{PAPER}"/>
{lights}
{chr(10).join(rows)}
</svg>
"""


def main() -> None:
    PICTURE.write_text(draw(brisk(chosen(play()))))
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size / 1024:.0f} kB")


if __name__ == "__main__":
    main()
