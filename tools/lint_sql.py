"""Every SQL text of Pushy's own names what it means with its schema: functions, operators, types, relations, collations, and
operators that have no place for one (CASE x WHEN, NULLIF, IN, BETWEEN, IS DISTINCT FROM, LIKE, USING), which are not written.

The search path is pinned where these texts run (src/pg/sql/search_path.rs), and installed under that of CREATE EXTENSION; this
is the second lock. It reads sql/*.sql, with the bodies of DO and what they EXECUTE, and the statements in src/**/*.rs.

    tools/lint_sql.py            complaints about this tree; exit status 1 where there are any
"""

import json
import re
import sys
from pathlib import Path
from typing import Iterator

import pglast

ROOT = Path(__file__).resolve().parents[1]
VERBS = r"(?:SELECT|INSERT INTO|UPDATE|DELETE FROM|WITH|TRUNCATE|CREATE (?:TABLE|TRIGGER|INDEX|FUNCTION|VIEW)|ALTER TABLE|COMMENT ON|LOCK|MERGE|COPY|CALL)\b"
IMPLICIT = {
    "AEXPR_DISTINCT": "IS DISTINCT FROM", "AEXPR_NOT_DISTINCT": "IS NOT DISTINCT FROM", "AEXPR_NULLIF": "NULLIF", "AEXPR_IN": "IN",
    "AEXPR_LIKE": "LIKE", "AEXPR_ILIKE": "ILIKE", "AEXPR_SIMILAR": "SIMILAR TO", "AEXPR_BETWEEN": "BETWEEN",
    "AEXPR_NOT_BETWEEN": "NOT BETWEEN", "AEXPR_BETWEEN_SYM": "BETWEEN SYMMETRIC", "AEXPR_NOT_BETWEEN_SYM": "NOT BETWEEN SYMMETRIC",
}
# Names by which a table, a function or a view is made or meant, beside those of expressions.
NAMED = {"CreateFunctionStmt": "funcname", "CreateTrigStmt": "funcname", "ObjectWithArgs": "objname", "CreateOpClassItem": "name",
         "CollateClause": "collname", "IndexElem": "opclass"}
# Their types may stand bare: under CREATE EXTENSION pg_catalog is searched first, and nobody else writes into Pushy's schemas.
DECLARATIONS = ("ColumnDef", "FunctionParameter", "CreateFunctionStmt", "CompositeTypeStmt", "ObjectWithArgs", "CreateSeqStmt")
OURS = ("pg_catalog.", "pushy.", "pushy_internal.")


# -- what is wrong with a statement ------------------------------------------------------------------------------------

def complaints(sql: str) -> list[str]:
    """What a text of SQL names without a schema; each once, in order."""
    try:
        tree = json.loads(pglast.parser.parse_sql_json(sql))
    except pglast.parser.ParseError as error:
        return [f"cannot be parsed: {error.args[0]}"]
    ctes = {node["ctename"] for kind, node in nodes(tree) if kind == "CommonTableExpr"}
    found = list(_walk(tree, ctes, False))
    return list(dict.fromkeys(found))


def nodes(tree) -> Iterator[tuple[str, dict]]:
    """Every node of a parse tree with its kind."""
    if isinstance(tree, dict):
        for kind, inner in tree.items():
            if kind[:1].isupper() and isinstance(inner, dict):
                yield kind, inner
            yield from nodes(inner)
    elif isinstance(tree, list):
        for inner in tree:
            yield from nodes(inner)


def _names(parts) -> list[str]:
    return [part["String"].get("sval", "") for part in parts or [] if "String" in part]


