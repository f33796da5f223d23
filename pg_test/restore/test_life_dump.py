"""Dumped and restored: elsewhere queues wait until somebody says so, roles and handlers are found by name, and a server
without the library only warns."""

import pytest

from stage.dumps import dump, restore
from stage.life import LEDGER, run


@pytest.fixture
def shop(make_cluster):
    """A database with a queue of a tenant, a paused one, jobs in several states, a grant and history."""
    db = make_cluster().database("shop")
    db.sql(LEDGER)
    db.sql("""
        CREATE ROLE tenant LOGIN; CREATE ROLE reader LOGIN; GRANT INSERT ON ledger TO tenant;
        SELECT pushy.queue_register('q', 'note(jsonb)', run_as => 'tenant'), pushy.queue_register('p', 'note(jsonb)');
        SELECT pushy.queue_grant('q', 'reader', 'monitor'), pushy.queue_pause('p')""")
    run(db, count=2)
    db.sql("SELECT pushy.enqueue('p', '10')")
    db.later = db.value("SELECT pushy.enqueue('q', '11', delay => '1 hour')")
    return db


def test_a_copy_in_the_same_server_waits_and_then_runs_what_was_waiting(shop):
    copy, _ = restore(shop.cluster, dump(shop), "copy")
    assert "resume_after_restore" in str(copy.rows("SELECT reason, fix FROM pushy.queue_explain('q')"))
    assert dict(copy.rows("SELECT state::text, count(*) FROM pushy.jobs GROUP BY 1")) == {"completed": 2, "available": 1, "scheduled": 1}
    assert dict(copy.rows("SELECT name, resumed FROM pushy.resume_after_restore()")) == {"q": True, "p": False}
    assert copy.value("SELECT pushy.job_retry(%s)", copy.value("SELECT id FROM pushy.jobs WHERE state = 'scheduled'"))
    copy.jobs_wait("q")
    copy.sql("SELECT pushy.queue_resume('p')")
    copy.jobs_wait("p")
    assert [n for n, in copy.rows("SELECT n FROM ledger ORDER BY n")] == [1, 2, 10, 11]
    assert shop.job(shop.later)["state"] == "scheduled", "the original is left alone"
    new = copy.value("SELECT pushy.enqueue('q', '12')")
    assert new > shop.later, "numbers go on where they were"
    with copy.connect(user="reader") as reader:
        assert reader.execute("SELECT count(*) > 0 FROM pushy.jobs WHERE queue = 'q'").fetchone() == (True,)


def test_jobs_that_a_restore_in_place_has_brought_run_when_their_queue_is_resumed(db):
    """No commit has announced them, and the queue's watermark says from before that nothing is ready. (The sweep would find them in a minute.)"""
    db.sql("CREATE FUNCTION note() RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_register('q', 'note()')")
    db.job_wait(db.value("SELECT pushy.enqueue('q')"))
    db.sql("UPDATE pushy_internal.queue SET home_system = 1;"
           "INSERT INTO pushy_internal.live_job (id, position, run_at, enqueued_at, queue_id, enqueued_by, priority, depth, state, args) "
           "SELECT n, nullif(n, 6000), now() - interval '1 s', now(), queue_id, 10, 3, 0, CASE n WHEN 6000 THEN 's' ELSE 'a' END::\"char\", '{}' "
           "FROM pushy_internal.queue, unnest('{5000,6000}'::bigint[]) n;"
           "UPDATE pushy_internal.live_job SET queue_id = q.queue_id FROM pushy_internal.queue q")
    before = db.value("SELECT clock_timestamp()")
    db.sql("SELECT pushy.queue_resume('q')")
    db.wait_until("SELECT count(*) FROM pushy_internal.live_job", 0, 60)
    assert db.value("SELECT max(finished_at) - %s < interval '20 s' FROM pushy_internal.finished_job", before)


