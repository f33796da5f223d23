"""What a caller plants before pg_catalog in the search path is never run with anybody's rights but the caller's."""

import pytest

from life import run

# An operator that says with whose rights it is called.
SPY = """
    CREATE FUNCTION mine.{name}({type}, {type}) RETURNS boolean LANGUAGE plpgsql AS $$
    BEGIN
        RAISE WARNING 'planted for % as %', '{type}', current_user;
        RETURN $1 OPERATOR(pg_catalog.=) $2;
    END$$;
    CREATE OPERATOR mine.= (LEFTARG = {type}, RIGHTARG = {type}, FUNCTION = mine.{name})"""


@pytest.fixture
def planter(db, role):
    """A role with a schema of its own, and what its planted objects said."""
    db.planter = role()
    db.sql(f"CREATE SCHEMA mine AUTHORIZATION {db.planter}")
    db.session = db.connect(user=db.planter)
    db.said = []
    db.session.add_notice_handler(lambda diag: db.said.append(diag.message_primary))
    return db


def test_operators_without_a_place_for_a_schema_are_not_taken_from_the_callers_path(planter):
    """CASE x WHEN and NULLIF name no operator that could be qualified: who waits for a job called them as the owner."""
    session = planter.session
    session.execute("CREATE FUNCTION mine.work() RETURNS text LANGUAGE sql AS $$SELECT 'x'$$; SELECT pushy.queue_register('q', 'mine.work()')")
    job = session.execute("SELECT pushy.enqueue('q')").fetchone()[0]
    planter.job_wait(job)
    for name, of in (("eq_text", "text"), ("eq_char", '"char"'), ("eq_bigint", "bigint")):
        session.execute(SPY.format(name=name, type=of))
    session.execute("SET search_path = mine, pg_catalog")
    seen = session.execute(f"SELECT state, enqueued_by FROM pushy.job_wait({job})").fetchone()
    assert seen == ("completed", planter.planter)
    assert planter.said == []


def test_the_path_is_the_callers_again_after_each_call(planter):
    """After an answer, an error, and an error inside a savepoint."""
    session = planter.session
    session.execute("CREATE FUNCTION mine.marker() RETURNS text LANGUAGE sql AS $$SELECT 'mine'$$; SET search_path = mine, pg_catalog")
    for call in ("SELECT pushy.has_queue_privilege('none', 'enqueue')", "SELECT pushy.enqueue('none')", "SELECT pushy.job_wait(1)",
                 "SELECT count(*) FROM pushy.jobs", "SELECT pushy.queue_register('q', 'mine.absent()')"):
        session.execute(f"""
            DO $do$
            BEGIN
                BEGIN EXECUTE $call${call}$call$; EXCEPTION WHEN OTHERS THEN NULL; END;
                ASSERT marker() = 'mine' AND current_setting('search_path') = 'mine, pg_catalog';
            END$do$""")
        try:
            session.execute(call)
        except Exception:  # noqa: BLE001 - what matters is the path afterwards
            pass
        assert session.execute("SELECT marker(), current_schemas(false)").fetchone() == ("mine", ["mine", "pg_catalog"])


def test_what_a_user_writes_is_looked_up_along_the_users_path(planter):
    """Handlers and the expressions of watches: with the user's rights."""
    session = planter.session
    session.execute("""
        CREATE FUNCTION mine.work() RETURNS text LANGUAGE sql AS $$SELECT 'here'$$; SET search_path = mine, pg_catalog;
        CREATE TABLE t (id int PRIMARY KEY); CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql AS 'SELECT $1 * 2'""")
    assert session.execute("SELECT pushy.queue_register('q', 'work()')").fetchone()[0] == "mine.work()"
    session.execute("SELECT pushy.watch('t', queue => 'q', args_expr => 'twice(NEW.id)'); INSERT INTO t VALUES (4)")
    planter.jobs_wait("q")
    assert planter.rows("SELECT args, result FROM pushy.jobs WHERE queue = 'q'") == [(8, "here")]
    run(planter)
