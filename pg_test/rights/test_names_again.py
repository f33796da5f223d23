"""What is stored by name and number, found again: after a role, a queue or a handler was dropped, renamed, or made again by
somebody else, each that holds it does what its owner would expect, and nothing for a stranger."""

import psycopg
import pytest

from stage.life import LEDGER

GONE, RENAMED, AGAIN = "dropped", "renamed", "made again by another"
FATES = (GONE, RENAMED, AGAIN)


@pytest.fixture
def fates(shared_cluster):
    """Lets something happen to a role; whatever it is called at the end is dropped after the database."""
    names = []

    def happen(db, name, fate):
        names.append(name)
        if fate == RENAMED:
            db.sql(f"ALTER ROLE {name} RENAME TO {name}_new")
            return f"{name}_new"
        db.sql(f"DROP OWNED BY {name}; DROP ROLE {name}")
        if fate == AGAIN:
            db.sql(f"CREATE ROLE {name} LOGIN")
        return name
    yield happen
    with shared_cluster.connect() as admin:
        for name in names:
            admin.execute(f"DROP ROLE IF EXISTS {name}_new")


@pytest.fixture
def shop(fates, db, role):
    """A queue of `owner`, with a handler in a schema where everybody may make functions."""
    db.sql(LEDGER + "; GRANT INSERT ON ledger TO PUBLIC; GRANT CREATE ON SCHEMA public TO PUBLIC")
    db.owner, db.other = role(), role()
    db.fate = lambda name, fate: fates(db, name, fate)
    return db


def call(db, user, statement, *params):
    with db.connect(user=user) as session:
        return session.execute(statement, params or None).fetchone()[0]


def refused(db, user, statement, sqlstate="42501"):
    with pytest.raises(psycopg.Error) as error:
        call(db, user, statement)
    assert error.value.sqlstate == sqlstate, error.value
    return str(error.value.diag.message_primary) + " / " + str(error.value.diag.message_hint)


def parked(db, queue="q"):
    return db.wait_until("SELECT parked FROM pushy.queues WHERE queue = %s", lambda parked: parked is not None, params=(queue,))


# -- every reference ----------------------------------------------------------------------------------------------

# What holds a role, a queue or another object by its number, and the test here (or the reason) that says what becomes of it.
HOLDERS = {
    "queue.owner": "test_the_owner_of_a_queue",
    "queue.run_as": "test_the_role_of_a_queue",
    "queue.handler_oid": "test_a_handler_that_somebody_else_made_again_is_not_taken_for_it",
    "queue.handler_owner": "test_a_handler_given_away_runs_on_only_for_who_could_act_as_the_queues_role",
    "queue_acl.grantee": "test_a_grantee_of_a_queue",
    "queue_acl.queue_id": "test_a_number_that_something_still_holds_is_given_to_no_queue",
    "watch.owner": "test_the_maker_of_a_watch",
    "watch.queue_id": "test_a_watch_whose_queue_is_dropped_or_anothers_adds_nothing_and_says_so",
    "watch.queue_owner": "test_a_queue_made_again_by_its_owner_is_taken_over",
    "watch.relation": "test_watch_ddl",
    "watch.triggers": "test_watch_ddl",
    "watch.expression_trigger": "test_watch_ddl",
    "subscription.owner": "test_the_owner_of_a_subscription",
    "subscription.queue_id": "test_a_subscription_whose_queue_is_anothers_feeds_nothing_and_says_so",
    "subscription.queue_owner": "test_a_subscription_whose_queue_is_anothers_feeds_nothing_and_says_so",
    "channel.owner": "test_channel_grants: roles that go",
    "channel_acl.grantee": "test_channel_grants: roles that go",
    "live_job.enqueued_by": "test_who_enqueued_a_job",
    "finished_job.enqueued_by": "test_who_enqueued_a_job",
    "live_job.queue_id": "test_life_roles: orphans",
    "finished_job.queue_id": "goes with its queue",
    "failure.queue_id": "goes with its queue",
    "promised_cancel.queue_id": "test_loaded_beside: test_a_promised_cancel_that_is_loaded_is_of_the_loaded_job; else by its job",
    "loaded_queue.queue_id": "below zero, and no queue's again",
    "job_log.queue_id": "goes with its queue",
    "checkpoint.queue_id": "goes with its queue",
    "gateway_key.role": "test_gateway_keys: test_a_key_of_a_role_that_is_gone_counts_no_more",
    "ticket.role": "a day at most, and a ticket of a role that is gone is none",
    "lease.queue_id": "goes with its job",
    "lease.claimed_by": "test_the_role_that_claimed_a_job",
    "dropped_queue.queue_id": "test_retention: test_no_queue_gets_the_number_of_one_whose_history_is_still_there",
}
# Where a database stands; compared with where we are.
PLACES = {"home_database", "home_extension", "database", "extension"}


