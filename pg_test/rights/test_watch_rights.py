"""Who may watch, as whom expressions run, and what a stranger cannot do with another's watch."""

import psycopg
import pytest

from stage.watching import Watching, jobs, paused_queue, watch


@pytest.fixture
def heard(db):
    db.sql("CREATE TABLE t (id int PRIMARY KEY, v int)")
    return Watching(db, "heard")


@pytest.fixture
def as_role(db, role):
    """A new role with some rights, and its session."""
    def make(*grants: str) -> tuple[str, psycopg.Connection]:
        name = role()
        for grant in grants:
            db.sql(f"GRANT {grant} TO {name}")
        return name, db.connect(user=name)
    return make


WATCH = "SELECT pushy.watch('t', channel => 'heard')"


def test_trigger_on_the_table_is_needed(db, heard, as_role):
    _, reader = as_role("SELECT, INSERT, UPDATE, DELETE ON t")
    with pytest.raises(psycopg.errors.InsufficientPrivilege) as raised:
        reader.execute(WATCH)
    assert "GRANT TRIGGER ON public.t" in raised.value.diag.message_hint
    _, maker = as_role("TRIGGER ON t")
    maker.execute(WATCH)
    assert heard.after("INSERT INTO t VALUES (1)") == [("insert", 1)]


def test_enqueue_on_the_queue_is_needed_when_declared_and_at_each_firing(db, heard, as_role):
    paused_queue(db)
    name, maker = as_role("TRIGGER ON t")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match='queue "q"'):
        maker.execute("SELECT pushy.watch('t', queue => 'q')")
    db.sql(f"SELECT pushy.queue_grant('q', '{name}', 'enqueue')")
    maker.execute("SELECT pushy.watch('t', channel => 'heard', queue => 'q')")
    # The writer needs nothing of the queue, and the job is the watch's owner's.
    _, writer = as_role("INSERT ON t")
    assert heard.after("INSERT INTO t VALUES (1)", session=writer) == [("insert", 1)]
    assert db.rows("SELECT enqueued_by::text FROM pushy.jobs") == [(name,)]
    db.sql(f"SELECT pushy.queue_revoke('q', '{name}', 'enqueue')")
    assert heard.after("INSERT INTO t VALUES (2)", session=writer) == [("insert", 2)]
    assert len(jobs(db)) == 1 and db.row("SELECT notices, jobs, errors FROM pushy.watches") == {"notices": 2, "jobs": 1, "errors": 1}
    db.sql(f"SELECT pushy.queue_grant('q', '{name}', 'enqueue')")
    heard.after("INSERT INTO t VALUES (3)", session=writer)
    assert len(jobs(db)) == 2


def test_expressions_run_as_the_writer(db, heard, as_role):
    """Whoever writes runs what others have put on the table, as with any trigger; the owner of Pushy does not."""
    db.sql("""
        CREATE TABLE seen (who name, what text); GRANT INSERT ON seen TO PUBLIC;
        CREATE FUNCTION who(what text) RETURNS bool LANGUAGE plpgsql AS
          'BEGIN INSERT INTO public.seen VALUES (current_user, what); RETURN true; END'""")
    maker_name, maker = as_role("TRIGGER ON t")
    maker.execute("SELECT pushy.watch('t', channel => 'heard', condition => 'public.who(''condition'')', payload_expr => 'public.who(''payload'')')")
    name, writer = as_role("INSERT ON t")
    writer.execute("INSERT INTO t VALUES (1)")
    db.sql("INSERT INTO t VALUES (2)")
    assert db.rows("SELECT DISTINCT who::text, what FROM seen ORDER BY 1, 2") == [
        ("postgres", "condition"), ("postgres", "payload"), (name, "condition"), (name, "payload")]
    assert maker_name not in str(db.rows("SELECT who FROM seen"))


def test_an_expression_that_the_writer_may_not_evaluate_is_an_error_that_is_told(db, heard, as_role):
    db.sql("CREATE FUNCTION secret(int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN RETURN true; END'; REVOKE ALL ON FUNCTION secret FROM PUBLIC")
    watch(db, "t", condition="secret(NEW.id)")
    _, writer = as_role("INSERT ON t")
    assert heard.after("INSERT INTO t VALUES (1)", session=writer) == [("insert", 1, "42501")]


