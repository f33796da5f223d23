"""Bad input to every function: the SQLSTATE, a message that names the value, a hint where something can be done."""

import json

import psycopg
import pytest
from harness.versions import skip_unless_workers_must_log_in

NULL, RANGE, UNKNOWN_FUNCTION, UNKNOWN, INVALID = "22004", "22003", "42883", "42704", "22023"

TOKEN = "'00000000-0000-0000-0000-000000000000'"
HELD = ["job_complete", "job_fail", "job_extend", "job_release"]


def settle(outcome: str, **more) -> str:
    said = {"job_id": 1, "token": TOKEN.strip("'"), "outcome": outcome, **more}
    return f"SELECT pushy.jobs_settle('{json.dumps([said])}')"


CASES = [  # statement, SQLSTATE, what the message says, what the hint says (None: need not be there)

    # NULL where a value is due names the argument.
    ("SELECT pushy.queue_register(NULL, 'fine()')", NULL, "queue", None),
    ("SELECT pushy.enqueue(NULL)", NULL, "queue", None),
    ("SELECT pushy.enqueue_many(NULL, '{}')", NULL, "queue", None),
    ("SELECT pushy.enqueue_many('q', NULL)", NULL, "args", None),
    ("SELECT pushy.enqueue_many('q', ARRAY['1', NULL]::jsonb[])", NULL, "args[2]", "'{}'"),
    ("SELECT pushy.queue_alter(NULL)", NULL, "queue", None),
    ("SELECT pushy.queue_pause(NULL)", NULL, "queue", None),
    ("SELECT pushy.queue_resume(NULL)", NULL, "queue", None),
    ("SELECT pushy.queue_drop(NULL)", NULL, "queue", None),
    ("SELECT pushy.queue_explain(NULL)", NULL, "queue", None),
    ("SELECT pushy.queue_rename(NULL, 'p')", NULL, "queue", None),
    ("SELECT pushy.queue_rename('q', NULL)", NULL, "new_name", None),
    ("SELECT pushy.queue_run(NULL)", NULL, "queue", None),
    ("SELECT pushy.queue_grant(NULL, 'postgres', 'enqueue')", NULL, "queue", None),
    ("SELECT pushy.queue_grant('q', NULL, 'enqueue')", NULL, "role", None),
    ("SELECT pushy.queue_revoke(NULL, 'postgres', 'enqueue')", NULL, "queue", None),
    ("SELECT pushy.job_cancel(NULL)", NULL, "job_id", None),
    ("SELECT pushy.job_retry(NULL)", NULL, "job_id", None),
    ("SELECT pushy.job_wait(NULL)", NULL, "job_id", None),
    ("CALL pushy.jobs_wait(NULL)", NULL, "queue", None),
    ("SELECT * FROM pushy.job_trace(NULL)", NULL, "job_id", None),
    ("SELECT pushy.watch(NULL)", NULL, "relation", None),
    ("SELECT pushy.watch('w', events => '{insert,NULL}')", NULL, "events[2]", None),
    ("SELECT pushy.watch('w', columns => '{id,NULL}')", NULL, "columns[2]", None),
    ("SELECT pushy.unwatch(NULL)", NULL, "relation", None),
    ("SELECT pushy.watch_pause(NULL)", NULL, "relation", None),
    ("SELECT pushy.watch_resume(NULL)", NULL, "relation", None),
    ("SELECT pushy.notice(NULL)", NULL, "id", None),
    ("SELECT pushy.subscription_create(NULL, '{a}')", NULL, "name", None),
    ("SELECT pushy.subscription_create('s', '{a,NULL}')", NULL, "channels", None),
    ("SELECT * FROM pushy.subscription_read(NULL)", NULL, "name", None),
    ("SELECT pushy.subscription_ack(NULL, '1')", NULL, "name", None),
    ("SELECT pushy.subscription_ack('nowhere', NULL)", NULL, "cursor", None),
    ("CALL pushy.subscription_wait(NULL)", NULL, "name", None),
    ("SELECT pushy.subscription_drop(NULL)", NULL, "name", None),
    ("SELECT pushy.subscription_create('s', topics => '{a,NULL}')", NULL, "topics[2]", None),
    ("SELECT * FROM pushy_internal.log_read(NULL)", NULL, "after", None),
    ("CALL pushy_internal.log_wait(NULL)", NULL, "after", None),
    ("SELECT * FROM pushy_internal.log_read('0-0-0', max_notices => 0)", INVALID, "max_notices", None),
    ("SELECT * FROM pushy_internal.log_read('x')", INVALID, '"x"', "log_position"),

    ("SELECT pushy.gateway_key_register(NULL)", NULL, "name", None),
    ("SELECT pushy.gateway_key_drop(NULL)", NULL, "name", None),
    ("SELECT pushy.gateway_grant(NULL)", NULL, "role", None),
    ("SELECT pushy.gateway_revoke(NULL)", NULL, "role", None),
    ("SELECT pushy.gateway_grant('nobody_of_that_name')", UNKNOWN, "nobody_of_that_name", None),
    ("SELECT pushy.gateway_revoke('nobody_of_that_name')", UNKNOWN, "nobody_of_that_name", None),
    ("SELECT pushy.gateway_key_register('k', role => 'nobody_of_that_name')", UNKNOWN, "nobody_of_that_name", None),
    ("SELECT pushy.gateway_key_register('', role => 'postgres')", INVALID, "name", None),
    ("SELECT pushy.gateway_key_register('k', issuer => '', role => 'postgres')", INVALID, "issuer", "1 to 1024 bytes"),
    ("SELECT pushy.ticket_create(NULL)", NULL, "channels", None),
    ("SELECT pushy.ticket_create('{a,NULL}')", NULL, "channels[2]", None),
    ("SELECT pushy.ticket_create('{}')", INVALID, "channels", "1 to 100 channels"),
    ("SELECT pushy.ticket_create('{a}', valid => '-1 s')", INVALID, "valid", "1 day"),
    ("SELECT pushy.socket_close()", INVALID, "subject or a channel", "pushy.sockets"),
    ("SELECT pushy.socket_close('ann', topic => 'a/b')", INVALID, '"a/b"', "channel"),
    ("SELECT pushy.presence(NULL, 'a')", NULL, "channel", None),
    ("SELECT pushy.presence('a', NULL)", NULL, "topic", None),
    ("SELECT pushy.presence('a', '')", INVALID, "topic", None),
    ("SELECT pushy_internal.gateway_authorize(NULL, NULL, 'a', NULL)", NULL, "role", None),
    ("SELECT pushy_internal.gateway_authorize('a', NULL, NULL, NULL)", NULL, "channel", None),
    ("SELECT pushy_internal.gateway_redeem(NULL)", NULL, "ticket", None),
    ("SELECT pushy_internal.gateway_report(NULL, '[]', '{}')", NULL, "sockets", None),
    ("SELECT pushy_internal.gateway_report('[]', '{}', '{}')", INVALID, "rooms", "JSON"),
    ("SELECT pushy_internal.gateway_report('[]', '[]', '[]')", INVALID, "in_all", "JSON"),

    ("SELECT pushy_internal.queue_visible(NULL)", NULL, "queue_id", None),
    ("SELECT pushy_internal.queue_monitored(NULL)", NULL, "queue_id", None),

    ("SELECT pushy.job_claim(NULL)", NULL, "queue", None),
    ("CALL pushy.job_claim_wait(NULL)", NULL, "queue", None),
    ("SELECT pushy.queue_channel(NULL)", NULL, "queue", None),
    ("SELECT pushy.jobs_settle(NULL)", NULL, "outcomes", None),
    *((f"SELECT pushy.{call}(NULL, {TOKEN})", NULL, "job_id", None) for call in HELD),
    *((f"SELECT pushy.{call}(1, NULL)", NULL, "token", None) for call in HELD),

    # Names that are not there.
    ("SELECT pushy.enqueue('nowhere')", UNKNOWN, 'queue "nowhere" does not exist', "queue_register"),
    ("SELECT pushy.enqueue('')", UNKNOWN, 'queue "" does not exist', "queue_register"),
    ("SELECT pushy.enqueue_many('nowhere', '{1}')", UNKNOWN, '"nowhere"', "queue_register"),
    ("SELECT pushy.queue_alter('nowhere')", UNKNOWN, '"nowhere"', None),
    ("SELECT pushy.queue_pause('nowhere')", UNKNOWN, '"nowhere"', None),
    ("SELECT pushy.queue_resume('nowhere')", UNKNOWN, '"nowhere"', None),
    ("SELECT pushy.queue_drop('nowhere')", UNKNOWN, '"nowhere"', None),
    ("SELECT pushy.queue_explain('nowhere')", UNKNOWN, '"nowhere"', None),
    ("SELECT pushy.queue_run('nowhere')", UNKNOWN, '"nowhere"', None),
    ("SELECT pushy.queue_grant('nowhere', 'postgres', 'enqueue')", UNKNOWN, '"nowhere"', None),
    ("CALL pushy.jobs_wait('nowhere', '1 s')", UNKNOWN, '"nowhere"', None),
    ("SELECT pushy.job_cancel(987654321)", UNKNOWN, "987654321", None),
    ("SELECT pushy.job_retry(987654321)", UNKNOWN, "987654321", None),
    ("SELECT pushy.job_wait(987654321, '1 s')", UNKNOWN, "987654321", None),
    ("SELECT * FROM pushy.job_trace(987654321)", UNKNOWN, "987654321", None),
    ("SELECT pushy.unwatch('pg_class', 'nowhere')", UNKNOWN, '"nowhere"', None),
    ("SELECT pushy.notice(987654321)", UNKNOWN, "987654321", "notice_keep"),
    ("SELECT * FROM pushy.subscription_read('nowhere')", UNKNOWN, '"nowhere"', None),
    ("SELECT pushy.subscription_ack('nowhere', '1')", INVALID, '1', "subscription_read"),
    ("SELECT pushy.subscription_ack('nowhere', '1000000001-1-1')", UNKNOWN, '"nowhere"', None),
    ("CALL pushy.subscription_wait('nowhere', '1 s')", UNKNOWN, '"nowhere"', None),
    ("SELECT pushy.subscription_drop('nowhere')", UNKNOWN, '"nowhere"', None),
    ("SELECT pushy.job_cancel(-1)", UNKNOWN, "-1", None),
    ("SELECT pushy.queue_grant('q', 'nobody_of_that_name', 'enqueue')", UNKNOWN, "nobody_of_that_name", None),

    ("SELECT pushy.enqueue('Q')", UNKNOWN, '"Q"', "There is a queue 'q'"),
    ("SELECT pushy.queue_alter('Q')", UNKNOWN, '"Q"', "There is a queue 'q'"),
    ("SELECT pushy.queue_explain('Q')", UNKNOWN, '"Q"', "There is a queue 'q'"),
    ("CALL pushy.jobs_wait('Q', '1 s')", UNKNOWN, '"Q"', "told apart by case"),

    # Handlers.
    ("SELECT pushy.queue_register('new', 'SendMail(jsonb)')", UNKNOWN_FUNCTION, "SendMail", """'public."SendMail"(jsonb)'"""),
    ("SELECT pushy.queue_register('new', 'SendMail')", UNKNOWN_FUNCTION, "SendMail", """'public."SendMail"(jsonb)'"""),
    ("SELECT pushy.queue_register('new', 'two(jsonb)')", UNKNOWN_FUNCTION, "two", "public.two(integer,integer) does not"),
    ("SELECT pushy.queue_register('new', 'public.hidden()')", UNKNOWN_FUNCTION, "hidden", "'aside.hidden()'"),
    ("SELECT pushy.queue_register('new', 'nothing()')", UNKNOWN_FUNCTION, "nothing", None),
    ("SELECT pushy.queue_register('new', 'nothing')", UNKNOWN_FUNCTION, "nothing", None),
    ("SELECT pushy.queue_register('new', '')", "42", "", None),
    ("SELECT pushy.queue_register('new', 'not a name(')", "42", "", None),
    ("SELECT pushy.queue_register('new', 'two(int, int)')", "42", "two", "jsonb"),
    ("SELECT pushy.queue_register('new', 'pg_catalog.count(*)')", "42", "count", None),
    ("SELECT pushy.queue_register('new', 'many(jsonb)')", "42", "many", None),
    ("SELECT pushy.queue_register('new', 'definer()')", "42P13", "SECURITY DEFINER", "ALTER PROCEDURE public.definer() SECURITY INVOKER"),
    ("SELECT pushy.queue_register('new', 'sets()')", "42P13", "SET clauses", "ALTER PROCEDURE public.sets() RESET ALL"),
    ("SELECT pushy.queue_register('new', 'answers(jsonb)')", "42P13", "OUT or INOUT", "a function can return"),

    ("SELECT pushy.queue_register('fine()', 'mails')", UNKNOWN_FUNCTION, "mails", "pushy.queue_register('mails', 'fine()')"),

    # Values out of range.
    ("SELECT pushy.queue_register('', 'fine()')", INVALID, "queue", None),
    ("SELECT pushy.queue_register(repeat('x', 5000), 'fine()')", "22", "queue", None),
    ("SELECT pushy.queue_register('new', 'fine()', priority => 10)", INVALID, "10", "0"),
    ("SELECT pushy.queue_register('new', 'fine()', priority => -1)", INVALID, "-1", "0"),
    ("SELECT pushy.queue_register('new', 'fine()', concurrency => -1)", INVALID, "-1", "0 for no limit"),
    ("SELECT pushy.queue_register('new', 'fine()', max_attempts => 0)", INVALID, "max_attempts", None),
    ("SELECT pushy.queue_register('new', 'fine()', max_attempts => -5)", INVALID, "-5", None),
    ("SELECT pushy.queue_register('new', 'fine()', backoff => 'random')", INVALID, "random", "exponential"),
    ("SELECT pushy.queue_register('new', 'fine()', retry_delay => '-1 s')", INVALID, "retry_delay", None),
    ("SELECT pushy.queue_register('new', 'fine()', max_retry_delay => '-1 s')", INVALID, "max_retry_delay", None),
    ("SELECT pushy.queue_register('new', 'fine()', timeout => '-1 s')", INVALID, "timeout", None),
    ("SELECT pushy.queue_register('new', 'fine()', keep_completed => '-1 s')", INVALID, "keep_completed", None),
    ("SELECT pushy.queue_register('new', 'fine()', keep_discarded => '-1 s')", INVALID, "keep_discarded", None),
    ("SELECT pushy.queue_register('new', lease => '999 us')", INVALID, "lease", "1 ms or more"),
    ("SELECT pushy.queue_alter('q', priority => 10)", INVALID, "10", None),
    ("SELECT pushy.enqueue('q', priority => 10)", INVALID, "10", "0"),
    ("SELECT pushy.enqueue('q', priority => -1)", INVALID, "-1", "0"),
    ("SELECT pushy.enqueue('q', max_attempts => 0)", INVALID, "max_attempts", None),
    ("SELECT pushy.enqueue('q', timeout => '-1 s')", INVALID, "timeout", None),
    ("SELECT pushy.enqueue('q', delay => '-1 s')", INVALID, "delay", None),
    ("SELECT pushy.enqueue('q', run_at => 'infinity')", INVALID, "infinity", None),
    ("SELECT pushy.enqueue('q', run_at => now(), delay => '1 s')", INVALID, "delay", None),
    ("SELECT pushy.enqueue('q', unique_key => repeat('k', 10000))", "22", "unique_key", None),
    ("SELECT pushy.queue_grant('q', 'postgres', 'everything')", INVALID, "everything", "enqueue"),
    ("SELECT pushy.has_queue_privilege('q', 'everything')", INVALID, "everything", "enqueue"),
    ("SELECT pushy.job_wait(1, '2 minutes')", INVALID, "timeout", "jobs_wait"),
    ("SELECT pushy.job_wait(1, '-1 s')", INVALID, "timeout", None),

    ("SELECT pushy.watch('w', condition => 'true) OR (true')", "42601", "true) OR (true", "NEW"),
    ("SELECT pushy.watch('w', condition => 'id > 1')", "42702", "id", "NEW.amount"),
    ("SELECT pushy.watch('w', condition => 'NEW.id')", "42804", "boolean", "a condition is boolean"),
    ("SELECT pushy.watch('w', condition => 'abs(NEW.id)')", "42804", "boolean", "a condition is boolean"),
    ("SELECT pushy.watch('w', condition => 'NEW.word = \"paid\"')", "42703", "paid", "single quotes: 'paid'"),
    ("SELECT pushy.watch('w', queue => 'q', args_expr => '$${\"id\":1}$$')", "42804", "", "::jsonb"),
    ("SELECT pushy.watch('w', events => '{truncate}', condition => 'NEW.id > 1')", INVALID, "condition", "rows"),
    ("SELECT pushy.watch('w', events => '{truncate}', payload_expr => '1')", INVALID, "payload_expr", "rows"),

    # Workers outside.
    ("SELECT pushy.job_claim('nowhere')", UNKNOWN, '"nowhere"', "queue_register"),
    ("SELECT pushy.job_claim('q')", "55000", 'queue "q" has a handler', "pushy.queue_register('q')"),
    ("SELECT pushy.queue_channel('q')", "55000", 'queue "q" has a handler', "pushy.queue_register('q')"),
    ("CALL pushy.job_claim_wait('q', '0')", "55000", 'queue "q" has a handler', "pushy.queue_register('q')"),
    ("SELECT pushy.queue_run('out')", "55000", 'queue "out" has no handler', "pushy.job_claim('out')"),
    ("SELECT pushy.job_claim('out', -1)", INVALID, "-1", "1000"),
    ("SELECT pushy.job_claim('out', 1001)", INVALID, "1001", "1000"),
    ("SELECT pushy.job_claim('out', lease => '-1 s')", INVALID, "lease", "0 for a claim that ends with its session"),
    ("SELECT pushy.job_claim('out', lease => '1 us')", INVALID, "lease", "1 ms or more"),
    ("SELECT pushy.job_claim('out', worker => repeat('w', 201))", INVALID, "201 bytes", "200 bytes"),
    ("SELECT pushy.queue_register('new', lease => '-1 s')", INVALID, "lease", "0 for a claim that ends with its session"),
    (f"SELECT pushy.job_fail(1, {TOKEN}, sqlstate => 'wrong')", INVALID, '"wrong"', "P0001"),
    (f"SELECT pushy.job_fail(1, {TOKEN}, sqlstate => '00000')", INVALID, '"00000"', "success"),
    (settle("fail", sqlstate="00001"), INVALID, '"00001"', "success"),
    (f"SELECT pushy.job_fail(1, {TOKEN}, retry_in => '1 s', discard => true)", INVALID, "retry_in and discard", "for none"),
    (f"SELECT pushy.job_fail(1, {TOKEN}, retry_in => '-1 s')", INVALID, "retry_in", None),
    (f"SELECT pushy.job_release(1, {TOKEN}, '-1 s')", INVALID, "delay", None),
    (f"SELECT pushy.job_extend(1, {TOKEN}, fraction => 2)", INVALID, "fraction", None),
    (f"SELECT pushy.job_extend(1, {TOKEN}, lease => '-1 s')", INVALID, "lease", None),
    ("SELECT pushy.jobs_settle('{}')", INVALID, "outcomes is not an array", "complete"),
    ("SELECT pushy.jobs_settle('[{}]')", INVALID, "job_id", "complete"),
    ("SELECT pushy.jobs_settle('[1]')", INVALID, "element 1 of outcomes is no outcome: it is a number, and not an object", "complete"),
    (f"""SELECT pushy.jobs_settle('[{{"job_id": 1, "token": {TOKEN.replace("'", '"')}, "outcome": "release"}}, {{"job_id": "2"}}]')""",
     INVALID, 'element 2 of outcomes is no outcome: "job_id" is a string, and not a number', "numbers of seconds"),
    (settle("extend", lease="30 s"), INVALID, 'element 1 of outcomes is no outcome: "lease" is a string, and not a number', "numbers of seconds"),
    (settle("extend", lease=1e300), INVALID, "1e300", "0 to 1e12"),
    (settle("done"), INVALID, "done", "complete"),
    (settle("complete", other=1), INVALID, "other", "complete"),
    (settle("snooze"), NULL, "delay", None),
    (settle("snooze", delay=-1), INVALID, "delay", None),
    (settle("fail", retry_in=1e300), INVALID, "retry_in", None),
    # Not shown: it may be one with a blank behind it.
    (settle("complete", token="x"), INVALID, '"token" is not a uuid', "complete"),
    (settle("complete", token=1), INVALID, '"token" is a number, and not a string', "complete"),
    (settle("complete", job_id=1.5), INVALID, '"job_id" is no whole number of a job', "complete"),
    (settle("complete", job_id=2**63), INVALID, '"job_id" is no whole number of a job', "complete"),
    (settle("fail", discard="yes"), INVALID, '"discard" is a string, and not a boolean', "complete"),
    (settle("x" * 10_000), INVALID, '"outcome" is "' + "x" * 64 + '", and not one of complete, fail, discard, release, snooze, extend', "complete"),
    (settle("complete", error="x"), INVALID, '"error" is nothing that "complete" takes, which is result', "complete"),
    (settle("extend", retry_in=1), INVALID, '"retry_in" is nothing that "extend" takes, which is lease, fraction, message', "complete"),
    (settle("snooze", delay=1, lease=1), INVALID, '"lease" is nothing that "snooze" takes, which is delay, error', "complete"),

    # Words for handlers; what a handler says wrongly is in test_words.py.
    ("SELECT pushy.job_checkpoint(NULL)", NULL, "state", None),
    ("SELECT pushy.job_retry_in(NULL)", NULL, "delay", None),
    ("SELECT pushy.job_snooze()", NULL, "delay", None),
    ("SELECT pushy.job_snooze('-1 s')", INVALID, "delay", "0 or more"),
    ("SELECT pushy.job_snooze('1 s', now())", INVALID, "delay and until", "until for a time"),
    ("SELECT pushy.job_log(NULL)", NULL, "message", None),
    ("SELECT pushy.job_log('x', 'loud')", INVALID, '"loud"', "debug, info, warning or error"),
    ("SELECT pushy.job_log('x', job_id => 1)", NULL, "token", None),
    (f"SELECT pushy.job_log('x', token => {TOKEN})", NULL, "job_id", None),

    # In the wrong place.
    ("SELECT pushy.job_progress(0.5, 'half')", "55000", "job", None),
    ("SELECT pushy.job_checkpoint('1')", "55000", "running job", "handler"),
    ("SELECT pushy.job_snooze('1 s')", "55000", "running job", "handler"),
    ("SELECT pushy.job_discard('why')", "55000", "running job", "handler"),
    ("SELECT pushy.job_retry_in('1 s')", "55000", "running job", "handler"),
    ("SELECT pushy.job_log('x')", "55000", "running job", "job_id and token"),
    ("SELECT pushy.queue_run('steps')", "0A000", "is a procedure", "executor"),
    ("DO $$BEGIN PERFORM pushy.job_wait(pushy.enqueue('q'), '1 s'); END$$", "55000", "transaction", None),
]


