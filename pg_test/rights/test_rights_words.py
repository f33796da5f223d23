"""Whatever the server may read, plan or run of what a watch says, planted in every place of a watch and taken through everything
that is done to watches: nothing of it runs as anybody but who planted it, before a row is written."""

import re

import psycopg
import pytest

from stage.watching import jobs, paused_queue, watch

# Of what a role can make; base types, whose functions read literals and modifiers, take a superuser.
PLANTED = """
    CREATE SCHEMA s AUTHORIZATION {planter}; GRANT USAGE ON SCHEMA s TO PUBLIC; SET SESSION AUTHORIZATION {planter};
    CREATE FUNCTION s.ran(what text) RETURNS bool LANGUAGE plpgsql VOLATILE AS $$ BEGIN
        IF current_user <> '{planter}' THEN RAISE LOG 'PLANTED: % ran as %', what, current_user; END IF; RETURN true; END $$;
    CREATE FUNCTION s.checked(int) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT s.ran(''domain'')';
    CREATE DOMAIN s.d AS int CHECK (s.checked(VALUE)); CREATE TYPE s.r AS (d s.d); CREATE DOMAIN s.dr AS s.r; CREATE TYPE s.rr AS (r s.r, a s.d[]);
    CREATE TYPE s.range_of_d AS RANGE (subtype = s.d, multirange_type_name = s.multirange_of_d);
    CREATE TYPE s.e AS ENUM ('x', 'y'); CREATE DOMAIN s.de AS s.e CHECK (s.ran('domain of an enum'));
    CREATE FUNCTION s.f(int) RETURNS bool IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN s.ran('function'); END $$;
    CREATE FUNCTION s.strict(int) RETURNS bool STABLE STRICT LANGUAGE plpgsql AS $$ BEGIN RETURN s.ran('stable'); END $$;
    CREATE FUNCTION s.inlined(int) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT s.f($1)';
    CREATE FUNCTION s.atomic(int) RETURNS bool IMMUTABLE LANGUAGE sql RETURN s.f($1);
    CREATE FUNCTION s.by_default(given bool DEFAULT s.f(1)) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT $1';
    CREATE FUNCTION s.variadic(VARIADIC s.d[]) RETURNS bool IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN true; END';
    CREATE FUNCTION s.of_row(s.r) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT true';
    CREATE FUNCTION s.of_array(s.d[]) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT true';
    CREATE FUNCTION s.of_any(anyelement, anyarray) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT true';
    CREATE FUNCTION s.both(s.e, s.e) RETURNS bool IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN s.ran('operator'); END $$;
    CREATE OPERATOR s.## (LEFTARG = s.e, RIGHTARG = s.e, FUNCTION = s.both);
    CREATE FUNCTION s.of_int(int) RETURNS s.e IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM s.ran('cast'); RETURN 'x'; END $$;
    CREATE CAST (int AS s.e) WITH FUNCTION s.of_int(int) AS IMPLICIT;
    CREATE FUNCTION s.of_bigint(bigint) RETURNS s.e IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM s.ran('cast'); RETURN 'x'; END $$;
    CREATE CAST (bigint AS s.e) WITH FUNCTION s.of_bigint(bigint);
    CREATE TABLE s.parent (id int PRIMARY KEY, v int, e s.e, r s.r, a s.d[], d s.d) PARTITION BY RANGE (id);
    RESET SESSION AUTHORIZATION
"""
WORDS = {
    "a function": "s.f(1)",
    "a function that is stable": "s.strict(1)",
    "a function that is inlined": "s.inlined(1)",
    "a function that is kept as a tree": "s.atomic(1)",
    "a default argument": "s.by_default()",
    "a named argument": "s.by_default(given => s.f(1))",
    "variadic arguments": "s.variadic('1', 2)",
    "an operator": "'x' OPERATOR(s.##) 'y'::s.e",
    "an operator on a column": "NEW.e OPERATOR(s.##) 'x'",
    "a cast": "1::s.e = 'x'",
    "an implicit cast": "s.both(1, 2)",
    "a cast of a column": "NEW.v::s.e = 'x'",
    "a domain": "1::s.d > 0",
    "a literal of a domain": "'1'::s.d > 0",
    "a literal of a domain of an enum": "'x'::s.de::s.e = 'x'",
    "a literal of an array": "'{1}'::s.d[]::text <> ''",
    "a literal of a row": "'(1)'::s.r::text <> ''",
    "a literal of a row in a row": "'(\"(1)\",{1})'::s.rr::text <> ''",
    "a literal of an array of rows": "'{(1)}'::s.r[]::text <> ''",
    "a literal of a domain of a row": "('(1)'::s.dr)::text <> ''",
    "a literal of a range": "'[1,1]'::s.range_of_d::text <> ''",
    "a literal of a multirange": "'{[1,1]}'::s.multirange_of_d::text <> ''",
    "a literal before the type": "s.r '(1)' IS NOT NULL",
    "a literal by CAST": "CAST('(1)' AS s.r) IS NOT NULL",
    "a literal beside a column": "coalesce(NEW.r, '(1)') IS NOT NULL",
    "literals of CASE": "CASE NEW.e WHEN 'x' THEN '(1)' ELSE NEW.r END IS NOT NULL",
    "literals of a list": "NEW.a IN ('{1}', '{2}')",
    "a literal of a comparison": "NEW.a = '{1}' OR '{1}' < NEW.a OR NEW.a BETWEEN '{1}' AND '{2}'",
    "a literal of a subscript": "('{1}'::s.d[])[1] > 0",
    "a field of a literal": "('(1)'::s.r).d > 0",
    "a literal of an argument": "s.of_row('(1)') AND s.of_array('{1}')",
    "a literal of a polymorphic argument": "s.of_any(NEW.d, '{1}')",
    "the greatest": "greatest(NEW.a, '{1}') IS NOT NULL AND greatest(1::s.d, 2) > 0",
    "an array": "NEW.d = ANY (ARRAY['1', '2']::s.d[]) OR ARRAY['(1)', NEW.r] IS NOT NULL",
    "equal": "nullif(NEW.a, '{1}') IS NULL OR NEW.a IS DISTINCT FROM '{1}'",
    "a row": "ROW(NEW.a, 1) = ROW('{1}', 1)",
    "the whole row": "NEW::text <> '' AND s.ran(NEW::text)",
}
# What the planter of a watched column does to it later, and statements around it that take the watch along.
ALTERED = ["ALTER TABLE s.t ALTER v TYPE bigint", "ALTER TABLE s.t ALTER v TYPE int, ALTER e TYPE s.e USING 'x'", "ALTER TABLE s.t RENAME v TO w",
           "ALTER TABLE s.t RENAME w TO v", "ALTER TABLE s.t RENAME TO u", "ALTER TABLE s.u RENAME TO t",
           "ALTER TABLE s.parent ATTACH PARTITION s.t FOR VALUES FROM (1) TO (9)", "ALTER TABLE s.parent DETACH PARTITION s.t",
           "CREATE TABLE s.part PARTITION OF s.parent FOR VALUES FROM (10) TO (19)", "CREATE TABLE s.likewise (LIKE s.t INCLUDING ALL)",
           "ALTER TABLE s.t DISABLE TRIGGER USER", "ALTER TABLE s.t ALTER v TYPE bigint", "ALTER TABLE s.t ENABLE TRIGGER USER"]