def _walk(tree, ctes: set[str], declares: bool) -> Iterator[str]:
    if isinstance(tree, list):
        for inner in tree:
            yield from _walk(inner, ctes, declares)
        return
    if not isinstance(tree, dict):
        return
    for kind, inner in tree.items():
        # Some members have a node of one kind only, and no name for it.
        if kind in ("relation", "view", "sequence") and isinstance(inner, dict) and "relname" in inner:
            yield from _of_node("RangeVar", inner, ctes, declares)
        if kind in ("typeName", "returnType") and isinstance(inner, dict) and "names" in inner:
            yield from _of_node("TypeName", inner, ctes, declares)
        if kind == "lockingClause":
            # Names aliases.
            continue
        if isinstance(inner, dict) and kind[:1].isupper():
            yield from _of_node(kind, inner, ctes, declares)
        expression = kind in ("raw_expr", "defexpr", "raw_default")
        yield from _walk(inner, ctes, (declares or kind in DECLARATIONS) and not expression)


def _of_node(kind: str, node: dict, ctes: set[str], declares: bool) -> Iterator[str]:
    if kind == "FuncCall":
        name = _names(node["funcname"])
        if len(name) < 2:
            yield f"function {name[0]}"
        if name[-1] in ("nextval", "currval", "setval", "pg_extension_config_dump"):
            yield from _literal_name(node["args"][0])
    elif kind == "A_Expr":
        if implicit := IMPLICIT.get(node["kind"]):
            yield f"operator of {implicit}"
        elif len(_names(node["name"])) < 2:
            yield f"operator {_names(node['name'])[0]}"
    elif kind == "CaseExpr" and "arg" in node:
        yield "operator of CASE x WHEN"
    elif kind == "SubLink" and node.get("subLinkType") in ("ANY_SUBLINK", "ALL_SUBLINK", "ROWCOMPARE_SUBLINK"):
        name = _names(node.get("operName"))
        if len(name) < 2:
            yield f"operator {name[0]}" if name else "operator of IN (SELECT …)"
    elif kind == "SortBy" and node.get("sortby_dir") == "SORTBY_USING" and len(_names(node["useOp"])) < 2:
        yield f"operator {_names(node['useOp'])[0]} of ORDER BY … USING"
    elif kind == "JoinExpr" and (node.get("isNatural") or "usingClause" in node):
        yield "operator of JOIN … USING"
    elif kind == "RangeVar":
        if "schemaname" not in node and node["relname"] not in ctes:
            yield f"relation {node['relname']}"
    elif kind == "TypeName":
        name = _names(node.get("names"))
        if len(name) == 1 and not declares:
            yield f"type {name[0]}"
    elif kind == "TypeCast":
        if _names(node["typeName"].get("names"))[-1:] and _names(node["typeName"]["names"])[-1] in ("regclass", "regprocedure", "regproc", "regtype"):
            yield from _literal_name(node["arg"])
    elif kind == "A_Const" and "\\" in node.get("sval", {}).get("sval", ""):
        yield "a backslash in a literal, which standard_conforming_strings decides on"
    if kind in NAMED and len(_names(node.get(NAMED[kind]))) == 1:
        yield f"{NAMED[kind]} {_names(node[NAMED[kind]])[0]}"
    if kind in ("CreateStmt", "ViewStmt", "DoStmt", "CreateFunctionStmt"):
        yield from _body(kind, node)


def _literal_name(argument: dict) -> Iterator[str]:
    """A name in a text, that the server looks up when it reads it."""
    while "TypeCast" in argument:
        argument = argument["TypeCast"]["arg"]
    name = argument.get("A_Const", {}).get("sval", {}).get("sval")
    if name is not None and not name.startswith(OURS):
        yield f"'{name}', a name in a text"


