"""What a stranger learns of others' objects: nothing from a view, nothing from the functions behind them with every number
and name there is, and nothing from EXPLAIN about a text."""

import psycopg
import pytest

from harness.gate import Gate

SECRET = "s3cret"


@pytest.fixture
def theirs(db, role):
    """Another role's objects of every kind, with a secret in every text; and a stranger."""
    db.owner, db.stranger = role(), role()
    db.sql("GRANT CREATE ON SCHEMA public TO PUBLIC")
    with db.connect(user=db.owner) as session:
        for statement in (
                "CREATE TABLE t (i int PRIMARY KEY)",
                "CREATE FUNCTION h(args jsonb) RETURNS text LANGUAGE plpgsql AS $$BEGIN"
                f" PERFORM pushy.job_log('{SECRET}'); IF args->>'fail' IS NOT NULL THEN RAISE EXCEPTION '{SECRET}' USING DETAIL = '{SECRET}', HINT = '{SECRET}'; END IF; RETURN '{SECRET}'; END$$",
                "SELECT pushy.queue_register('q', 'h(jsonb)', max_attempts => 1)",
                "SELECT pushy.channel_grant('c', current_user::text)",
                "SELECT pushy.subscription_create('s', '{c}')",
                f"SELECT pushy.watch('t', name => '{SECRET}', channel => 'c', queue => 'q', condition => 'NEW.i > 0 OR ''{SECRET}'' = ''''', "
                f"args_expr => '''{SECRET}''::text', payload_expr => '''{SECRET}''::text')",
                "INSERT INTO t VALUES (1)",
                f"SELECT pushy.enqueue('q', '{{\"fail\": 1}}', unique_key => '{SECRET}')",
                "CALL pushy.jobs_wait('q', '60 s')",
                f"SELECT pushy.queue_register('out'), pushy.enqueue('out', '\"{SECRET}\"')",
                f"SELECT pushy.job_extend(job_id, token, message => '{SECRET}') FROM pushy.job_claim('out', worker => '{SECRET}')",
                "SELECT pushy.queue_pause('q')",
                f"SELECT pushy.enqueue('q', '\"{SECRET}\"', unique_key => '{SECRET}')"):
            session.execute(statement)
    return db


VIEWS = ("queues", "jobs", "failures", "job_logs", "leases", "workers", "stats", "watches", "subscriptions", "channel_grants", "queue_grants", "sockets")


def test_no_view_shows_a_row_of_anothers(theirs):
    shown = {view for view, in theirs.rows("SELECT relname::text FROM pg_class WHERE relnamespace = 'pushy'::regnamespace AND relkind = 'v'")}
    # What everybody sees: how big the log is, and how far it reaches.
    assert shown - {"log"} == set(VIEWS), "a new view wants a place here"
    with theirs.connect(user=theirs.stranger) as stranger:
        for view in VIEWS:
            rows = stranger.execute(f"SELECT * FROM pushy.{view}").fetchall()
            rows = [row for row in rows if not (view == "stats" and row[0] is None or view == "workers" and row[0] != "executor")]
            assert rows == [], view
    with theirs.connect(user=theirs.owner) as owner:
        for view in ("queues", "jobs", "failures", "job_logs", "leases", "watches", "subscriptions", "channel_grants"):
            assert owner.execute(f"SELECT count(*) FROM pushy.{view}").fetchone() != (0,), view


# Functions behind the views, and what a stranger gets of them for a foreign object; None: they tell nothing of anybody's.
BEHIND = {
    "queue_visible": ("SELECT pushy_internal.queue_visible({number})", [(False,)]),
    "queue_monitored": ("SELECT pushy_internal.queue_monitored({number})", [(False,)]),
    "queue_owned": ("SELECT pushy_internal.queue_owned({number})", [(False,)]),
    "queue_obstacle": ("SELECT pushy_internal.queue_obstacle({number})", [(None,)]),
    "queue_running": ("SELECT pushy_internal.queue_running({number})", [(None,)]),
    "queue_statistics": ("SELECT * FROM pushy_internal.queue_statistics({number})", []),
    "running_jobs": ("SELECT * FROM pushy_internal.running_jobs()", []),
    "worker_rows": ("SELECT * FROM pushy_internal.worker_rows() WHERE kind = 'executor'", []),
    "watch_visible": ("SELECT pushy_internal.watch_visible(w, 1, 1, 1, 1, (SELECT oid FROM pg_roles WHERE rolname = current_user)) FROM (VALUES ({number})) v (w)", [(False,)]),
    "job_last_error": ("SELECT max(pushy_internal.job_last_error(j, q)) FROM generate_series(1, 50) j, generate_series(1, 10) q WHERE {number} = 0 OR q = {number}", [(None,)]),
    "job_checkpoint_of": ("SELECT max(pushy_internal.job_checkpoint_of(j, q)::text) FROM generate_series(1, 50) j, generate_series(1, 10) q WHERE {number} = 0 OR q = {number}", [(None,)]),
    "watch_counts": ("SELECT * FROM pushy_internal.watch_counts({number})", [(None,) * 6]),
    "subscription_rows": ("SELECT * FROM pushy_internal.subscription_rows()", []),
    "channel_grant_rows": ("SELECT * FROM pushy_internal.channel_grant_rows()", []),
    "socket_rows": ("SELECT * FROM pushy_internal.socket_rows()", []),
    "socket_counts": ("SELECT * FROM pushy_internal.socket_counts()", []),
    "queue_histograms": ("SELECT * FROM pushy_internal.queue_histograms({number})", []),
    "queue_oldest_ready": ("SELECT pushy_internal.queue_oldest_ready({number})", [(None,)]),
    "log_histogram": None,  # how long ticks took, of the whole log
    "log_row": None, "log_bounds": None, "is_home": None, "relay_obstacle": None,
    "watch_elsewhere": None, "watch_orphans": None, "watch_is_whole": None, "watch_state": None, "watch_mend": None,  # what pg_trigger and pg_class say
}


