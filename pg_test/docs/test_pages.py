"""Every block of SQL in README.md and docs/ is run as it stands: those tagged `console` are compared with what psql shows, those
tagged `sql` must not fail. The blocks of a page share one psql session, in order, in a database of the page's own. Blocks that name
a file in their first line are programs' parts, and test_recipes.py runs them."""

import difflib
import re
from pathlib import Path

import pytest
from harness.installation import REPOSITORY

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.M | re.S)
PROMPT = re.compile(r"^\w+[=$-][*!]?[#>] ?")
NAMED = re.compile(r"-- \S+\.sql\n")
MARKER = "-- end of statement --"
# Whoever shows a page to a reader without the tags of commands and the counts of rows, says so here.
QUIET = {"README.md"}

Step = tuple[str, list[str] | None]


def blocks(page: Path) -> list[tuple[str, str]]:
    return [(tag, "".join(line.removeprefix(margin) for line in text.splitlines(True)))
            for margin, tag, text in FENCE.findall(page.read_text())]


def steps(page: Path) -> list[Step]:
    """Statements, each with the output that the page shows; None where it shows none."""
    found: list[Step] = []
    for tag, text in blocks(page):
        if tag == "console":
            found += console(text)
        elif tag == "sql" and not NAMED.match(text):
            found.append((text.rstrip("\n"), None))
    return found


def console(text: str) -> list[Step]:
    found: list[Step] = []
    for line in text.splitlines():
        prompt = PROMPT.match(line)
        if prompt is None:
            found[-1][1].append(line.rstrip())
        elif prompt[0].rstrip()[-2] == "=":
            found.append((line[prompt.end():], []))
        else:
            statement, output = found[-1]
            found[-1] = (f"{statement}\n{line[prompt.end():]}", output)
    return [(statement, trim(output)) for statement, output in found]


def trim(lines: list[str]) -> list[str]:
    while lines and not lines[-1]:
        lines.pop()
    return lines


PAGES = {page.relative_to(REPOSITORY).as_posix(): page
         for page in [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))] if steps(page)}


def test_the_pages_that_show_sql_are_found():
    assert {"README.md", "docs/tour.md", "docs/operations.md"} <= PAGES.keys()
    assert len(steps(PAGES["docs/tour.md"])) > 20


@pytest.mark.parametrize("name", PAGES)
def test_a_page_shows_what_happens(name, make_cluster):
    db = make_cluster().database()
    asked = steps(PAGES[name])
    options = ["-q", "-P", "footer=off"] if name in QUIET else []
    script = "".join(f"{statement}\n\\echo {MARKER}\n" for statement, _ in asked)
    done = db.cluster.run("psql", "-X", "-h", db.cluster.folder, "-U", "postgres", "-d", db.name, "-v", "ON_ERROR_STOP=0", *options,
                          input=script, check=False)
    seen = done.stdout.split(MARKER)
    written, happened = [], []
    for (statement, output), text in zip(asked, seen, strict=False):
        shown = trim([line.rstrip() for line in text.lstrip("\n").splitlines()])
        if output is None:
            # Whatever it answers is for the reader's own server to say.
            shown = [line for line in shown if line.startswith(("ERROR:", "FATAL:"))]
        written += [f"=# {statement}", *(output or []), ""]
        happened += [f"=# {statement}", *shown, ""]
    difference = "\n".join(difflib.unified_diff(written, happened, name, "what happened", lineterm="", n=4))
    assert not difference and len(seen) == len(asked) + 1, difference or text