def _body(kind: str, node: dict) -> Iterator[str]:
    """What is in the text of DO, or of a function that is written here."""
    if kind == "DoStmt":
        options = {option["DefElem"]["defname"]: option["DefElem"]["arg"] for option in node["args"]}
        language = options.get("language", {}).get("String", {}).get("sval", "plpgsql")
        text = options["as"]["String"]["sval"]
    elif kind == "CreateFunctionStmt":
        options = {option["DefElem"]["defname"]: option["DefElem"].get("arg") for option in node.get("options", [])}
        language = options.get("language", {}).get("String", {}).get("sval", "sql")
        if language not in ("sql", "plpgsql"):
            return
        text = "".join(_names(options["as"]["List"]["items"])) if "as" in options else ""
    else:
        return
    if language == "sql":
        yield from complaints(text)
        return
    for part in json.loads(pglast.parser.parse_plpgsql_json(f"DO $lint${text}$lint$")):
        yield from _plpgsql(part)


def _plpgsql(part) -> Iterator[str]:
    if isinstance(part, list):
        for inner in part:
            yield from _plpgsql(inner)
        return
    if not isinstance(part, dict):
        return
    for kind, inner in part.items():
        if kind == "PLpgSQL_type" and "." not in inner["typname"] and inner["typname"] not in ("UNKNOWN", "RECORD", "record"):
            yield f"type {inner['typname']}"
        if kind == "PLpgSQL_expr":
            query, mode = inner["query"], inner.get("parseMode", 0)
            if mode == 3:
                query = query.partition(":=")[2]
            yield from complaints(query if mode == 0 else f"SELECT {query}")
            yield from _executed(query)
        else:
            yield from _plpgsql(inner)


def _executed(query: str) -> Iterator[str]:
    """Statements in the literals of an expression, as EXECUTE and format() take them."""
    try:
        tree = json.loads(pglast.parser.parse_sql_json(f"SELECT {query}"))
    except pglast.parser.ParseError:
        return
    for kind, node in nodes(tree):
        text = node.get("sval", {}).get("sval", "") if kind == "A_Const" else ""
        if re.match(rf"\s*{VERBS}", text):
            yield from complaints(filled(text))


def filled(text: str) -> str:
    """A text for format() or format!, with something where it has places: a whole name, or the rest of one."""
    text = re.sub(r"(?<=[A-Za-z_.])(?:%(?:\d+\$)?[sI]|\{[a-z_.]*\})", "x", text)
    return re.sub(r"%(?:\d+\$)?[sIL]|\{[a-z_.]*\}", "pushy.x", text)


def named(sql: str) -> Iterator[tuple[str, str]]:
    """What a text of SQL names, with or without a schema: (function | operator | type | relation, name)."""
    for kind, node in nodes(json.loads(pglast.parser.parse_sql_json(sql))):
        if kind == "FuncCall":
            yield "function", _names(node["funcname"])[-1]
        elif kind == "A_Expr":
            yield "operator", _names(node["name"])[-1]
        elif kind == "SubLink" and "operName" in node:
            yield "operator", _names(node["operName"])[-1]
        elif kind == "RangeVar":
            yield "relation", node["relname"]
        names = node.get("names") or (node.get("typeName") or node.get("typename") or {}).get("names")
        if names and _names(names):
            yield "type", _names(names)[-1]


# -- the statements of a Rust source -----------------------------------------------------------------------------------

# A comment before a statement that Pushy only shows, for people to run as themselves.
FOR_PEOPLE = "for people to run"

TOKEN = re.compile(r"""
    (?P<comment>//[^\n]*|/\*.*?\*/)
  | (?P<string>b?"(?:[^"\\]|\\.)*")
  | (?P<raw>b?r(?P<hashes>\#*)".*?"(?P=hashes))
  | (?P<char>'(?:[^'\\]|\\.[^']*)')
  | (?P<word>\$?[A-Za-z_][A-Za-z_0-9]*)
  | (?P<mark>[^\s])
""", re.X | re.S)


def tokens(source: str) -> list[tuple[str, str]]:
    found = []
    for match in TOKEN.finditer(source):
        kind = match.lastgroup if match.lastgroup != "hashes" else "raw"
        if kind != "comment":
            found.append(("string" if kind == "raw" else kind, match[0]))
        elif FOR_PEOPLE in match[0]:
            found.append(("word", FOR_PEOPLE))
    return found


