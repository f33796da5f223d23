"""In a read-only transaction a function that writes is refused by its own name; NOTIFY, and so notify, is not a write to the server."""

import psycopg
import pytest

NOBODY = "'00000000-0000-0000-0000-000000000000'"
WRITERS = {
    "queue_register": "'q', 'work()'", "queue_alter": "'q', priority => 3", "queue_pause": "'q'", "queue_resume": "'q'",
    "queue_drop": "'q'", "queue_grant": "'q', 'public', 'work'", "queue_revoke": "'q', 'public', 'work'", "queue_run": "'q'",
    "enqueue": "'q'", "enqueue_many": "'q', '{1}'", "job_cancel": "{job}", "job_retry": "{job}",
    "watch": "'t', 'heard'", "unwatch": "'t'", "watch_pause": "'t'", "watch_resume": "'t'",
    "queue_rename": "'q', 'new'", "channel_grant": "'c', 'public'", "channel_revoke": "'c', 'public'", "resume_after_restore": "",
    "job_claim": "'q'", "job_extend": "{job}, " + NOBODY, "job_complete": "{job}, " + NOBODY, "job_fail": "{job}, " + NOBODY,
    "job_release": "{job}, " + NOBODY, "jobs_settle": "'[]'",
    "job_log": "'x', 'info', {job}, " + NOBODY,
    "ticket_create": "'{c}'", "socket_close": "'ann'", "gateway_key_register": "'k', role => 'postgres'", "gateway_key_drop": "'k'",
    "gateway_grant": "'postgres'", "gateway_revoke": "'postgres'",
    "subscription_create": "'new'", "subscription_ack": "'s', '0'", "subscription_drop": "'s'",
}
READERS = {
    "job_wait": "{job}, '0'", "queue_explain": "'q'", "queue_channel": "'out'", "has_queue_privilege": "'q', 'work'", "job_trace": "{job}",
    "subscription_read": "'s'", "current_job": "", "channel_ident": "'a'", "channel_inspect": "'a'", "version": "", "channel_name": "'a'", "log_position": "", "presence": "'c', 't'", "gateway_explain": "", "metrics": "", "notify": "'a', 'b', 'relay'",
}


@pytest.fixture
def ready(db):
    db.sql("""
        CREATE TABLE t (id int PRIMARY KEY);
        CREATE FUNCTION work() RETURNS void LANGUAGE sql AS '';
        SELECT pushy.queue_register('q', 'work()'), pushy.queue_register('out'), pushy.queue_pause('q'), pushy.subscription_create('s'), pushy.watch('t', 'heard')""")
    db.waiting = db.value("SELECT pushy.enqueue('q')")
    return db


@pytest.mark.parametrize("name", WRITERS | READERS)
def test_a_writer_is_refused_by_its_own_name_and_a_reader_is_not(ready, name):
    call = f"SELECT pushy.{name}({(WRITERS | READERS)[name]})".replace("{job}", str(ready.waiting))
    with ready.connect(autocommit=False) as session:
        session.execute("SET TRANSACTION READ ONLY")
        if name in READERS:
            session.execute(call)
            session.commit()
            return
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction) as error:
            session.execute(call)
        assert "BEGIN READ WRITE" in error.value.diag.message_hint
        assert error.value.diag.message_primary == f"cannot execute pushy.{name}() in a read-only transaction"
        session.rollback()


def test_every_function_is_one_or_the_other(ready):
    """But those that no session calls so: triggers, procedures, what is for a handler, and what needs a number of its own."""
    others = {"watch_row", "watch_statement", "job_progress", "job_checkpoint", "job_snooze", "job_discard", "job_retry_in", "notice"}
    functions = {name for name, in ready.rows("SELECT DISTINCT proname::text FROM pg_proc WHERE pronamespace = 'pushy'::regnamespace AND prokind = 'f'")}
    assert functions - others == set(WRITERS) | set(READERS)