def ran(db, since: int) -> set[str]:
    return set(re.findall(r"PLANTED: .* ran as \S+", db.cluster.log.since(since)))


@pytest.fixture
def planted(db, role):
    db.planter = role()
    db.sql(PLANTED.format(planter=db.planter))
    paused_queue(db)
    db.sql("SELECT pushy.queue_grant('q', 'public', 'enqueue')")
    return db


def declared(db, session, kind: str, words: str) -> None:
    for table, name in (("s.t", "w"), ("s.parent", "p")):
        for more in ({}, {"payload": "none"} if kind != "payload_expr" else {"events": ["update"]}):
            watch(db, table, session, name=name, channel="heard", **{kind: words}, **more, **({"queue": "q"} if kind == "args_expr" else {}))


@pytest.mark.parametrize("words", WORDS)
def test_words_that_run_what_is_planted_are_what_this_file_tries(planted, words):
    """Each runs as who says SELECT: so the next test looks for what is there to be found."""
    planted.sql("CREATE TABLE s.one (LIKE s.parent); INSERT INTO s.one VALUES (1, 1, 'x', '(1)', '{1}', 1)")
    since = planted.cluster.log.position()
    planted.sql(f"SELECT {WORDS[words]} FROM s.one AS new")
    assert ran(planted, since)