def literal(token: str) -> str:
    token = token.removeprefix("b")
    if token.startswith("r"):
        return re.sub(r'^r(#*)"(.*)"\1$', r"\2", token, flags=re.S)
    body = re.sub(r"\\\n\s*", "", token[1:-1])
    escapes = {"n": "\n", "t": "\t", '"': '"', "\\": "\\", "'": "'", "0": "\0", "r": "\r"}
    return re.sub(r"\\(.)", lambda match: escapes.get(match[1], match[0]), body, flags=re.S)


class Unread(Exception):
    """A statement that is put together in a way that this does not know."""


Macros = dict[str, list[tuple[list[str], list]]]


def group(stream: list, at: int) -> tuple[list, int]:
    """The tokens within the bracket at `at`, and where it ends."""
    pairs, depth, start = {"(": ")", "[": "]", "{": "}"}, 0, at + 1
    while at < len(stream):
        kind, text = stream[at]
        if kind == "mark" and text in pairs:
            depth += 1
        elif kind == "mark" and text in pairs.values():
            depth -= 1
            if depth == 0:
                return stream[start:at], at + 1
        at += 1
    raise Unread("a bracket without its end")


def parted(stream: list) -> list[list]:
    """Arguments, parted by commas at the outer level."""
    parts, at = [[]], 0
    while at < len(stream):
        if stream[at] == ("mark", ","):
            parts.append([])
            at += 1
        elif stream[at][0] == "mark" and stream[at][1] in "([{":
            _, end = group(stream, at)
            parts[-1] += stream[at:end]
            at = end
        else:
            parts[-1].append(stream[at])
            at += 1
    return [part for part in parts if part]


def macros(stream: list) -> Macros:
    """Macros that make texts, of literals and of each other."""
    found: Macros = {}
    for at, token in enumerate(stream):
        if token != ("word", "macro_rules"):
            continue
        name = stream[at + 2][1]
        body, _ = group(stream, at + 3)
        where = 0
        while where < len(body):
            pattern, where = group(body, where)
            where = next(i for i in range(where, len(body)) if body[i][0] == "mark" and body[i][1] in "({[")
            expansion, where = group(body, where)
            while where < len(body) and body[where] == ("mark", ";"):
                where += 1
            found.setdefault(name, []).append(([text for kind, text in pattern if kind == "word" and text[0] == "$"], expansion))
    return found


def value(stream: list, known: Macros, given: dict[str, str]) -> str:
    """The text that an expression is: a literal, or a macro of them."""
    while stream[:2] == [("word", "crate"), ("mark", ":")]:
        stream = stream[3:]
    if len(stream) == 1 and stream[0][0] == "string":
        return literal(stream[0][1])
    if len(stream) == 1 and stream[0][1] in given:
        return given[stream[0][1]]
    if len(stream) > 2 and stream[1] == ("mark", "!"):
        name, (inside, end) = stream[0][1], group(stream, 2)
        if end != len(stream):
            raise Unread(f"something behind {name}!")
        if name == "concat":
            return "".join(value(part, known, given) for part in parted(inside))
        arguments = [value(part, known, given) for part in parted(inside)]
        for parameters, expansion in known.get(name, []):
            if len(parameters) == len(arguments):
                return value(expansion, known, dict(zip(parameters, arguments)))
    raise Unread(" ".join(text for _, text in stream)[:80])