@pytest.mark.parametrize("through", ["the role", "a group"])
def test_execute_on_what_an_expression_calls_is_looked_up_for_each_role_that_fires(db, heard, as_role, through):
    """In one session too, and again when the right is taken away: functions, those of operators, and what an inlined one calls."""
    name, _ = as_role("INSERT ON t")
    group, _ = as_role()
    db.sql(f"""
        CREATE FUNCTION secret(int) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN current_user; END';
        CREATE FUNCTION inlined(int) RETURNS text LANGUAGE sql AS 'SELECT public.secret($1)';
        CREATE FUNCTION joined(int, int) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN current_user; END';
        CREATE OPERATOR ### (LEFTARG = int, RIGHTARG = int, FUNCTION = joined)""")
    whom = name if through == "the role" else group
    error = [("insert", 1, "42501")]
    for number, (expression, called) in enumerate((("secret(NEW.id)", "secret(int)"), ("inlined(NEW.id)", "secret(int)"), ("NEW.id ### 1", "joined(int, int)"))):
        db.sql(f"GRANT EXECUTE ON FUNCTION {called} TO PUBLIC")
        watch(db, "t", payload_expr=f"json_build_object('op', 'insert', 'key', json_build_object('by', {expression}))::text")
        db.sql(f"REVOKE EXECUTE ON FUNCTION {called} FROM PUBLIC")

        def fired(as_whom):
            db.sql(f"TRUNCATE t; SET ROLE {as_whom}")
            told = heard.after("INSERT INTO t VALUES (1)", session=db.main)
            db.sql("RESET ROLE")
            return told
        assert fired(name) == error, expression
        assert fired("postgres") == [("insert", "postgres")], expression
        assert fired(name) == error, expression
        db.sql(f"GRANT EXECUTE ON FUNCTION {called} TO {whom}")
        if through == "a group":
            db.sql(f"GRANT {group} TO {name}")
        assert fired(name) == [("insert", name)], expression
        if through == "a group":
            db.sql(f"REVOKE {group} FROM {name}")
        else:
            db.sql(f"REVOKE EXECUTE ON FUNCTION {called} FROM {whom}")
        assert fired(name) == error, expression
        assert fired("postgres") == [("insert", "postgres")], expression


def test_a_writer_who_may_not_look_at_catalogs_writes_all_the_same(db, heard, as_role):
    watch(db, "t", condition="length(NEW.id::text) > 0")
    _, writer = as_role("INSERT ON t")
    db.sql("REVOKE SELECT ON pg_catalog.pg_trigger, pg_catalog.pg_class, pg_catalog.pg_index, pg_catalog.pg_namespace FROM PUBLIC")
    assert heard.after("INSERT INTO t VALUES (1)", session=writer) == [("insert", 1)]


def test_a_trigger_made_by_hand_with_anothers_token_does_nothing_for_its_maker(db, heard, as_role):
    paused_queue(db)
    watch(db, "t", queue="q")
    arguments = ", ".join(f"'{argument}'" for argument in db.rows("SELECT token, name FROM pushy_internal.watch")[0])
    db.sql("CREATE SCHEMA mine; GRANT ALL ON SCHEMA mine TO PUBLIC")
    _, forger = as_role("TRIGGER, INSERT ON t")
    forger.execute("CREATE TABLE mine.other (id int PRIMARY KEY, v int)")
    for table in ("t", "mine.other"):
        told = 0
        for times, function in [("ROW", "watch_row"), ("STATEMENT", "watch_statement")]:
            forger.execute(f"CREATE TRIGGER forged AFTER INSERT ON {table} FOR EACH {times} EXECUTE FUNCTION pushy.{function}({arguments})")
            forger.execute(f"INSERT INTO {table} VALUES ({told})")
            assert db.rows("SELECT relation::text, name FROM pushy.watches WHERE state = 'orphaned'") == [(table, "heard")]
            db.sql(f"DROP TRIGGER forged ON {table}")
            told += 1
    assert [job["key"]["id"] for job in jobs(db)] == [0, 1], "once each, by the watch's own trigger on t"
    assert heard.after() == [("insert", 0), ("insert", 1)]


