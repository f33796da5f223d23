"""Workers outside: claims that are leases, fenced by tokens."""

import json
import re
import threading
import time
import uuid
from pathlib import Path

import psycopg
import pytest

from harness.refusal import refused
from stage.leases import claim, enqueue, state


@pytest.fixture
def mails(db):
    """A database with queue `mails`, whose jobs workers outside do."""
    db.sql("SELECT pushy.queue_register('mails', retry_delay => '0', max_attempts => 3)")
    return db


def test_a_queue_without_a_handler_waits_for_workers(mails):
    [job] = enqueue(mails)
    assert mails.value("SELECT pushy.queue_register('mails')") is None
    assert state(mails, job) == "available"
    row = mails.row("SELECT job_id, queue, args, attempt, max_attempts, priority, unique_key, depth, lease_until > now() AS holds"
                    " FROM pushy.job_claim('mails')")
    assert row == {"job_id": job, "queue": "mails", "args": {"n": 0}, "attempt": 1, "max_attempts": 25, "priority": 5,
                   "unique_key": None, "depth": 0, "holds": True}
    assert state(mails, job) == "running"
    assert claim(mails) == []


def test_a_completion_keeps_its_result_and_is_said_once(mails):
    [job] = enqueue(mails)
    [(_, token)] = claim(mails)
    assert mails.value("SELECT pushy.job_complete(%s, %s, '{\"sent\": true}')", job, token) is True
    assert mails.row("SELECT state, attempt, result FROM pushy.jobs WHERE id = %s", job) == {
        "state": "completed", "attempt": 1, "result": {"sent": True}}
    assert mails.value("SELECT pushy.job_complete(%s, %s)", job, token) is False
    assert mails.value("SELECT count(*) FROM pushy_internal.lease") == 0


def test_who_does_not_know_the_token_changes_nothing(mails):
    [job] = enqueue(mails)
    [(_, token)] = claim(mails)
    other = uuid.uuid4()
    assert mails.value("SELECT pushy.job_complete(%s, %s)", job, other) is False
    assert mails.value("SELECT pushy.job_fail(%s, %s)", job, other) is None
    assert mails.value("SELECT pushy.job_release(%s, %s)", job, other) is False
    assert mails.value("SELECT pushy.job_extend(%s, %s)", job, other) is False
    assert mails.value("SELECT pushy.job_complete(%s, %s)", job + 1, token) is False
    assert state(mails, job) == "running"
    assert mails.value("SELECT pushy.job_complete(%s, %s)", job, token) is True


def test_a_failed_attempt_is_charged_and_told(mails):
    [job] = enqueue(mails)
    for attempt, expected in [(1, "available"), (2, "available"), (3, "discarded")]:
        [(_, token)] = claim(mails)
        assert mails.value("SELECT pushy.job_fail(%s, %s, 'no route', '08001', 'mx1')", job, token) == expected
        assert mails.row("SELECT attempt, sqlstate, message, detail FROM pushy.failures WHERE job_id = %s ORDER BY attempt DESC LIMIT 1",
                         job) == {"attempt": attempt, "sqlstate": "08001", "message": "no route", "detail": "mx1"}
    assert claim(mails) == []


def test_a_worker_says_when_to_try_again_or_never(mails):
    later, never = enqueue(mails, 2)
    tokens = dict(claim(mails, 2))
    assert mails.value("SELECT pushy.job_fail(%s, %s, retry_in => '1 hour')", later, tokens[later]) == "retryable"
    assert mails.value("SELECT pushy.job_fail(%s, %s, discard => true)", never, tokens[never]) == "discarded"
    assert mails.value("SELECT run_at > now() + interval '59 minutes' FROM pushy.jobs WHERE id = %s", later) is True