@pytest.fixture(scope="module")
def database(shared_cluster):
    database = shared_cluster.database()
    database.sql("""
        CREATE FUNCTION fine() RETURNS void LANGUAGE sql AS 'SELECT';
        CREATE FUNCTION two(int, int) RETURNS void LANGUAGE sql AS 'SELECT';
        CREATE FUNCTION many(jsonb) RETURNS SETOF int LANGUAGE sql AS 'SELECT 1';
        CREATE PROCEDURE steps() LANGUAGE sql AS '';
        CREATE PROCEDURE definer() LANGUAGE sql SECURITY DEFINER AS '';
        CREATE PROCEDURE sets() LANGUAGE sql SET search_path = public AS '';
        CREATE PROCEDURE answers(INOUT args jsonb) LANGUAGE plpgsql AS 'BEGIN END';
        CREATE FUNCTION "SendMail"(jsonb) RETURNS void LANGUAGE sql AS 'SELECT';
        CREATE SCHEMA aside; CREATE FUNCTION aside.hidden() RETURNS void LANGUAGE sql AS 'SELECT';
        CREATE TABLE w (id int PRIMARY KEY, word text);
        SELECT pushy.queue_register('steps', 'steps()'), pushy.queue_register('q', 'fine()'), pushy.queue_register('out')""")
    yield database
    database.drop()


