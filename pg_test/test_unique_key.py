"""Unique keys: one unfinished job per queue and key, whoever asks, however many at once."""

import threading

import pytest

from harness.gate import Gate


@pytest.fixture
def paused(db):
    """A database with a queue that runs nothing until it is resumed."""
    db.sql("""
        CREATE FUNCTION work(args jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT args';
        SELECT pushy.queue_register('q', 'work(jsonb)'), pushy.queue_pause('q')""")
    return db


def test_a_second_enqueue_returns_the_job_that_is_already_there(paused):
    first = paused.value("SELECT pushy.enqueue('q', '1', unique_key => 'k')")
    assert paused.value("SELECT pushy.enqueue('q', '2', unique_key => 'k')") == first
    assert paused.rows("SELECT id, args FROM pushy.jobs") == [(first, 1)]


def test_a_key_is_free_again_when_its_job_is_finished(paused):
    paused.sql("SELECT pushy.queue_resume('q')")
    first = paused.value("SELECT pushy.enqueue('q', unique_key => 'k')")
    paused.job_wait(first)
    second = paused.value("SELECT pushy.enqueue('q', unique_key => 'k')")
    assert second != first and paused.job_wait(second)["state"] == "completed"


def test_a_key_is_free_again_when_its_job_is_cancelled(paused):
    first = paused.value("SELECT pushy.enqueue('q', unique_key => 'k')")
    paused.sql("SELECT pushy.job_cancel(%s)", first)
    assert paused.value("SELECT pushy.enqueue('q', unique_key => 'k')") != first


def test_another_queue_has_keys_of_its_own(paused):
    paused.sql("SELECT pushy.queue_register('other', 'work(jsonb)'), pushy.queue_pause('other')")
    assert paused.value("SELECT pushy.enqueue('q', unique_key => 'k')") \
        != paused.value("SELECT pushy.enqueue('other', unique_key => 'k')")


def test_a_key_holds_while_its_job_runs(db):
    gate = Gate(db)
    db.sql(f"""
        CREATE FUNCTION work(args jsonb) RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM {gate.stop}; END$$;
        SELECT pushy.queue_register('q', 'work(jsonb)')""")
    job = db.value("SELECT pushy.enqueue('q', unique_key => 'k')")
    gate.wait_for_arrival()
    assert db.value("SELECT pushy.enqueue('q', unique_key => 'k')") == job
    gate.open()
    assert db.job_wait(job)["state"] == "completed"


def test_a_handler_may_enqueue_its_own_key_again(db):
    """The key belongs to the running job until it commits: the same id comes back, and no job is lost on the way."""
    db.sql("""
        CREATE FUNCTION work(args jsonb) RETURNS bigint LANGUAGE sql AS
            $$SELECT pushy.enqueue('q', unique_key => 'k')$$;
        SELECT pushy.queue_register('q', 'work(jsonb)')""")
    job = db.value("SELECT pushy.enqueue('q', unique_key => 'k')")
    done = db.job_wait(job)
    assert (done["state"], done["result"]) == ("completed", job)


def test_a_second_enqueue_waits_for_the_first_transaction_and_follows_its_outcome(paused):
    for outcome in ("commit", "rollback"):
        with paused.connect(autocommit=False) as first, paused.connect() as second:
            job = first.execute("SELECT pushy.enqueue('q', unique_key => %s)", (outcome,)).fetchone()[0]
            got: list[int] = []
            thread = threading.Thread(target=lambda: got.append(
                second.execute("SELECT pushy.enqueue('q', unique_key => %s)", (outcome,)).fetchone()[0]))
            thread.start()
            paused.wait_until("SELECT wait_event_type FROM pg_stat_activity WHERE pid = %s", "Lock",
                              params=(second.info.backend_pid,))
            getattr(first, outcome)()
            thread.join(30)
            assert got, "still waiting after the first transaction ended"
            assert (got == [job]) is (outcome == "commit")
    assert paused.value("SELECT count(*) FROM pushy.jobs") == 2


def test_many_sessions_at_once_make_one_job_per_key(paused):
    ids: list[tuple[int, int]] = []

    def enqueue_all() -> None:
        with paused.cluster.connect(paused.name) as session:
            for key in range(50):
                ids.append((key, session.execute("SELECT pushy.enqueue('q', unique_key => %s)", (f"k{key}",)).fetchone()[0]))
    threads = [threading.Thread(target=enqueue_all) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 400 and len(set(ids)) == 50
    assert paused.value("SELECT count(*) FROM pushy.jobs") == 50