def statements(source: str, shared: Macros | None = None) -> Iterator[str]:
    """The statements of a source: what each Plan has, and every other literal that begins like one."""
    stream = tokens(source)
    known = (shared or {}) | macros(stream)
    inside: set[int] = set()
    for at in range(len(stream) - 4):
        if [text for _, text in stream[at:at + 5]] != ["Plan", ":", ":", "new", "("]:
            continue
        arguments, end = group(stream, at + 4)
        inside |= set(range(at, end))
        first = parted(arguments)[0]
        if len(first) == 1 and first[0][0] == "word":
            continue  # passed on: it is a literal elsewhere in this file
        yield value(first, known, {})
    for at, (kind, text) in enumerate(stream):
        if kind == "string" and at not in inside and stream[at - 1][1] != FOR_PEOPLE and re.match(rf"\s*{VERBS}", literal(text)):
            text = filled(literal(text))
            # The beginning of one that a macro completes is read there.
            if _is_whole(text) and len(text.split()) > 1:
                yield text


def _is_whole(text: str) -> bool:
    try:
        pglast.parser.parse_sql_json(text)
        return True
    except pglast.parser.ParseError:
        return False


# -- this tree ---------------------------------------------------------------------------------------------------------

def read_tree(root: Path) -> Iterator[tuple[Path, str | Unread]]:
    """The SQL texts of a tree, each with its file; Unread where one cannot be put together."""
    for path in sorted((root / "sql").glob("*.sql")):
        yield path.relative_to(root), path.read_text()
    sources = {path.relative_to(root): path.read_text() for path in sorted((root / "src").rglob("*.rs"))}
    shared: Macros = {}
    for source in sources.values():
        if "macro_rules" in source:
            shared |= {name: rules for name, rules in macros(tokens(source)).items() if name not in shared}
    for path, source in sources.items():
        try:
            for statement in statements(source, shared):
                yield path, statement
        except Unread as error:
            yield path, error


# What makes the server read a text, plan it or call what it names, and the files that may: each knows whose words they are.
# A literal is read by its type's input function, which runs the checks of a domain.
READS_WORDS = {
    r"\b(?:raw_parser|raw_parse\w*)\(": {"src/pg/catalog/identifier.rs", "src/pg/sql/vacuum.rs"},  # to a tree of names, nothing is looked up
    r"stringToNode\(|expression_planner|\bExecInitExpr|\bExecPrepareExpr|eval_const": {"src/pg/expression/mod.rs"},
    r"\btransform[A-Z]\w+\(": {"src/pg/expression/literals.rs"},  # where no literal has a value yet
    r"\bEvaluator::of_\w+\(": {"src/watch/fire/cached_watch.rs"},  # plans: only what a trigger that fires has called, as the writer
    r"InputFunctionCall|ReceiveFunctionCall": {"src/pg/value/text.rs"},  # of jsonb
    r"\bto_reg\w+\b,|\breg\w+in\b|stringToQualifiedNameList\(|qualified_name\(|parseTypeString|parseNameAndArgTypes": {
        "src/pg/catalog/function.rs", "src/pg/major.rs"},  # the latter for the former
    r"\bProcessUtility\(|\butility::run\(": {"src/pg/call/utility.rs", "src/pg/catalog/trigger.rs"},
}


# A job's state moves in one folder, and history is removed by retention and with its queue.
# (A name that is filled in may be one of theirs.)
JOB_TABLES = re.compile(r"^(?:live_job|finished_job\w*|failure|x)$")
MOVES_JOBS = ("src/job/moves/", "src/queue/store.rs", "src/worker/time/retention.rs", "src/job/stored/rotation.rs",
              "src/relay/empty.rs")  # names of parts of the log are filled in there
# Writing without SQL: the rows of a table that was opened by its name.
WRITES_ROWS = re.compile(r"\b(?:append|delete|insert_unless_there)\(")


def written(sql: str) -> Iterator[str]:
    """The tables that a text of SQL writes, in all its statements."""
    for kind, node in nodes(json.loads(pglast.parser.parse_sql_json(sql))):
        if kind in ("InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt"):
            yield node["relation"]["relname"]
        elif kind == "TruncateStmt":
            yield from (relation["RangeVar"]["relname"] for relation in node["relations"])


