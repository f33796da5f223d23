"""The tour of README.md: its SQL is run in one psql session, in order, and its output compared."""

import difflib
import re

from harness.installation import REPOSITORY

PROMPT = re.compile(r"^tour[=$-][*!]?# ?")
MARKER = "-- end of statement --"


def tour() -> list[tuple[str, list[str]]]:
    """The statements of the blocks tagged `console`, each with the output that the README shows."""
    text = (REPOSITORY / "README.md").read_text()
    steps: list[tuple[str, list[str]]] = []
    for block in re.findall(r"^```console\n(.*?)^```$", text, re.M | re.S):
        for line in block.splitlines():
            prompt = PROMPT.match(line)
            if prompt is None:
                steps[-1][1].append(line.rstrip())
            elif line.startswith("tour="):
                steps.append((line[prompt.end():], []))
            else:
                statement, output = steps[-1]
                steps[-1] = (f"{statement}\n{line[prompt.end():]}", output)
    return [(statement, _trim(output)) for statement, output in steps]


def _trim(lines: list[str]) -> list[str]:
    while lines and not lines[-1]:
        lines.pop()
    return lines


def test_the_tour_shows_what_happens(db):
    steps = tour()
    assert len(steps) > 20, "the tour is not where the test looks for it"
    script = "".join(f"{statement}\n\\echo {MARKER}\n" for statement, _ in steps)
    seen = db.cluster.psql(db.name, script, "-v", "ON_ERROR_STOP=0", check=False).split(MARKER)
    written, happened = [], []
    for (statement, output), lines in zip(steps, seen, strict=False):
        written += [f"tour=# {statement}", *output, ""]
        happened += [f"tour=# {statement}", *_trim([line.rstrip() for line in lines.lstrip("\n").splitlines()]), ""]
    difference = "\n".join(difflib.unified_diff(written, happened, "README.md", "what happened", lineterm="", n=4))
    assert not difference, difference