@pytest.mark.parametrize("statement, sqlstate, says, hints", CASES, ids=[statement[:70] for statement, *_ in CASES])
def test_bad_input_is_refused(database, statement, sqlstate, says, hints):
    with pytest.raises(psycopg.Error) as refused:
        database.sql(statement)
    diag = refused.value.diag
    seen = f"{diag.sqlstate} {diag.message_primary}\nDETAIL: {diag.message_detail}\nHINT: {diag.message_hint}"
    assert diag.sqlstate.startswith(sqlstate), seen
    assert says in f"{diag.message_primary} {diag.message_detail or ''}", seen
    assert hints is None or hints in (diag.message_hint or ""), seen
    assert not diag.message_primary.endswith(".") and not diag.message_primary[:1].isupper(), f"style: {seen}"


def test_every_function_was_tried(database):
    """A function that is added without a line above fails here."""
    tried = " ".join(statement for statement, *_ in CASES)
    functions = {name for name, in database.rows(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'pushy'::regnamespace "
        "AND has_function_privilege('public', oid, 'EXECUTE') AND pronargs > 0 AND proname NOT LIKE 'channel%' AND proname <> 'notify'")}
    # All that it takes is a boolean: see who may not say it, below.
    functions.remove("resume_after_restore")
    assert {name for name in functions if f"pushy.{name}(" not in tried} == set()


