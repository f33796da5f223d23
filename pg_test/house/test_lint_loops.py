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
