"""No loop of a worker is deaf: the lint over src/, and the lint itself on planted loops."""

import importlib.util

import pytest

from harness.installation import REPOSITORY

TOOL = REPOSITORY / "tools" / "lint_loops.py"
spec = importlib.util.spec_from_file_location("lint_loops", TOOL)
lint = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lint)


def test_every_loop_of_a_worker_looks_at_interrupts_or_ends():
    assert lint.main() == 0


@pytest.mark.parametrize("text, lines", [
    ("fn f() {\n    loop {\n        work();\n    }\n    interrupts::check();\n}", [2]),
    ("fn f() {\n    loop {\n        // interrupts::check();\n        work();\n    }\n}", [2]),
    ("fn f() {\n    while a() {\n        work();\n    }\n}", [2]),
    ("fn f() {\n    while let Some(x) = a() {\n        if x {\n            continue;\n        }\n    }\n}", [2]),
    ("fn f() {\n    loop {\n        interrupts::check();\n    }\n}", []),
    ("fn f() {\n    loop {\n        latch::wait(None);\n    }\n}", []),
    ("fn f() {\n    // Bounded: ten digits at most.\n    loop {\n        work();\n    }\n}", []),
])
def test_the_lint_finds_planted_loops(text, lines):
    assert lint.endless(text) == lines


def test_who_counts_idle_rounds_waits_by_them():
    """A wait of which the count does not know would be taken for a round without one, and a fault of Pushy's would be said that is none."""
    counting = [file for folder in lint.FOLDERS for file in (REPOSITORY / folder).rglob("*.rs") if "IdleRounds::default()" in file.read_text()]
    assert {file.name for file in counting} == {"executor.rs", "worker.rs"}
    fixed = [(file.name, line) for file in counting for line in file.read_text().splitlines() if "latch::wait(Some(Duration::" in line]
    assert fixed == []