def test_the_rest_of_a_dump_is_dropped_by_the_extensions_owner_only(database, role):
    name = role()
    database.sql(f"GRANT USAGE ON SCHEMA pushy TO {name}")
    with database.connect(user=name) as session, pytest.raises(psycopg.errors.InsufficientPrivilege) as refused:
        session.execute("SELECT * FROM pushy.resume_after_restore(drop_rest => true)")
    database.sql(f"DROP OWNED BY {name}")
    assert "without drop_rest" in refused.value.diag.message_hint


def test_no_function_answers_null_in_silence(database):
    assert database.rows("SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = ANY (ARRAY['pushy', 'pushy_internal']::regnamespace[]) AND proisstrict") == []


def test_job_wait_answers_an_unfinished_job_as_it_is_when_the_time_is_over(database):
    job = database.value("SELECT pushy.enqueue('q', delay => '1 hour')")
    assert database.row("SELECT id, state FROM pushy.job_wait(%s, '50 ms')", job) == {"id": job, "state": "scheduled"}


def test_jobs_wait_answers_whether_the_queue_is_empty_and_is_no_error_when_the_time_is_over(database):
    database.sql("SELECT pushy.queue_register('stuck', 'fine()'), pushy.queue_pause('stuck')")
    assert database.value("CALL pushy.jobs_wait('stuck', '50 ms')") is True
    database.sql("SELECT pushy.enqueue('stuck')")
    assert database.value("CALL pushy.jobs_wait('stuck', '50 ms')") is False