def test_no_function_behind_a_view_answers_for_anothers_whatever_it_is_asked(theirs):
    gate = Gate(theirs)
    theirs.sql(f"CREATE FUNCTION stops() RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM {gate.stop}; END$$;"
               "SELECT pushy.queue_register('running', 'stops()'); SELECT pushy.enqueue('running')")
    gate.wait_for_arrival()
    behind = {name for name, in theirs.rows(
        "SELECT proname::text FROM pg_proc WHERE pronamespace = 'pushy_internal'::regnamespace AND has_function_privilege('pg_monitor', oid, 'EXECUTE')")}
    # Those of a gateway answer what the caller may read: log/test_log_position.py.
    assert behind - {"is_apply_worker", "log_read", "log_wait"} == set(BEHIND), "a new function behind a view wants a place here"
    numbers = range(-1, 20)
    # As a member of pg_read_all_data has it.
    theirs.sql(f"GRANT USAGE ON SCHEMA pushy_internal TO {theirs.stranger}")
    with theirs.connect(user=theirs.stranger) as stranger:
        for name, asked in BEHIND.items():
            if asked is None:
                continue
            statement, expected = asked
            for number in numbers if "{number}" in statement else [0]:
                assert stranger.execute(statement.format(number=number)).fetchall() == expected, (name, number)
    # The same for an owner, so that the questions are the right ones.
    assert theirs.value("SELECT notices FROM pushy_internal.watch_counts((SELECT watch_id FROM pushy_internal.watch))") == 1
    assert theirs.value("SELECT count(*) FROM pushy_internal.running_jobs()") == 1
    gate.open()


def test_explain_does_not_tell_whether_a_text_was_guessed(theirs):
    theirs.sql("ANALYZE")
    columns = theirs.rows("""
        SELECT c.relname::text, a.attname::text, a.atttypid::regtype::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
         WHERE c.relnamespace = 'pushy'::regnamespace AND c.relkind = 'v' AND a.attnum > 0 AND a.atttypid IN ('text'::regtype, 'name'::regtype, 'jsonb'::regtype)
           AND c.relname <> 'log' AND a.attname <> 'log_oldest' AND NOT (a.attname = 'queue' AND c.relname IN ('queues', 'jobs', 'failures', 'stats'))
         ORDER BY 1, 2""")
    assert len(columns) > 30

    def plan(session, view, column, value, *texts):
        """Without the texts that are compared with, one of which may stand in the view as well."""
        lines = session.execute(f"EXPLAIN (ANALYZE, TIMING OFF, SUMMARY OFF, BUFFERS OFF) SELECT count(*) FROM pushy.{view} "
                                f"WHERE {column} = '{value}'").fetchall()
        told = "\n".join(line for line, in lines)
        for text in (value, *texts):
            told = told.replace(f"= '{text}'", "= …")
        return told
    with theirs.connect(user=theirs.stranger) as stranger:
        for view, column, type_ in columns:
            wrong = f"{SECRET}?" if type_ != "jsonb" else f'"{SECRET}?"'
            right = theirs.rows(f"SELECT DISTINCT {column}::text FROM pushy.{view} WHERE {column} IS NOT NULL AND {column}::text <> '{{}}'")
            for value, in right:
                value = value.replace("'", "''")
                assert plan(stranger, view, column, value, wrong) == plan(stranger, view, column, wrong, value), (view, column, value)