def test_a_lease_that_is_over_is_charged_and_its_holder_comes_too_late(mails):
    [job] = enqueue(mails)
    [(_, token)] = claim(mails, lease="0.2 s", worker="w1")
    mails.wait_until("SELECT state FROM pushy.jobs WHERE id = %s", "available", params=(job,))
    assert mails.value("SELECT pushy.job_complete(%s, %s)", job, token) is False
    assert mails.value("SELECT pushy.job_extend(%s, %s)", job, token) is False
    assert mails.row("SELECT attempt, sqlstate FROM pushy.failures WHERE job_id = %s", job) == {"attempt": 1, "sqlstate": "08006"}
    [(again, second)] = claim(mails)
    assert again == job and second != token


def test_a_lease_that_is_extended_holds(mails):
    [job] = enqueue(mails)
    [(_, token)] = claim(mails, lease="0.3 s")
    assert mails.value("SELECT pushy.job_extend(%s, %s, '1 hour', 0.5, 'half')", job, token) is True
    # Another lease ends later than the first one's time: the scheduler has looked by then.
    [other] = enqueue(mails)
    claim(mails, lease="0.5 s")
    mails.wait_until("SELECT state FROM pushy.jobs WHERE id = %s", "available", params=(other,))
    assert state(mails, job) == "running"
    assert mails.value("SELECT pushy.job_complete(%s, %s)", job, token) is True


SAID = "SELECT extract(epoch FROM until - now())::float8 FROM pushy.leases WHERE job_id = %s"


@pytest.mark.parametrize("said", ["job_extend", "jobs_settle"])
def test_an_extension_that_names_no_lease_is_as_long_as_was_said_last(mails, said):
    [job] = enqueue(mails)
    [(_, token)] = claim(mails, lease="10 minutes")

    def extend():
        if said == "job_extend":
            return mails.value("SELECT pushy.job_extend(%s, %s, fraction => 0.1)", job, token) is True
        return mails.value("SELECT pushy.jobs_settle(%s)", json.dumps([{"job_id": job, "token": str(token), "outcome": "extend", "fraction": 0.1}])) == 1

    until = mails.value("SELECT until FROM pushy.leases WHERE job_id = %s", job)
    assert extend()
    assert mails.value("SELECT until FROM pushy.leases WHERE job_id = %s", job) >= until
    assert 590 < mails.value(SAID, job) <= 600
    # What an extension says counts from there on, and not what the queue says.
    assert mails.value("SELECT pushy.job_extend(%s, %s, '2 hours')", job, token) is True
    mails.sql("SELECT pushy.queue_alter('mails', lease => '1 s')")
    assert extend()
    assert 7190 < mails.value(SAID, job) <= 7200
    # Who names a length gets that.
    assert mails.value("SELECT pushy.job_extend(%s, %s, '20 minutes')", job, token) is True
    assert extend()
    assert 1190 < mails.value(SAID, job) <= 1200
    assert mails.value("SELECT progress FROM pushy.leases WHERE job_id = %s", job) == 0.1
    assert mails.value("SELECT progress FROM pushy.jobs WHERE id = %s", job) == 0.1


ENDS = ["COMMIT", "ROLLBACK"]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("savepoint", [False, True])
def test_a_transaction_claims_what_it_has_enqueued_itself(mails, end, savepoint):
    # A claim that finds nothing: nothing is announced of the queue from here on.
    assert claim(mails) == []
    with mails.connect() as connection:
        connection.execute("BEGIN")
        if savepoint:
            connection.execute("SAVEPOINT s")
        job = connection.execute("SELECT pushy.enqueue('mails', priority => 3)").fetchone()[0]
        if savepoint:
            connection.execute("RELEASE s")
        claims = "SELECT job_id, token FROM pushy.job_claim('mails', 10)"
        [(claimed, token)] = connection.execute(claims).fetchall()
        assert claimed == job and connection.execute(claims).fetchall() == []
        # A release makes it ready again.
        assert connection.execute("SELECT pushy.job_release(%s, %s)", (job, token)).fetchone()[0] is True
        assert [row[0] for row in connection.execute(claims).fetchall()] == [job]
        assert claim(mails) == []
        connection.execute(end)
    assert mails.value("SELECT count(*) FROM pushy.leases") == (1 if end == "COMMIT" else 0)
    # Others find what comes then.
    [other] = enqueue(mails)
    assert [job for job, _ in claim(mails, 10)] == [other]


