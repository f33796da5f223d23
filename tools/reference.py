#!/usr/bin/env python3
"""docs/reference.md: every function, procedure, type and view of schema pushy, as the server tells of them. Change a COMMENT in sql/, then:

    tools/build.sh dev; tools/reference.py           writes the page anew (test_docs.py compares it)
"""

import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reference.md"
WIDTH = 100

HEAD = """# Functions and views

Written by `tools/reference.py` from what `\\df+ pushy.*` and `\\d+ pushy.*` show in a database with the extension: change the COMMENTs in `sql/`.

All of it is in schema `pushy`; what is in `pushy_internal` is Pushy's own, and may change with any version. Arguments behind the first one or two are passed by name. Who may call what: [security](security.md#who-may-do-what).
"""
# A function belongs to the first subject whose beginning its name has.
SUBJECTS = {
    "Queues": ("queue_", "has_queue_privilege", "resume_after_restore"),
    "Jobs": ("enqueue", "job_", "jobs_", "current_job", "claim"),
    "Watches": ("watch", "unwatch", "notice"),
    "Channels": ("channel_", "notify"),
    "The event log": ("subscription_", "log_"),
    "Else": ("",),
}
FUNCTIONS = """
    SELECT p.proname::text, pg_get_function_arguments(p.oid), CASE p.prokind WHEN 'p' THEN NULL ELSE pg_get_function_result(p.oid) END,
           obj_description(p.oid, 'pg_proc')
      FROM pg_proc p
     WHERE p.pronamespace = 'pushy'::regnamespace
     ORDER BY p.proname, p.oid"""
COLUMNS = """
    SELECT c.relname::text, obj_description(c.oid, 'pg_class'), a.attname::text, format_type(a.atttypid, a.atttypmod), col_description(c.oid, a.attnum)
      FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
     WHERE c.relnamespace = 'pushy'::regnamespace AND c.relkind = %s
     ORDER BY c.relname, a.attnum"""
TYPES = """
    SELECT t.typname::text, obj_description(t.oid, 'pg_type') FROM pg_type t
     WHERE t.typnamespace = 'pushy'::regnamespace AND t.typtype = 'c'"""


def page(db) -> str:
    """The page, as the server of this database has it."""
    lines = [HEAD]
    by_subject: dict[str, list] = {subject: [] for subject in SUBJECTS}
    for row in db.rows(FUNCTIONS):
        subject = next(subject for subject, beginnings in SUBJECTS.items() if row[0].startswith(beginnings))
        by_subject[subject].append(row)
    for subject, functions in by_subject.items():
        if functions:
            lines.append(f"## {subject}\n")
        before = None
        for name, arguments, result, comment in functions:
            heading = f"### {name}\n\n" if name != before else ""
            lines.append(f"{heading}```text\n{signature(name, arguments, result)}\n```\n\n{escaped(comment)}\n")
            before = name
    lines.append("## Views\n")
    for name, (comment, columns) in grouped(db.rows(COLUMNS, "v")).items():
        lines.append(f"### {name}\n\n{escaped(comment)}\n\n| column | type | |\n| --- | --- | --- |")
        lines += [f"| `{column}` | {short(type)} | {escaped(said).replace('|', chr(92) + '|')} |" for column, type, said in columns]
        lines.append("")
    said = dict(db.rows(TYPES))
    composites = {name: columns for name, (_, columns) in grouped(db.rows(COLUMNS, "c")).items()}
    if composites:
        lines.append("## Types\n")
    for name, columns in composites.items():
        members = [f"{column} {short(type)}" for column, type, _ in columns]
        lines.append(f"### {name}\n\n```text\n{wrapped(f'{name}(', members, ')')}\n```\n\n{escaped(said[name])}\n")
    return "\n".join(lines).rstrip("\n") + "\n"


def grouped(rows: list[tuple]) -> dict[str, tuple[str, list]]:
    found: dict[str, tuple[str, list]] = {}
    for name, comment, *column in rows:
        found.setdefault(name, (comment or "", []))[1].append(column)
    return found


def short(text: str) -> str:
    text = text.replace("timestamp with time zone", "timestamptz").replace("double precision", "float8").replace("character varying", "varchar")
    return re.sub(r"::[a-z0-9_. ]+(\[\])?", "", text)


def signature(name: str, arguments: str, result: str | None) -> str:
    # What it answers row by row, or as one row, is said once.
    inside = [part for part in re.split(r", (?=(?:IN |OUT |INOUT |VARIADIC )?\w+ )", arguments) if part]
    out = [part.removeprefix("OUT ") for part in inside if part.startswith("OUT ")]
    taken = [part.removeprefix("IN ") for part in inside if not part.startswith("OUT ")]
    answer = ")" if result is None else f") → {short(result)}"
    call = wrapped(f"{'CALL ' if result is None else ''}{name}(", [short(one) for one in taken], ")" if out else answer)
    if out:
        rows = "rows of (" if (result or "").startswith("SETOF") else "("
        call += wrapped(f" → {rows}", [short(one) for one in out], ")") if len(call) < 60 else \
            "\n" + wrapped(f"    → {rows}", [short(one) for one in out], ")")
    return call


def wrapped(head: str, members: list[str], tail: str) -> str:
    """A list that breaks between two members only."""
    lines = [head]
    for number, member in enumerate(members):
        member += "," if number < len(members) - 1 else tail
        if len(lines[-1]) + len(member) > WIDTH and lines[-1] != head:
            lines.append("    ")
        lines[-1] += ("" if lines[-1].endswith(("(", " ")) else " ") + member
    return "\n".join(lines) if members else head + tail


def escaped(text: str | None) -> str:
    return (text or "").replace("<", "&lt;")


def main() -> None:
    sys.path.insert(0, str(ROOT / "pg_test"))
    from harness.cluster import Cluster
    from harness.installation import Installation
    with tempfile.TemporaryDirectory(prefix="pushy-reference-") as folder:
        top = Path(folder)
        top.chmod(0o755)
        cluster = Cluster(top / "s", Installation.of_build(top / "pg", "dev")).create().start()
        try:
            PAGE.write_text(page(cluster.database("reference")))
        finally:
            cluster.remove()
    print(PAGE.relative_to(ROOT))


if __name__ == "__main__":
    main()