def test_every_reference_is_listed(db):
    found = {name for name, in db.rows("""
        SELECT c.relname || '.' || a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
         WHERE c.relnamespace = ANY (ARRAY['pushy', 'pushy_internal']::regnamespace[]) AND c.relkind = 'r' AND a.attnum > 0
           AND NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid)
           AND (a.atttypid IN ('oid'::regtype, 'oid[]'::regtype, 'regrole'::regtype, 'regclass'::regtype) OR a.attname = 'queue_id')
           AND NOT (c.relname = 'queue' AND a.attname = 'queue_id')""")}
    found = {name for name in found if name.split(".")[1] not in PLACES}
    assert found == set(HOLDERS), "a new reference wants a test of what becomes of it"
    missing = [test for test in HOLDERS.values() if test.startswith("test_the_") and test not in globals()]
    assert missing == []


# -- roles --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("fate", FATES)
def test_the_owner_of_a_queue(shop, fate):
    shop.sql(f"GRANT {shop.other} TO {shop.owner}")
    call(shop, shop.owner, f"SELECT pushy.queue_register('q', 'note(jsonb)', run_as => '{shop.other}')")
    name = shop.fate(shop.owner, fate)
    job = shop.value("SELECT pushy.enqueue('q', '1')")
    assert ("is now" if fate == RENAMED else "owner") in parked(shop)
    shown = shop.value("SELECT owner FROM pushy.queues")
    # Of one that is gone no name is shown, because another may have it.
    assert shown == (name if fate == RENAMED else None)
    if fate == RENAMED:
        call(shop, name, "SELECT pushy.queue_resume('q')")
    else:
        if fate == AGAIN:
            assert call(shop, name, "SELECT count(*) FROM pushy.queues") == 0
            for statement in ("queue_pause('q')", "queue_resume('q')", "queue_register('q', 'note(jsonb)')",
                              "queue_drop('q', true)", "queue_grant('q', 'public', 'work')"):
                refused(shop, name, f"SELECT pushy.{statement}")
            refused(shop, name, f"SELECT pushy.job_cancel({job})", "42704")
        # A superuser takes it over, with its jobs.
        shop.sql(f"SELECT pushy.queue_register('q', 'note(jsonb)', run_as => '{shop.other}')")
        assert shop.value("SELECT owner FROM pushy.queues") == "postgres"
    assert shop.job_wait(job)["state"] == "completed"


@pytest.mark.parametrize("fate", FATES)
def test_the_role_of_a_queue(shop, fate):
    shop.sql(f"SELECT pushy.queue_register('q', 'note(jsonb)', run_as => '{shop.other}'); SELECT pushy.queue_pause('q')")
    job = shop.value("SELECT pushy.enqueue('q', '1')")
    name = shop.fate(shop.other, fate)
    if fate == RENAMED:
        assert shop.value("SELECT run_as FROM pushy.queues") == name
        shop.sql("SELECT pushy.queue_resume('q')")
    else:
        assert "does not exist" in refused(shop, "postgres", "SELECT pushy.queue_resume('q')", "42704")
        assert "does not exist" in str(shop.rows("SELECT reason FROM pushy.queue_explain('q')"))
        shop.sql(f"SELECT pushy.queue_alter('q', run_as => '{name if fate == AGAIN else shop.owner}'), pushy.queue_resume('q')")
    assert shop.job_wait(job)["state"] == "completed"


