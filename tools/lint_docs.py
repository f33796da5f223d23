#!/usr/bin/env python3
"""What the pages name is there: files, headings, tests, paths of the sources, functions and types in them; and the site has every page.

    tools/lint_docs.py              complaints about this tree; exit status 1 where there are any
"""

import ast
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import book  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
# A path of the sources: it has a folder of the top in front, or is a file of the top.
PATH = re.compile(r"`((?:src|core|docs|tools|bench|sql|pg_test|demo|clients|\.ci|\.cargo)/[\w./*-]*|\w+\.(?:toml|control|ld|json|md))`")
# What a file of the sources declares: `src/queue/cache.rs::get`.
DECLARED = re.compile(r"`((?:src|core)/[\w./-]+\.rs)::(\w+)`")
WITHIN = re.compile(r"`((?:harness|torture|stage)/[\w./-]*)`")  # of pg_test, where that is what a page is about
LINK = re.compile(r"\]\(([^)#:\s]*)(?:#([^)\s]+))?\)")
TAGS = {"sql", "console", "python", "json", "yaml", "text", "rust", "conf", ""}
NOT_OURS = {"postgresql.conf"}


def pages(root: Path) -> list[Path]:
    return [root / "README.md", root / "CHANGELOG.md", root / "pg_test" / "README.md", *sorted((root / "docs").rglob("*.md"))]


def anchors(page: Path) -> set[str]:
    """As GitHub and mdBook make them of headings."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.M | re.S)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", text, re.M)}


def links(page: Path, root: Path) -> list[str]:
    found, there = [], {root / path for path in book.content()} if root == ROOT else None
    for file, anchor in LINK.findall(re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.M | re.S)):
        target = (page.parent / file).resolve() if file else page
        if not target.exists():
            found.append(f"link to {file}, which is not there")
        elif there is not None and target not in there and page.name != "SUMMARY.md":
            found.append(f"link to {file}, which is not in the site (CONTENT in tools/book.py): name it in backticks")
        elif anchor and anchor not in anchors(target):
            found.append(f"link to #{anchor}, and {target.name} has no such heading")
    return found


def tests_in(file: Path) -> set[str]:
    return {node.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)}


def names(page: Path, root: Path) -> list[str]:
    text, found = page.read_text(), []
    by_name = {path.name: path for path in (root / "pg_test").rglob("test_*.py")}
    for file, name in re.findall(r"\b(test_\w+\.py)(?:::(\w+))?", text):
        if file not in by_name:
            found.append(f"{file}, which is not there")
        elif name and name not in tests_in(by_name[file]):
            found.append(f"{file}::{name}, which is not there")
    for path in PATH.findall(text):
        if path not in NOT_OURS and not any(root.glob(path.rstrip("/"))):
            found.append(f"{path}, which is not there")
    for path, name in DECLARED.findall(text):
        file = root / path
        if not file.exists():
            found.append(f"{path}, which is not there")
        elif not re.search(rf"\b(?:fn|struct|enum|trait|const|static) {name}\b", file.read_text()):
            found.append(f"{path}::{name}, which is not there")
    for path in WITHIN.findall(text):
        if not (root / "pg_test" / path).exists():
            found.append(f"pg_test/{path}, which is not there")
    return found


def fences(page: Path) -> list[str]:
    tags = re.findall(r"^ *```(\w*)$", page.read_text(), re.M)[::2]
    return [f"a block tagged {tag}, of which nobody knows how to try it" for tag in tags if tag not in TAGS]


def listed(root: Path) -> list[str]:
    """docs/SUMMARY.md has each page of docs once."""
    there = [(root / "docs" / file).resolve() for file, _ in LINK.findall((root / "docs" / "SUMMARY.md").read_text())]
    wanted = {page for page in (root / "docs").rglob("*.md") if page.name != "SUMMARY.md"}
    return [f"{page.relative_to(root)} is not listed" for page in sorted(wanted - set(there))] + \
           [f"{page.relative_to(root)} is listed twice" for page in sorted({page for page in there if there.count(page) > 1})]


def complaints(root: Path = ROOT) -> list[str]:
    found = [f"docs/SUMMARY.md: {complaint}" for complaint in listed(root)]
    for page in pages(root):
        found += [f"{page.relative_to(root)}: {complaint}" for complaint in links(page, root) + names(page, root) + fences(page)]
    return found


if __name__ == "__main__":
    all_complaints = complaints()
    print("\n".join(all_complaints) or f"lint_docs: {len(pages(ROOT))} pages name what there is")
    sys.exit(bool(all_complaints))
