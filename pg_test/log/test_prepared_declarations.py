"""Each declaration in a transaction that is prepared: it is told and in force after COMMIT PREPARED by any session, undone after
ROLLBACK PREPARED, whether or not the server was started anew in between, and no place in shared memory is lost."""

import json
from dataclasses import dataclass

import psycopg
import pytest

from harness.gate import Gate
from harness.waiting import wait_for

PLACES = 64
QUEUE = "SELECT jsonb_agg(to_jsonb(q) - 'changed_at' - 'queue_id') FROM pushy_internal.queue q WHERE queue = '{name}'"
JOBS = "SELECT jsonb_agg(jsonb_build_array(id, state, attempt) ORDER BY id) FROM pushy.jobs WHERE queue = '{name}'"
REGISTER = "SELECT pushy.queue_register('{name}', 'work(jsonb)', concurrency => 1)"
PAUSED = REGISTER + "; SELECT pushy.queue_pause('{name}')"
JOB = "(SELECT id FROM pushy.jobs WHERE queue = '{name}' ORDER BY id LIMIT 1)"


@dataclass
class Declaration:
    statement: str
    before: str = REGISTER
    # What it changes, by a query of one value.
    seen: str = QUEUE
    # What channel pushy_control tells.
    event: str | None = None
    queue: str = "{name}"


DECLARATIONS = {
    "register": Declaration(REGISTER, "", event="register"),
    "register_twice": Declaration(REGISTER + "; SAVEPOINT s; " + REGISTER.replace("1)", "2)") + "; ROLLBACK TO s", "", event="register"),
    "register_again": Declaration(REGISTER.replace("1)", "2)"), event="register"),
    "alter": Declaration("SELECT pushy.queue_alter('{name}', max_attempts => 7)", event="alter"),
    "owner": Declaration("SELECT pushy.queue_alter('{name}', owner => 'heir', run_as => 'heir')", event="alter"),
    "rename": Declaration("SELECT pushy.queue_rename('{name}', 'r_{name}'); SELECT pushy.enqueue('r_{name}')", PAUSED,
                          "SELECT count(*) FROM pushy.queues q LEFT JOIN pushy.jobs j USING (queue) WHERE q.queue = 'r_{name}' AND j.id > 0", event="rename", queue="r_{name}"),
    "pause": Declaration("SELECT pushy.queue_pause('{name}')", event="pause"),
    "resume": Declaration("SELECT pushy.queue_resume('{name}')", PAUSED, event="resume"),
    "drop": Declaration("SELECT pushy.queue_drop('{name}')", event="drop"),
    "drop_force": Declaration("SELECT pushy.queue_drop('{name}', force => true)", PAUSED + "; SELECT pushy.enqueue('{name}')", event="drop"),
    "drop_and_register": Declaration("SELECT pushy.queue_drop('{name}'); " + REGISTER.replace("1)", "3)"), event="drop"),
    "grant": Declaration("SELECT pushy.queue_grant('{name}', 'pg_monitor', 'enqueue')",
                         seen="SELECT count(*) FROM pushy_internal.queue_acl a JOIN pushy_internal.queue q USING (queue_id) WHERE q.queue = '{name}'"),
    "cancel": Declaration("SELECT pushy.job_cancel(" + JOB + ")", PAUSED + "; SELECT pushy.enqueue('{name}')", JOBS, event="cancel"),
    "cancel_later": Declaration("SELECT pushy.job_cancel(" + JOB + ")", PAUSED + "; SELECT pushy.enqueue('{name}', delay => '1 day')", JOBS,
                                event="cancel"),
    "retry": Declaration("SELECT pushy.job_retry(" + JOB + ")", PAUSED + "; SELECT pushy.enqueue('{name}', delay => '1 day')", JOBS,
                         event="retry"),
    "retry_cancelled": Declaration("SELECT pushy.job_retry(" + JOB + ")",
                                   PAUSED + "; SELECT pushy.job_cancel(pushy.enqueue('{name}'))", JOBS, event="retry"),
    "watch": Declaration("SELECT pushy.watch('t_{name}', queue => '{name}', name => '{name}')",
                         seen="SELECT count(*) FROM pushy.watches WHERE name = '{name}'"),
    "unwatch": Declaration("SELECT pushy.unwatch('t_{name}', '{name}')", "SELECT pushy.watch('t_{name}', 'news', name => '{name}')",
                           seen="SELECT count(*) FROM pushy.watches WHERE name = '{name}'"),
    "subscription_create": Declaration("SELECT pushy.subscription_create('{name}', ARRAY['news'])", "",
                                       seen="SELECT count(*) FROM pushy.subscriptions WHERE name = '{name}'"),
    "subscription_drop": Declaration("SELECT pushy.subscription_drop('{name}')", "SELECT pushy.subscription_create('{name}', ARRAY['news'])",
                                     seen="SELECT count(*) FROM pushy.subscriptions WHERE name = '{name}'"),
    "channel_grant": Declaration("SELECT pushy.channel_grant('{name}', 'pg_monitor')", "",
                                 seen="SELECT count(*) FROM pushy.channel_grants WHERE channel = '{name}'"),
}


def prepare(db, name: str, declaration: Declaration):
    """Prepares it; what it changes as seen before, and by its transaction."""
    seen = declaration.seen.format(name=name)
    before = db.value(seen)
    with db.connect(autocommit=False) as session:
        session.execute(declaration.statement.format(name=name))
        inside = session.execute(seen).fetchone()[0]
        session.execute(f"PREPARE TRANSACTION '{name}'")
    assert before != inside and db.value(seen) == before
    return before, inside


