"""Views cost what their rows cost, whatever others have declared: the planner's estimate stays below what makes PostgreSQL compile (jit), and
what is asked of a watch, a queue or a job is asked of those that the caller sees. Each view of schema pushy."""

import json

import pytest

WATCHES, QUEUES, JOBS, TABLES = 1000, 200, 5000, 40
# The server compiles from this estimate on, by default.
JIT_ABOVE = 100_000


def nodes(plan: dict):
    yield plan
    for inner in plan.get("Plans", []):
        yield from nodes(inner)


@pytest.fixture(scope="module")
def many(new_cluster):
    """What a tenant has declared, and one who has one of each."""
    db = new_cluster({"pushy.max_executors": 2}).database("many")
    db.sql("""CREATE ROLE busy LOGIN; CREATE ROLE quiet LOGIN; CREATE SCHEMA busy AUTHORIZATION busy; CREATE SCHEMA quiet AUTHORIZATION quiet;
              SET client_min_messages = 'error'; SET pushy.max_queues_per_role = 0""")
    with db.connect(user="busy") as busy:
        busy.execute(f"""
            CREATE FUNCTION busy.f(n jsonb) RETURNS void LANGUAGE plpgsql AS $$BEGIN
              IF n::int % 2 = 0 THEN RAISE EXCEPTION 'even: %', n; END IF;
              PERFORM pushy.job_checkpoint(n), pushy.job_snooze('1 hour');
            END$$;
            DO $$BEGIN
              FOR i IN 1 .. {TABLES} LOOP
                EXECUTE format('CREATE TABLE busy.t%s (i int PRIMARY KEY, v text)', i);
                FOR n IN 1 .. {WATCHES // TABLES} LOOP
                  PERFORM pushy.watch(format('busy.t%s', i), channel => format('c_%s_%s', i, n), events => '{{insert}}', condition => 'NEW.i > 0');
                END LOOP;
              END LOOP;
              FOR i IN 1 .. {QUEUES} LOOP
                PERFORM pushy.queue_register('busy_' || i, 'busy.f(jsonb)', retry_delay => '1 hour');
                PERFORM pushy.queue_grant('busy_' || i, 'public', 'enqueue');
              END LOOP;
            END$$;
            SELECT count(pushy.enqueue('busy_' || 1 + i % {QUEUES}, to_jsonb(i))) FROM generate_series(1, {JOBS}) i""")
    with db.connect(user="quiet") as quiet:
        quiet.execute("CREATE TABLE quiet.t (i int PRIMARY KEY); SELECT pushy.watch('quiet.t')")
    # Each has failed, or says how far it is, and comes again in an hour.
    db.wait_until("SELECT (SELECT count(*) FROM pushy_internal.failure) + (SELECT count(*) FROM pushy_internal.checkpoint)", JOBS)
    db.sql("ANALYZE")
    return db


def views(db) -> list[str]:
    return [name for name, in db.rows("SELECT viewname FROM pg_views WHERE schemaname = 'pushy' ORDER BY 1")]


def explained(db, user: str, query: str) -> dict:
    with db.connect(user=user) as session:
        return session.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query}").fetchone()[0][0]


@pytest.mark.parametrize("user", ["postgres", "busy", "quiet"])
def test_no_view_is_compiled(many, user):
    for view in views(many):
        found = explained(many, user, f"SELECT * FROM pushy.{view}")
        assert "JIT" not in found, view
        # A margin for whoever joins it.
        assert found["Plan"]["Total Cost"] < JIT_ABOVE / 5, (view, found["Plan"]["Total Cost"])


def test_nothing_is_compiled_behind_a_view(many):
    """Statements of Pushy's own, too, whatever the session says."""
    with many.connect(user="postgres") as session:
        session.execute("SET jit_above_cost = 0; SET jit = on; LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; "
                        "SET auto_explain.log_analyze = on; SET auto_explain.log_nested_statements = on; SET auto_explain.log_format = 'json'")
        seen = []
        session.add_notice_handler(lambda notice: seen.append(notice.message_primary))
        session.execute("SET auto_explain.log_level = 'notice'")
        session.execute("SELECT * FROM pushy_internal.watch_orphans()")
        session.execute("SELECT state, fix FROM pushy.watches WHERE relation = 'busy.t1'::regclass")
    plans = [json.loads(text[text.index("{"):]) for text in seen if "plan:" in text]
    inner = [plan for plan in plans if "FROM pushy_internal.watch_orphans()" not in plan["Query Text"] and "FROM pushy.watches" not in plan["Query Text"]]
    assert inner and [plan["Query Text"] for plan in inner if "JIT" in plan] == []


def test_what_is_asked_of_a_watch_is_asked_of_those_that_the_caller_sees(many):
    for user, count in (("quiet", 1), ("busy", WATCHES)):
        plan = explained(many, user, "SELECT * FROM pushy.watches")["Plan"]
        asked = {node["Function Name"]: node["Actual Loops"] for node in nodes(plan) if "Function Name" in node}
        assert asked["watch_state"] == asked["watch_counts"] == count
    # A look at the watches of others is a look at their rows, in a session that knows the catalogs.
    with many.connect(user="quiet") as quiet:
        looks = [quiet.execute("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM pushy.watches").fetchone()[0][0] for _ in range(2)]
    assert looks[1]["Plan"]["Shared Hit Blocks"] < WATCHES


def test_each_job_is_shown_with_the_last_of_its_failures_and_its_own_checkpoint(many):
    with many.connect(user="busy") as busy:
        assert busy.execute("SELECT count(*) FROM pushy.jobs WHERE last_error = format('even: %s', args) AND checkpoint IS NULL").fetchone() == (JOBS // 2,)
        assert busy.execute("SELECT count(*) FROM pushy.jobs WHERE last_error IS NULL AND checkpoint = args").fetchone() == (JOBS // 2,)
    # As the statement sees it, and not as it is by now.
    with many.connect(user="busy", autocommit=False) as busy:
        busy.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        job, before = busy.execute("SELECT id, checkpoint FROM pushy.jobs WHERE checkpoint IS NOT NULL ORDER BY id LIMIT 1").fetchone()
        many.sql("UPDATE pushy_internal.checkpoint SET state = '0' WHERE job_id = %s", job)
        assert busy.execute("SELECT checkpoint FROM pushy.jobs WHERE id = %s", (job,)).fetchone() == (before,)
        busy.rollback()
        assert busy.execute("SELECT checkpoint FROM pushy.jobs WHERE id = %s", (job,)).fetchone() == (0,)
