"""More queues than pushy.max_queues: those without a slot do not run and say so, all else goes on."""

import pytest

PLACES = 64


@pytest.fixture
def crowded(make_cluster):
    """70 queues, and slots for 64 of them; what the queues do is noted in `done`. `db.without` are the queues that found no
    place, `db.within` the others."""
    cluster = make_cluster({"pushy.max_queues": 128})
    db = cluster.database()
    db.sql("CREATE TABLE done (queue text, n int)")
    db.sql("CREATE FUNCTION work() RETURNS void LANGUAGE sql AS $$INSERT INTO done SELECT (pushy.current_job()).queue$$")
    db.sql("CREATE FUNCTION note(jsonb) RETURNS void LANGUAGE sql AS $$INSERT INTO done SELECT (pushy.current_job()).queue, ($1 #>> '{key,id}')::int$$")
    db.sql("SELECT pushy.queue_register('x' || n, 'work()') FROM generate_series(1, 69) n")
    db.sql("SELECT pushy.queue_register('watched', 'note(jsonb)')")
    db.sql("CREATE TABLE w (id int PRIMARY KEY); SELECT pushy.watch('w', queue => 'watched')")
    db.jobs_wait("x1")
    db.close()
    cluster.configure(pushy__max_queues=PLACES)
    cluster.restart()
    db.wait_until("SELECT count(*) FROM pushy.queues WHERE parked ~ 'max_queues'", 70 - PLACES)
    db.without = [queue for queue, in db.rows("SELECT queue FROM pushy.queues WHERE parked ~ 'max_queues'")]
    db.within = [queue for queue, in db.rows("SELECT queue FROM pushy.queues WHERE parked IS NULL")]
    return db


def test_what_has_a_place_goes_on_and_what_has_none_says_so(crowded):
    db = crowded
    db.cluster.log.wait_for("6 queues of this database do not run: all 64 queue slots")
    job = db.value("SELECT pushy.enqueue(%s, delay => '300 ms')", db.within[0])
    assert db.job_wait(job)["state"] == "completed"
    waits = db.value("SELECT pushy.enqueue(%s)", db.without[0])
    for view in ("queues", "jobs", "watches", "stats", "failures", "workers"):
        db.rows(f"SELECT * FROM pushy.{view}")
    assert db.value("SELECT state FROM pushy.jobs WHERE id = %s", waits) == "available"
    why = db.value("SELECT reason FROM pushy.queue_explain(%s) LIMIT 1", db.without[0])
    assert "all 64 queue slots" in why
    with pytest.raises(Exception, match="no slot for queue"):
        db.sql("CALL pushy.jobs_wait(%s, '10 s')", db.without[0])
    with pytest.raises(Exception, match="no slot for queue"):
        db.sql("SELECT pushy.queue_run(%s)", db.without[0])


def test_jobs_of_a_queue_without_a_place_are_kept_and_run_when_it_has_one(crowded):
    db = crowded
    assert "watched" in db.without, "queues find slots in the order in which they were registered"
    with pytest.raises(Exception, match="no slot for queue"):
        db.sql("SELECT pushy.queue_register('one more', 'work()')")
    others = [queue for queue in db.without if queue != "watched"]
    db.sql("INSERT INTO w VALUES (7)")
    assert db.value("SELECT count(*) FROM pushy.jobs WHERE queue = 'watched'") == 1
    assert db.rows("SELECT state, errors FROM pushy.watches") == [("active", 0)]
    jobs = [db.value("SELECT pushy.enqueue(%s)", queue) for queue in others]
    jobs += [db.value("SELECT pushy.enqueue(%s, delay => '10 ms')", queue) for queue in others]
    with db.connect(autocommit=False) as session:
        session.execute("SELECT pushy.enqueue(%s)", (others[0],))
        session.execute("PREPARE TRANSACTION 'placeless'")
    db.sql("COMMIT PREPARED 'placeless'")
    # A transaction that has looked for a place in vain, and commits when there is one.
    with db.connect(autocommit=False) as late:
        jobs.append(late.execute("SELECT pushy.enqueue(%s)", (others[0],)).fetchone()[0])
        for queue in db.within[:6]:
            db.sql("SELECT pushy.queue_drop(%s)", queue)
        db.wait_until("SELECT count(*) FROM pushy.queues WHERE parked ~ 'max_queues'", 0)
        late.commit()
    db.wait_until("SELECT count(*) FROM done WHERE queue = 'watched' AND n = 7", 1)
    for job in jobs:
        assert db.job_wait(job)["state"] == "completed"
    db.wait_until("SELECT count(*) FROM pushy.jobs WHERE state <> 'completed'", 0)


def test_queues_of_a_copy_take_no_place_until_they_are_resumed(make_cluster):
    cluster = make_cluster({"pushy.max_queues": PLACES})
    db = cluster.database()
    db.sql("CREATE FUNCTION work() RETURNS void LANGUAGE sql AS ''")
    db.sql("SELECT pushy.queue_register('x' || n, 'work()') FROM generate_series(1, 40) n")
    db.close()
    copy = db.name + "_copy"
    cluster.psql("postgres", f'CREATE DATABASE "{copy}" TEMPLATE "{db.name}"')
    with cluster.connect(copy) as session:
        assert session.execute("SELECT count(*) FROM pushy.queues WHERE parked ~ 'resume_after_restore'").fetchone() == (40,)
        kept = session.execute("SELECT pushy.enqueue('x1')").fetchone()[0]
        # All slots are the original's.
        db.sql("SELECT pushy.queue_register('y' || n, 'work()') FROM generate_series(1, 24) n")
        assert db.job_wait(db.value("SELECT pushy.enqueue('y24', delay => '100 ms')"))["state"] == "completed"
        db.sql("SELECT pushy.queue_drop('y1')")
        session.execute("SELECT pushy.queue_resume('x1')")
        copied = db.of(cluster)
        copied.name = copy
        assert copied.job_wait(kept)["state"] == "completed"
        copied.close()