def test_what_was_enqueued_and_rolled_back_to_a_savepoint_is_not_claimed(mails):
    assert claim(mails) == []
    with mails.connect() as connection:
        connection.execute("BEGIN")
        connection.execute("SAVEPOINT s")
        connection.execute("SELECT pushy.enqueue('mails')")
        connection.execute("ROLLBACK TO s")
        assert connection.execute("SELECT * FROM pushy.job_claim('mails')").fetchall() == []
        connection.execute("COMMIT")


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("is_paused", [False, True])
def test_a_transaction_claims_of_a_queue_that_it_has_registered_itself(mails, end, is_paused):
    with mails.connect() as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT pushy.queue_register('new', concurrency => 1)")
        jobs = [row[0] for row in connection.execute("SELECT pushy.enqueue('new') FROM generate_series(1, 2)").fetchall()]
        if is_paused:
            connection.execute("SELECT pushy.queue_pause('new')")
        claimed = [row[0] for row in connection.execute("SELECT job_id FROM pushy.job_claim('new', 10)").fetchall()]
        assert claimed == ([] if is_paused else jobs[:1])
        connection.execute(end)
    if end == "COMMIT":
        assert mails.value("SELECT count(*) FROM pushy.leases") == len(claimed)
        mails.sql("SELECT pushy.queue_resume('new')")
        assert mails.value("SELECT count(*) FROM pushy.job_claim('new', 10)") == 1 - len(claimed)


def test_a_released_job_is_uncharged_and_keeps_its_place(mails):
    first, second = enqueue(mails, 2)
    [(_, token)] = claim(mails)
    assert mails.value("SELECT pushy.job_release(%s, %s)", first, token) is True
    assert mails.value("SELECT attempt FROM pushy.jobs WHERE id = %s", first) == 0
    assert [job for job, _ in claim(mails, 2)] == [first, second]


def test_a_released_job_may_wait(mails):
    [job] = enqueue(mails)
    [(_, token)] = claim(mails)
    assert mails.value("SELECT pushy.job_release(%s, %s, '1 hour')", job, token) is True
    assert state(mails, job) == "scheduled"
    assert mails.value("SELECT pushy.job_retry(%s)", job) is True
    assert [found for found, _ in claim(mails)] == [job]


def test_who_repeats_a_call_gets_what_he_holds_under_other_tokens(mails):
    jobs = enqueue(mails, 3)
    before = dict(claim(mails, 2, worker="w1"))
    after = dict(claim(mails, 3, worker="w1"))
    assert sorted(before) == jobs[:2] and sorted(after) == jobs
    assert not set(before.values()) & set(after.values())
    assert mails.value("SELECT pushy.job_complete(%s, %s)", jobs[0], before[jobs[0]]) is False
    assert mails.value("SELECT pushy.job_complete(%s, %s)", jobs[0], after[jobs[0]]) is True


def test_who_repeats_a_call_for_ever_is_charged(mails):
    [job] = enqueue(mails)
    seen = [len(claim(mails, worker="w1")) for _ in range(40)]
    assert state(mails, job) == "discarded"
    # Three attempts, each claimed once and given back three times.
    assert sum(seen) == 12


def test_a_claim_that_is_rolled_back_never_was(mails):
    [job] = enqueue(mails)
    with mails.connect(autocommit=False) as session:
        assert session.execute("SELECT job_id FROM pushy.job_claim('mails')").fetchone() == (job,)
        assert claim(mails) == []
        session.rollback()
    assert [found for found, _ in claim(mails)] == [job]


