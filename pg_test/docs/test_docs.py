"""What the pages name is there (tools/lint_docs.py), settings and functions are those of the server, and each line of the two lists has a
test, or says why not."""

import html
import re
import sys
from pathlib import Path

import pytest

from harness.installation import REPOSITORY as ROOT

sys.path[:0] = [str(ROOT), str(ROOT / "tools")]
import book  # noqa: E402
import lint_docs  # noqa: E402
import reference  # noqa: E402
from bench import pages as bench_pages  # noqa: E402
from bench.figures import Figures  # noqa: E402

PAGES = lint_docs.pages(ROOT)
LISTS = [ROOT / "docs" / "security.md", ROOT / "docs" / "reliability.md"]
EXCUSES = ("Not built yet", "Cannot be tested")

def rows(page: Path) -> list[list[str]]:
    """Of the list of what could happen: the first table is another."""
    text = page.read_text().split("| what could happen |", 1)[1]
    return [[cell.strip() for cell in line.strip().strip("|").split(" | ")] for line in text.splitlines()[2:] if line.startswith("|")]


@pytest.mark.parametrize("page", LISTS, ids=lambda page: page.name)
def test_each_line_has_a_test_or_says_why_not(page):
    found = rows(page)
    assert len(found) > 20
    for row in found:
        assert len(row) == 4 and all(row), row
        assert "`test_" in row[2] or row[2].startswith(EXCUSES), row


def test_the_pages_name_what_there_is():
    assert lint_docs.complaints() == []


@pytest.mark.parametrize("text, complaint", [
    ("[a](nowhere.md)", "link to nowhere.md, which is not there"),
    ("[a](#no-such-heading)", "link to #no-such-heading, and page.md has no such heading"),
    ("`src/no_such.rs`", "src/no_such.rs, which is not there"),
    ("`src/no_such.rs::init`", "src/no_such.rs, which is not there"),
    ("`src/settings.rs::no_such`", "src/settings.rs::no_such, which is not there"),
    ("`test_no_such.py`", "test_no_such.py, which is not there"),
    ("`test_enqueue.py::test_no_such`", "test_enqueue.py::test_no_such, which is not there"),
    ("```mermaid\n```", "a block tagged mermaid, of which nobody knows how to try it"),
])
def test_the_lint_of_pages_sees_what_is_wrong(text, complaint, tmp_path):
    (tmp_path / "docs").mkdir()
    for name in ("src", "pg_test"):
        (tmp_path / name).symlink_to(ROOT / name)
    page = tmp_path / "docs" / "page.md"
    page.write_text(f"# Page\n\n{text}\n\n[well](#page) `src/lib.rs` `src/settings.rs::init` `test_enqueue.py`\n")
    assert lint_docs.links(page, tmp_path) + lint_docs.names(page, tmp_path) + lint_docs.fences(page) == [complaint]


def test_each_of_the_six_questions_is_answered_with_a_place_in_the_sources():
    page = (ROOT / "docs" / "contributing.md").read_text()
    answers = re.findall(r"^\| [^|]+\? \| (.+) \|$", page.split("## Six questions", 1)[1].split("\n## ", 1)[0], re.M)
    assert len(answers) == 6
    assert all(lint_docs.DECLARED.search(answer) for answer in answers), answers


def test_a_page_that_nobody_lists_is_seen(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "page.md").write_text("# Page\n")
    (tmp_path / "docs" / "SUMMARY.md").write_text("# Summary\n")
    assert lint_docs.listed(tmp_path) == ["docs/page.md is not listed"]


def test_the_site_has_the_readme_and_every_page():
    listed = re.findall(r"\]\(([^)]+)\)", book.summary())
    assert "README.md" in listed and "docs/coming-from/README.md" in listed
    assert {Path(page) for page in listed} <= book.content()


def test_the_tables_of_figures_are_of_what_is_kept():
    figures = Figures(ROOT / "bench" / "results.json")
    for page in bench_pages.PAGES:
        assert bench_pages.filled(page.read_text(), figures) == page.read_text(), f"python -m bench.pages writes {page.name} anew"


def test_the_reference_is_what_the_server_says(db):
    assert reference.PAGE.read_text() == reference.page(db), "tools/reference.py writes it anew"


def test_each_model_has_as_many_broken_variants_as_the_page_says():
    models = re.findall(r"\| `((?:core|gateway)/tests/\w+)` \| .* \| (\d+) \|", (ROOT / "docs" / "reliability.md").read_text())
    assert {name for name, _ in models} == {f"{crate}/tests/{path.name}" for crate in ("core", "gateway") for path in (ROOT / crate / "tests").glob("*_model")}
    for name, count in models:
        source = (ROOT / name / "main.rs").read_text()
        listed = re.search(r"const FAULTS: \[Fault; (\d+)\]", source)
        faults = int(listed[1]) if listed else len(set(re.findall(r"Fault::(\w+)", source)) - {"None"})
        assert faults == int(count), name


SETTINGS = ROOT / "docs" / "settings.md"


def test_the_page_has_each_setting_and_no_other():
    table = SETTINGS.read_text()
    assert set(re.findall(r"^\| `(pushy\.\w+)` \|", table, re.M)) == set(re.findall(r'c"(pushy\.\w+)"', (ROOT / "src" / "settings.rs").read_text()))


