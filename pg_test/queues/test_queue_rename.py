"""Another name, and another owner, for a queue: it stays the same queue for its jobs, its privileges, and whatever holds it."""

import itertools
import json

import psycopg
import pytest

from harness.refusal import refused


@pytest.fixture
def held(db, role):
    """A queue `old` with a job that waits, one that is done, a privilege, a watch and a subscription that feed it."""
    friend = role()
    db.sql("CREATE FUNCTION work(args jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT args'; CREATE TABLE t (id int);"
           "SELECT pushy.queue_register('old', 'work(jsonb)', keep_completed => '1 day'), pushy.watch('t', queue => 'old', args_expr => 'to_jsonb(NEW.id)'),"
           "       pushy.subscription_create('s', '{news}', queue => 'old')")
    db.sql("SELECT pushy.queue_grant('old', %s, 'enqueue')", friend)
    db.job_wait(db.value("SELECT pushy.enqueue('old', '\"done\"')"))
    db.sql("SELECT pushy.queue_pause('old'), pushy.enqueue('old', '\"waits\"')")
    db.friend = friend
    return db


def done(db, queue: str) -> list:
    db.jobs_wait(queue)
    return sorted(json.dumps(args) for args, in db.rows("SELECT args FROM pushy.jobs WHERE queue = %s AND state = 'completed'", queue))


def test_jobs_privileges_watches_and_subscriptions_go_with_the_name(held):
    held.sql("SELECT pushy.queue_rename('old', 'new')")
    assert held.rows("SELECT queue FROM pushy.queues") == [("new",)]
    assert held.rows("SELECT queue FROM pushy.watches") == held.rows("SELECT queue FROM pushy.subscriptions") == [("new",)]
    refused(held.main, "SELECT pushy.enqueue('old')", "42704", '"old"')
    held.sql("SELECT pushy.queue_resume('new'); INSERT INTO t VALUES (1); SELECT pushy.notify('news', 'read')")
    with held.connect(held.friend) as friend:
        friend.execute("SELECT pushy.enqueue('new', '\"friend\"')")
    held.wait_until("SELECT count(*) FROM pushy.jobs WHERE queue = 'new'", 5)
    assert len(done(held, "new")) == 5
    # The name is free for another queue, which gets nothing of the first one's.
    held.sql("SELECT pushy.queue_register('old', 'work(jsonb)'); INSERT INTO t VALUES (2)")
    assert len(done(held, "new")) == 6 and done(held, "old") == []