def test_effects_of_a_completion_are_done_once(mails):
    mails.sql("CREATE TABLE sent (job bigint)")
    [job] = enqueue(mails)
    [(_, token)] = claim(mails)
    with mails.connect(autocommit=False) as session:
        session.execute("INSERT INTO sent VALUES (%s)", [job])
        assert session.execute("SELECT pushy.job_complete(%s, %s)", [job, token]).fetchone() == (True,)
        session.rollback()
    assert state(mails, job) == "running" and mails.value("SELECT count(*) FROM sent") == 0
    assert mails.value("SELECT pushy.job_complete(%s, %s)", job, token) is True


def test_a_cancelled_job_is_no_longer_its_worker_s(mails):
    [job] = enqueue(mails)
    [(_, token)] = claim(mails)
    assert mails.value("SELECT pushy.job_cancel(%s)", job) is True
    assert state(mails, job) == "cancelled"
    assert mails.value("SELECT pushy.job_extend(%s, %s)", job, token) is False
    assert mails.value("SELECT pushy.job_complete(%s, %s)", job, token) is False


def test_no_more_are_leased_than_the_queue_s_concurrency(mails):
    mails.sql("SELECT pushy.queue_alter('mails', concurrency => 2)")
    jobs = enqueue(mails, 5)
    held = dict(claim(mails, 5))
    assert sorted(held) == jobs[:2] and claim(mails, 5) == []
    assert mails.value("SELECT pushy.job_complete(%s, %s)", jobs[0], held[jobs[0]]) is True
    assert [job for job, _ in claim(mails, 5)] == [jobs[2]]


def test_a_key_whose_job_is_leased_comes_beside_it(mails):
    [job] = enqueue(mails, unique_key="k")
    claim(mails)
    [other] = enqueue(mails, unique_key="k")
    assert other != job
    assert [found for found, _ in claim(mails)] == [other]


def test_a_paused_queue_gives_nothing_and_ends_what_is_leased(mails):
    [job, _] = enqueue(mails, 2)
    [(_, token)] = claim(mails)
    mails.sql("SELECT pushy.queue_pause('mails')")
    assert claim(mails) == []
    assert mails.value("SELECT pushy.job_complete(%s, %s)", job, token) is True


def test_a_queue_has_a_handler_or_workers_outside(mails):
    mails.sql("CREATE FUNCTION send() RETURNS void LANGUAGE sql AS ''")
    mails.sql("SELECT pushy.queue_register('inside', 'send()')")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match='queue "inside" has a handler') as refused:
        mails.sql("SELECT * FROM pushy.job_claim('inside')")
    assert "pushy.queue_register('inside')" in refused.value.diag.message_hint
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="has no handler"):
        mails.sql("SELECT pushy.queue_run('mails')")


def test_a_claim_cannot_be_prepared(make_cluster):
    db = make_cluster({"max_prepared_transactions": 5}).database()
    db.sql("SELECT pushy.queue_register('mails')")
    enqueue(db)
    with db.connect(autocommit=False) as session:
        session.execute("SELECT * FROM pushy.job_claim('mails')")
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="claimed jobs"):
            session.execute("PREPARE TRANSACTION 'p'")


