"""Builds the programs of rust_client/."""

import os
import shutil
import subprocess
from pathlib import Path

from harness.installation import REPOSITORY

CRATE, TARGET = REPOSITORY / "pg_test" / "rust_client", REPOSITORY / "target" / "rust_client"


def cargo() -> Path:
    """As tools/cargo.sh finds it."""
    home = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo")
    return Path(shutil.which("cargo") or home / "bin" / "cargo")


def build(program: str) -> Path:
    """Builds one of the crate's programs; answers where it is."""
    done = subprocess.run(
        [cargo(), "build", "--quiet", "--locked", "--manifest-path", CRATE / "Cargo.toml", "--bin", program],
        # rustc and the like are beside it.
        env=os.environ | {"PATH": f"{os.environ['PATH']}:{cargo().parent}", "CARGO_TARGET_DIR": str(TARGET)},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return TARGET / "debug" / program