@pytest.mark.parametrize("trigger", [
    "BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION pushy.watch_row('1')",
    "AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION pushy.watch_row()",
    "AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION pushy.watch_row('x')",
    "AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION pushy.watch_row('a0eebc99-9c0b-4ef8-bb6d', 'x')",
    "AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION pushy.watch_statement('1')",
    "AFTER INSERT ON t FOR EACH STATEMENT EXECUTE FUNCTION pushy.watch_row('1')",
    "AFTER TRUNCATE ON t FOR EACH STATEMENT EXECUTE FUNCTION pushy.watch_row('1')"])
def test_a_nonsensical_trigger_is_an_error_and_no_crash(db, heard, trigger):
    watch(db, "t")
    db.sql(f"CREATE TRIGGER forged {trigger}")
    with pytest.raises(psycopg.errors.Error) as raised:
        db.sql("INSERT INTO t VALUES (1); TRUNCATE t")
    assert raised.value.sqlstate in ("42501", "39P01")
    db.sql("DROP TRIGGER forged ON t")
    assert heard.after("INSERT INTO t VALUES (1)") == [("insert", 1)]


def test_a_watch_is_seen_by_its_maker_and_by_who_could_make_one(db, heard, as_role, role):
    _, maker = as_role("TRIGGER ON t")
    maker.execute(WATCH)
    db.sql("CREATE TABLE other (id int PRIMARY KEY)")
    watch(db, "other", channel="others")
    _, stranger = as_role("SELECT ON t")
    _, colleague = as_role("TRIGGER ON t")
    def seen(session):
        return [name for name, in session.execute("SELECT name FROM pushy.watches ORDER BY 1").fetchall()]
    assert (seen(maker), seen(stranger), seen(colleague), seen(db.main)) == (["heard"], [], ["heard"], ["heard", "others"])
    for session in (maker, stranger):
        for statement in ("SELECT * FROM pushy_internal.watch", "DELETE FROM pushy_internal.watch", "UPDATE pushy_internal.watch SET paused = true", "SELECT * FROM pushy_internal.oversize_notice"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute(statement)


@pytest.mark.parametrize("call", ["pushy.unwatch('t')", "pushy.watch_pause('t')", "pushy.watch_resume('t')", "pushy.watch('t', channel => 'heard', payload => 'row')"])
def test_a_watch_is_changed_by_its_maker_and_the_tables_owner_only(db, heard, as_role, call):
    maker_name, maker = as_role("TRIGGER ON t")
    maker.execute(WATCH)
    _, colleague = as_role("TRIGGER ON t")
    _, stranger = as_role("SELECT ON t")
    with pytest.raises(psycopg.errors.InsufficientPrivilege) as raised:
        colleague.execute(f"SELECT {call}")
    assert raised.value.diag.message_hint == f'It was made by role "{maker_name}".'
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        stranger.execute(f"SELECT {call}")
    # A role that may not is told so before it waits for, or holds, a lock.
    with db.connect(autocommit=False) as writer:
        writer.execute("INSERT INTO t VALUES (1)")
        colleague.execute("SET lock_timeout = '5s'")
        if "watch('t', " not in call:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                colleague.execute(f"SELECT {call}")
        writer.commit()
    heard.until_now()
    _, member = as_role(maker_name)
    member.execute(f"SELECT {call}")
    owner_name, owner = as_role()
    db.sql(f"SELECT pushy.unwatch('t'); ALTER TABLE t OWNER TO {owner_name}")
    db.sql(f"GRANT TRIGGER ON t TO {maker_name}")
    maker.execute(WATCH)
    owner.execute(f"SELECT {call}")


def test_a_maker_who_has_lost_trigger_may_still_end_the_watch(db, heard, as_role):
    name, maker = as_role("TRIGGER ON t")
    maker.execute(WATCH)
    db.sql(f"REVOKE TRIGGER ON t FROM {name}")
    assert maker.execute("SELECT pushy.unwatch('t')").fetchone() == (1,)
    # Its triggers stay, because to drop them locks the table.
    assert db.rows("SELECT state FROM pushy.watches") == [("orphaned",)]
    assert heard.after("INSERT INTO t VALUES (1)") == []
    db.sql("SELECT pushy.unwatch('t')")
    assert db.value("SELECT count(*) FROM pg_trigger WHERE tgrelid = 't'::regclass") == 0


@pytest.mark.parametrize("payload, warns", [("row", True), ("diff", True), ("key", False), ("none", False)])
def test_rows_of_a_table_with_row_security_are_told_with_a_warning(db, payload, warns):
    db.sql("CREATE TABLE t (id int PRIMARY KEY); ALTER TABLE t ENABLE ROW LEVEL SECURITY")
    warnings = []
    with db.connect() as session:
        session.add_notice_handler(lambda diagnostic: warnings.append((diagnostic.severity, diagnostic.message_primary)))
        session.execute("SELECT pushy.watch('t', payload => %s)", (payload,))
    assert warnings == ([("WARNING", "notices of public.t show rows that row security hides")] if warns else [])


def test_operators_and_functions_planted_in_the_path_are_not_found(db, heard, as_role):
    """Of another's watch; what a condition means is settled when it is declared."""
    paused_queue(db)
    db.sql("CREATE TABLE caught (what text); GRANT INSERT ON caught TO PUBLIC; GRANT CREATE ON SCHEMA public TO PUBLIC")
    watch(db, "t", columns=["v"], condition="NEW.v = 2 OR OLD IS NULL", queue="q", args_expr="NEW", payload="row")
    _, writer = as_role("INSERT, UPDATE, SELECT ON t")
    writer.execute("""
        CREATE FUNCTION public.caught(int, int) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.caught VALUES ('='); RETURN false; END $$;
        CREATE OPERATOR public.= (LEFTARG = int, RIGHTARG = int, FUNCTION = public.caught);
        CREATE FUNCTION public.to_jsonb(anyelement) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.caught VALUES ('to_jsonb'); RETURN '{}'; END $$;
        CREATE FUNCTION public.unnest(anyarray) RETURNS SETOF anyelement LANGUAGE sql AS $$ INSERT INTO public.caught VALUES ('unnest'); SELECT $1[1] $$;
        SET search_path = public, pg_temp, pg_catalog""")
    for statement in ("INSERT INTO t VALUES (1, 1)", "UPDATE t SET v = 2"):
        writer.execute(statement)
    assert heard.after() == [("insert", 1), ("update", 1)]
    assert jobs(db) == [{"id": 1, "v": 1}, {"id": 1, "v": 2}]
    db.sql(f"GRANT TRIGGER ON t TO {writer.info.user}")
    writer.execute("SELECT pushy.watch('t', name => 'own', payload => 'row', level => 'row', channel => 'heard')")
    writer.execute("UPDATE t SET v = 3")
    writer.execute("SELECT pushy.watch_pause('t', 'own'), pushy.watch_resume('t', 'own'), pushy.unwatch('t', 'own')")
    writer.execute("SELECT * FROM pushy.watches")
    assert db.rows("SELECT what FROM caught") == []


def test_an_expression_is_read_along_the_search_path_of_each_firing(db):
    """Of a function in SQL the server puts the body in place of the call, when the expression is compiled."""
    db.sql("""
        CREATE SCHEMA ta; CREATE SCHEMA tb; CREATE TABLE s (id int PRIMARY KEY);
        CREATE FUNCTION ta.tenant() RETURNS text STABLE LANGUAGE sql AS $$SELECT 'a'::text$$;
        CREATE FUNCTION tb.tenant() RETURNS text STABLE LANGUAGE sql AS $$SELECT 'b'::text$$;
        SET search_path = ta, public;
        CREATE FUNCTION public.who() RETURNS text STABLE LANGUAGE sql AS 'SELECT tenant()'""")
    watch(db, "s", payload_expr="public.who()", delivery="notify")
    heard = Watching(db, "heard", relayed=False)
    for id, path, who in [(1, "ta", "a"), (2, "tb", "b"), (3, "ta", "a"), (4, "tb", "b")]:
        db.sql(f"SET search_path = {path}, public; INSERT INTO public.s VALUES ({id})")
        db.sql("RESET search_path")
        assert [notice.payload for notice in heard.until_now()] == [who]


# What a watch's maker may call when nothing was left of its rights on the table.
AFTER_REVOKE = {
    "unwatch": "SELECT pushy.unwatch({table}, 'w')",
    "unwatch all": "SELECT pushy.unwatch({table})",
    "watch_pause": "SELECT pushy.watch_pause({table}, 'w')",
    "watch_resume": "SELECT pushy.watch_resume({table}, 'w')",
    "watch": "SELECT pushy.watch({table}, channel => 'other', name => 'w')",
    "watch as it is": "SELECT pushy.watch({table}, channel => 'heard', queue => 'fed', name => 'w')",
    "queue_rename": "SELECT pushy.queue_rename('fed', 'renamed')",
    "queue_drop": "SELECT pushy.queue_drop('fed', force => true)",
    "resume_after_restore": "SELECT * FROM pushy.resume_after_restore()",
    "view": "SELECT * FROM pushy.watches",
}


@pytest.mark.parametrize("kind", ["table", "partitioned"])
@pytest.mark.parametrize("call", AFTER_REVOKE)
def test_who_may_make_no_triggers_any_more_locks_nobody_out_of_the_table(db, as_role, role, call, kind):
    owner = role()
    db.sql(f"CREATE SCHEMA s AUTHORIZATION {owner}")
    theirs = db.connect(user=owner)
    theirs.execute("CREATE TABLE s.t (id int PRIMARY KEY)" if kind == "table" else
                   "CREATE TABLE s.t (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE s.p PARTITION OF s.t DEFAULT")
    maker, session = as_role("USAGE ON SCHEMA pushy")
    theirs.execute(f"GRANT USAGE ON SCHEMA s TO {maker}; GRANT TRIGGER ON ALL TABLES IN SCHEMA s TO {maker}")
    db.sql(f"CREATE SCHEMA own AUTHORIZATION {maker}")
    session.execute("CREATE FUNCTION own.h(jsonb) RETURNS void LANGUAGE sql AS ''")
    session.execute("SELECT pushy.queue_register('fed', 'own.h(jsonb)'), pushy.queue_pause('fed')")
    session.execute("SELECT pushy.watch('s.t', channel => 'heard', queue => 'fed', name => 'w')")
    theirs.execute(f"REVOKE ALL ON ALL TABLES IN SCHEMA s FROM {maker}; REVOKE ALL ON SCHEMA s FROM {maker}")
    table = db.value("SELECT 's.t'::regclass::oid")
    session.execute("BEGIN")
    try:
        session.execute(AFTER_REVOKE[call].format(table=table))
    except psycopg.errors.InsufficientPrivilege:
        session.execute("ROLLBACK")
        session.execute("BEGIN")
    strong = db.rows("SELECT mode FROM pg_locks WHERE pid = %s AND locktype = 'relation' AND relation::regclass::text LIKE 's.%%' "
                     "AND mode NOT IN ('AccessShareLock', 'RowShareLock')", session.info.backend_pid)
    assert strong == []
    theirs.execute("SET lock_timeout = '2 s'")
    theirs.execute("INSERT INTO s.t VALUES (1)")
    session.execute("COMMIT")
    is_ended = call.startswith("unwatch")
    assert db.value("SELECT count(*) FROM pushy_internal.watch") == (0 if is_ended else 1)
    theirs.execute("INSERT INTO s.t VALUES (2)")
    if is_ended:
        assert db.rows("SELECT state FROM pushy.watches") == [("orphaned",)]
        assert db.value("SELECT count(*) FROM pushy.jobs") == 1
        # The maker cannot do it again, and the owner removes what is left.
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="must be owner of table"):
            session.execute(f"SELECT pushy.unwatch({table})")
        assert theirs.execute("SELECT pushy.unwatch('s.t')").fetchone() == (1,)
    else:
        theirs.execute("SELECT pushy.unwatch('s.t')")
    assert db.value("SELECT count(*) FROM pg_trigger WHERE tgrelid = 's.t'::regclass AND tgname LIKE 'pushy%'") == 0