def fill_places(db) -> None:
    """Every place that no queue has is free, and there is no other."""
    there = db.value("SELECT count(*) FROM pushy_internal.queue")

    def register_rest() -> str:
        try:
            db.sql("SELECT pushy.queue_register('rest ' || n, 'work(jsonb)') FROM generate_series(1, %s) n", PLACES - there)
        except psycopg.Error as error:
            return str(error)
        return ""
    wait_for("a place for each queue", register_rest, lambda refused: refused == "")
    assert db.value("SELECT count(*) FROM pushy_internal.queue") == PLACES
    with pytest.raises(psycopg.Error, match="no slot"):
        db.sql("SELECT pushy.queue_register('one too many', 'work(jsonb)')")


@pytest.mark.parametrize("restart", [None, "fast", "immediate"])
@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_each_declaration_can_be_prepared(make_cluster, end, restart):
    db = make_cluster({"pushy.max_queues": PLACES, "max_prepared_transactions": 64}).database()
    db.sql("CREATE ROLE heir LOGIN; CREATE FUNCTION work(args jsonb) RETURNS void LANGUAGE sql AS ''; CREATE TABLE t_watch (id int PRIMARY KEY); CREATE TABLE t_unwatch (id int PRIMARY KEY);"
           "SELECT pushy.queue_register('fence', 'work(jsonb)')")
    for name, declaration in DECLARATIONS.items():
        for statement in filter(None, declaration.before.format(name=name).split("; ")):
            db.sql(statement)
    db.listen("pushy_control")
    seen = {name: prepare(db, name, declaration) for name, declaration in DECLARATIONS.items()}
    if restart:
        db.close()
        db.cluster.restart(restart)
    ear = db.listen("pushy_control")
    db.sql("SELECT pushy.queue_pause('fence')")
    ear.wait_for_json(event="pause", queue="fence")
    ear.heard.clear()
    for name in DECLARATIONS:
        db.sql(f"{end} PREPARED '{name}'")
    committed = end == "COMMIT"
    for name, declaration in DECLARATIONS.items():
        assert (name, db.value(declaration.seen.format(name=name))) == (name, seen[name][committed])
    expected = sorted((declaration.event, declaration.queue.format(name=name)) for name, declaration in DECLARATIONS.items() if declaration.event and committed)
    db.sql("SELECT pushy.queue_resume('fence')")
    ear.wait_for_json(event="resume", queue="fence")
    told = [json.loads(notice.payload) for notice in ear.heard[:-1]]
    assert sorted({(event["event"], event["queue"]) for event in told if event["queue"] != "drop_and_register" or event["event"] == "drop"}) == expected
    # What may run does, what may not does not.
    queues = dict(db.rows("SELECT queue, NOT paused FROM pushy_internal.queue"))
    jobs = {name: db.value("SELECT pushy.enqueue(%s)", name) for name in queues}
    for name, runs in queues.items():
        if runs:
            assert (name, db.job_wait(jobs[name])["state"]) == (name, "completed")
    assert {db.value("SELECT state FROM pushy.jobs WHERE id = %s", jobs[name]) for name, runs in queues.items() if not runs} == {"available"}
    fill_places(db)


@pytest.mark.parametrize("restart", [False, True], ids=["", "restarted"])
@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_the_cancel_of_a_job_that_runs_can_be_prepared(cluster, end, restart):
    db = cluster.database()
    gate = Gate(db)
    db.sql(f"CREATE FUNCTION work() RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM {gate.stop}; END$$;"
           "SELECT pushy.queue_register('q', 'work()', max_attempts => 1)")
    job = db.value("SELECT pushy.enqueue('q')")
    gate.wait_for_arrival()
    with db.connect(autocommit=False) as session:
        assert session.execute("SELECT pushy.job_cancel(%s)", (job,)).fetchone() == (True,)
        session.execute("PREPARE TRANSACTION 'cancels'")
    # It was interrupted, and nobody begins it.
    db.wait_until("SELECT count(*) FROM pushy.workers WHERE job_id IS NOT NULL", 0)
    if restart:
        db.close()
        cluster.restart("immediate")
    else:
        gate.open()
    other = db.value("SELECT pushy.enqueue('q')")
    assert db.job_wait(other)["state"] == "completed"
    assert db.value("SELECT state FROM pushy.jobs WHERE id = %s", job) == "available"
    db.sql(f"{end} PREPARED 'cancels'")
    ended = db.job_wait(job)
    assert (ended["state"], ended["attempt"]) == (("cancelled", 0) if end == "COMMIT" else ("completed", 1))
    assert db.value("SELECT count(*) FROM pushy_internal.promised_cancel") == 0


def test_what_was_prepared_and_undone_again_and_again_takes_no_place(make_cluster):
    db = make_cluster({"pushy.max_queues": PLACES}).database()
    db.sql("CREATE FUNCTION work(args jsonb) RETURNS void LANGUAGE sql AS ''")
    for turn in range(2 * PLACES):
        for end, statement in [("ROLLBACK", REGISTER), ("COMMIT", REGISTER), ("COMMIT", "SELECT pushy.queue_drop('{name}')")]:
            with db.connect(autocommit=False) as session:
                session.execute(statement.format(name=f"q{turn}"))
                session.execute("PREPARE TRANSACTION 'p'")
            db.sql(f"{end} PREPARED 'p'")
    fill_places(db)

