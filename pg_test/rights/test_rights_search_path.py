"""What a caller plants before pg_catalog in the search path is never run with anybody's rights but the caller's."""

import pytest

from stage.life import run

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


# -- a database whose settings are another's ----------------------------------------------------------------------

# What a database's owner may say of code, without being a superuser, and what a session has otherwise.
OF_CODE = {"search_path": "mine, pg_catalog", "standard_conforming_strings": "off", "backslash_quote": "on", "plv8.start_proc": "mine.first"}
PLAIN = {"search_path": '"$user", public', "standard_conforming_strings": "on", "backslash_quote": "safe_encoding", "plv8.start_proc": ""}


@pytest.fixture
def landlord(make_cluster):
    """A database of a role that is no superuser, may become `relative`, and says what it can of the code that others run."""
    cluster = make_cluster({"pushy.max_executors": 8})
    with cluster.connect() as admin:
        for statement in ("CREATE ROLE landlord LOGIN", "CREATE ROLE relative LOGIN", "GRANT relative TO landlord", "CREATE ROLE tenant LOGIN",
                          "CREATE ROLE spoken LOGIN", "CREATE ROLE chief LOGIN SUPERUSER", "ALTER ROLE spoken SET search_path = theirs, pg_catalog"):
            admin.execute(statement)
    db = cluster.database(options="OWNER landlord")
    db.sql(f"""
        CREATE SCHEMA ops; GRANT USAGE ON SCHEMA ops TO PUBLIC;
        CREATE FUNCTION ops.work() RETURNS jsonb LANGUAGE plpgsql AS $$
        BEGIN
            RETURN pg_catalog.jsonb_build_object('code', lower('PLAIN'), 'zone', pg_catalog.current_setting('TimeZone'),
                {', '.join(f"'{name}', pg_catalog.current_setting('{name}', true)" for name in OF_CODE)});
        END$$""")
    with db.connect(user="landlord") as session:
        session.execute("""
            CREATE SCHEMA mine; GRANT USAGE ON SCHEMA mine TO PUBLIC;
            CREATE FUNCTION mine.lower(text) RETURNS text LANGUAGE sql AS $$SELECT 'planted'$$""")
        for name, value in OF_CODE.items():
            # A setting of a language that is not loaded takes a superuser.
            (db.main if "." in name else session).execute(f"""ALTER DATABASE "{db.name}" SET {name} = {value if name == 'search_path' else f"'{value}'"}""")
        session.execute(f"""ALTER DATABASE "{db.name}" SET TimeZone = 'Asia/Kathmandu'""")
    for role in ("landlord", "relative", "tenant", "spoken", "chief"):
        db.sql(f"SELECT pushy.queue_register('{role}', 'ops.work()', run_as => '{role}')")
    return db


def ran(db, role: str) -> dict:
    """What the code of a role met, in a session that begins now."""
    db.sql("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'pushy executor'")
    db.job_wait(db.value(f"SELECT pushy.enqueue('{role}')"))
    result = db.value(f"SELECT result FROM pushy.jobs WHERE queue = '{role}' ORDER BY id DESC LIMIT 1")
    return result | {"plv8.start_proc": result["plv8.start_proc"] or ""}


@pytest.mark.parametrize("role", ["tenant", "chief"])
def test_who_owns_a_database_chooses_no_code_of_a_role_that_it_may_not_become(landlord, role):
    """What the role, all roles and the configuration say stands instead, in this order; settings that choose no code reach everybody."""
    assert ran(landlord, role) == PLAIN | {"code": "plain", "zone": "Asia/Kathmandu"}
    landlord.cluster.configure(search_path="configured")
    landlord.cluster.restart()
    assert ran(landlord, role)["search_path"] == "configured"
    landlord.sql("ALTER ROLE ALL SET search_path = of_all; ALTER ROLE ALL SET standard_conforming_strings = on")
    assert ran(landlord, role) == PLAIN | {"code": "plain", "zone": "Asia/Kathmandu", "search_path": "of_all"}
    landlord.sql(f"ALTER ROLE {role} SET search_path = its_own")
    assert ran(landlord, role)["search_path"] == "its_own"
    landlord.sql(f'ALTER ROLE {role} IN DATABASE "{landlord.name}" SET search_path = its_own_here')
    assert ran(landlord, role)["search_path"] == "its_own_here"


@pytest.mark.parametrize("role", ["landlord", "relative"])
def test_settings_of_a_database_reach_roles_that_its_owner_may_become(landlord, role):
    assert ran(landlord, role) == OF_CODE | {"code": "planted", "zone": "Asia/Kathmandu"}


def test_what_a_role_says_of_its_code_is_its_own_choice(landlord):
    assert ran(landlord, "spoken") == PLAIN | {"code": "plain", "zone": "Asia/Kathmandu", "search_path": "theirs, pg_catalog"}
    landlord.sql("ALTER ROLE spoken SET search_path = mine, pg_catalog")
    assert ran(landlord, "spoken")["code"] == "planted"


def test_settings_of_a_database_of_a_superuser_reach_everybody(landlord):
    landlord.sql(f'ALTER DATABASE "{landlord.name}" OWNER TO chief')
    assert ran(landlord, "tenant") == OF_CODE | {"code": "planted", "zone": "Asia/Kathmandu"}
