#!/usr/bin/env python3
"""What a comment names is there: a word in backticks is a name in the code, a file or a folder, or one of the names from outside below; and a
path in a comment is a file's. A name that was changed in the code and not in a comment sends its reader to nothing."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("src", "core", "gateway", "sql", "bench", "demo", "tools", "pg_test")
# Of the server, the languages and their libraries.
FROM_OUTSIDE = set("""
    LocalKey Math fround PGPROC_MAX_CACHED_SUBXIDS pg_current_xact_id str_udeescape parser com
""".split())

NAME = re.compile(r"\[?([\w:./]+?)(\(\))?\]?")
WORD = re.compile(r"[A-Za-z_]\w*")
QUOTED = re.compile(r"`([^`]+)`")
# With a folder: a bare name may be a file of the server, but for one of Rust.
PATH = re.compile(r"(?<![\w/.~<-])((?:[\w.]+/)+[\w.]+\.(?:rs|sql|py|md|sh|toml))\b")
BARE = re.compile(r"(?<![\w/.])\w+\.rs\b")
# Of another repository, which the comment names.
FILES_FROM_OUTSIDE = {"benches/perf_test.rs"}
OF_PYTHON = re.compile(r'"""(?:.|\n)*?"""|(?:^|\s)#.*')
COMMENT = {".rs": re.compile(r"//[/!]?(.*)"), ".sql": re.compile(r"--(.*)"), ".sh": re.compile(r"(?:^|\s)#(.*)")}

def files(root: Path, *suffixes: str) -> list[Path]:
    found = (path for folder in FOLDERS for path in sorted((root / folder).rglob("*")))
    return [path for path in found if path.suffix in suffixes and not {"target", "node_modules"} & set(path.parts)]

def names_of_code(root: Path) -> set[str]:
    """All words of code, and the names of files and folders."""
    words = set()
    for path in files(root, ".rs", ".sql", ".sh", ".py", ".toml"):
        if path == Path(__file__):
            continue
        comment = OF_PYTHON if path.suffix == ".py" else COMMENT.get(path.suffix)
        text = path.read_text(errors="replace")
        words |= set(WORD.findall(comment.sub("", text) if comment else text))
        words |= {part.split(".")[0] for part in path.relative_to(root).parts}
    return words

def complaints(root: Path = ROOT) -> list[str]:
    known = names_of_code(root) | FROM_OUTSIDE
    sources = {path.name for path in files(root, ".rs")}
    found = []
    for path in files(root, *COMMENT):
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            comment = COMMENT[path.suffix].search(line)
            if comment is None:
                continue
            where = f"{path.relative_to(root)}:{number}"
            for quoted in QUOTED.findall(comment[1]):
                name = NAME.fullmatch(quoted)
                missing = [word for word in WORD.findall(name[1]) if word not in known and word not in COMMENT and word != "rs"] if name else []
                found += [f"{where}: `{quoted}`: there is no {word}" for word in missing]
            for named in PATH.findall(comment[1]):
                if named not in FILES_FROM_OUTSIDE and not any((place / named).exists() for place in (root, root / "src", root / "core", root / "core/src", root / "pg_test", path.parent)):
                    found.append(f"{where}: there is no file {named}")
            # Those in backticks were looked at as names.
            found += [f"{where}: there is no file {named}" for named in BARE.findall(QUOTED.sub("", comment[1])) if named not in sources]
    return found

if __name__ == "__main__":
    found = complaints()
    print("\n".join(found))
    sys.exit(bool(found))