def test_the_page_has_the_defaults_that_a_server_has(db):
    text = SETTINGS.read_text()
    said = dict(re.findall(r"^\| `(pushy\.\w+)` \| (`[^`]*`|empty) \|", text, re.M))
    units = {"ms": 1, "s": 1, "min": 60, "h": 3600, "kB": 1, "MB": 1024, "GB": 1 << 20}
    for name, boot, unit in db.rows("SELECT name, boot_val, unit FROM pg_settings WHERE name LIKE 'pushy.%'"):
        value, *of = said[name].strip("`").split()
        expected = int(value) * units[of[0]] // units[unit] if of else value
        assert str(expected) == (boot or "empty"), name


def test_the_pages_name_the_functions_that_there_are(db):
    there = {name for name, in db.rows("SELECT proname::text FROM pg_proc WHERE pronamespace = 'pushy'::regnamespace "
                                       "UNION SELECT relname::text FROM pg_class WHERE relnamespace = 'pushy'::regnamespace "
                                       "UNION SELECT typname::text FROM pg_type WHERE typnamespace = 'pushy'::regnamespace "
                                       "UNION SELECT split_part(name, '.', 2) FROM pg_settings WHERE name LIKE 'pushy.%'")}
    for page in PAGES:
        named = set(re.findall(r"\bpushy\.([a-z_]+)\b", page.read_text())) - {"control", "so"}
        assert named - there == set(), page.name


def test_the_changelog_names_every_function_of_the_public(db):
    text = (ROOT / "CHANGELOG.md").read_text()
    public = {name for name, in db.rows("SELECT proname::text FROM pg_proc WHERE pronamespace = 'pushy'::regnamespace "
                                        "AND prorettype <> 'trigger'::regtype")}
    assert {name for name in public if f"`{name}`" not in text} == set()


def test_what_the_page_on_faults_quotes_is_what_the_code_says():
    files = [*(ROOT / "src").rglob("*.rs"), *(ROOT / "sql").glob("*.sql")]
    said = re.sub(r"\\\n\s*", "", "".join(path.read_text() for path in files)).replace('\\"', '"')
    quoted = [text for text in re.findall(r"`([^`]+)`", (ROOT / "docs" / "what-happens-when.md").read_text())
              if len(text.split()) > 3 and not re.match("[A-Z]{3}", text)]
    assert len(quoted) > 8
    for text in quoted:
        # Between the names and numbers of the example.
        parts = [part.strip(" ;,") for part in re.split(r'"[^"]*"|\d[\d.]*|\S+\.\S+|\bappl\b|: ?', text)]
        assert [part for part in parts if len(part) > 9 and part not in said] == [], text


def test_the_picture_of_the_demo_shows_what_the_demo_does():
    shown = {html.unescape(line).strip().removeprefix("shop=# ") for line in re.findall(r">([^<]*)</text>", (ROOT / "docs" / "demo.svg").read_text())}
    asked = re.findall(r"^SELECT pushy\..*?;$", (ROOT / "demo" / "rollup.sql").read_text(), re.M | re.S)
    assert len(asked) > 2
    missing = [line for statement in asked for line in statement.splitlines() if line.strip() not in shown]
    assert missing == [], "tools/demo_picture.py draws it anew"


def cells(page: str, head: str) -> list[list[str]]:
    lines = (ROOT / "docs" / page).read_text().split(f"| {head} |", 1)[1].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip().replace("`", "") for cell in line.split("|")[1:-1]] for line in lines]


def test_the_options_of_a_queue_are_those_of_the_function_with_its_defaults():
    declared = (ROOT / "sql" / "queues.sql").read_text().split("handler text DEFAULT NULL,", 1)[1].split(")\nRETURNS", 1)[0]
    defaults = {name: value.strip("'") for name, value in re.findall(r"^ +(\w+) \w+ DEFAULT (.+?),?$", declared, re.M)}
    shown = {name: default for name, default, _ in cells("queues.md", "argument | default")}
    assert shown.keys() == defaults.keys()
    for name in defaults.keys() - {"run_as", "concurrency"}:
        assert shown[name] == defaults[name], name


def test_the_events_of_the_control_channel_are_all_of_them():
    source = (ROOT / "src" / "queue" / "control_channel.rs").read_text().split("pub enum ControlEvent {", 1)[1].split("\n}", 1)[0]
    events = {word.lower() for word in re.findall(r"^ +(\w+),$", source, re.M)}
    events |= set(re.findall(r'\\"event\\":\\"(\w+)', (ROOT / "src" / "relay" / "emit.rs").read_text()))
    shown = {event for first, *_ in cells("control-channel.md", "`event` | when") for event in first.split(", ")}
    assert shown == events and "resync" in events


def test_the_pages_say_the_times_of_backoffs_that_the_code_has():
    """As messages of the server say them: core/src/backoff.rs."""
    source = (ROOT / "core" / "src" / "backoff.rs").read_text()
    declared = re.findall(r"pub const (\w+): ServerBackoff = ServerBackoff::of\(([\d_]+), ([\d_]+)\);", source)
    times = {name: tuple(int(us) / 1e6 for us in (first, most)) for name, first, most in declared}
    assert {"EXECUTOR", "SCHEDULER", "RELAY", "NOTIFY", "START"} == set(times)
    words = {name: f"{first:g} to {most:.0f} s" for name, (first, most) in times.items()}
    said = [(page.name, before, span) for page in sorted((ROOT / "docs").rglob("*.md"))
            for before, span in re.findall(r"(.{40})\b(\d+(?:\.\d+)? to \d+ s)(?:econds)?\b", page.read_text(), re.S)]
    waiting = [page for page, before, span in said if re.search(r"[Qq]ueues? waits? $", before) and span == words["EXECUTOR"]]
    assert waiting == ["jobs.md", "reliability.md", "what-happens-when.md"]
    assert {span for _, _, span in said} <= set(words.values()), said
