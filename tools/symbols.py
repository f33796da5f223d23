#!/usr/bin/env python3
"""Compares every function of the server that src/ declares by hand with what each supported major has, and looks for those that it calls.

A library names such a symbol and is refused at load when the server exports none of that name (PostgreSQL 18 turned pqsignal into
a macro for pqsignal_be), and nothing checks that the declaration fits. So each is looked up in the bindings that pgrx has made
from each major's headers; what these leave out is in HEADERS below, as the headers of all majors declare it, and where a
major's headers and server are installed, both are asked too.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAJORS = (15, 16, 17, 18)

# Not in the bindings: as commands/async.h, commands/sequence.h, parser/parse_clause.h, parser/parse_param.h, storage/pmsignal.h,
# utils/elog.h and utils/timeout.h have them in every major.
HEADERS = """
void Async_Notify(const char *channel, const char *payload);
void ResetSequenceCaches(void);
int64 nextval_internal(Oid relid, bool check_permissions);
bool PostmasterIsAliveInternal(void);
bool errstart(int elevel, const char *domain);
void errfinish(const char *filename, int lineno, const char *funcname);
int errcode(int sqlerrcode);
int errmsg(const char *fmt, ...);
int errdetail(const char *fmt, ...);
int errhint(const char *fmt, ...);
int errcontext_msg(const char *fmt, ...);
TimeoutId RegisterTimeout(TimeoutId id, timeout_handler_proc handler);
void enable_timeout_after(TimeoutId id, int delay_ms);
void enable_timeout_at(TimeoutId id, TimestampTz fin_time);
void disable_timeout(TimeoutId id, bool keep_indicator);
void setup_parse_variable_parameters(ParseState *pstate, Oid **paramTypes, int *numParams);
Node *transformWhereClause(ParseState *pstate, Node *clause, ParseExprKind exprKind, const char *constructName);
"""

# What the types of declarations come to. A pointer to char, const or not, is one; so is a handler.
SAME = {
    "c_int": "i32", "int": "i32", "TimeoutId": "i32", "c_uint": "u32", "int32": "i32", "CommandId": "u32", "LOCKMODE": "i32",
    "LOCKMETHODID": "u16", "uint16": "u16", "TimestampTz": "i64", "int64": "i64", "XLogRecPtr": "u64", "uint64": "u64", "c_char": "char",
    "Snapshot": "*SnapshotData", "HeapTuple": "*HeapTupleData", "TupleDesc": "*TupleDescData", "Relation": "*RelationData",
    "ItemPointer": "*ItemPointerData", "MemoryContext": "*MemoryContextData", "IndexScanDesc": "*IndexScanDescData",
    "FunctionCallInfo": "*FunctionCallInfoBaseData", "ParamListInfo": "*ParamListInfoData", "BulkInsertState": "*BulkInsertStateData",
    "ScanDirection::Type": "ScanDirection", "ProcessUtilityContext::Type": "ProcessUtilityContext", "BackendState::Type": "BackendState",
    "ParseExprKind::Type": "ParseExprKind",
    "pqsigfunc": "handler", "timeout_handler_proc": "handler", "SIGNAL_ARGS": "i32",
}


def rust_type(text: str) -> str:
    text = " ".join(text.split())
    if "fn(" in text or "fn (" in text:
        return "handler"
    text = re.sub(r"(?:::)?(?:std::ffi::|core::ffi::|std::os::raw::|pg_sys::|pgrx::)", "", text)
    pointers = len(re.findall(r"\*(?:mut|const)\s*", text))
    return finished(re.sub(r"\*(?:mut|const)\s*", "", text), pointers)


def c_type(text: str) -> str:
    text = re.sub(r"\b(?:extern|const|struct|PGDLLEXPORT|pg_noreturn)\b", " ", text)
    return finished(" ".join(text.replace("*", " ").split()), text.count("*"))


def finished(name: str, pointers: int) -> str:
    while name in SAME:
        name = SAME[name]
        pointers += name.count("*")
        name = name.lstrip("*")
    return "*" * pointers + name


def split(arguments: str) -> list[str]:
    """At the commas of the outer level."""
    parts, depth = [""], 0
    for char in arguments:
        depth += (char in "(<") - (char in ")>")
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts if part.strip()]


def rust_signature(arguments: str, answer: str | None) -> tuple:
    types = ["..." if part == "..." else rust_type(part.split(":", 1)[1]) for part in split(arguments)]
    return tuple(types), rust_type(answer) if answer else "void"


def c_signature(declaration: str) -> tuple[str, tuple]:
    found = re.match(r"(.*?)(\w+)\s*\((.*)\)", " ".join(declaration.split()))
    types = []
    for part in split(found[3]):
        if part == "...":
            types.append(part)
        elif part != "void":
            # Without the argument's name.
            types.append(c_type(re.sub(r"\w+$", "", part) if re.search(r"[\s*]\w+$", part) else part))
    return found[2], (tuple(types), c_type(found[1]))


def holds(condition: str, major: int) -> bool:
    """Whether a #[cfg(…)] is met with the feature of this major."""
    python = re.sub(r'feature\s*=\s*"(\w+)"', lambda m: str(m[1] == f"pg{major}"), condition)
    python = re.sub(r"\bany\(", "some(", python)
    python = re.sub(r"\bnot\(", "no(", python)
    return bool(eval(python, {"some": lambda *a: any(a), "all": lambda *a: all(a), "no": lambda a: not a, "test": False}))


BLOCK = re.compile(r'^( *)(?:unsafe )?extern "C(?:-unwind)?" \{\n(.*?)^\1\}', re.M | re.S)
FUNCTION = re.compile(r"((?:^ *(?:#\[.*\]|//.*)\n)*)^ *(?:pub )?fn (\w+)\s*\(([^;]*?)\)\s*(?:->\s*([^;]+))?;", re.M)