def of_jobs(where: Path, text: str) -> list[str]:
    """Complaints about a statement that writes tables of jobs where it must not."""
    if where.suffix != ".rs" or str(where).startswith(MOVES_JOBS):
        return []
    return [f"{where}: {table} is written by src/job/moves/ only, where the state machine is asked"
            for table in written(text) if JOB_TABLES.match(table)]


# What sql/*.sql makes, with its schema; those of the loops there by the beginning of their names.
MADE = re.compile(r"^CREATE (?:UNIQUE |UNLOGGED )?(?:TABLE|VIEW|FUNCTION|PROCEDURE|SEQUENCE|TYPE|INDEX) (?:(pushy\w*)\.(\w+)|(\w+) ON (pushy\w*)\.)", re.M)
# In a script that updates.
RENAMED = re.compile(r"^ALTER (?:TABLE|VIEW|FUNCTION|PROCEDURE|SEQUENCE|TYPE|INDEX) (pushy\w*)\.\w+(?:\([^)]*\))? RENAME TO (\w+)", re.M)
MADE_BY_LOOPS = re.compile(r"pushy_internal\.(?:finished_job|log|tick)_")


def in_wrong_schema(text: str, made: set[str]) -> list[str]:
    """Names that have a schema of Pushy's, and are not there."""
    named_here = set(re.findall(r"(?<![.\w])pushy(?:_internal)?\.[a-z_0-9]+", text))
    return sorted(f"{name}, which is not made there" for name in named_here - made if not name.endswith(".x") and not MADE_BY_LOOPS.match(name))


def in_tree(root: Path = ROOT) -> list[str]:
    found = []
    scripts = "".join(path.read_text() for path in sorted((root / "sql").glob("*.sql")))
    made = {f"{schema or of_index}.{name or index}" for schema, name, index, of_index in MADE.findall(scripts)}
    made |= {f"{schema}.{name}" for schema, name in RENAMED.findall(scripts)}
    # Settings have names of this form too.
    made |= {name for path in (root / "src").glob("settings.rs") for name in re.findall(r'c"(pushy\.\w+)"', path.read_text())}
    for path in sorted((root / "src").rglob("*.rs")):
        where = path.relative_to(root)
        code = re.sub(r"//.*", "", path.read_text())
        for pattern, known in READS_WORDS.items():
            if str(where) not in known and (word := re.search(pattern, code)):
                found.append(f"{where}: {word[0]} reads words that may be a user's; add the file to READS_WORDS once it does so as their author")
        opened = re.findall(r"heap::open\(\"(\w+)\"\)|history::(open_\w+)\(", code)
        if not str(where).startswith(MOVES_JOBS) and WRITES_ROWS.search(code) and any(by or JOB_TABLES.match(name) for name, by in opened):
            found.append(f"{where}: rows of jobs are written by src/job/moves/ only, where the state machine is asked")
        if str(where) != "src/pg/sql/spi.rs" and re.search(r"\bSPI_(?:prepare|exec|cursor)", path.read_text()):
            found.append(f"{where}: SPI is entered by src/pg/sql/spi.rs only, which pins the search path")
    read = 0
    for where, text in read_tree(root):
        if isinstance(text, Unread):
            found.append(f"{where}: a statement that this lint cannot put together: {text}")
            continue
        read += 1
        if where.suffix == ".sql" and (named_file := re.search(r"\b(?:src|core)/[\w/]+", text)):
            found.append(f"{where}: {named_file[0]} may have moved when this script, which is archived, is read")
        short = "" if where.suffix == ".sql" else " in: " + " ".join(text.split())[:70]
        found += [f"{where}: {complaint}{short}" for complaint in complaints(text) + in_wrong_schema(text, made)]
        found += of_jobs(where, text)
    if read < 80:
        found.append(f"only {read} statements found in src/: this lint has lost its way")
    return found


if __name__ == "__main__":
    all_complaints = in_tree()
    print("\n".join(all_complaints) or "lint_sql: every name has its schema")
    sys.exit(bool(all_complaints))