@pytest.mark.parametrize("owner, maker", [("planter", "superuser"), ("superuser", "planter"), ("planter", "other"), ("other", "planter")])
def test_nothing_that_a_watch_names_runs_before_a_row_is_written(planted, role, owner, maker):
    """Each kind of words in each expression, through what makers, owners and superusers do to watches."""
    db, roles = planted, {"planter": planted.planter, "superuser": "postgres", "other": role()}
    db.sql(f"CREATE TABLE s.t (LIKE s.parent INCLUDING ALL); GRANT CREATE ON SCHEMA s TO {roles['other']};"
           f"ALTER TABLE s.t OWNER TO {roles[owner]}; ALTER TABLE s.parent OWNER TO {roles[owner]}; GRANT TRIGGER ON s.t, s.parent TO {roles[maker]}")
    declaring, owning = db.connect(user=roles[maker]), db.connect(user=roles[owner])
    since = db.cluster.log.position()
    for words in WORDS:
        for kind, around in {"condition": "{}", "payload_expr": "({})::text", "topic_expr": "({})::text", "args_expr": "jsonb_build_object('a', ({}))"}.items():
            declared(db, declaring, kind, around.format(WORDS[words]))
            for statement in ALTERED:
                owning.execute(statement)
            for statement in ALTERED[:2]:
                db.sql(statement)
            db.sql("SELECT * FROM pushy.watches; SELECT pushy.watch_pause('s.t', 'w'); SELECT pushy.watch_resume('s.t', 'w')")
            # As after a restore.
            db.sql("UPDATE pushy_internal.watch SET home_extension = 1; SELECT * FROM pushy.watches; SELECT * FROM pushy.resume_after_restore()")
            assert set(db.rows("SELECT state FROM pushy.watches")) == {("active",)}, (words, kind)
            db.sql("DROP TABLE s.part, s.likewise; SELECT pushy.unwatch('s.t', 'w'), pushy.unwatch('s.parent', 'p')")
            assert not ran(db, since), (words, kind)
    assert jobs(db) == []


# What a maker says of another's column in names of the server's alone, before anything is planted.
INNOCENT = ["NEW.c = 'x'", "NEW.c IN ('x', 'y')", "coalesce(NEW.c, 'x') IS NOT NULL", "coalesce(NEW.c, 'x'::public.e) IS NOT NULL", "nullif(NEW.c, 'x') IS NULL",
            "CASE NEW.c WHEN 'x' THEN true END", "greatest(NEW.c, 'x') IS NOT NULL", "ARRAY[NEW.c, 'x'::public.e] IS NOT NULL", "NEW.c BETWEEN 'x' AND 'y'",
            "NEW.c IS DISTINCT FROM 'x'::public.e", "NEW.c::text = 'x'", "enum_first(NEW.c) = 'x'"]
# Types whose values run what is planted, and casts of the column's to them.
BECOMES = ["s.e", "s.d", "s.r", "s.d[]", "s.de", "s.range_of_d", "text", "public.e"]


@pytest.mark.parametrize("as_maker", [False, True])
@pytest.mark.parametrize("becomes", BECOMES)
def test_a_column_that_changes_its_type_does_not_bring_the_code_of_its_owner_to_the_maker(planted, becomes, as_maker):
    """A superuser has watched a table of the planter's; now the planter makes casts to a type of its own, and alters the column."""
    db = planted
    db.sql(f"CREATE TYPE public.e AS ENUM ('x', 'y'); ALTER TYPE public.e OWNER TO {db.planter};"
           f"CREATE TABLE s.t (id int PRIMARY KEY, c public.e); ALTER TABLE s.t OWNER TO {db.planter}")
    for number, words in enumerate(INNOCENT):
        watch(db, "s.t", name=f"w{number}", channel="heard", condition=words)
    since, went_on = db.cluster.log.position(), 0
    with db.connect(user=db.planter) as session:
        if becomes.startswith("s."):
            session.execute(f"""CREATE FUNCTION s.becomes(public.e) RETURNS {becomes} IMMUTABLE LANGUAGE plpgsql AS $$
                BEGIN PERFORM s.ran('planted cast'); RETURN NULL; END $$""")
            try:
                session.execute(f"CREATE CAST (public.e AS {becomes}) WITH FUNCTION s.becomes(public.e) AS IMPLICIT")
            except psycopg.errors.WrongObjectType:  # A domain has no casts.
                pass
    for number in range(len(INNOCENT)):
        # Each watch alone, because one that does not go with the change is in the way of all.
        others = " OR ".join(f"name = 'w{other}'" for other in range(len(INNOCENT)) if other != number)
        with db.connect() as session:
            session.execute(f"BEGIN; SELECT pushy.unwatch('s.t', name) FROM pushy.watches WHERE {others}")
            if not as_maker:
                session.execute(f"SET LOCAL ROLE {db.planter}")
            try:
                session.execute(f"ALTER TABLE s.t ALTER c TYPE {becomes} USING NULL")
                went_on += 1
            except psycopg.Error as error:
                assert "does not go with this change" in str(error), error
            session.execute("ROLLBACK")
    assert ran(db, since) == set()
    assert went_on
