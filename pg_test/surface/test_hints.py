"""What an error, a warning or a notice says to do: it is about the case at hand, and right."""

import psycopg
import pytest

from harness.refusal import refused


def notices(session) -> list[str]:
    said = []
    session.add_notice_handler(lambda diag: said.append(f"{diag.severity}: {diag.message_primary} HINT: {diag.message_hint}"))
    return said


@pytest.fixture
def shop(db, role):
    """`owner` has queue q and table t in its schema; `other` may use Pushy."""
    db.owner, db.other = role(), role()
    db.sql(f"GRANT USAGE ON SCHEMA pushy TO {db.owner}, {db.other}; CREATE SCHEMA app AUTHORIZATION {db.owner}")
    with db.connect(user=db.owner) as session:
        session.execute("CREATE TABLE app.t (id int PRIMARY KEY, v text); CREATE FUNCTION app.work(jsonb) RETURNS void LANGUAGE sql AS '';"
                        "SELECT pushy.queue_register('q', 'app.work(jsonb)')")
    return db


def test_who_may_not_change_a_queue_is_told_whose_it_is_also_since_it_was_given_away(shop, role):
    with shop.connect(user=shop.other) as session:
        refused(session, "SELECT pushy.queue_pause('q')", "42501", f'It belongs to role "{shop.owner}"')
        heir = role()
        shop.sql("ALTER FUNCTION app.work(jsonb) OWNER TO postgres; GRANT USAGE ON SCHEMA app TO PUBLIC")
        shop.sql(f"SELECT pushy.queue_alter('q', owner => '{heir}', run_as => '{heir}')")
        refused(session, "SELECT pushy.queue_pause('q')", "42501", f'It belongs to role "{heir}"')


def test_the_owner_alone_does_where_the_role_is_left_and_says_what_it_lacks_where_it_is_not(shop, role):
    heir = role()
    shop.sql("GRANT USAGE ON SCHEMA app TO PUBLIC; ALTER FUNCTION app.work(jsonb) OWNER TO postgres; ALTER SCHEMA app OWNER TO postgres; ALTER TABLE app.t OWNER TO postgres")
    shop.sql(f"DROP OWNED BY {shop.owner}; DROP ROLE {shop.owner}")
    with pytest.raises(psycopg.Error) as error:
        shop.sql(f"SELECT pushy.queue_alter('q', owner => '{heir}')")
    assert error.value.diag.message_primary == f"role {shop.owner} does not exist"
    hint = error.value.diag.message_hint
    shop.sql(hint[hint.index("SELECT"):].removesuffix("."))
    assert shop.rows("SELECT owner::text FROM pushy.queues") == [(heir,)]
    assert shop.job_wait(shop.value("SELECT pushy.enqueue('q', '1')"))["state"] == "completed"


def test_a_handler_in_a_schema_that_the_caller_may_not_use_says_which_right_is_missing(shop):
    shop.sql("GRANT USAGE ON SCHEMA pushy TO PUBLIC")
    with shop.connect(user=shop.other) as session:
        refused(session, "SELECT pushy.queue_register('m', 'app.work(jsonb)')", "42501", f"GRANT USAGE ON SCHEMA … TO {shop.other}")


def test_everybody_is_a_role_that_can_be_asked_for(shop):
    assert shop.value("SELECT pushy.has_queue_privilege('q', 'public', 'enqueue')") is False
    shop.sql("SELECT pushy.queue_grant('q', 'public')")
    assert shop.value("SELECT pushy.has_queue_privilege('q', 'public', 'enqueue')") is True
    assert shop.value("SELECT pushy.has_queue_privilege('q', 'public', 'work')") is False


@pytest.mark.parametrize("longest, notices_are", [("0", 0), ("1 second", 1), ("1 day", 0)])
def test_no_longest_delay_cuts_none_short(shop, longest, notices_are):
    with shop.connect(user=shop.owner) as session:
        said = notices(session)
        session.execute(f"SELECT pushy.queue_alter('q', retry_delay => '1 hour', max_retry_delay => '{longest}')")
    assert len(said) == notices_are, said


def test_who_may_enqueue_and_not_see_is_told_which_privilege_a_trace_needs(shop):
    shop.sql("SELECT pushy.queue_grant('q', %s)", shop.other)
    with shop.connect(user=shop.other) as session:
        job = session.execute("SELECT pushy.enqueue('q', '1')").fetchone()[0]
        refused(session, f"SELECT * FROM pushy.job_trace({job})", "42501", 'lacks privilege "monitor"')
        shop.sql("SELECT pushy.queue_revoke('q', %s)", shop.other)
        refused(session, f"SELECT * FROM pushy.job_trace({job})", "42704", f"job {job} does not exist")


def test_a_function_that_the_caller_may_not_execute_is_said_to_be_in_an_expression(shop):
    shop.sql("CREATE FUNCTION public.secretf(text) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT true'; REVOKE EXECUTE ON FUNCTION public.secretf(text) FROM PUBLIC")
    with shop.connect(user=shop.owner) as session:
        refused(session, "SELECT pushy.watch('app.t', condition => 'public.secretf(NEW.v)')", "42501",
                "function secretf", "It is in condition => public.secretf(NEW.v)", "grant EXECUTE on it")
        refused(session, "SELECT pushy.watch('app.t', condition => '')", "42601", 'condition is not an expression: ""')