@pytest.mark.parametrize("fate", FATES)
def test_a_grantee_of_a_queue(shop, fate):
    shop.sql("SELECT pushy.queue_register('q', 'note(jsonb)'), pushy.queue_pause('q')")
    for privilege in ("enqueue", "work", "monitor"):
        shop.sql(f"SELECT pushy.queue_grant('q', '{shop.other}', '{privilege}')")
    name = shop.fate(shop.other, fate)
    if fate == RENAMED:
        job = call(shop, name, "SELECT pushy.enqueue('q', '1')")
        assert call(shop, name, "SELECT count(*) FROM pushy.jobs") == 1
        assert call(shop, name, f"SELECT pushy.job_cancel({job})")
    elif fate == AGAIN:
        job = shop.value("SELECT pushy.enqueue('q', '1')")
        refused(shop, name, "SELECT pushy.enqueue('q', '1')")
        refused(shop, name, f"SELECT pushy.job_cancel({job})", "42704")
        assert call(shop, name, "SELECT count(*) FROM pushy.jobs") == 0
        shop.sql(f"SELECT pushy.queue_grant('q', '{name}', 'enqueue')")
        call(shop, name, "SELECT pushy.enqueue('q', '1')")
    else:
        # By its name it can still be cleared away.
        shop.sql(f"SELECT pushy.queue_revoke('q', '{name}', 'monitor')")
        assert shop.value("SELECT count(*) FROM pushy_internal.queue_acl") == 2


@pytest.mark.parametrize("fate", FATES)
def test_the_maker_of_a_watch(shop, fate):
    shop.sql("SELECT pushy.queue_register('q', 'note(jsonb)'), pushy.queue_pause('q'); CREATE TABLE t (i int PRIMARY KEY);"
             f"SELECT pushy.queue_grant('q', '{shop.other}', 'enqueue'); GRANT TRIGGER ON t TO {shop.other}")
    call(shop, shop.other, "SELECT pushy.watch('t', queue => 'q')")
    # A session that has fired it already learns of it, too.
    shop.sql("INSERT INTO t VALUES (1)")
    name = shop.fate(shop.other, fate)
    shop.sql("INSERT INTO t VALUES (2)")
    if fate == RENAMED:
        assert shop.row("SELECT owner, state, fix, jobs, errors FROM pushy.watches") == {
            "owner": name, "state": "active", "fix": None, "jobs": 2, "errors": 0}
        return
    seen = shop.row("SELECT owner, state, fix, jobs, errors FROM pushy.watches")
    assert (seen["owner"], seen["state"], seen["jobs"], seen["errors"]) == (None, "broken", 1, 1)
    assert "Declare it again with pushy.watch" in seen["fix"]
    if fate == AGAIN:
        assert call(shop, name, "SELECT count(*) FROM pushy.watches") == 0
        refused(shop, name, "SELECT pushy.unwatch('t')")
    shop.sql("SELECT pushy.watch('t', queue => 'q'); INSERT INTO t VALUES (3)")
    assert shop.row("SELECT owner, state, fix, jobs FROM pushy.watches") == {"owner": "postgres", "state": "active", "fix": None, "jobs": 2}


@pytest.mark.parametrize("fate", FATES)
def test_the_owner_of_a_subscription(shop, fate):
    shop.sql(f"SELECT pushy.queue_register('q', 'note(jsonb)'), pushy.queue_pause('q'), pushy.queue_grant('q', '{shop.other}', 'enqueue')")
    call(shop, shop.other, "SELECT pushy.subscription_create('jobs', '{c}', queue => 'q')")
    call(shop, shop.other, "SELECT pushy.subscription_create('mine', '{c}')")
    name = shop.fate(shop.other, fate)
    shop.sql("SELECT pushy.notify('c', '1', delivery => 'relay')")
    assert shop.value("SELECT array_agg(DISTINCT owner::text) FROM pushy.subscriptions") == [name if fate == RENAMED else None]
    shop.value("CALL pushy.subscription_wait('mine', '20 s')")
    if fate == RENAMED:
        assert call(shop, name, "SELECT payload FROM pushy.subscription_read('mine')") == "1"
        shop.wait_until("SELECT count(*) FROM pushy.jobs", 1)
        return
    shop.wait_until("SELECT stopped FROM pushy.subscriptions WHERE name = 'jobs'", lambda stopped: stopped is not None and "gone" in stopped)
    if fate == AGAIN:
        for statement in ("SELECT pushy.subscription_read('mine')", "SELECT pushy.subscription_drop('mine')",
                          "SELECT pushy.subscription_create('mine', '{c}')"):
            refused(shop, name, statement)
        assert call(shop, name, "SELECT count(*) FROM pushy.subscriptions") == 0
    # A superuser takes it over where it stood.
    shop.sql("SELECT pushy.subscription_create('jobs', '{c}', queue => 'q'), pushy.subscription_create('mine', '{c}')")
    assert shop.value("SELECT array_agg(DISTINCT owner::text) FROM pushy.subscriptions") == ["postgres"]
    shop.wait_until("SELECT count(*) FROM pushy.jobs", 1)