def test_an_optional_argument_that_is_null_was_not_said(database):
    database.sql("SELECT pushy.queue_register('null', 'fine()')")
    job = database.value("SELECT pushy.enqueue('null', NULL, NULL, NULL, NULL, NULL, NULL, NULL)")
    assert database.row("SELECT args, state FROM pushy.job_wait(%s, NULL)", job) == {"args": {}, "state": "completed"}
    assert database.value("CALL pushy.jobs_wait('null', NULL)") is True


def said(database, statement: str, user: str = "postgres") -> list[tuple]:
    heard = []
    with database.connect(user) as session:
        session.add_notice_handler(lambda diag: heard.append((diag.message_primary, diag.message_hint)))
        session.execute(statement)
    return heard


def test_jobs_wait_says_at_once_that_the_queue_is_paused(database):
    database.sql("SELECT pushy.queue_register('paused', 'fine()'), pushy.queue_pause('paused')")
    assert said(database, "CALL pushy.jobs_wait('paused', '1 hour')") == []  # nothing to wait for
    database.sql("SELECT pushy.enqueue('paused')")
    heard = []
    with database.connect() as session:
        def go_on(diag):
            heard.append((diag.message_primary, diag.message_hint))
            database.sql(diag.message_hint.removeprefix("Run: ").removesuffix("."))
        session.add_notice_handler(go_on)
        session.execute("CALL pushy.jobs_wait('paused', '1 hour')")
    assert heard == [("jobs of queue \"paused\" do not run now: the queue is paused", "Run: SELECT pushy.queue_resume('paused').")]


