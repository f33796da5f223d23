"""What a role can plant in a schema of its own: every operator, function, type and relation that Pushy's statements name, for
all argument types that they could be taken for. Each says in the server's log as whom it ran, if that is not the planter."""

import sys

from harness.installation import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "tools"))
import lint_sql  # noqa: E402

# Types of the columns and parameters of Pushy's statements, and those that literals are taken for.
TYPES = ['text', 'name', '"char"', 'oid', 'int2', 'int4', 'int8', 'float8', 'bool', 'timestamptz', 'interval', 'jsonb', 'bytea', 'regclass',
         'regrole', 'regprocedure', 'regtype', 'xid', 'tid', 'numeric', 'varchar', 'text[]', 'name[]', 'oid[]', 'int4[]', 'int8[]', '"char"[]',
         'anyelement', 'anyarray', 'anynonarray', 'record']
# The operators of CASE x WHEN, IN, BETWEEN, LIKE, USING and the like have no name in a statement.
IMPLICIT = {"=", "<>", "<", "<=", ">", ">=", "~~", "~~*"}
# What is not to be taken from the planter where it plants: the language of what it plants.
SPY = """
    CREATE FUNCTION {schema}.spied(pg_catalog.text) RETURNS pg_catalog.bool LANGUAGE plpgsql AS $$
    BEGIN
        IF current_user OPERATOR(pg_catalog.<>) '{planter}'::pg_catalog.name THEN
            RAISE LOG 'PLANTED: % ran as %', $1, current_user;
        END IF;
        RETURN true;
    END$$;
    CREATE FUNCTION {schema}.made(statements pg_catalog.text[]) RETURNS pg_catalog.int4 LANGUAGE plpgsql AS $$
    DECLARE
        statement pg_catalog.text;
        made pg_catalog.int4 := 0;
    BEGIN
        FOREACH statement IN ARRAY statements LOOP
            BEGIN
                EXECUTE statement;
                made := made OPERATOR(pg_catalog.+) 1;
            EXCEPTION WHEN OTHERS THEN NULL;
            END;
        END LOOP;
        RETURN made;
    END$$"""


def named() -> dict[str, set[str]]:
    """What Pushy's statements name, by kind."""
    found: dict[str, set[str]] = {"function": set(), "operator": set(IMPLICIT), "type": set(), "relation": set()}
    for _, text in lint_sql.read_tree(lint_sql.ROOT):
        for kind, name in lint_sql.named(text):
            found[kind].add(name)
    return found


def of_server(type_: str) -> str:
    return f"pg_catalog.{type_}"


def plant(db, session, schema: str, planter: str) -> int:
    """Plants everything; how many things that were."""
    names = named()
    statements = _types(schema, names["type"]) + _relations(db, schema, names["relation"])
    statements += _functions(db, schema, names["function"]) + _operators(db, schema, names["operator"])
    session.execute(SPY.format(schema=schema, planter=planter))
    return session.execute(f"SELECT {schema}.made(%s)", (statements,)).fetchone()[0]


def _spied(schema: str, what: str) -> str:
    return f"{schema}.spied(''{what}'')"


def _types(schema: str, names: set[str]) -> list[str]:
    return [f"CREATE DOMAIN {schema}.\"{name}\" AS pg_catalog.\"{name}\" CHECK ({schema}.spied('type {name}'))" for name in sorted(names)]


def _relations(db, schema: str, names: set[str]) -> list[str]:
    """Views: of the catalogs with their columns, of Pushy's tables with something."""
    made = []
    for name in sorted(names):
        is_catalog = db.value("SELECT to_regclass('pg_catalog.' || quote_ident(%s)) IS NOT NULL", name)
        columns = "t.*, " if is_catalog else ""
        source = f" FROM pg_catalog.{name} t" if is_catalog else ""
        made.append(f"CREATE VIEW {schema}.\"{name}\" AS SELECT {columns}{schema}.spied('relation {name}') AS spied{source}")
    return made