@pytest.mark.parametrize("fate", FATES)
def test_who_enqueued_a_job(shop, fate):
    shop.sql("CREATE TABLE seen (by name); GRANT INSERT ON seen TO PUBLIC;"
             "CREATE FUNCTION see(job pushy.job) RETURNS void LANGUAGE sql AS 'INSERT INTO public.seen VALUES (job.enqueued_by)';"
             "SELECT pushy.queue_register('q', 'see(pushy.job)'), pushy.queue_grant('q', 'public', 'enqueue'), pushy.queue_pause('q')")
    job = call(shop, shop.other, "SELECT pushy.enqueue('q')")
    name = shop.fate(shop.other, fate)
    expected = name if fate == RENAMED else None
    assert shop.job(job)["enqueued_by"] == expected
    shop.sql("SELECT pushy.queue_resume('q')")
    assert shop.job_wait(job)["enqueued_by"] == expected
    assert shop.rows("SELECT by::text FROM seen") == [(expected,)]
    assert shop.job(job)["enqueued_by"] == expected


@pytest.mark.parametrize("fate", FATES)
def test_the_role_that_claimed_a_job(shop, fate):
    shop.sql("SELECT pushy.queue_register('out'), pushy.queue_grant('out', 'public', 'claim'); SELECT pushy.enqueue('out')")
    with shop.connect(user=shop.other) as session:
        job, token = session.execute("SELECT job_id, token FROM pushy.job_claim('out')").fetchone()
    name = shop.fate(shop.other, fate)
    expected = name if fate == RENAMED else None
    assert shop.rows("SELECT job_id, claimed_by::text FROM pushy.leases") == [(job, expected)]
    # Its token is what proves a claim.
    assert shop.value("SELECT pushy.job_complete(%s, %s)", job, token) is True


# -- handlers -----------------------------------------------------------------------------------------------------

PLANT = "CREATE FUNCTION note(args jsonb) RETURNS void LANGUAGE sql AS 'INSERT INTO public.ledger VALUES (666)'"


@pytest.mark.parametrize("statement", ["queue_resume('q')", "queue_register('q', 'note(jsonb)')", "queue_register('q', 'note')",
                                       "queue_alter('q', handler => 'note(jsonb)')", "queue_alter('q', handler => 'public.note')"])
def test_a_handler_that_somebody_else_made_again_is_not_taken_for_it(shop, statement):
    shop.sql(f"ALTER FUNCTION note(jsonb) OWNER TO {shop.owner}")
    call(shop, shop.owner, "SELECT pushy.queue_register('q', 'note(jsonb)')")
    shop.sql("DROP FUNCTION note(jsonb)")
    with shop.connect(user=shop.other) as session:
        session.execute(PLANT)
    job = shop.value("SELECT pushy.enqueue('q', '1')")
    parked(shop)
    said = refused(shop, shop.owner, f"SELECT pushy.{statement}")
    assert f"belongs to role {shop.other} now, and belonged to {shop.owner}" in said and "Read public.note(jsonb) first" in said
    assert shop.job(job)["state"] == "available"
    # Once it is the owner's own it is as good as the old one.
    shop.sql(f"ALTER FUNCTION note(jsonb) OWNER TO {shop.owner}")
    call(shop, shop.owner, f"SELECT pushy.{statement}")
    assert shop.job_wait(job)["state"] == "completed"