def test_a_delay_that_is_longer_than_the_longest_is_told(database):
    register = "SELECT pushy.queue_register('slow', 'fine()', retry_delay => '10 s', max_retry_delay => '2 s')"
    told = [("queue \"slow\" waits 00:00:02 after each failed attempt, its max_retry_delay, because its retry_delay of 00:00:10 is longer",
             "Pass max_retry_delay as well: no attempt is put off longer than that.")]
    assert said(database, register) == told
    assert said(database, "SELECT pushy.queue_alter('slow', priority => 1)") == []
    assert said(database, "SELECT pushy.queue_alter('slow', retry_delay => '1 s')") == []
    assert said(database, "SELECT pushy.queue_alter('slow', retry_delay => '10 s')") == told


def test_no_limit_is_written_alike_where_a_queue_is_declared_and_where_it_is_altered(database):
    seen = []
    for call in ("queue_register('free', 'fine()', concurrency => 3)", "queue_alter('free', concurrency => 0)",
                 "queue_register('free', 'fine()', concurrency => 3)", "queue_register('free', 'fine()', concurrency => 0)"):
        database.sql(f"SELECT pushy.{call}")
        seen.append(database.value("SELECT concurrency FROM pushy.queues WHERE queue = 'free'"))
    assert seen == [3, None, 3, None]


