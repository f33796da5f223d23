"""Claims that end with the session that made them: lease => '0'."""

import os

import pytest

from stage.leases import claim, enqueue, state


@pytest.fixture
def mails(db):
    """A database with queue `mails`, whose claims end with their sessions."""
    db.sql("SELECT pushy.queue_register('mails', retry_delay => '0', lease => '0')")
    return db


def held_by(session) -> list[tuple]:
    return session.execute("SELECT job_id, token FROM pushy.job_claim('mails', 10)").fetchall()


def failures(db, job: int) -> list[tuple]:
    return db.rows("SELECT attempt, sqlstate FROM pushy.failures WHERE job_id = %s ORDER BY attempt", job)


def test_a_claim_without_an_end_holds_until_it_is_answered(mails):
    [job] = enqueue(mails)
    with mails.connect() as session:
        assert session.execute("SELECT lease_until::text FROM pushy.job_claim('mails')").fetchone() == ("infinity",)
        assert mails.value("SELECT until = 'infinity' AND NOT over FROM pushy.leases WHERE job_id = %s", job) is True
        assert claim(mails) == []
    mails.wait_until("SELECT state FROM pushy.jobs WHERE id = %s", "available", params=(job,))


@pytest.mark.parametrize("how", ["closes", "is terminated", "drops its socket"])
def test_a_session_that_ends_frees_what_it_holds_at_once_and_is_charged(mails, how):
    jobs = enqueue(mails, 3)
    session = mails.connect()
    held = dict(held_by(session))
    assert sorted(held) == jobs
    assert mails.value("SELECT pushy.job_complete(%s, %s)", jobs[0], held[jobs[0]]) is True
    if how == "closes":
        session.close()
    elif how == "is terminated":
        mails.sql("SELECT pg_terminate_backend(%s)", session.info.backend_pid)
    else:
        os.dup2(os.open(os.devnull, os.O_RDWR), session.fileno())
    for job in jobs[1:]:
        mails.wait_until("SELECT state FROM pushy.jobs WHERE id = %s", "available", params=(job,))
        assert failures(mails, job) == [(1, "08006")]
        assert mails.value("SELECT pushy.job_complete(%s, %s)", job, held[job]) is False
    assert state(mails, jobs[0]) == "completed"


def test_a_claim_that_is_rolled_back_is_bound_to_nothing(mails):
    [job] = enqueue(mails)
    session = mails.connect(autocommit=False)
    assert len(held_by(session)) == 1
    session.rollback()
    with mails.connect() as other:
        assert len(held_by(other)) == 1
        session.close()
        # The scheduler has come for the session that is gone once it has freed another's.
        third = mails.connect()
        [second] = enqueue(mails)
        assert len(held_by(third)) == 1
        third.close()
        mails.wait_until("SELECT state FROM pushy.jobs WHERE id = %s", "available", params=(second,))
        assert state(mails, job) == "running"


def test_an_extension_keeps_the_bond_or_changes_it(mails):
    [job] = enqueue(mails)
    session = mails.connect()
    [(_, token)] = held_by(session)
    assert mails.value("SELECT pushy.job_extend(%s, %s, fraction => 0.5)", job, token) is True
    assert mails.value("SELECT until = 'infinity' FROM pushy.leases") is True
    # From another session it is for a time, or for that session.
    assert mails.value("SELECT pushy.job_extend(%s, %s, '1 hour')", job, token) is True
    session.close()
    other = mails.connect()
    assert other.execute("SELECT pushy.job_extend(%s, %s, '0')", (job, token)).fetchone() == (True,)
    assert mails.value("SELECT until = 'infinity' FROM pushy.leases") is True
    other.close()
    mails.wait_until("SELECT state FROM pushy.jobs WHERE id = %s", "available", params=(job,))


@pytest.mark.parametrize("how", ["restarts", "crashes", "kills the backend"])
def test_a_server_that_ends_frees_and_charges_nobody(make_cluster, how):
    db = make_cluster({"pushy.synchronous_commit": "on"}).database()
    db.sql("SELECT pushy.queue_register('mails', retry_delay => '0', lease => '0')")
    timed, bound = enqueue(db, 2)
    assert len(claim(db, lease="1 hour")) == 1
    session = db.connect()
    [(_, token)] = held_by(session)
    if how == "restarts":
        db.cluster.restart("immediate")
    elif how == "crashes":
        db.cluster.crash()
    else:
        db.cluster.crash(session.info.backend_pid)
    db.wait_until("SELECT state FROM pushy.jobs WHERE id = %s", "available", params=(bound,))
    assert failures(db, bound) == [] and state(db, timed) == "running"
    assert db.value("SELECT pushy.job_complete(%s, %s)", bound, token) is False


def test_a_job_whose_workers_end_the_server_each_time_is_charged_in_the_end(make_cluster):
    db = make_cluster({"pushy.synchronous_commit": "on"}).database()
    db.sql("SELECT pushy.queue_register('mails', retry_delay => '0', lease => '0', max_attempts => 1)")
    [job] = enqueue(db)
    for _ in range(4):
        db.wait_until("SELECT state FROM pushy.jobs WHERE id = %s", "available", params=(job,))
        session = db.connect()
        assert len(held_by(session)) == 1
        db.cluster.crash()
    db.wait_until("SELECT state FROM pushy.jobs WHERE id = %s", "discarded", params=(job,))
