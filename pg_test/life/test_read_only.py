"""In a read-only transaction a function that writes is refused by its own name; NOTIFY, and so notify, is not a write to the server."""

import psycopg
import pytest

WRITERS = {
    "queue_register": "'q', 'work()'", "queue_alter": "'q', priority => 3", "queue_pause": "'q'", "queue_resume": "'q'",
    "queue_drop": "'q'", "queue_grant": "'q', 'public', 'work'", "queue_revoke": "'q', 'public', 'work'", "queue_run": "'q'",
    "enqueue": "'q'", "enqueue_many": "'q', '{1}'", "job_cancel": "{job}", "job_retry": "{job}",
    "watch": "'t', 'heard'", "unwatch": "'t'", "watch_pause": "'t'", "watch_resume": "'t'",
    "subscription_create": "'new'", "subscription_ack": "'s', '0'", "subscription_drop": "'s'",
}
READERS = {
    "job_wait": "{job}, '0'", "queue_explain": "'q'", "has_queue_privilege": "'q', 'work'", "job_trace": "{job}",
    "subscription_read": "'s'", "current_job": "", "channel_name": "'a'", "notify": "'a', 'b', 'relay'",
}


@pytest.fixture
def ready(db):
    db.sql("""
        CREATE TABLE t (id int PRIMARY KEY);
        CREATE FUNCTION work() RETURNS void LANGUAGE sql AS '';
        SELECT pushy.queue_register('q', 'work()'), pushy.queue_pause('q'), pushy.subscription_create('s'), pushy.watch('t', 'heard')""")
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
        assert error.value.diag.message_primary == f"cannot execute pushy.{name}() in a read-only transaction"
        session.rollback()