def _functions(db, schema: str, names: set[str]) -> list[str]:
    """With each signature that the server or Pushy has, and with one and two arguments of every type."""
    rows = db.rows("""
        SELECT p.proname, array_to_string(ARRAY(SELECT format_type(t, NULL) FROM unnest(p.proargtypes) WITH ORDINALITY a (t, n) ORDER BY n), ', '),
               format_type(p.prorettype, NULL), p.proretset
          FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
         WHERE n.nspname IN ('pg_catalog', 'pushy', 'pushy_internal') AND p.proname = ANY (%s) AND NOT (p.prokind = 'a' AND p.pronargs = 0)
         ORDER BY p.oid""", sorted(names))
    made = [_function(schema, name, arguments, returns, is_set) for name, arguments, returns, is_set in rows]
    for name in sorted(names):
        results = [returns for of, _, returns, _ in rows if of == name] or ["text"]
        returns = max(set(results), key=results.count)
        if returns.startswith("any") or returns in ("record", "internal", "trigger", "void"):
            returns = "text"
        short = [of_server(type_) for type_ in TYPES[:18]]
        made += [_function(schema, name, one, returns, False) for one in [of_server(type_) for type_ in TYPES]]
        made += [_function(schema, name, f"{one}, {two}", returns, False) for one in short for two in short if two == one or one.endswith(".text")]
    made.append(f"CREATE FUNCTION {schema}.counted(pg_catalog.int8) RETURNS pg_catalog.int8 LANGUAGE plpgsql AS "
                f"'BEGIN PERFORM {_spied(schema, 'aggregate count')}; RETURN $1 OPERATOR(pg_catalog.+) 1; END'")
    made.append(f"CREATE AGGREGATE {schema}.count(*) (SFUNC = {schema}.counted, STYPE = pg_catalog.int8, INITCOND = '0')")
    return made


def _function(schema: str, name: str, arguments: str, returns: str, is_set: bool) -> str:
    returned = f"SETOF {returns}" if is_set else returns
    end = "RETURN" if is_set or returns == "void" else "RETURN NULL"
    return (f"CREATE FUNCTION {schema}.\"{name}\"({arguments}) RETURNS {returned} LANGUAGE plpgsql AS "
            f"'BEGIN PERFORM {_spied(schema, f'function {name}({arguments})'.replace(chr(34), ''))}; {end}; END'")


def _operators(db, schema: str, names: set[str]) -> list[str]:
    """Each of the server's, and of two equal types, and of text-like and number-like types among each other."""
    rows = db.rows("""
        SELECT DISTINCT o.oprname, format_type(o.oprleft, NULL), format_type(o.oprright, NULL), format_type(o.oprresult, NULL)
          FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace
         WHERE n.nspname = 'pg_catalog' AND o.oprname = ANY (%s) AND o.oprleft <> 0""", sorted(names))
    wanted = {(name, left, right): result for name, left, right, result in rows}
    alike = [["text", "name", '"char"', "varchar"], ["int2", "int4", "int8", "oid", "float8", "numeric", "regclass", "regrole", "regprocedure"]]
    pairs = [(type_, type_) for type_ in TYPES] + [(left, right) for kind in alike for left in kind for right in kind]
    for name in names:
        for left, right in pairs:
            wanted.setdefault((name, of_server(left), of_server(right)), "boolean" if name in IMPLICIT | {"~", "<@"} else of_server(left))
    made = []
    for number, ((name, left, right), result) in enumerate(sorted(wanted.items())):
        what = f"operator {left} {name} {right}".replace('"', "")
        made.append(f"CREATE FUNCTION {schema}.op_{number}({left}, {right}) RETURNS {result} LANGUAGE plpgsql AS "
                    f"'BEGIN PERFORM {_spied(schema, what)}; RETURN NULL; END'")
        made.append(f"CREATE OPERATOR {schema}.{name} (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = {schema}.op_{number})")
    return made