@pytest.mark.parametrize("to, runs", [("other", False), ("postgres", True), ("member", True)])
def test_a_handler_given_away_runs_on_only_for_who_could_act_as_the_queues_role(shop, role, to, runs):
    member = role(f"IN ROLE {shop.owner}")
    owner = {"other": shop.other, "postgres": "postgres", "member": member}[to]
    shop.sql(f"ALTER FUNCTION note(jsonb) OWNER TO {shop.owner}")
    call(shop, shop.owner, "SELECT pushy.queue_register('q', 'note(jsonb)')")
    shop.sql(f"ALTER FUNCTION note(jsonb) OWNER TO {owner}")
    job = shop.value("SELECT pushy.enqueue('q', '1')")
    if not runs:
        assert f"belongs to role {owner} now" in parked(shop)
        assert f"belongs to role {owner} now" in str(shop.rows("SELECT reason FROM pushy.queue_explain('q')"))
        refused(shop, shop.owner, "SELECT pushy.queue_resume('q')")
        shop.sql(f"ALTER FUNCTION note(jsonb) OWNER TO {shop.owner}; SELECT pushy.queue_resume('q')")
    assert shop.job_wait(job)["state"] == "completed"


def test_a_renamed_owner_of_a_handler_stops_nothing(shop, fates):
    shop.sql(f"ALTER FUNCTION note(jsonb) OWNER TO {shop.other}")
    call(shop, shop.owner, "SELECT pushy.queue_register('q', 'note(jsonb)')")
    shop.fate(shop.other, RENAMED)
    assert shop.job_wait(shop.value("SELECT pushy.enqueue('q', '1')"))["state"] == "completed"


def test_registering_another_handler_under_the_name_says_so(shop):
    """Two applications, or two tenants' schemas, that chose the same name."""
    shop.sql("CREATE SCHEMA one; CREATE SCHEMA two;"
             "CREATE FUNCTION one.h(jsonb) RETURNS void LANGUAGE sql AS ''; CREATE FUNCTION two.h(jsonb) RETURNS void LANGUAGE sql AS ''")
    said = []
    with shop.connect() as session:
        session.add_notice_handler(lambda diagnostic: said.append((diagnostic.severity, diagnostic.message_primary)))
        for schema in ("one", "one", "two", "two"):
            session.execute(f"SET search_path = {schema}")
            session.execute("SELECT pushy.queue_register('q', 'h(jsonb)')")
    assert said == [("NOTICE", 'queue "q" runs two.h(jsonb) now, and no longer one.h(jsonb)')]


# -- queues -------------------------------------------------------------------------------------------------------

@pytest.fixture
def fed(shop):
    """A watch and a subscription of `owner` that feed a queue of its own; then the queue is dropped by force."""
    shop.sql("CREATE FUNCTION quiet(args jsonb) RETURNS void LANGUAGE sql AS ''")
    call(shop, shop.owner, "SELECT pushy.queue_register('mails', 'quiet(jsonb)')")
    with shop.connect(user=shop.owner) as session:
        session.execute("CREATE TABLE o (i int PRIMARY KEY, pin text)")
        session.execute("SELECT pushy.watch('o', channel => 'o', queue => 'mails', args_expr => 'jsonb_build_object(''pin'', NEW.pin)')")
        session.execute("SELECT pushy.subscription_create('feed', '{c}', queue => 'mails')")
        for call_ in ("pushy.unwatch('o')", None):
            with pytest.raises(psycopg.errors.DependentObjectsStillExist):
                session.execute("SELECT pushy.queue_drop('mails')")
            if call_:
                session.execute(f"SELECT {call_}")
        session.execute("SELECT pushy.watch('o', channel => 'o', queue => 'mails', args_expr => 'jsonb_build_object(''pin'', NEW.pin)')")
        session.execute("INSERT INTO o VALUES (0, 'before')")
        assert session.execute("CALL pushy.jobs_wait('mails', '60 s')").fetchone() == (True,)
        session.execute("SELECT pushy.queue_drop('mails', force => true)")
    return shop


def insert(db, i):
    call(db, db.owner, f"INSERT INTO o VALUES ({i}, 's3cret') RETURNING i")