def test_a_restore_where_the_role_is_missing_says_so_and_works_once_it_is_there(shop, make_cluster):
    there = make_cluster(fresh=True)
    copy, _ = restore(there, dump(shop, "--no-owner", "--no-privileges"), "shop")
    resumed = {queue: reason for queue, _, reason in copy.rows("SELECT name, resumed, reason FROM pushy.resume_after_restore()")}
    assert "role tenant does not exist" in resumed["q"]
    copy.sql("CREATE ROLE tenant LOGIN; GRANT INSERT ON ledger TO tenant")
    assert dict(copy.rows("SELECT name, resumed FROM pushy.resume_after_restore()"))["q"] is True
    run(copy)


def test_a_role_that_happens_to_have_the_number_of_another_is_not_taken_for_it(shop, make_cluster):
    there = make_cluster(fresh=True)
    with there.connect() as admin:
        admin.execute("CREATE ROLE stranger LOGIN; CREATE ROLE second LOGIN; CREATE ROLE third LOGIN")
    copy, _ = restore(there, dump(shop, "--no-owner", "--no-privileges"), "shop")
    copy.sql("GRANT USAGE ON SCHEMA pushy TO PUBLIC; UPDATE pushy_internal.queue SET run_as = 'stranger'::regrole; UPDATE pushy_internal.queue_acl SET grantee = 'stranger'::regrole")
    with copy.connect(user="stranger") as stranger:
        assert stranger.execute("SELECT * FROM pushy.jobs").fetchall() == []
    assert "role tenant does not exist" in str(copy.rows("SELECT reason FROM pushy.resume_after_restore()"))
    with copy.connect(user="stranger") as stranger:
        assert stranger.execute("SELECT * FROM pushy.jobs").fetchall() == []


def test_who_enqueued_a_job_is_found_by_name_in_another_cluster_or_not_said(shop, make_cluster):
    """The number of a role is a stranger's there; the queue knows some by name, and the bootstrap superuser is the same everywhere."""
    shop.sql("CREATE ROLE clerk LOGIN; SELECT pushy.queue_grant('q', 'public', 'enqueue')")
    for role in ("tenant", "clerk"):
        with shop.connect(user=role) as session:
            session.execute("SELECT pushy.enqueue('q', '20', delay => '1 hour')")
    who = "SELECT enqueued_by::text, state::text, count(*) FROM pushy.jobs WHERE queue = 'q' GROUP BY 1, 2 ORDER BY 2, 1 NULLS LAST"
    assert shop.rows(who) == [("postgres", "completed", 2), ("clerk", "scheduled", 1), ("postgres", "scheduled", 1), ("tenant", "scheduled", 1)]
    there = make_cluster(fresh=True)
    with there.connect() as admin:
        for name in ("stranger", "second", "third", "tenant", "clerk"):
            admin.execute(f"CREATE ROLE {name} LOGIN")
    copy, _ = restore(there, dump(shop, "--no-owner", "--no-privileges"), "shop")
    copy.sql("GRANT INSERT ON ledger TO tenant; SELECT pushy.resume_after_restore()")
    assert copy.rows(who) == [("postgres", "completed", 2), ("postgres", "scheduled", 1), ("tenant", "scheduled", 1), (None, "scheduled", 1)]
    job = copy.value("SELECT id FROM pushy.jobs WHERE enqueued_by IS NULL")
    copy.sql("CREATE TABLE seen (by name, n int); GRANT INSERT ON seen TO tenant;"
             "CREATE FUNCTION note(job pushy.job) RETURNS void LANGUAGE sql AS 'INSERT INTO public.seen VALUES (job.enqueued_by, 1)';"
             "SELECT pushy.queue_alter('q', handler => 'note(pushy.job)')")
    copy.sql("SELECT pushy.job_retry(%s)", job)
    assert copy.job_wait(job)["state"] == "completed"
    assert copy.rows("SELECT by FROM seen") == [(None,)]
    assert copy.row("SELECT enqueued_by FROM pushy.job_wait(%s)", job)["enqueued_by"] is None