def test_nobody_is_advised_to_grant_a_superuser(database, role):
    name = role()
    database.sql(f"GRANT USAGE ON SCHEMA pushy TO {name}; GRANT CREATE ON SCHEMA public TO {name}")
    with database.connect(name) as session, pytest.raises(psycopg.errors.InsufficientPrivilege) as refused:
        session.execute("SELECT pushy.queue_register('mine', 'fine()', run_as => 'postgres')")
    assert refused.value.diag.message_primary == f"role {name} may not become role postgres"
    database.sql(f"DROP OWNED BY {name}")
    assert "GRANT" not in refused.value.diag.message_hint and "no superuser" in refused.value.diag.message_hint


def test_an_owner_without_a_session_is_advised_to_name_a_role_that_has_one(database, role):
    skip_unless_workers_must_log_in(database)
    name = role()
    database.sql(f"ALTER ROLE {name} NOLOGIN; GRANT USAGE ON SCHEMA pushy TO {name}")
    with database.connect() as session, pytest.raises(psycopg.Error, match="not permitted to log in") as refused:
        session.execute(f"SET ROLE {name}")
        session.execute("SELECT pushy.queue_register('boss', 'fine()')")
    database.sql(f"DROP OWNED BY {name}")
    assert refused.value.diag.message_hint.startswith(f"Pass run_as => a role that logs in and of which {name} is a member, or")