def declared(major: int):
    """(file, symbol, signature) of each declaration that is compiled for a major."""
    for path in sorted((ROOT / "src").rglob("*.rs")):
        text = path.read_text()
        for block in BLOCK.finditer(text):
            # The attributes of what the block stands in, too: of the block, or of the function that it begins.
            before = text[: block.start()].splitlines()
            around, width = [], len(block[1])
            for line in reversed(before):
                indent = len(line) - len(line.lstrip())
                if line.strip() and (indent < width or (indent == width and line.lstrip().startswith("#["))):
                    around.append(line)
                    width = indent
                elif line.strip() and indent == width and not around:
                    break
            conditions = re.findall(r"#\[cfg\((.*)\)\]", "\n".join(around))
            for function in FUNCTION.finditer(block[2]):
                attributes, symbol, arguments, answer = function.groups()
                named = conditions + re.findall(r"#\[cfg\((.*)\)\]", attributes)
                if not all(holds(condition, major) for condition in named):
                    continue
                for condition, name in re.findall(r'#\[cfg_attr\((.*), link_name = "(\w+)"\)\]', attributes):
                    if holds(condition, major):
                        symbol = name
                symbol = (re.findall(r'#\[link_name = "(\w+)"\]', attributes) or [symbol])[0]
                yield path.relative_to(ROOT), symbol, rust_signature(arguments, answer)


def bindings(major: int) -> str:
    home = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"))
    version = re.search(r'pgrx = "=([\d.]+)"', (ROOT / "Cargo.toml").read_text())[1]
    files = list(home.glob(f"registry/src/*/pgrx-pg-sys-{version}/src/include/pg{major}.rs"))
    if not files:
        sys.exit(f"symbols: no bindings of PostgreSQL {major} below {home}: run cargo fetch")
    return files[0].read_text()


def place(major: int, installed: str, in_wheel: str) -> Path | None:
    """A file or folder of a server: this machine's, or one of those that tools/majors.sh has made."""
    trees = Path(subprocess.check_output([ROOT / "tools" / "majors.sh", "--folder"], text=True).strip()) / str(major)
    found = [Path("/") / installed, trees / installed, trees / "pgserver" / "pginstall" / in_wheel]
    return next((path for path in found if path.exists()), None)


def exported(major: int) -> set[str] | None:
    """The symbols of a server that is here."""
    server = place(major, f"usr/lib/postgresql/{major}/bin/postgres", "bin/postgres")
    if server is None:
        return None
    listed = subprocess.run(["nm", "-D", "--defined-only", server], capture_output=True, text=True, check=True).stdout
    return {line.split()[-1].split("@")[0] for line in listed.splitlines()}


def installed_headers(major: int) -> str | None:
    folder = place(major, f"usr/include/postgresql/{major}/server", "include/postgresql/server")
    names = ("commands/async.h", "commands/sequence.h", "parser/parse_clause.h", "parser/parse_param.h", "storage/pmsignal.h", "utils/elog.h", "utils/timeout.h")
    if folder is None:
        return None
    return re.sub(r"\s*pg_attribute_\w+(\(\d+, \d+\))?", "", "\n".join((folder / name).read_text() for name in names))


# Inline in the headers: pgrx compiles them into the library.
INLINE = {"ExecClearTuple", "ExecMaterializeSlot", "list_length", "list_nth"}
CALL = re.compile(r"\bpg_sys::(\w+)\s*\(")


def called(major: int, bound: str):
    """(file, symbol) of each function of the bindings that is called for every major. pgrx brings them for the newest release of a major, and
    servers of an older one, for which it makes its own, may have fewer."""
    bound_functions = set(re.findall(r"\bpub fn (\w+)\(", bound)) - INLINE
    for path in sorted((ROOT / "src").rglob("*.rs")):
        if path != ROOT / "src" / "pg" / "major.rs":
            for symbol in sorted(set(CALL.findall(path.read_text())) & bound_functions):
                yield path.relative_to(ROOT), symbol


def check(major: int) -> list[str]:
    bound, symbols, headers = bindings(major), exported(major), installed_headers(major)
    table = dict(c_signature(line) for line in HEADERS.strip().splitlines())
    wrong = []
    for path, symbol, signature in declared(major):
        where = f"{path}: {symbol} with PostgreSQL {major}"
        found = re.search(rf"pub fn {symbol}\(([^;]*?)\)\s*(?:->\s*([^;]+))?;", bound)
        if found:
            right = rust_signature(found[1], found[2])
        elif symbol in table:
            right = table[symbol]
            header = headers and re.search(rf"^extern[^;]*\b{symbol}\s*\([^;]*\)", headers, re.M)
            if headers and not header:
                wrong.append(f"{where}: the headers have none")
            elif header and c_signature(header[0])[1] != right:
                wrong.append(f"{where}: HEADERS says {right}, the header {c_signature(header[0])[1]}")
        else:
            wrong.append(f"{where}: the headers have none")
            continue
        # An answer may be left unread.
        if signature[0] != right[0] or signature[1] not in (right[1], "void"):
            wrong.append(f"{where}: declared {signature}, but it is {right}")
        if symbols is not None and symbol not in symbols:
            wrong.append(f"{where}: the server exports none")
    if symbols is not None:
        wrong += [f"{path}: {symbol} with PostgreSQL {major}: the server exports none" for path, symbol in called(major, bound) if symbol not in symbols]
    return wrong


def main() -> None:
    wrong = [line for major in MAJORS for line in check(major)]
    print("\n".join(wrong) or f"symbols: {len(set(s for _, s, _ in declared(15)))} declarations fit PostgreSQL {MAJORS[0]} to {MAJORS[-1]}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
