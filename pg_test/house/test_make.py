"""The Makefile: what it lists it does."""

import os
import re
import subprocess

import pytest

from harness.installation import REPOSITORY

TEXT = (REPOSITORY / "Makefile").read_text()
TARGETS = re.search(r"^\.PHONY: (.*)$", TEXT, re.M)[1].split()


def make(*arguments: str) -> str:
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.check_output(["make", *arguments], cwd=REPOSITORY, env=outside, text=True)


def test_help_names_every_target():
    assert sorted(re.findall(r"^  make (\S+)", make("help"), re.M)) == sorted(TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_has_commands_of_its_own(target):
    """`make lint` once lost its line and checked nothing, and nobody was told."""
    assumed_done = [] if target == "setup" else ["--old-file=setup"]
    wanted = make("--dry-run", *assumed_done, target)
    assert wanted.strip() and "Nothing to be done" not in wanted