def test_jobs_wait_wants_to_be_called_outside_a_transaction_block(database):
    with database.connect(autocommit=False) as session, pytest.raises(psycopg.errors.InvalidTransactionTermination):
        session.execute("CALL pushy.jobs_wait('q')")


def test_a_block_of_plpgsql_gives_jobs_wait_a_variable(database):
    database.sql("DO $$ DECLARE is_empty boolean; BEGIN CALL pushy.jobs_wait('q', '10 s', is_empty); ASSERT is_empty; END $$")


def test_a_superuser_is_told_first_to_let_jobs_run_as_the_handlers_owner(database, role):
    name = role()
    database.sql(f"CREATE FUNCTION theirs(jsonb) RETURNS void LANGUAGE sql AS ''; ALTER FUNCTION theirs(jsonb) OWNER TO {name}")
    with pytest.raises(psycopg.Error, match="superuser") as refused:
        database.sql("SELECT pushy.queue_register('theirs', 'theirs(jsonb)')")
    assert refused.value.diag.message_hint.startswith(f"Pass run_as => '{name}', so that the jobs run as the handler's owner;")
    database.sql(f"SELECT pushy.queue_register('theirs', 'theirs(jsonb)', run_as => '{name}')")
    assert database.job_wait(database.value("SELECT pushy.enqueue('theirs')"))["state"] == "completed"
    database.sql("SELECT pushy.queue_drop('theirs'); DROP FUNCTION theirs(jsonb)")
