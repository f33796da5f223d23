#!/usr/bin/env python3
"""Finds loops of Pushy's workers that nobody could end.

A worker that spins without a look at its interrupts cannot be terminated, keeps DROP DATABASE waiting and the server from
stopping. So the body of every `loop` and `while` in src/worker, src/relay and src/job (whose moves workers make) looks at
them (interrupts::check), or sleeps on the latch, which does; or a comment right above says why it ends: `// Bounded: …`.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("src/worker", "src/relay", "src/job")
LOOP = re.compile(r"^\s*(?:'\w+: )?(?:return )?(?:let .*= )?(?:loop|while\b.*) \{")
LOOKS = re.compile(r"\binterrupts::check\(|\blatch::wait\(|\bcheck_for_interrupts!")


def body_of(lines: list[str], at: int) -> str:
    """From the line of the loop to the one that closes it; rustfmt puts that at the loop's own indentation."""
    indent = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
    end = next(n for n in range(at + 1, len(lines)) if lines[n].startswith(indent + "}"))
    return "\n".join(line.split("//")[0] for line in lines[at : end + 1])


def endless(text: str) -> list[int]:
    """The numbers of the lines with loops that are neither bounded nor look."""
    lines = text.split("\n")
    return [at + 1 for at, line in enumerate(lines)
            if LOOP.match(line) and "// Bounded: " not in lines[at - 1] and not LOOKS.search(body_of(lines, at))]


def main() -> int:
    found = 0
    for folder in FOLDERS:
        for file in sorted((ROOT / folder).rglob("*.rs")):
            for line in endless(file.read_text()):
                print(f"{file.relative_to(ROOT)}:{line}: a loop that looks at no interrupt; call interrupts::check(), or say above '// Bounded: …'")
                found += 1
    return found != 0


if __name__ == "__main__":
    sys.exit(main())