def test_a_watch_whose_queue_is_dropped_or_anothers_adds_nothing_and_says_so(fed):
    seen = fed.row("SELECT state, fix FROM pushy.watches")
    assert seen["state"] == "broken" and "Register queue 'mails' again" in seen["fix"]
    insert(fed, 1)
    with fed.connect(user=fed.other) as stranger:
        stranger.execute("CREATE FUNCTION mine(jsonb) RETURNS void LANGUAGE sql AS ''")
        stranger.execute("SELECT pushy.queue_register('mails', 'mine(jsonb)'), pushy.queue_grant('mails', 'public', 'enqueue')")
        insert(fed, 2)
        assert stranger.execute("SELECT count(*) FROM pushy.jobs").fetchone() == (0,)
        # Its owner is not kept by what others have left to drop its queue.
        stranger.execute("SELECT pushy.queue_pause('mails')")
    seen = fed.row("SELECT state, fix, notices, jobs, errors FROM pushy.watches")
    assert (seen["state"], seen["notices"], seen["jobs"], seen["errors"]) == ("broken", 3, 1, 2), "the channel hears of it all the same"
    assert "Declare it again with pushy.watch" in seen["fix"]
    # To feed the stranger's queue is possible, and said.
    call(fed, fed.owner, "SELECT pushy.watch('o', channel => 'o', queue => 'mails', args_expr => 'jsonb_build_object(''pin'', NEW.pin)')")
    insert(fed, 3)
    assert call(fed, fed.other, "SELECT args FROM pushy.jobs") == {"pin": "s3cret"}
    assert fed.value("SELECT state FROM pushy.watches") == "active"


@pytest.mark.parametrize("by", ["owner", "superuser"])
def test_a_queue_made_again_by_its_owner_is_taken_over(fed, by):
    """As deploy scripts do it; or by who could have changed the old one."""
    call(fed, fed.owner if by == "owner" else "postgres", "SELECT pushy.queue_register('mails', 'quiet(jsonb)')")
    fed.sql("SELECT pushy.queue_pause('mails')")
    if by == "superuser":
        assert "queue_grant" in fed.value("SELECT fix FROM pushy.watches")
        fed.sql(f"SELECT pushy.queue_grant('mails', '{fed.owner}', 'enqueue')")
    assert fed.row("SELECT state, fix FROM pushy.watches") == {"state": "active", "fix": None}
    insert(fed, 1)
    fed.sql("SELECT pushy.notify('c', '1', delivery => 'relay')")
    fed.wait_until("SELECT count(*) FROM pushy.jobs", 2)
    # And again it is held to its owner.
    fed.sql("SELECT pushy.queue_drop('mails', force => true)")
    call(fed, fed.other, "SELECT pushy.queue_register('mails', 'quiet(jsonb)')")
    assert fed.value("SELECT state FROM pushy.watches") == "broken"


def test_a_subscription_whose_queue_is_anothers_feeds_nothing_and_says_so(fed):
    call(fed, fed.other, "SELECT pushy.queue_register('mails', 'quiet(jsonb)')")
    call(fed, fed.other, "SELECT pushy.queue_grant('mails', 'public', 'enqueue')")
    fed.sql("SELECT pushy.notify('c', '1', delivery => 'relay')")
    fed.wait_until("SELECT stopped FROM pushy.subscriptions", """queue "mails" was dropped, and is another role's now""")
    assert fed.value("SELECT count(*) FROM pushy.jobs") == 0
    call(fed, fed.owner, "SELECT pushy.subscription_create('feed', '{c}', queue => 'mails')")
    fed.wait_until("SELECT count(*) FROM pushy.jobs", 1)


def test_a_number_that_something_still_holds_is_given_to_no_queue(shop):
    """A restore of some of the tables, or a sequence set back."""
    shop.sql("SELECT pushy.queue_register('a', 'note(jsonb)')")
    number = shop.value("SELECT queue_id FROM pushy_internal.queue")
    shop.sql(f"SELECT setval('pushy_internal.queue_id_seq', {number}, false);"
             f"INSERT INTO pushy_internal.queue_acl VALUES ({number + 1}, 0, 'public', 'monitor');"
             f"UPDATE pushy_internal.queue_acl SET queue_id = {number + 1}")
    shop.sql("SELECT pushy.queue_register('b', 'note(jsonb)')")
    assert shop.value("SELECT queue_id FROM pushy_internal.queue WHERE queue = 'b'") == number + 2