@pytest.mark.parametrize("level, begin", list(itertools.product(
    ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"), ("before", "after"))))
def test_a_session_that_has_fired_the_watch_before_feeds_the_queue_and_not_its_namesake(held, level, begin):
    with held.connect(autocommit=False) as session:
        session.execute("INSERT INTO t VALUES (1)")
        session.commit()
        if begin == "before":
            session.execute(f"BEGIN ISOLATION LEVEL {level}; SELECT 1")
        held.sql("SELECT pushy.queue_rename('old', 'new'), pushy.queue_register('old', 'work(jsonb)'), pushy.queue_pause('old')")
        if begin == "after":
            session.execute(f"BEGIN ISOLATION LEVEL {level}")
        session.execute("INSERT INTO t VALUES (2)")
        session.commit()
    assert held.rows("SELECT queue, args FROM pushy.jobs WHERE args IN ('1', '2') ORDER BY args") == [("new", 1), ("new", 2)]


def test_a_name_that_is_taken_by_then_is_refused_and_a_rename_that_is_rolled_back_leaves_nothing(held):
    held.sql("SELECT pushy.queue_register('other', 'work(jsonb)')")
    refused(held.main, "SELECT pushy.queue_rename('old', 'other')", "42710", '"other"', "rename or drop")
    refused(held.main, "SELECT pushy.queue_rename('nowhere', 'x')", "42704", '"nowhere"')
    refused(held.main, "SELECT pushy.queue_rename('old', NULL)", "22004", "new_name")
    refused(held.main, "SELECT pushy.queue_rename('old', E'a\\nb')", "22023", "new_name")
    with held.connect(autocommit=False) as session:
        session.execute("SELECT pushy.queue_rename('old', 'new'); INSERT INTO t VALUES (1); SELECT pushy.enqueue('new')")
        session.rollback()
        session.execute("INSERT INTO t VALUES (2)")
        session.commit()
    assert held.rows("SELECT queue FROM pushy.queues ORDER BY 1") == [("old",), ("other",)]
    assert held.value("SELECT queue FROM pushy.jobs WHERE args = '2'") == "old"
    # Two at once: the second waits for the first, and is refused.
    with held.connect(autocommit=False) as first, held.connect() as second:
        first.execute("SELECT pushy.queue_rename('old', 'same')")
        second.execute("SET lock_timeout = '100 ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            second.execute("SELECT pushy.queue_rename('other', 'same')")
        first.commit()
        refused(second, "SELECT pushy.queue_rename('other', 'same')", "42710", '"same"')


def test_it_is_told_with_both_names(held):
    heard = held.listen("pushy_control")
    held.sql("SELECT pushy.queue_rename('old', 'new')")
    assert heard.wait_for_json(event="rename")["was"] == "old" and json.loads(heard.heard[-1].payload)["queue"] == "new"


def test_only_its_owner_renames_it_or_gives_it_away_and_only_to_a_role_that_it_may_become(db, role):
    alice, bob, carol = role(), role(), role()
    db.sql(f"CREATE FUNCTION work() RETURNS void LANGUAGE sql AS ''; GRANT {carol} TO {alice}")
    with db.connect(alice) as owner, db.connect(bob) as other, db.connect(carol) as heir:
        owner.execute("SELECT pushy.queue_register('q', 'work()')")
        for call in ("queue_rename('q', 'p')", f"queue_alter('q', owner => '{bob}')"):
            refused(other, f"SELECT pushy.{call}", "42501", "q")
        refused(owner, f"SELECT pushy.queue_alter('q', owner => '{bob}')", "42501", bob, "member")
        # The owner of a queue is a role that may become the one its jobs run as.
        refused(owner, f"SELECT pushy.queue_alter('q', owner => '{carol}')", "42501", carol, alice)
        owner.execute(f"SELECT pushy.queue_alter('q', owner => '{carol}', run_as => '{carol}')")
        assert db.row("SELECT owner, run_as FROM pushy.queues") == {"owner": carol, "run_as": carol}
        heir.execute("SELECT pushy.queue_pause('q'), pushy.queue_rename('q', 'mine'), pushy.queue_resume('mine')")
        owner.execute("SELECT pushy.enqueue('mine')")
        assert db.job_wait(db.value("SELECT id FROM pushy.jobs"))["state"] == "completed"


def test_a_role_takes_no_more_queues_than_its_share_as_gifts(make_cluster):
    db = make_cluster({"pushy.max_queues_per_role": 1}).database()
    db.sql("CREATE ROLE rich LOGIN; CREATE ROLE poor LOGIN; CREATE FUNCTION work() RETURNS void LANGUAGE sql AS '';"
           "SELECT pushy.queue_register('a', 'work()'), pushy.queue_register('b', 'work()'), pushy.queue_alter('a', owner => 'rich', run_as => 'rich')")
    refused(db.main, "SELECT pushy.queue_alter('b', owner => 'rich', run_as => 'rich')", "53400", "rich", "max_queues_per_role")
    db.sql("SELECT pushy.queue_alter('b', owner => 'poor', run_as => 'poor')")


def test_queue_grants_shows_the_owner_all_and_others_what_concerns_them(db, role):
    alice, bob, carol = role(), role(), role()
    db.sql("CREATE FUNCTION work() RETURNS void LANGUAGE sql AS ''")
    with db.connect(alice) as owner, db.connect(bob) as friend, db.connect(carol) as stranger:
        owner.execute("SELECT pushy.queue_register('q', 'work()'), pushy.queue_register('none', 'work()')")
        owner.execute("SELECT pushy.queue_grant('q', %s)", (bob,))
        owner.execute("SELECT pushy.queue_grant('q', 'public', 'monitor'), pushy.queue_grant('q', %s, 'work')", (carol,))
        of = "SELECT queue, grantee::text, privilege, owner::text FROM pushy.queue_grants ORDER BY 2, 3"
        everything = sorted([("q", bob, "enqueue", alice), ("q", carol, "work", alice), ("q", "public", "monitor", alice)])
        assert sorted(owner.execute(of).fetchall()) == sorted(db.rows(of)) == everything
        assert sorted(friend.execute(of).fetchall()) == [row for row in everything if row[1] != carol]
        assert sorted(stranger.execute(of).fetchall()) == [row for row in everything if row[1] != bob]
        owner.execute("SELECT pushy.queue_revoke('q', 'public', 'monitor')")
        assert sorted(friend.execute(of).fetchall()) == [("q", bob, "enqueue", alice)]


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("by", ["an executor", "queue_run"])
def test_a_job_does_not_drop_its_own_queue_under_another_name(db, by, force):
    db.sql(f"CREATE FUNCTION sawing() RETURNS void LANGUAGE sql AS "
           f"$$ SELECT pushy.queue_rename('q', 'branch'), pushy.queue_drop('branch', force => {force}) $$")
    db.sql("SELECT pushy.queue_register('q', 'sawing()', max_attempts => 1)")
    if by == "queue_run":
        with db.connect(autocommit=False) as session:
            job = session.execute("SELECT pushy.enqueue('q')").fetchone()[0]
            session.execute("SELECT pushy.queue_run('q')")
            session.commit()
    else:
        job = db.value("SELECT pushy.enqueue('q')")
    assert db.job_wait(job)["state"] == "discarded"
    assert db.rows("SELECT sqlstate, message FROM pushy.failures") == [("55006", 'queue "branch" cannot be dropped by one of its own jobs')]
    assert db.rows("SELECT queue FROM pushy.queues") == [("q",)]


def test_a_job_drops_the_queue_that_has_got_its_own_queues_name(db):
    db.sql("CREATE FUNCTION nothing() RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_register('other', 'nothing()')")
    db.sql("CREATE FUNCTION swap() RETURNS void LANGUAGE sql AS "
           "$$ SELECT pushy.queue_rename('q', 'branch'), pushy.queue_rename('other', 'q'), pushy.queue_drop('q') $$")
    db.sql("SELECT pushy.queue_register('q', 'swap()', max_attempts => 1, keep_completed => '1 day')")
    assert db.job_wait(db.value("SELECT pushy.enqueue('q')"))["state"] == "completed"
    assert db.rows("SELECT queue FROM pushy.queues") == [("branch",)]


def test_who_waits_for_a_queue_that_is_renamed_is_told_nothing_of_its_namesake(held):
    """The first look finds obstacles by the queue's number."""
    with held.connect() as session:
        notices = []
        session.add_notice_handler(lambda notice: notices.append(notice.message_primary))
        session.execute("SELECT 1")
        held.sql("SELECT pushy.queue_rename('old', 'new')")
        session.execute("CALL pushy.jobs_wait('new', '10 ms')")
    assert notices == ['jobs of queue "new" do not run now: the queue is paused']


def test_a_watch_that_is_named_by_its_queue_is_found_again_under_the_queues_new_name(db):
    """The deploy script after a rename: one job for each change, whatever the queue that has the old name by then."""
    db.sql("CREATE FUNCTION work(args jsonb) RETURNS void LANGUAGE sql AS ''; CREATE TABLE t (id int PRIMARY KEY); SELECT pushy.queue_register('old', 'work(jsonb)');"
           "SELECT pushy.watch('t', queue => 'old', events => '{insert}'), pushy.watch_pause('t'), pushy.queue_pause('old'), pushy.queue_rename('old', 'new')")
    with db.connect() as session:
        said = []
        session.add_notice_handler(lambda notice: said.append(notice.message_primary))
        for _ in range(2):
            session.execute("SELECT pushy.watch('t', queue => 'new', events => '{insert}')")
    assert said == ['watch "old" of table public.t is called "new" now, as its queue is']
    assert db.rows("SELECT name, queue, state FROM pushy.watches") == [("new", "new", "paused")], "it keeps its pause"
    db.sql("SELECT pushy.watch_resume('t'), pushy.queue_register('old', 'work(jsonb)'), pushy.queue_pause('old');"
           "SELECT pushy.watch('t', queue => 'old', events => '{insert}'), pushy.watch('t', queue => 'new', events => '{insert}'); INSERT INTO t VALUES (1)")
    assert db.rows("SELECT queue FROM pushy.jobs ORDER BY 1") == [("new",), ("old",)]


def test_a_watch_that_was_given_its_name_keeps_it_when_its_queue_is_renamed(db):
    db.sql("CREATE FUNCTION work(args jsonb) RETURNS void LANGUAGE sql AS ''; CREATE TABLE t (id int PRIMARY KEY); SELECT pushy.queue_register('old', 'work(jsonb)');"
           "SELECT pushy.watch('t', queue => 'old', name => 'old'), pushy.queue_rename('old', 'new'), pushy.watch('t', queue => 'new', name => 'old')")
    assert db.rows("SELECT name, queue FROM pushy.watches") == [("old", "new")]