def test_a_restore_without_the_library_preloaded_warns_and_all_but_running_works(shop, make_cluster):
    bare = make_cluster({"shared_preload_libraries": ""}, fresh=True)
    with bare.connect() as admin:
        admin.execute("CREATE ROLE tenant LOGIN; CREATE ROLE reader LOGIN")
    copy, said = restore(bare, dump(shop), "shop")
    assert "WARNING" in said and "shared_preload_libraries = 'pushy'" in said
    job = copy.value("SELECT pushy.enqueue('q', '5')")
    assert "shared_preload_libraries" in str(copy.rows("SELECT reason, fix FROM pushy.queue_explain('q')"))
    waited = copy.row("SELECT * FROM pushy.job_wait(%s, '10 ms')", job)
    assert waited["state"] == "available"
    assert copy.value("SELECT pushy.job_cancel(%s)", job)
    bare.configure(shared_preload_libraries="pushy")
    copy.close()
    bare.restart()
    copy.sql("SELECT pushy.resume_after_restore()")
    run(copy)


def test_jobs_that_a_restore_brings_before_their_queues_are_not_taken_for_orphans(make_cluster):
    """pg_dump loads pushy_internal.live_job before pushy_internal.queue, and a scheduler may look in between."""
    # The first scheduler to look is that of the server started again.
    db = make_cluster({"log_min_messages": "debug1", "pushy.databases": "nowhere"}).database()
    db.sql(LEDGER)
    db.sql("SELECT pushy.queue_register('q', 'note(jsonb)'), pushy.queue_pause('q')")
    job = db.value("SELECT pushy.enqueue('q', '1')")
    db.sql("CREATE TABLE aside AS TABLE pushy_internal.queue; DELETE FROM pushy_internal.queue;"
           "CREATE TABLE jobs AS TABLE pushy_internal.live_job; DELETE FROM pushy_internal.live_job; INSERT INTO pushy_internal.live_job TABLE jobs")
    since = db.cluster.log.position()
    db.cluster.configure(pushy__databases=db.name).restart()
    db.cluster.log.wait_for(r'background worker "pushy scheduler" \(PID \d+\) exited', since)
    loaded = db.value("SELECT id FROM pushy_internal.live_job")
    assert loaded % 2 ** 42 == job and loaded != job, "numbers have been given out here, of which it may be another's"
    db.sql("INSERT INTO pushy_internal.queue TABLE aside; SELECT pushy.queue_resume('q')")
    assert db.job_wait(loaded)["state"] == "completed"


def test_a_queue_restored_in_place_waits_and_is_resumed_with_the_handler_that_came_with_it(shop):
    """pg_restore --clean of a database into itself: same place, other functions, and jobs of yesterday."""
    backup = dump(shop, "--clean", "--if-exists")
    shop.sql("SELECT pushy.queue_drop('p', true)")
    shop.close()
    shop.cluster.psql("shop", backup)
    assert shop.rows("SELECT reason, fix FROM pushy.queue_explain('q')")[0] == (
        "the queue came here by a restore or a copy of the database, and does not run by itself (pushy.resume_after_restore() resumes all that came along)", "SELECT pushy.queue_resume('q')")
    assert dict(shop.rows("SELECT name, resumed FROM pushy.resume_after_restore()")) == {"q": True, "p": False}
    run(shop)
    assert shop.rows("SELECT name, resumed, reason FROM pushy.resume_after_restore()") == [], "nothing was away"


def test_a_stranger_who_changes_his_queue_keeps_nobodys_queues_from_being_resumed(shop):
    """What is at home is not locked at all, and what somebody holds is passed over, with a row that says so."""
    shop.sql("SELECT pushy.queue_register('own', 'note(jsonb)')")
    copy, _ = restore(shop.cluster, dump(shop), "copy")
    resume = "SELECT name, resumed, reason FROM pushy.resume_after_restore()"
    copy.sql("SELECT pushy.queue_register('here', 'note(jsonb)')")
    with copy.connect(autocommit=False) as stranger, copy.connect(options="-c lock_timeout=1") as owner:
        stranger.execute("SELECT pushy.queue_alter('here', priority => 2), pushy.queue_alter('own', priority => 2)")
        first = {name: (resumed, reason) for name, resumed, reason in owner.execute(resume)}
        assert first["q"] == (True, None) and "here" not in first
        assert first["own"][0] is False and "run this again" in first["own"][1]
        stranger.commit()
        assert [(name, resumed) for name, resumed, _ in owner.execute(resume) if name in ("q", "own", "here")] == [("own", True)]
