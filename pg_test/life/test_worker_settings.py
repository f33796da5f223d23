"""Every setting that ALTER ROLE or ALTER DATABASE can say, at the ends of its range: jobs run as their role all the same,
with the right effect, and scheduler and relay do their work."""

import psycopg
import pytest

from harness.installation import chosen_pg_config, major_of
from harness.versions import LIBRARIES_ON_A_PATH
from harness.waiting import wait_for

# Values of settings that are texts; others get none that is not refused, or are refused whatever is said.
TEXTS = {
    "role": ["boss"], "session_authorization": ["boss"], "search_path": ["mine, pg_catalog", "", "pg_temp, mine"],
    "TimeZone": ["Asia/Kathmandu", "-13"], "DateStyle": ["SQL, DMY", "German"], "client_encoding": ["LATIN1", "SQL_ASCII", "SJIS"],
    "timezone_abbreviations": ["India"], "lc_messages": ["C"], "lc_monetary": ["C"], "lc_numeric": ["C"], "lc_time": ["C"],
    "default_text_search_config": ["pg_catalog.german"], "application_name": ["'; DROP TABLE effect; --", "pushy scheduler"],
    "local_preload_libraries": ["nothing_here"], "session_preload_libraries": ["nothing_here"], "dynamic_library_path": ["/nowhere:$libdir"],
    "backtrace_functions": ["errfinish"], "wal_consistency_checking": ["all"], "temp_tablespaces": [""], "default_tablespace": [""],
    "restrict_nonsystem_relation_kind": ["view, foreign-table"], "createrole_self_grant": ["set, inherit"],
    "default_table_access_method": ["heap"], "synchronized_standby_slots": [""], "seed": ["0.5"],
}
# Set by themselves they leave no room for any job; that they are refused or harmless is not Pushy's to say.
LEFT_OUT = {
    # A stack of 100 kB is too small for the server's own planner.
    ("max_stack_depth", "100"),
    # Every job that takes longer is cut short, as it says: on a busy machine any does.
    ("pushy.max_job_timeout", "1"), ("pushy.max_job_timeout", "1000"),
}


if major_of(chosen_pg_config()) < LIBRARIES_ON_A_PATH:
    TEXTS["dynamic_library_path"].append("/nowhere")


def values(name: str, kind: str, low: str, high: str, words: list[str] | None) -> list[str]:
    """Some values of a setting: all of few, the ends of many."""
    if kind == "bool":
        return ["on", "off"]
    if kind == "enum":
        return words
    if kind in ("integer", "real"):
        return list(dict.fromkeys([low, high, "1", "1000"]))
    return TEXTS.get(name, [])


def every_value(session: psycopg.Connection) -> list[tuple[str, str]]:
    """All that can be said of any setting, whether or not it will be refused."""
    found = session.execute("SELECT name, vartype, min_val, max_val, enumvals FROM pg_settings WHERE context <> 'internal' ORDER BY 1").fetchall()
    hidden = [(name, "string", None, None, None) for name in ("role", "session_authorization", "seed")]
    return [(name, value) for name, *rest in found + hidden for value in values(name, *rest) if (name, value) not in LEFT_OUT]


LISTS = ("search_path", "restrict_nonsystem_relation_kind", "temp_tablespaces", "createrole_self_grant", "DateStyle")


def said(session: psycopg.Connection, target: str, name: str, value: str) -> bool:
    """Says it; false where the server refuses it for a role or a database."""
    literal = value if name in LISTS and value else "'" + value.replace("'", "''") + "'"
    try:
        session.execute(f"ALTER {target} SET {name} = {literal}")
    except psycopg.Error as error:
        # Of another context, of another form, or a library that is not there.
        assert error.sqlstate[:2] in ("55", "22", "42", "0A", "58", "F0", "25"), (name, value, error)
        return False
    return True


EFFECT = """
    CREATE TABLE effect (queue text, what text, who name, session name, n numeric);
    CREATE SCHEMA mine;
    CREATE FUNCTION work(job pushy.job) RETURNS jsonb LANGUAGE plpgsql AS $$
    BEGIN
        IF job.args ->> 'what' = 'fail' THEN
            RAISE EXCEPTION 'as it was told' USING ERRCODE = 'P0009';
        END IF;
        INSERT INTO public.effect VALUES (job.queue, job.args ->> 'what', current_user, session_user, 2.5 * 2);
        RETURN job.args;
    END$$;
    GRANT INSERT ON effect TO PUBLIC"""


@pytest.fixture
def server(make_cluster):
    cluster = make_cluster({"max_worker_processes": 60, "pushy.max_executors": 12, "pushy.executor_linger": "0", "max_connections": 60,
                            "log_min_messages": "error"})
    with cluster.connect() as admin:
        admin.execute("CREATE ROLE boss LOGIN")
    return cluster