def test_many_outcomes_are_one_statement(mails):
    jobs = enqueue(mails, 5)
    tokens = dict(claim(mails, 5))
    said = [{"job_id": jobs[0], "token": str(tokens[jobs[0]]), "outcome": "complete", "result": {"big": 12345678901234567890}},
            {"job_id": jobs[1], "token": str(tokens[jobs[1]]), "outcome": "fail", "error": "no", "retry_in": 3600},
            {"job_id": jobs[2], "token": str(tokens[jobs[2]]), "outcome": "release", "delay": 3600},
            {"job_id": jobs[3], "token": str(uuid.uuid4()), "outcome": "complete"},
            {"job_id": jobs[4], "token": str(tokens[jobs[4]]), "outcome": "extend", "lease": 600}]
    assert mails.value("SELECT pushy.jobs_settle(%s)", json.dumps(said)) == 4
    assert [state(mails, job) for job in jobs] == ["completed", "retryable", "scheduled", "running", "running"]
    assert mails.value("SELECT result::text FROM pushy.jobs WHERE id = %s", jobs[0]) == '{"big": 12345678901234567890}'


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
def test_completions_of_one_call_are_answered_each_by_itself(mails, level):
    """Of two queues, with one said twice, one by a stranger's token, one that was extended in the same transaction, one that had failed before, and one with a log."""
    mails.sql("SELECT pushy.queue_register('others', keep_completed => '0'); SELECT count(*) FROM pushy.enqueue_many('others', array_fill('{}'::jsonb, ARRAY[2]))")
    jobs = enqueue(mails, 5)
    [(failed, token)] = claim(mails)
    assert mails.value("SELECT pushy.job_fail(%s, %s, 'no', retry_in => '0')", failed, token) == "available"
    held = dict(claim(mails, 5))
    others = dict(mails.rows("SELECT job_id, token FROM pushy.job_claim('others', 2)"))
    logged, extended, foreign = jobs[1:4]
    said = [{"job_id": job, "token": str(token), "outcome": "complete", "result": job} for job, token in [*held.items(), *others.items()]]
    for one in said:
        if one["job_id"] == foreign:
            one["token"] = str(uuid.uuid4())
    session = mails.connect()
    session.execute(f"BEGIN ISOLATION LEVEL {level}")
    session.execute("SELECT pushy.job_log('a line', 'info', %s, %s)", (logged, held[logged]))
    session.execute("SELECT pushy.job_extend(%s, %s, '1 hour')", (extended, held[extended]))
    assert session.execute("SELECT pushy.jobs_settle(%s)", (json.dumps([said[0], *reversed(said)]),)).fetchone() == (6,)
    assert session.execute("SELECT pushy.jobs_settle(%s)", (json.dumps(said),)).fetchone() == (0,)
    session.execute("COMMIT")
    assert {job: state(mails, job) for job in held} == {job: "running" if job == foreign else "completed" for job in held}
    assert mails.value("SELECT count(*) FROM pushy.jobs WHERE queue = 'others'") == 0
    assert mails.rows("SELECT id, result::text::bigint FROM pushy.jobs WHERE state = 'completed' ORDER BY id") == [(job, job) for job in sorted(held) if job != foreign]
    assert mails.value("SELECT array_agg(job_id) FROM pushy_internal.lease") == [foreign]
    assert mails.rows("SELECT queue, completed FROM pushy.stats WHERE queue IS NOT NULL ORDER BY queue") == [("mails", 4), ("others", 2)]


def test_two_who_settle_the_same_jobs_at_once_settle_each_once(mails):
    enqueue(mails, 20)
    said = json.dumps([{"job_id": job, "token": str(token), "outcome": "complete"} for job, token in claim(mails, 20)])
    first, second = mails.connect(), mails.connect()
    first.execute("BEGIN")
    assert first.execute("SELECT pushy.jobs_settle(%s)", (said,)).fetchone() == (20,)
    answers = []
    waits = threading.Thread(target=lambda: answers.append(second.execute("SELECT pushy.jobs_settle(%s)", (said,)).fetchone()))
    waits.start()
    mails.wait_until("SELECT cardinality(pg_blocking_pids(%s)) > 0", params=(second.info.backend_pid,))
    first.execute("COMMIT")
    waits.join(60)
    assert answers == [(0,)]


@pytest.mark.parametrize("result", ["null", "5", "[1, [2, {}]]", '{"a": {"b": "\\u00fc"}}', '"text"', "false"])
def test_a_settled_result_is_what_was_said(mails, result):
    [job] = enqueue(mails)
    [(_, token)] = claim(mails)
    said = f'[{{"job_id": {job}, "token": "{token}", "outcome": "complete", "result": {result}}}]'
    assert mails.value("SELECT pushy.jobs_settle(%s)", said) == 1
    assert mails.value("SELECT result FROM pushy.jobs WHERE id = %s", job) == json.loads(result)


