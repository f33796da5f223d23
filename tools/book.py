#!/usr/bin/env python3
"""The pages as a site: lays out what mdBook reads in target/book, as it lies here, so that links are the same in both.

    tools/book.py lay               writes target/book/src and book.toml
    tools/book.py check             every link of the built site leads somewhere
"""

import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BOOK = ROOT / "target" / "book"
# What a page may lead to.
CONTENT = ("README.md", "CHANGELOG.md", "LICENSE", "docs/**/*.md", "docs/*.svg", "bench/RESULTS.md", "bench/plots/*.svg", "pg_test/README.md")
SETTINGS = """\
[book]
title = "Pushy"
description = "Queues, jobs, watches and an event log inside PostgreSQL"
language = "en"
src = "src"

[build]
build-dir = "site"
create-missing = false

[output.html]
default-theme = "light"
preferred-dark-theme = "navy"
no-section-label = true
additional-css = ["wide.css"]
"""
# Tables and SQL want room.
STYLE = """\
:root { --content-max-width: 1000px; }
table { width: 100%; }
td { vertical-align: top; }
"""


def content() -> set[Path]:
    """The files of the site, below ROOT; the list of its pages is not one of them."""
    found = {path.relative_to(ROOT) for pattern in CONTENT for path in ROOT.glob(pattern)}
    return found - {Path("docs/SUMMARY.md")}


def summary() -> str:
    """docs/SUMMARY.md, as from the top."""
    def from_top(link: re.Match) -> str:
        return f"]({(ROOT / 'docs' / link[1]).resolve().relative_to(ROOT)})"
    return re.sub(r"\]\(([^)]+)\)", from_top, (ROOT / "docs" / "SUMMARY.md").read_text())


def named_index(text: str) -> str:
    """mdBook makes index.html of a README.md, and leaves links to README.html."""
    return re.sub(r"(\]\((?:[^)#\s]*/)?)README\.md(#[^)\s]*)?\)", r"\1index.md\2)", text)


def lay() -> None:
    shutil.rmtree(BOOK, ignore_errors=True)
    for path in sorted(content()):
        target = BOOK / "src" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".md":
            target = target.with_name("index.md") if path.name == "README.md" else target
            target.write_text(named_index((ROOT / path).read_text()))
        else:
            shutil.copy(ROOT / path, target)
    (BOOK / "src" / "SUMMARY.md").write_text(named_index(summary()))
    (BOOK / "book.toml").write_text(SETTINGS)
    (BOOK / "wide.css").write_text(STYLE)


def check() -> int:
    site = BOOK / "site"
    pages = {page: page.read_text() for page in site.rglob("*.html") if page.name not in ("print.html", "toc.html", "404.html")}
    ids = {page: set(re.findall(r'\bid="([^"]+)"', text)) for page, text in pages.items()}
    wrong = []
    for page, text in pages.items():
        body = text.split("<main>", 1)[1].split("</main>", 1)[0]
        for link in re.findall(r'(?:href|src)="([^"]+)"', body):
            file, _, anchor = link.partition("#")
            if re.match(r"\w+:", link):
                continue
            target = (page.parent / file).resolve() if file else page
            if not target.exists():
                wrong.append(f"{page.relative_to(site)}: {link}: no such file")
            elif anchor and target in ids and anchor not in ids[target]:
                wrong.append(f"{page.relative_to(site)}: {link}: no such heading")
    print("\n".join(wrong) or f"book: {len(pages)} pages, every link leads somewhere")
    return bool(wrong)


if __name__ == "__main__":
    if sys.argv[1:] == ["lay"]:
        lay()
    elif sys.argv[1:] == ["check"]:
        sys.exit(check())
    else:
        sys.exit(__doc__)