def test_a_function_that_leaks_sees_no_foreign_row(theirs):
    with theirs.connect(user=theirs.stranger) as stranger:
        stranger.execute("CREATE FUNCTION leak(anyelement) RETURNS bool LANGUAGE plpgsql COST 0.0001 AS $$BEGIN RAISE NOTICE 'leaked: %', $1; RETURN true; END$$")
        said = []
        stranger.add_notice_handler(lambda diagnostic: said.append(diagnostic.message_primary))
        for view in VIEWS:
            stranger.execute(f"SELECT count(*) FROM pushy.{view} v WHERE leak(v::text) AND leak(to_json(v)::text)")
    assert [line for line in said if SECRET in line or theirs.owner in line] == []


# -- PUBLIC has nothing -------------------------------------------------------------------------------------------

def test_without_usage_a_role_has_nothing_and_with_it_everything_it_is_granted(shared_cluster, role):
    db = shared_cluster.database(usage="")
    app, other = role(), role()
    try:
        privileges = db.rows("SELECT grantee FROM pg_namespace, aclexplode(nspacl) WHERE nspname IN ('pushy', 'pushy_internal') AND grantee = 0")
        assert privileges == []
        with db.connect(user=app) as session:
            for statement in ("SELECT * FROM pushy.queues", "SELECT pushy.channel_name('c')", "SELECT pushy.notify('c', 'x')",
                              "SELECT pushy.enqueue('q')", "SELECT 'pushy_internal.queue'::regclass"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege, match="schema pushy"):
                    session.execute(statement)
            db.sql(f"GRANT USAGE ON SCHEMA pushy TO {app}; GRANT CREATE ON SCHEMA public TO {app}")
            session.execute("CREATE FUNCTION h(args jsonb) RETURNS void LANGUAGE sql AS ''")
            session.execute("SELECT pushy.queue_register('q', 'h(jsonb)')")
            job = session.execute("SELECT pushy.enqueue('q')").fetchone()[0]
            assert session.execute("SELECT state FROM pushy.job_wait(%s, '30 s')", (job,)).fetchone() == ("completed",)
        # Who only writes a watched table needs nothing of Pushy, nor does the role of a queue.
        db.sql(f"CREATE TABLE t (i int PRIMARY KEY); CREATE TABLE done (who name); GRANT INSERT ON t, done TO {other};"
               "CREATE FUNCTION note(args jsonb) RETURNS void LANGUAGE sql AS 'INSERT INTO public.done VALUES (current_user)';"
               "CREATE FUNCTION whole(job pushy.job) RETURNS void LANGUAGE sql AS 'INSERT INTO public.done VALUES (current_user)';"
               f"SELECT pushy.queue_register('note', 'note(jsonb)', run_as => '{other}'), pushy.queue_register('whole', 'whole(pushy.job)', run_as => '{other}');"
               "SELECT pushy.watch('t', queue => 'note', channel => 'c'), pushy.watch('t', queue => 'whole', name => 'second', payload => 'row')")
        with db.connect(user=other) as session:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute("SELECT * FROM pushy.jobs")
            session.execute("INSERT INTO t VALUES (1)")
        db.wait_until("SELECT array_agg(who::text) FROM done", [other, other])
    finally:
        db.drop()


# -- names --------------------------------------------------------------------------------------------------------

CONTROLS = [*range(1, 32), 127, *range(128, 160)]
# Those that show nothing, or turn the direction of others.
INVISIBLE = [0xad, 0x61c, 0x115f, 0x180e, 0x200b, 0x200d, 0x200e, 0x2028, 0x202e, 0x2060, 0x2066, 0x3164, 0xfe0f, 0xfeff, 0xe0041]
# Each function with an argument that names a queue, a watch, a subscription or a channel: how to call it with a name, and whether it declares.
NAMING = {
    "queue_register": ("SELECT pushy.queue_register({}, 'h()')", "declares"),
    "watch": ("SELECT pushy.watch('t', name => {})", "declares"),
    "watch channel": ("SELECT pushy.watch('t', channel => {ident})", "declares"),
    "subscription_create": ("SELECT pushy.subscription_create({})", "declares"),
    "subscription_create channels": ("SELECT pushy.subscription_create('s', ARRAY[{ident}])", "declares"),
    "channel_grant": ("SELECT pushy.channel_grant({ident}, 'public')", "declares"),
    "gateway_key_register": ("SELECT pushy.gateway_key_register({}, role => 'postgres')", "declares"),
    "gateway_key_drop": ("SELECT pushy.gateway_key_drop({})", "takes"),
    "ticket_create": ("SELECT pushy.ticket_create(ARRAY[{ident}])", "declares"),
    "socket_close": ("SELECT pushy.socket_close(channel => {ident})", "declares"),
    "presence": ("SELECT pushy.presence({ident}, 'a')", "declares"),
    # It would be the watch's name, too.
    "watch queue": ("SELECT pushy.watch('t', queue => {})", "declares"),
    "queue_rename new_name": ("SELECT pushy.queue_rename('nowhere', {})", "declares"),
    "subscription_create queue": ("SELECT pushy.subscription_create('s', queue => {})", "looks up"),
    "channel_revoke": ("SELECT pushy.channel_revoke({ident}, 'public')", "looks up"),
    # As LISTEN and NOTIFY have it.
    "channel_name": ("SELECT pushy.channel_name({ident})", "takes"),
    "channel_inspect": ("SELECT pushy.channel_inspect({ident})", "takes"),
    "channel_ident": ("SELECT pushy.channel_ident({})", "takes"),
    "notify": ("SELECT pushy.notify({ident}, 'x')", "takes"),
}
LOOKS_UP = "looks up"