def test_a_result_whose_text_is_a_million_times_as_long_is_settled_in_little_memory(mails):
    [job] = enqueue(mails)
    [(_, token)] = claim(mails)
    memory = Path(f"/proc/{mails.main.info.backend_pid}/status")

    def most_kb() -> int:
        return int(re.search(r"VmHWM:\s+(\d+) kB", memory.read_text())[1])

    said = """SELECT jsonb_build_array(jsonb_build_object('job_id', %s::bigint, 'token', %s::text, 'outcome', 'complete',
                                                       'result', array_fill(1e131071::numeric, ARRAY[1500])))"""
    mails.sql("CREATE TABLE said AS " + said, job, str(token))
    before = most_kb()
    assert mails.value("SELECT pushy.jobs_settle(jsonb_build_array) FROM said") == 1
    # As text it has 196 MB.
    assert most_kb() - before < 50_000
    assert mails.value("SELECT jsonb_array_length(result) FROM pushy.jobs WHERE id = %s", job) == 1500


def test_a_crash_loses_no_lease(make_cluster):
    db = make_cluster({"pushy.synchronous_commit": "on"}).database()
    db.sql("SELECT pushy.queue_register('mails', retry_delay => '0')")
    kept, lost = enqueue(db, 2)
    [(_, token)] = claim(db, lease="1 hour")
    claim(db, lease="0.3 s")
    db.cluster.crash()
    db.wait_until("SELECT state FROM pushy.jobs WHERE id = %s", "available", params=(lost,))
    assert state(db, kept) == "running"
    assert db.value("SELECT pushy.job_complete(%s, %s)", kept, token) is True


def test_who_waits_is_woken_by_a_job_and_by_nothing_else(mails):
    assert mails.value("CALL pushy.job_claim_wait('mails', '0')") is False
    waiter = Waiter(mails)
    waiter.assert_sleeps()
    [job] = enqueue(mails)
    assert waiter.ended() is True
    assert [found for found, _ in claim(mails)] == [job]
    assert mails.value("CALL pushy.job_claim_wait('mails', '0.2 s')") is False


def test_one_job_wakes_one_waiter_and_the_next_if_that_one_does_not_claim(mails):
    waiters = [Waiter(mails) for _ in range(3)]
    for waiter in waiters:
        waiter.assert_sleeps()
    enqueued_at = time.monotonic()
    enqueue(mails)
    # None of them claims: each is woken a second after the one before. However late a wake is seen, it was no sooner.
    assert [waiter.ended() for waiter in waiters] == [True] * 3
    seconds = sorted(waiter.woken_at - enqueued_at for waiter in waiters)
    assert seconds[1] > 0.95 and seconds[2] > 1.9, seconds
    assert len(claim(mails)) == 1
    last = Waiter(mails)
    last.assert_sleeps()
    enqueue(mails)
    assert last.ended() is True


def test_a_wait_of_a_worker_that_is_gone_ends_where_the_server_looks_after_its_clients(mails):
    session = mails.connect()
    session.execute("SET client_connection_check_interval = '100 ms'")
    pid = session.info.backend_pid
    session.pgconn.send_query(b"CALL pushy.job_claim_wait('mails', '10 minutes')")
    while session.pgconn.flush():
        pass
    mails.wait_until("SELECT wait_event FROM pg_stat_activity WHERE pid = %s", "Extension", params=(pid,))
    session.pgconn.finish()
    mails.wait_until("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", 0, params=(pid,))


def test_a_job_that_a_sweep_finds_wakes_nobody_else_while_one_is_awaited_who_was_told(mails):
    waiters = [Waiter(mails) for _ in range(3)]
    for waiter in waiters:
        waiter.assert_sleeps()
    enqueued_at = time.monotonic()
    enqueue(mails)
    for _ in range(10):
        mails.sql("SELECT pushy.resume_after_restore()")
    assert [waiter.ended() for waiter in waiters] == [True] * 3
    seconds = sorted(waiter.woken_at - enqueued_at for waiter in waiters)
    assert seconds[1] > 0.95, seconds


