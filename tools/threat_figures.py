#!/usr/bin/env python3
"""Writes into docs/security.md and docs/reliability.md what the tests of each line did when they ran last:
make test TEST=--junitxml=target/figures.xml; tools/threat_figures.py target/figures.xml"""

import re
import subprocess
import sys
import xml.etree.ElementTree as xml
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "docs" / name for name in ("security.md", "reliability.md")]
TEST = re.compile(r"`(test_\w+\.py)(?:::(\w+))?`")


def read(path: str) -> tuple[str, dict[str, list]]:
    """The day of the run, and the cases of each file and each file::test."""
    [suite] = xml.parse(path).getroot().iter("testsuite")
    cases = defaultdict(list)
    for case in suite.iter("testcase"):
        file = case.get("classname").split(".")[-1] + ".py"
        cases[file].append(case)
        cases[f"{file}::{case.get('name').split('[')[0]}"].append(case)
    return suite.get("timestamp")[:10], cases


def figure(tried: str, cases: dict[str, list]) -> str:
    """`tried`: the cell that names the tests."""
    names = ["::".join(part for part in found if part) for found in TEST.findall(tried)]
    if not names:
        return "—"
    missing = [name for name in names if not cases[name]]
    ran = list({id(case): case for name in names for case in cases[name]}.values())
    bad = [case for case in ran if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case for case in ran if case.find("skipped") is not None]
    seconds = sum(float(case.get("time")) for case in ran)
    said = [f"{len(ran)} case{'s' if len(ran) != 1 else ''}, {seconds:.0f} s" if seconds >= 1 or not ran else f"{len(ran)} cases, {seconds:.1f} s"]
    said += [of.get("value") for case in ran for of in case.iter("property") if of.get("name") == "counted"]
    said += [f"FAILED: {len(bad)}"] if bad else []
    said += [f"skipped: {len(skipped)}"] if skipped else []
    said += [f"not run: {', '.join(missing)}"] if missing else []
    return "; ".join(said)


def main() -> int:
    day, cases = read(sys.argv[1])
    pg_config = subprocess.check_output([ROOT / "tools" / "postgres.sh"], text=True).strip()
    version = subprocess.run([pg_config, "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    wrong = 0
    for page in PAGES:
        lines = []
        for line in page.read_text().splitlines():
            cells = line.split(" | ")
            if line.startswith("| ") and len(cells) == 4 and cells[3] != "last run |" and not line.startswith("| ---"):
                cells[3] = f"{figure(cells[2], cases)} |"
                wrong += "FAILED" in cells[3] or "not run" in cells[3]
                line = " | ".join(cells)
            lines.append(f"Figures: {day}, PostgreSQL {version}." if line.startswith("Figures: ") else line)
        page.write_text("\n".join(lines) + "\n")
    print(f"threat_figures: {wrong} lines whose tests failed or did not run")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
