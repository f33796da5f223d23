"""What comments name is there, and the lint that says so finds what is not."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import lint_names  # noqa: E402

def test_comments_name_what_is_there():
    assert lint_names.complaints() == []

@pytest.mark.parametrize("comment, complaint", [
    ("/// See `here`, `Here::there()`, [`there`], src/room/file.rs, room/file.rs, `room`, `file.rs` and `any words at all`.", None),
    ("/// See `gone`.", "there is no gone"),
    ("/// See [`here::gone`](here).", "there is no gone"),
    ("// See `gone.rs`.", "there is no gone"),
    ("let here = 1; // as `Gone::there()` does", "there is no Gone"),
    ("//! In src/room/gone.rs.", "there is no file src/room/gone.rs"),
    ("//! See gone.rs, and file.rs.", "there is no file gone.rs"),
])
def test_a_name_that_is_gone_is_found(tmp_path, comment, complaint):
    room = tmp_path / "src" / "room"
    room.mkdir(parents=True)
    (room / "file.rs").write_text(f"{comment}\nfn here() {{ Here::there() }}\n")
    found = lint_names.complaints(tmp_path)
    assert [line.split(": ")[-1] for line in found] == ([complaint] if complaint else [])
