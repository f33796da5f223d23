"""The state machine: each legal move made, each other refused, seen from SQL."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.gate import Gate

HANDLERS = """
    CREATE FUNCTION fine() RETURNS void LANGUAGE sql AS 'SELECT';
    CREATE FUNCTION fails() RETURNS void LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'no'; END$$;
"""


class Bench:
    """Brings a job into a state, in a queue of its own."""

    def __init__(self, db):
        self.db, self.gate = db, Gate(db)
        db.sql(HANDLERS)
        db.sql(f"CREATE FUNCTION gated() RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM {self.gate.stop}; END$$")

    def job_in(self, state: str) -> int:
        return getattr(self, state)()

    def queue(self, handler: str, options: str = "") -> None:
        self.db.sql(f"SELECT pushy.queue_register('q', '{handler}()' {options})")

    def enqueue(self, options: str = "") -> int:
        return self.db.value(f"SELECT pushy.enqueue('q' {options})")

    def scheduled(self) -> int:
        self.queue("fine")
        return self.enqueue(", delay => '1 hour'")

    def available(self) -> int:
        self.queue("fine")
        self.db.sql("SELECT pushy.queue_pause('q')")
        return self.enqueue()

    def running(self) -> int:
        self.queue("gated")
        job = self.enqueue()
        self.gate.wait_for_arrival()
        return job

    def retryable(self) -> int:
        self.queue("fails", ", retry_delay => '1 hour'")
        job = self.enqueue()
        self.db.wait_until("SELECT state::text FROM pushy.jobs WHERE id = %s", "retryable", params=(job,))
        return job

    def completed(self) -> int:
        self.queue("fine")
        return self.finished()

    def discarded(self) -> int:
        self.queue("fails", ", max_attempts => 1")
        return self.finished()

    def cancelled(self) -> int:
        job = self.scheduled()
        assert self.db.value("SELECT pushy.job_cancel(%s)", job) is True
        return job

    def finished(self) -> int:
        job = self.enqueue()
        self.db.job_wait(job)
        return job

    def state(self, job: int) -> str:
        return self.db.value("SELECT state::text FROM pushy.jobs WHERE id = %s", job)


@pytest.fixture
def bench(db):
    return Bench(db)


STATES = ["scheduled", "available", "running", "retryable", "completed", "discarded", "cancelled"]


@pytest.mark.parametrize("state", STATES)
def test_a_job_is_shown_in_its_state(bench, state):
    assert bench.state(bench.job_in(state)) == state


@pytest.mark.parametrize("state", ["scheduled", "available", "running", "retryable"])
def test_an_unfinished_job_can_be_cancelled(bench, state):
    job = bench.job_in(state)
    assert bench.db.value("SELECT pushy.job_cancel(%s)", job) is True
    assert bench.db.job_wait(job)["state"] == "cancelled"
    assert bench.state(job) == "cancelled"


@pytest.mark.parametrize("state", ["completed", "discarded", "cancelled"])
def test_a_finished_job_cannot_be_cancelled(bench, state):
    job = bench.job_in(state)
    assert bench.db.value("SELECT pushy.job_cancel(%s)", job) is False
    assert bench.state(job) == state


@pytest.mark.parametrize("state", ["scheduled", "retryable", "completed", "discarded", "cancelled"])
def test_a_job_that_waits_or_is_finished_can_be_run_now(bench, state):
    job = bench.job_in(state)
    bench.queue("fine")
    assert bench.db.value("SELECT pushy.job_retry(%s)", job) is True
    assert bench.db.job_wait(job)["state"] == "completed"


@pytest.mark.parametrize("state", ["available", "running"])
def test_a_job_that_runs_or_is_about_to_is_not_retried(bench, state):
    job = bench.job_in(state)
    assert bench.db.value("SELECT pushy.job_retry(%s)", job) is False
    assert bench.state(job) == state


@pytest.mark.parametrize("call", ["job_cancel", "job_retry"])
def test_a_change_of_state_is_undone_by_rollback(bench, call):
    job = bench.scheduled()
    with bench.db.connect(autocommit=False) as session:
        assert session.execute(f"SELECT pushy.{call}(%s)", (job,)).fetchone() == (True,)
        session.rollback()
    assert bench.state(job) == "scheduled"


def test_a_cancelled_running_job_leaves_no_effects(bench):
    bench.db.sql(f"""
        CREATE TABLE effects (n int);
        CREATE FUNCTION slow() RETURNS void LANGUAGE plpgsql AS
            $$BEGIN INSERT INTO public.effects VALUES (1); PERFORM {bench.gate.stop}; END$$""")
    bench.queue("slow")
    job = bench.enqueue()
    bench.gate.wait_for_arrival()
    bench.db.sql("SELECT pushy.job_cancel(%s)", job)
    assert bench.db.job_wait(job)["state"] == "cancelled"
    bench.gate.open()
    assert bench.db.rows("SELECT FROM effects") == []


def test_a_cancelled_scheduled_job_never_runs_and_frees_its_queue(bench):
    job = bench.cancelled()
    bench.db.jobs_wait("q")
    assert bench.db.job(job)["attempt"] == 0


def test_a_retried_discarded_job_has_attempts_again(bench):
    job = bench.discarded()
    bench.queue("fails", ", max_attempts => 1")
    assert bench.db.value("SELECT pushy.job_retry(%s)", job)
    done = bench.db.job_wait(job)
    assert done["state"] == "discarded" and done["attempt"] == 2, done


def test_the_tables_refuse_a_state_that_does_not_exist(bench):
    job = bench.scheduled()
    for table in ("live_job", "finished_job"):
        with pytest.raises(Exception, match=f"{table}_state|null value"):
            bench.db.sql(f"INSERT INTO pushy_internal.{table} (id, queue_id, state, args, run_at, enqueued_at, enqueued_by, priority, "
                         f"depth{', attempt, finished_at, expires_at' if table == 'finished_job' else ''}) "
                         f"SELECT %s, 1, 'z', '{{}}', now(), now(), 10, 5, 0{', 0, now(), now()' if table == 'finished_job' else ''}",
                         -job)


def test_a_finished_job_that_two_sessions_retry_at_once_runs_once_more(db, bench):
    job = bench.completed()
    db.sql("SELECT pushy.queue_pause('q')")
    with db.connect(autocommit=False) as first, db.connect() as second, ThreadPoolExecutor() as pool:
        assert first.execute("SELECT pushy.job_retry(%s)", (job,)).fetchone()[0]
        answer = pool.submit(lambda: second.execute("SELECT pushy.job_retry(%s)", (job,)).fetchone()[0])
        db.wait_until("SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = %s", 1, params=(second.info.backend_pid,))
        first.commit()
        assert answer.result() is False, "it is available as it is"


def test_a_job_that_moves_between_the_tables_all_the_time_is_never_said_to_be_gone(db, bench):
    """It is finished or it is not, whenever somebody looks: what looks in one table after the other finds it in neither."""
    jobs = [bench.completed() for _ in range(2)]

    def calls(number: int) -> int:
        with db.connect() as session:
            for turn in range(600):
                call = "job_cancel" if number == 0 and turn % 5 == 0 else "job_retry"
                session.execute(f"SELECT pushy.{call}(%s)", (jobs[turn % 2],))
        return number

    with ThreadPoolExecutor() as pool:
        assert sorted(pool.map(calls, range(4))) == [0, 1, 2, 3]
