"""What the pages name is there: tests, files, headings, settings. And each line of the two lists has a test, or says why not."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "pg_test" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LISTS = [ROOT / "docs" / "security.md", ROOT / "docs" / "reliability.md"]
EXCUSES = ("Not built yet", "Cannot be tested")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def named_in(file: str) -> set[str]:
    return {node.name for node in ast.parse((ROOT / "pg_test" / file).read_text()).body
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


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


@pages
def test_each_test_that_is_named_is_there(page):
    for file, name in re.findall(r"\b(test_\w+\.py)(?:::(\w+))?", page.read_text()):
        assert (ROOT / "pg_test" / file).exists(), file
        assert not name or name in named_in(file), f"{file}::{name}"


@pages
def test_each_file_that_is_named_is_there(page):
    text = page.read_text()
    for name in re.findall(r"`((?:src|core|docs|tools|bench|sql|pg_test)/[\w./-]+)`", text):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"`((?:harness|torture)/[\w./-]*)`", text):
        assert (ROOT / "pg_test" / name).exists(), name
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / target).exists(), target


@pages
def test_each_heading_that_is_linked_is_there(page):
    for file, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text()):
        target = page.parent / file if file else page
        headings = re.findall(r"^#+ (.+)$", target.read_text(), re.M)
        assert anchor in [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings], anchor


def test_each_model_has_as_many_broken_variants_as_the_page_says():
    models = re.findall(r"\| `core/tests/(\w+)` \| .* \| (\d+) \|", (ROOT / "docs" / "reliability.md").read_text())
    assert {name for name, _ in models} == {path.name for path in (ROOT / "core" / "tests").glob("*_model")}
    for name, count in models:
        source = (ROOT / "core" / "tests" / name / "main.rs").read_text()
        listed = re.search(r"const FAULTS: \[Fault; (\d+)\]", source)
        faults = int(listed[1]) if listed else len(set(re.findall(r"Fault::(\w+)", source)) - {"None"})
        assert faults == int(count), name


def test_the_readme_has_each_setting_and_no_other():
    text = (ROOT / "README.md").read_text()
    table = text.split("## Settings", 1)[1].split("\n## ", 1)[0]
    assert set(re.findall(r"^\| `(pushy\.\w+)` \|", table, re.M)) == set(re.findall(r'c"(pushy\.\w+)"', (ROOT / "src" / "settings.rs").read_text()))


def test_the_readme_has_the_defaults_that_a_server_has(db):
    text = (ROOT / "README.md").read_text().split("## Settings", 1)[1]
    said = dict(re.findall(r"^\| `(pushy\.\w+)` \| `([^`]*)` \|", text, re.M))
    units = {"ms": 1, "s": 1, "min": 60, "h": 3600, "kB": 1, "MB": 1024}
    for name, boot, unit in db.rows("SELECT name, boot_val, unit FROM pg_settings WHERE name LIKE 'pushy.%'"):
        value, *of = said[name].split()
        expected = int(value) * units[of[0]] // units[unit] if of else value
        assert str(expected) == boot, name


def test_the_readme_names_the_functions_that_there_are(db):
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
                                        "AND obj_description(oid, 'pg_proc') !~ '^Internal|[Bb]ehind|the filter of' "
                                        "AND has_function_privilege('pg_monitor', oid, 'EXECUTE')")}
    assert {name for name in public if f"`{name}`" not in text} == set()


def cells(page: str, head: str) -> list[list[str]]:
    lines = (ROOT / "docs" / page).read_text().split(f"| {head} |", 1)[1].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip().replace("`", "") for cell in line.split("|")[1:-1]] for line in lines]


def test_the_options_of_a_queue_are_those_of_the_function_with_its_defaults():
    declared = (ROOT / "sql" / "queues.sql").read_text().split("handler text,", 1)[1].split(")\nRETURNS", 1)[0]
    defaults = {name: value.strip("'") for name, value in re.findall(r"^ +(\w+) \w+ DEFAULT (.+?),?$", declared, re.M)}
    shown = {name: default for name, default, _ in cells("queues.md", "argument | default")}
    assert shown.keys() == defaults.keys()
    for name in defaults.keys() - {"run_as", "concurrency"}:
        assert shown[name] == defaults[name], name


def test_the_events_of_the_control_channel_are_all_of_them():
    source = (ROOT / "src" / "queue" / "control.rs").read_text().split("pub enum Event {", 1)[1].split("\n}", 1)[0]
    events = {word.lower() for word in re.findall(r"^ +(\w+),$", source, re.M)}
    events |= set(re.findall(r'\\"event\\":\\"(\w+)', (ROOT / "src" / "relay" / "emit.rs").read_text()))
    shown = {event for first, *_ in cells("control-channel.md", "`event` | when") for event in first.split(", ")}
    assert shown == events and "resync" in events
