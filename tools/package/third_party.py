#!/usr/bin/env python3
"""THIRD-PARTY: the licence of every Rust package that is linked into the library, as it comes with the package.
`third_party.py write` writes it, `third_party.py check` says whether it would be written so. Which licences are allowed says deny.toml.
"""

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "THIRD-PARTY"
HEAD = """\
Pushy's library contains code of the Rust packages below, each under the licence that is named and printed behind the list, and of
Rust's standard library (Copyright (c) The Rust Project Contributors, MIT). Where a package leaves the choice, the licence chosen is named.
Written by `make third-party`.
"""
# Of several that a package offers, the first of these.
CHOICE = ["MIT", "Apache-2.0", "Zlib", "Unicode-3.0"]
RULE = "-" * 80


def cargo(*arguments: str) -> str:
    return subprocess.check_output(["cargo", *arguments, "--locked"], cwd=ROOT, text=True)


def linked() -> list[dict]:
    """The packages, by name and version: of every PostgreSQL's build the same, and procedural macros too, whose output is linked."""
    lines = cargo("tree", "--package", "pushy", "--edges", "normal", "--prefix", "none", "--target", "x86_64-unknown-linux-gnu", "--format", "{p}")
    wanted = {tuple(line.split()[:2]) for line in lines.splitlines() if line}
    packages = json.loads(cargo("metadata", "--format-version", "1"))["packages"]
    return sorted((p for p in packages if (p["name"], "v" + p["version"]) in wanted and p["source"]), key=lambda p: (p["name"], p["version"]))


def chosen(package: dict) -> list[str]:
    """The licences that are taken: of `(A OR B) AND C` one of the first two, and the third."""
    taken = []
    for term in re.split(r"\s+AND\s+", package["license"]):
        offered = re.split(r"\s+OR\s+|/", term.strip("() "))
        taken.append(next((choice for choice in CHOICE if choice in offered), None))
        if taken[-1] is None:
            raise SystemExit(f"third-party: {package['name']} offers {term}: choose one in {Path(__file__).name}")
    return taken


def text_of(package: dict, licence: str) -> str:
    folder = Path(package["manifest_path"]).parent
    texts = [path for path in [*folder.iterdir(), *folder.glob("LICENSES/*")] if path.is_file() and re.match(r"LICEN[CS]E|COPYING|MIT", path.name.upper())]
    word = licence.split("-")[0].upper()
    named = [path for path in texts if word in path.name.upper()] or [path for path in texts if path.stem.upper() == "LICENSE"]
    if named:
        return min(named).read_text()
    if licence != "MIT":
        raise SystemExit(f"third-party: no text of {licence} in {package['name']}")
    # The package has none: the text of the licence, with the copyright that its source has, or its authors.
    source = (folder / "src" / "lib.rs").read_text()
    holders = re.findall(r"^//LICENSE (.*Copyright.*)$", source, re.M) or ["Copyright (c) " + ", ".join(package["authors"])]
    own = (ROOT / "LICENSE").read_text()
    return "MIT License\n\n" + "\n".join(holders) + own[own.index("\n\nPermission"):]


def written() -> str:
    packages = linked()
    groups: dict[tuple[str, str], tuple[str, list[str]]] = {}
    for package in packages:
        for licence in chosen(package):
            text = "\n".join(line.rstrip() for line in text_of(package, licence).strip().splitlines())
            group = groups.setdefault((licence, " ".join(text.split())), (text, []))
            group[1].append(f"{package['name']} {package['version']}")
    parts = [HEAD, *(f"{p['name']} {p['version']}: {' and '.join(chosen(p))}" for p in packages)]
    for (licence, _), (text, names) in groups.items():
        parts += ["", RULE, textwrap.fill(f"{licence}: {', '.join(names)}", 130), RULE, "", text]
    return "\n".join(parts) + "\n"


def main() -> int:
    if sys.argv[1:] == ["write"]:
        FILE.write_text(written())
    elif FILE.read_text() != written():
        print("third-party: THIRD-PARTY is not what the packages say that are linked: call make third-party", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