@pytest.mark.parametrize("trigger", ["AFTER INSERT", "BEFORE INSERT"])
def test_a_trigger_made_by_hand_is_named_with_its_table(shop, trigger):
    shop.sql(f'GRANT EXECUTE ON FUNCTION pushy.watch_row() TO {shop.owner}; CREATE TRIGGER "by Hand" {trigger} ON app.t FOR EACH ROW EXECUTE FUNCTION pushy.watch_row()')
    with pytest.raises(psycopg.Error) as error:
        shop.sql("INSERT INTO app.t VALUES (1)")
    assert 'trigger "by Hand" on table app.t' in error.value.diag.message_primary


def test_a_broken_watch_says_so_when_it_is_resumed(shop):
    with shop.connect(user=shop.owner) as session:
        said = notices(session)
        session.execute("SELECT pushy.watch('app.t', name => 'w'), pushy.watch_pause('app.t', 'w')")
        assert session.execute("SELECT pushy.watch_resume('app.t', 'w')").fetchone() == (1,)
        assert said == []
        [name] = session.execute("SELECT tgname FROM pg_trigger WHERE tgrelid = 'app.t'::regclass LIMIT 1").fetchone()
        session.execute(psycopg.sql.SQL("DROP TRIGGER {} ON app.t").format(psycopg.sql.Identifier(name)))
        assert session.execute("SELECT pushy.watch_resume('app.t', 'w')").fetchone() == (1,)
        assert len(said) == 1 and said[0].startswith('WARNING: watch "w" of table app.t was resumed, but it publishes nothing'), said


def test_a_subscription_that_is_there_says_that_it_keeps_its_cursor(shop):
    with shop.connect(user=shop.owner) as session:
        said = notices(session)
        session.execute("SELECT pushy.subscription_create('s', from_oldest => true)")
        session.execute("SELECT pushy.subscription_create('s')")
        assert said == []
        session.execute("SELECT pushy.subscription_create('s', from_oldest => true)")
    assert len(said) == 1 and "keeps its cursor" in said[0] and "SELECT pushy.subscription_drop('s')" in said[0]


def test_a_prepared_reader_is_named_to_who_waits_for_it(make_cluster):
    db = make_cluster({"max_prepared_transactions": 4}).database()
    db.sql("SELECT pushy.subscription_create('s')")
    with db.connect(autocommit=False) as session:
        session.execute("SELECT count(*) FROM pushy.subscription_read('s')")
        session.execute("PREPARE TRANSACTION 'forgotten'")
    with db.connect() as session:
        said = notices(session)
        session.execute("SET lock_timeout = '200 ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            session.execute("SELECT count(*) FROM pushy.subscription_read('s')")
        assert len(said) == 1 and "waits for prepared transaction 'forgotten'" in said[0] and "ROLLBACK PREPARED 'forgotten'" in said[0]
        session.execute("ROLLBACK PREPARED 'forgotten'")
        session.execute("SELECT count(*) FROM pushy.subscription_read('s')")


def test_who_drops_a_queue_hears_of_prepared_transactions_that_may_have_jobs_of_it(make_cluster):
    db = make_cluster({"max_prepared_transactions": 4}).database()
    db.sql("CREATE FUNCTION work() RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_register('q', 'work()')")
    with db.connect(autocommit=False) as session:
        session.execute("SELECT pushy.enqueue('q')")
        session.execute("PREPARE TRANSACTION 'unseen'")
    with db.connect() as session:
        said = notices(session)
        session.execute("SELECT pushy.queue_drop('q')")
        assert len(said) == 1 and "prepared transactions that nobody sees yet: 'unseen'" in said[0] and "pushy_control" in said[0]
        session.execute("ROLLBACK PREPARED 'unseen'")
        session.execute("SELECT pushy.queue_register('q', 'work()'), pushy.queue_drop('q')")
        assert len(said) == 1


@pytest.mark.parametrize("before, now, told", [
    (", queue => 'q'", ", queue => 'p'", 'subscription "s" feeds queue "p" now, and no longer "q"'),
    (", queue => 'q'", "", 'subscription "s" no longer feeds queue "q"'),
    ("", ", queue => 'q'", 'subscription "s" feeds queue "q" now'),
    (", queue => 'q'", ", queue => 'q'", None),
])
def test_a_subscription_that_is_declared_with_another_queue_says_so(shop, before, now, told):
    with shop.connect(user=shop.owner) as session:
        session.execute("SELECT pushy.queue_register('p', 'app.work(jsonb)')")
        said = notices(session)
        session.execute(f"SELECT pushy.subscription_create('s'{before})")
        session.execute(f"SELECT pushy.subscription_create('s'{now})")
    assert [line.split(" HINT")[0] for line in said] == ([f"NOTICE: {told}"] if told else [])


def test_who_drops_a_queue_with_jobs_of_its_own_transaction_is_not_told_to_wait_for_them(shop):
    with shop.connect(user=shop.owner, autocommit=False) as session:
        session.execute("SELECT pushy.enqueue('q', '1')")
        refused(session, "SELECT pushy.queue_drop('q')", "55006", "This transaction has enqueued some: commit it before you wait")


@pytest.mark.parametrize("events, condition, row", [
    ("insert", "OLD.id > 1", "OLD"), ("delete", "NEW.id > 1", "NEW"), ("insert,update", "OLD.id > 1", None), ("insert", "NEW.id > 1", None), ("delete", "OLD.id > 1", None),
])
def test_a_condition_over_a_row_that_is_never_there_is_told(shop, events, condition, row):
    with shop.connect(user=shop.owner) as session:
        said = notices(session)
        session.execute("SELECT pushy.watch('app.t', events => %s, condition => %s)", (f"{{{events}}}", condition))
    assert len(said) == (1 if row else 0), said
    assert not row or f"looks at {row}, which is all NULL for {events}" in said[0]