def naming(db):
    """What is to be called for each function that takes a name: those not listed look it up by their first argument."""
    calls = dict(NAMING)
    for name, kind, arguments in db.rows("""
            SELECT p.proname::text, p.prokind::text, p.proargnames FROM pg_proc p
             WHERE p.pronamespace = 'pushy'::regnamespace AND p.proargnames && ARRAY['queue', 'name', 'channel', 'channels', 'identifier']
               AND p.proargnames[1:p.pronargs] && ARRAY['queue', 'name', 'channel', 'channels', 'identifier']"""):
        if name in NAMING:
            continue
        at = next(at for at, argument in enumerate(arguments) if argument in ("queue", "name"))
        before = ["'t'::regclass" if argument == "relation" else "'postgres'" for argument in arguments[:at]]
        after = {"queue_grant": ["'public'", "'work'"], "queue_revoke": ["'public'", "'work'"], "queue_rename": ["'p'"],
                 "has_queue_privilege": ["'postgres'", "'work'"][3 - len(arguments):],
                 "enqueue_many": ["ARRAY['1'::jsonb]"], "subscription_ack": ["'0-0-0'"]}.get(name, [])
        verb = "CALL" if kind == "p" else "SELECT"
        calls[f"{name} {len(arguments)}"] = (f"{verb} pushy.{name}({', '.join([*before, '{}', *after])})", LOOKS_UP)
    return calls


def test_names_with_control_characters_or_invisible_ones_are_declared_nowhere(db):
    db.sql("CREATE TABLE t (i int PRIMARY KEY); CREATE FUNCTION h() RETURNS void LANGUAGE sql AS ''")
    calls = naming(db)
    assert len(calls) > 25, sorted(calls)
    seen = set()
    for what, (call, kind) in calls.items():
        for code in CONTROLS + INVISIBLE if kind != LOOKS_UP else (10,):
            statement = call.format(f"'a' || chr({code})", ident=f"""'"a' || chr({code}) || '"'""")
            try:
                db.sql(statement)
                outcome = None
            except psycopg.Error as error:
                outcome = error.sqlstate
                if outcome == "22023":
                    assert "\n" not in error.diag.message_primary and chr(code) not in error.diag.message_primary, what
            expected = {"declares": ("22023",), LOOKS_UP: ("42704",), "takes": (None,)}[kind]
            if outcome not in expected:
                seen.add((what, code, outcome))
    assert seen == set()
    for table in ("queue", "watch", "subscription", "channel"):
        assert db.value(f"SELECT count(*) FROM pushy_internal.{table}") == 0


def test_a_table_with_a_control_character_is_watched_on_a_channel_that_is_named(db):
    db.sql('CREATE TABLE "a\nb" (i int PRIMARY KEY)')
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="control characters"):
        db.sql("""SELECT pushy.watch('"a\nb"')""")
    assert db.value("""SELECT pushy.watch('"a\nb"', channel => 'fine')""") == "fine"


def test_functions_in_sql_run_for_who_may_not_look_into_the_inner_schema(db, role):
    """The body of one in a string is read with the rights of who calls it."""
    stranger = role()
    functions = db.rows("SELECT p.proname FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang"
                        " WHERE p.pronamespace = 'pushy'::regnamespace AND l.lanname = 'sql' AND p.pronargs = 0 AND NOT p.prosecdef")
    assert functions
    db.sql("SELECT pushy.queue_register('hidden')")
    with db.connect(user=stranger) as session:
        assert not session.execute("SELECT has_schema_privilege('pushy_internal', 'USAGE')").fetchone()[0]
        for name, in functions:
            assert "hidden" not in str(session.execute(f"SELECT * FROM pushy.{name}()").fetchall())
    with db.connect() as session:
        assert "hidden" in str(session.execute("SELECT * FROM pushy.metrics()").fetchall())