def test_who_waits_is_woken_by_whatever_makes_a_job_ready(mails):
    def woken_by(*statements: str) -> None:
        waiter = Waiter(mails)
        waiter.assert_sleeps()
        for statement in statements:
            mails.sql(statement)
        assert waiter.ended() is True, statements

    woken_by("SELECT pushy.enqueue('mails', delay => '0.3 s')")
    [(job, token)] = claim(mails)
    woken_by(f"SELECT pushy.job_fail({job}, '{token}', retry_in => '0.2 s')")
    [(job, token)] = claim(mails)
    woken_by(f"SELECT pushy.job_release({job}, '{token}')")
    [(job, token)] = claim(mails, lease="0.5 s")
    woken_by()
    [(job, token)] = claim(mails)
    mails.sql("SELECT pushy.queue_pause('mails')")
    enqueue(mails)
    woken_by("SELECT pushy.queue_resume('mails')")
    claim(mails)
    mails.sql("SELECT pushy.queue_alter('mails', concurrency => 2)")
    enqueue(mails)
    woken_by(f"SELECT pushy.job_complete({job}, '{token}')")


class Waiter:
    """A session that waits for something to claim."""

    def __init__(self, db):
        self.db, self.session = db, db.connect()
        self.pid = self.session.info.backend_pid
        self.ready = self.woken_at = None
        self.thread = threading.Thread(target=self._wait, daemon=True)
        self.thread.start()

    def _wait(self) -> None:
        self.ready = self.session.execute("CALL pushy.job_claim_wait('mails', '30 s')").fetchone()[0]
        self.woken_at = time.monotonic()

    def assert_sleeps(self) -> None:
        """It sleeps, holding no snapshot."""
        self.db.wait_until("SELECT wait_event = 'Extension' AND backend_xmin IS NULL AND backend_xid IS NULL FROM pg_stat_activity WHERE pid = %s",
                           True, params=(self.pid,))

    def ended(self) -> bool | None:
        self.thread.join(30)
        return self.ready


CALLS_OF_HOLDERS = {
    "job_complete": "SELECT pushy.job_complete({job}, '{token}')", "job_fail": "SELECT pushy.job_fail({job}, '{token}')",
    "job_extend": "SELECT pushy.job_extend({job}, '{token}')", "job_release": "SELECT pushy.job_release({job}, '{token}')",
    "job_log": "SELECT pushy.job_log('line', job_id => {job}, token => '{token}')",
    "jobs_settle": """SELECT pushy.jobs_settle('[{{"job_id": {job}, "token": "{token}", "outcome": "complete"}}]')""",
}


@pytest.mark.parametrize("call", CALLS_OF_HOLDERS)
def test_who_has_the_token_and_no_right_is_told_of_the_right(mails, role, call):
    """A program completes in a connection of its own, whose role was forgotten: told that its lease is lost, it would do all again."""
    worker, web = role(), role()
    mails.sql(f"SELECT pushy.queue_grant('mails', '{worker}', 'claim'), pushy.enqueue('mails')")
    with mails.connect(user=worker) as session:
        job, token = session.execute("SELECT job_id, token FROM pushy.job_claim('mails')").fetchone()
    statement = CALLS_OF_HOLDERS[call].format(job=job, token=token)
    with mails.connect(user=web) as session:
        refused(session, statement, "42501", "mails", "claim")
        foreign = statement.replace(str(token), "00000000-0000-0000-0000-000000000000")
        assert session.execute(foreign).fetchone()[0] in (False, None, 0), "who does not have the token is told nothing"
    mails.sql(f"SELECT pushy.queue_grant('mails', '{web}', 'claim')")
    with mails.connect(user=web) as session:
        assert session.execute(statement).fetchone()[0] not in (False, None, 0)