def test_no_setting_of_a_role_changes_as_whom_its_jobs_run_or_what_they_do(server, record_property):
    """A role of its own for each value of each setting, and an executor for each role."""
    db = server.database()
    db.sql(EFFECT)
    roles = {}
    for name, value in every_value(db.main):
        role = f"r{len(roles)}"
        db.sql(f"CREATE ROLE {role} LOGIN IN ROLE boss")
        if said(db.main, f"ROLE {role}", name, value):
            roles[role] = f"{name} = {value}"
        else:
            db.sql(f"DROP ROLE {role}")
    assert len(roles) > 300
    db.sql("SELECT count(pushy.queue_register(r, 'work(pushy.job)', run_as => r::regrole, max_attempts => 1)) FROM unnest(%s::text[]) r", list(roles))
    db.sql("""SELECT count(pushy.enqueue(r, jsonb_build_object('what', what))) FROM unnest(%s::text[]) r, unnest('{one,fail,two}'::text[]) what""",
           list(roles))

    def unfinished():
        return {roles[queue] for queue, in db.rows("SELECT queue FROM pushy.jobs WHERE finished_at IS NULL")}
    wait_for("all jobs to be done", unfinished, lambda left: left == set(), deadline=60, evidence=server.log.tail)
    ran = {(queue, what): rest for queue, what, *rest in db.rows("SELECT queue, what, who, session, n FROM effect")}
    wrong = {roles[role]: seen for role in roles for what in ("one", "two")
             if (seen := ran.get((role, what))) is None or seen[:2] != [role, role] or seen[2] != 5}
    assert wrong == {}
    assert len(ran) == 2 * len(roles)
    failed = {queue: message for queue, message in db.rows("SELECT queue, message FROM pushy.failures")}
    assert {roles[role]: failed.get(role) for role in roles if failed.get(role) != "as it was told"} == {}
    results = {queue: result for queue, result in db.rows("SELECT queue, result FROM pushy.jobs WHERE state = 'completed' AND args ->> 'what' = 'two'")}
    assert {roles[role] for role in roles if results.get(role) != {"what": "two"}} == set()
    record_property("counted", f"{len(roles)} values of settings")


def test_no_setting_of_a_superuser_makes_its_jobs_anothers(server):
    """Whoever may become anybody may be told to by a setting."""
    db = server.database()
    db.sql(EFFECT)
    for number, setting in enumerate(("role = boss", "session_authorization = boss", "is_superuser = off")):
        role = f"super{number}"
        db.sql(f"CREATE ROLE {role} LOGIN SUPERUSER")
        try:
            db.sql(f"ALTER ROLE {role} SET {setting}")
        except psycopg.Error:
            continue
        db.sql(f"SELECT pushy.queue_register('{role}', 'work(pushy.job)', run_as => '{role}')")
        db.job_wait(db.value(f"""SELECT pushy.enqueue('{role}', '{{"what": "super"}}')"""))
        assert db.rows("SELECT who, session FROM effect WHERE queue = %s", role) == [(role, role)], setting


GROUPS = 3


def test_no_setting_of_a_database_stops_a_worker_or_makes_it_anothers(server):
    """In each database a part of the settings, each at one of its values: executor, scheduler and relay live with them."""
    with server.connect() as admin:
        everything = every_value(admin)
    by_name: dict[str, list[str]] = {}
    for name, value in everything:
        by_name.setdefault(name, []).append(value)
    most = max(len(of) for of in by_name.values())
    for turn in range(min(most, 4)):
        for group in range(GROUPS):
            db = server.database()
            db.sql(EFFECT)
            db.sql("SELECT pushy.queue_register('q', 'work(pushy.job)', max_attempts => 2, retry_delay => '50 ms', run_as => 'boss'), "
                   "pushy.queue_register('fed', 'work(pushy.job)')")
            db.sql("SELECT pushy.subscription_create('feeding', '{news}', queue => 'fed')")
            main = db.main
            told = {name: of[turn % len(of)] for at, (name, of) in enumerate(by_name.items())
                    if at % GROUPS == group and said(main, f"DATABASE {db.name}", name, of[turn % len(of)])}
            # Workers that are here already connected before.
            main.execute("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = current_database() AND backend_type LIKE 'pushy%'")
            main.execute("""SELECT pushy.enqueue('q', '{"what": "now"}'), pushy.enqueue('q', '{"what": "later"}', delay => '100 ms'),
                                   pushy.enqueue('q', '{"what": "fail"}'), pushy.notify('news', '1', delivery => 'relay')""")
            look = "SELECT queue, coalesce(args ->> 'what', 'news'), state FROM pushy.jobs"
            seen = wait_for(f"the workers to do their work with {told}", lambda: set(main.execute(look).fetchall()),
                            lambda rows: len(rows) == 4 and {state for *_, state in rows} <= {"completed", "discarded"},
                            deadline=30, evidence=server.log.tail)
            assert seen == {("q", "now", "completed"), ("q", "later", "completed"), ("q", "fail", "discarded"), ("fed", "news", "completed")}, told
            assert set(db.rows("SELECT who, session FROM effect WHERE queue = 'q'")) == {("boss", "boss")}, told
            assert db.value("SELECT count(*) FROM pushy.failures WHERE message = 'as it was told'") == 2, told
            db.drop()