# -- a copy -------------------------------------------------------------------------------------------------------

@pytest.fixture
def clone(shop, shared_cluster):
    """A copy by template, as parallel test runners make it, of a database with a queue and a watch of `owner` and of `other`."""
    shop.sql(f"GRANT ALL ON SCHEMA public TO {shop.owner}, {shop.other}")
    for who in (shop.owner, shop.other):
        with shop.connect(user=who) as session:
            session.execute(f"CREATE FUNCTION h_{who}(args jsonb) RETURNS void LANGUAGE sql AS ''")
            session.execute(f"SELECT pushy.queue_register('{who}', 'h_{who}(jsonb)')")
            session.execute(f"CREATE TABLE t_{who} (i int PRIMARY KEY)")
            session.execute(f"SELECT pushy.watch('t_{who}', queue => '{who}', name => 'w')")
    shop.close()
    since = shared_cluster.log.position()
    copy = shared_cluster.database(f"{shop.name}_copy", extension=False, options=f"TEMPLATE {shop.name}")
    copy.owner, copy.other, copy.since = shop.owner, shop.other, since
    yield copy
    copy.drop()


def test_a_copy_says_where_people_look_that_it_runs_nothing(clone):
    mine = clone.connect(user=clone.owner)
    assert mine.execute("SELECT parked FROM pushy.queues").fetchone()[0].startswith("it came here by a restore or a copy")
    assert mine.execute("SELECT state, fix FROM pushy.watches").fetchone() == ("elsewhere", f"SELECT pushy.watch_resume('t_{clone.owner}', 'w')")
    for _ in range(2):
        mine.execute(f"SELECT pushy.enqueue('{clone.owner}')")
    said = "queues of this database came here by a restore or a copy, and do not run"
    clone.cluster.log.wait_for(said, clone.since)
    assert clone.cluster.log.since(clone.since).count(said) == 1


def test_each_copy_is_looked_at_also_in_the_place_of_one_that_is_gone(clone, shop, shared_cluster):
    """What shared memory remembers of a database that was dropped is not taken for the next one's."""
    said = "queues of this database came here by a restore or a copy, and do not run"
    for number in range(3):
        since = shared_cluster.log.position()
        copy = shared_cluster.database(f"{shop.name}_copy_{number}", extension=False, options=f"TEMPLATE {shop.name}")
        with copy.connect(user=clone.owner) as mine:
            mine.execute(f"SELECT pushy.enqueue('{clone.owner}')")
        shared_cluster.log.wait_for(said, since)
        copy.drop()


@pytest.mark.parametrize("how", ["resume_after_restore", "queue_resume", "queue_register"])
def test_an_owner_resumes_its_own_in_a_copy_and_nothing_of_others(clone, how):
    with clone.connect(user=clone.owner) as mine:
        if how == "resume_after_restore":
            assert mine.execute("SELECT name, resumed, reason FROM pushy.resume_after_restore()").fetchall() == [
                (clone.owner, True, None), (f"w on public.t_{clone.owner}", True, None)]
        else:
            mine.execute(f"SELECT pushy.queue_resume('{clone.owner}')" if how == "queue_resume" else
                         f"SELECT pushy.queue_register('{clone.owner}', 'h_{clone.owner}(jsonb)')")
            assert mine.execute(f"SELECT pushy.watch_resume('t_{clone.owner}')").fetchone() == (1,)
        assert mine.execute("SELECT parked FROM pushy.queues").fetchall() == [(None,)]
        assert mine.execute("SELECT state, fix FROM pushy.watches").fetchall() == [("active", None)]
        mine.execute(f"INSERT INTO t_{clone.owner} VALUES (1)")
        assert mine.execute(f"CALL pushy.jobs_wait('{clone.owner}', '60 s')").fetchone() == (True,)
        assert mine.execute("SELECT state FROM pushy.jobs").fetchall() == [("completed",)]
        for statement in (f"SELECT pushy.queue_resume('{clone.other}')", f"SELECT pushy.watch_resume('t_{clone.other}')"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                mine.execute(statement)
    assert clone.rows("SELECT state FROM pushy.watches WHERE queue = %s", clone.other) == [("elsewhere",)]
