"""Nobody starves: a role that floods, or whose jobs never end, takes its share, and the others run."""

import pytest

from harness.gate import Gate
from harness.refusal import refused
from harness.waiting import PATIENCE

HANDLERS = """
    CREATE FUNCTION quick() RETURNS int LANGUAGE sql AS 'SELECT pg_backend_pid()';
    CREATE FUNCTION stops() RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM {stop}; END $$;"""


@pytest.fixture
def make_tenants(make_cluster):
    """A database in a server of its own with roles `tenant0` …, each with queues `slow0` … (jobs stop at the gate, and have no
    timeout) and `quick0` …; `db.session[n]` is a session of each."""
    def make(settings: dict, count: int):
        cluster = make_cluster(settings)
        db = cluster.database()
        db.gate = Gate(db)
        db.sql(HANDLERS.format(stop=db.gate.stop))
        db.session = []
        for n in range(count):
            db.sql(f"CREATE ROLE tenant{n} LOGIN")
            db.session.append(db.connect(user=f"tenant{n}"))
            db.session[n].execute(f"SELECT pushy.queue_register('slow{n}', 'stops()', timeout => '0', batch => false), "
                                  f"pushy.queue_register('quick{n}', 'quick()')")
        return db
    return make


def hold(db, tenant: int, jobs: int) -> None:
    db.session[tenant].execute(f"SELECT pushy.enqueue_many('slow{tenant}', array_fill('1'::jsonb, ARRAY[%s]))", (jobs,))


def waited(db, tenant: int) -> float:
    """Runs a job of the tenant's; how long it waited for its start, in seconds."""
    job = db.session[tenant].execute(f"SELECT pushy.enqueue('quick{tenant}')").fetchone()[0]
    done = db.job_wait(job)
    assert done["state"] == "completed"
    return (done["started_at"] - done["enqueued_at"]).total_seconds()


# -- executors ---------------------------------------------------------------------------------------------------

def test_a_role_without_an_executor_gets_one_within_a_second_while_anothers_endless_jobs_hold_all(make_tenants):
    db = make_tenants({"pushy.max_executors": 2, "pushy.reserved_executors": 1}, 2)
    hold(db, 0, 5)
    db.gate.wait_for_arrival(2)
    assert waited(db, 1) < 1 * PATIENCE
    assert db.value("SELECT count(*) FROM pushy.workers WHERE kind = 'executor' AND role = 'tenant0'") == 2
    assert waited(db, 1) < 0.5 * PATIENCE, "the executor did not stay"
    db.gate.open()
    db.jobs_wait("slow0")


def test_as_many_roles_with_endless_jobs_as_the_reserve_has_places_stop_nobody(make_tenants):
    db = make_tenants({"pushy.max_executors": 1, "pushy.reserved_executors": 2}, 4)
    for tenant in (0, 1):
        hold(db, tenant, 3)
        db.gate.wait_for_arrival(tenant + 1)
    assert waited(db, 2) < 1 * PATIENCE
    hold(db, 2, 1)
    db.gate.wait_for_arrival(3)
    # The fourth waits: one bound and two in reserve are held, a role each. It is told by what.
    job = db.session[3].execute("SELECT pushy.enqueue('quick3')").fetchone()[0]
    reason, _ = db.wait_until_told("quick3", "the only executor is busy")
    assert "and 2 of the reserve (pushy.reserved_executors): 3 of them work for other roles" in reason
    db.gate.open()
    assert db.job_wait(job)["state"] == "completed"
    for tenant in (0, 1, 2):
        db.jobs_wait(f"slow{tenant}")


def test_a_role_that_no_longer_needs_the_reserve_gives_it_back(make_tenants):
    db = make_tenants({"pushy.max_executors": 2, "pushy.reserved_executors": 2}, 2)
    hold(db, 0, 2)
    db.gate.wait_for_arrival(2)
    waited(db, 1)
    db.gate.open()
    db.jobs_wait("slow0")
    db.wait_until("SELECT count(*) <= 2 FROM pushy.workers WHERE kind = 'executor'")
    assert waited(db, 0) < 2 * PATIENCE


def test_a_role_alone_never_takes_from_the_reserve(make_tenants):
    db = make_tenants({"pushy.max_executors": 2, "pushy.reserved_executors": 2}, 1)
    hold(db, 0, 4)
    db.gate.wait_for_arrival(2)
    job = db.session[0].execute("SELECT pushy.enqueue('quick0')").fetchone()[0]
    db.wait_until("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND objid = 1 AND waitstart < clock_timestamp() - interval '1500 ms')")
    assert db.value("SELECT count(*) FROM pushy.workers WHERE kind = 'executor'") == 2
    db.gate.open()
    assert db.job_wait(job)["state"] == "completed"


def test_a_role_has_as_many_executors_as_its_share_and_is_told(make_tenants):
    db = make_tenants({"pushy.max_executors": 3, "pushy.max_executors_per_role": 1}, 2)
    hold(db, 0, 3)
    db.gate.wait_for_arrival(1)
    assert waited(db, 1) < 1 * PATIENCE
    db.session[0].execute("SELECT pushy.enqueue('quick0')")
    reason, _ = db.wait_until_told("quick0", "max_executors_per_role")
    assert reason.startswith("role tenant0 has as many executors as pushy.max_executors_per_role allows, 1")
    assert db.value("SELECT count(*) FROM pushy.workers WHERE kind = 'executor' AND role = 'tenant0'") == 1
    db.gate.open()
    db.jobs_wait("quick0")


def test_a_share_of_one_goes_round_a_roles_databases(make_tenants):
    db = make_tenants({"pushy.max_executors": 3, "pushy.max_executors_per_role": 1, "pushy.executor_linger": "10min"}, 1)
    waited(db, 0)
    other = db.cluster.database("other")
    other.sql(HANDLERS.format(stop=db.gate.stop))
    with other.connect(user="tenant0") as session:
        job = session.execute("SELECT pushy.queue_register('q', 'quick()'), pushy.enqueue('q')").fetchone()[1]
    assert other.job_wait(job)["state"] == "completed"
    waited(db, 0)


# -- timeouts ----------------------------------------------------------------------------------------------------

def test_a_timeout_longer_than_allowed_is_refused_where_it_is_declared(db):
    db.sql("CREATE FUNCTION quick() RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_register('q', 'quick()', timeout => '2 s')")
    with db.connect() as session:
        session.execute("SET pushy.max_job_timeout = '10s'")
        for call in ("SELECT pushy.queue_register('q', 'quick()', timeout => '11 s')",
                     "SELECT pushy.queue_alter('q', timeout => '0')",
                     "SELECT pushy.enqueue('q', timeout => '0')",
                     "SELECT pushy.enqueue_many('q', '{1}', timeout => '1 hour')"):
            refused(session, call, "53400", "pushy.max_job_timeout", "00:00:10")
        session.execute("SELECT pushy.queue_register('q', 'quick()', timeout => '10 s'), pushy.enqueue('q', timeout => '3 s')")
        # Whoever says nothing asks for nothing.
        session.execute("SELECT pushy.queue_register('q', 'quick()')")


def test_only_a_superuser_says_how_long_jobs_may_run(db, role):
    with db.connect(user=role()) as session:
        refused(session, "SET pushy.max_job_timeout = 0", "42501")
        refused(session, "SET pushy.max_queues_per_role = 0", "42501")


@pytest.mark.parametrize("of", ["queue", "job"])
@pytest.mark.parametrize("timeout", ["0", "1 hour"])
def test_jobs_that_were_declared_before_are_cut_short(make_cluster, of, timeout):
    cluster = make_cluster()
    db = cluster.database()
    gate = Gate(db)
    db.sql(HANDLERS.format(stop=gate.stop))
    queues, jobs = (timeout, None) if of == "queue" else ("1 minute", timeout)
    db.sql("SELECT pushy.queue_register('q', 'stops()', timeout => %s::interval, max_attempts => 1), pushy.queue_pause('q')", queues)
    job = db.value("SELECT pushy.enqueue('q', timeout => %s::interval)", jobs)
    cluster.configure(pushy__max_job_timeout="200ms").reload()
    db.wait_until("SHOW pushy.max_job_timeout", "200ms")
    db.sql("SELECT pushy.queue_resume('q')")
    done = db.job_wait(job)
    assert done["state"] == "discarded" and "its timeout is 00:00:00.2" in done["last_error"]
    assert "pushy.max_job_timeout" in db.value("SELECT hint FROM pushy.failures")


# -- queues ------------------------------------------------------------------------------------------------------

def fill(session, prefix: str) -> str:
    """Registers queues until one is refused; why."""
    session.execute(f"""
        CREATE TEMP TABLE refusal (why text);
        DO $$BEGIN
            FOR n IN 1..5000 LOOP
                PERFORM pushy.queue_register('{prefix}' || n, 'quick()');
            END LOOP;
        EXCEPTION WHEN configuration_limit_exceeded THEN INSERT INTO pg_temp.refusal VALUES (SQLERRM);
        END $$""")
    (why,) = session.execute("SELECT why FROM refusal").fetchone()
    session.execute("DROP TABLE refusal")
    return why


@pytest.mark.parametrize("commits", [True, False])
def test_roles_that_register_what_they_can_leave_room_for_others(make_cluster, commits):
    """The exception undoes what a role has registered; those it has committed before stay."""
    db = make_cluster({"pushy.max_queues": 64}).database()
    db.sql(HANDLERS.format(stop="1"))
    for n in range(5):
        db.sql(f"CREATE ROLE tenant{n} LOGIN")
    sessions = [db.connect(user=f"tenant{n}") for n in range(5)]
    for n in range(4):
        queue = 0
        while True:
            try:
                sessions[n].execute("SELECT pushy.queue_register(%s, 'quick()')", (f"t{n}.{queue}",))
            except Exception as error:
                assert "only" in str(error) and "pushy.max_queues" in f"{error.diag.message_detail} {error.diag.message_hint}"
                break
            queue += 1
        assert queue > 0
        if not commits:
            fill(sessions[n], f"u{n}.")
    sessions[4].execute("SELECT pushy.queue_register('mine', 'quick()')")
    db.sql("SELECT pushy.queue_register('of a superuser', 'quick()')")


def test_a_role_owns_as_many_queues_as_the_setting_allows(make_cluster):
    db = make_cluster({"pushy.max_queues_per_role": 3}).database()
    db.sql(HANDLERS.format(stop="1"))
    db.sql("CREATE ROLE tenant LOGIN; CREATE ROLE other LOGIN")
    with db.connect(user="tenant") as session:
        for n in range(3):
            session.execute(f"SELECT pushy.queue_register('q{n}', 'quick()')")
        refused(session, "SELECT pushy.queue_register('q3', 'quick()')", "53400", "pushy.max_queues_per_role", "tenant has 3 queues")
        session.execute("SELECT pushy.queue_register('q2', 'quick()', priority => 1)")
        session.execute("SELECT pushy.queue_drop('q0')")
        session.execute("SELECT pushy.queue_register('q3', 'quick()')")
    with db.connect(user="other") as session:
        session.execute("SELECT pushy.queue_register('mine', 'quick()')")


# -- channels of subscriptions -----------------------------------------------------------------------------------

def test_a_roles_subscriptions_name_as_many_channels_as_the_setting_allows(db, role):
    tenant, other = role(), role()
    create = "SELECT pushy.subscription_create(%s, ARRAY(SELECT 'c' || n FROM generate_series(1, %s) n))"
    with db.connect(user=tenant) as session:
        for number in range(9):
            session.execute(create, (f"s{number}", 1_000))
        session.execute(create, ("first", 990))
        refused(session, "SELECT pushy.subscription_create('second', ARRAY(SELECT 'c' || n FROM generate_series(1, 11) n))",
                "53400", "pushy.max_channels_per_role", "10000", "Its other subscriptions have 9990.")
        session.execute(create, ("second", 8))
        session.execute("SELECT pushy.subscription_create('all')")
        session.execute("SELECT pushy.subscription_create('all too')")
        refused(session, "SELECT pushy.subscription_create('third')", "53400", "pushy.max_channels_per_role")
        # Declared again, it counts once.
        session.execute(create, ("first", 990))
        session.execute("SELECT pushy.subscription_drop('first')")
        session.execute("SELECT pushy.subscription_create('third')")
    with db.connect(user=other) as session:
        session.execute(create, ("others", 1_000))
    for number in range(11):
        db.sql(create, f"of a superuser {number}", 1_000)


def test_what_a_refused_subscription_is_told_can_be_done(db, role):
    """One without a list counts as one channel."""
    tenant = role()
    db.sql(f"ALTER ROLE {tenant} SET pushy.max_channels_per_role = 1")
    with db.connect(user=tenant) as session:
        refused(session, "SELECT pushy.subscription_create('a', '{x,y}')", "53400", "with 2 channels would", "HINT: Leave channels out to read all, drop")
        session.execute("SELECT pushy.subscription_create('a')")
        for more in ("", ", '{x}'", ", '{x,y}'"):
            said = "with 2 channels would" if "y" in more else "with 1 channel would"
            refused(session, f"SELECT pushy.subscription_create('b'{more})", "53400", said, "HINT: Drop subscriptions")


# -- cancels -----------------------------------------------------------------------------------------------------

def test_a_role_that_asks_for_the_same_cancel_again_and_again_takes_one_place_for_it(make_tenants):
    """More often than there are places; another role's cancel finds one."""
    db = make_tenants({"pushy.max_executors": 2}, 2)
    for tenant in (0, 1):
        hold(db, tenant, 1)
    db.gate.wait_for_arrival(2)
    mine, others = (db.value("SELECT id FROM pushy.jobs WHERE queue = %s", f"slow{tenant}") for tenant in (0, 1))
    with db.connect(user="tenant0", autocommit=False) as session:
        asked = session.execute("SELECT count(*) FILTER (WHERE pushy.job_cancel(%s)) FROM generate_series(1, 20000)", (mine,))
        assert asked.fetchone() == (20_000,)
        assert db.session[1].execute("SELECT pushy.job_cancel(%s)", (others,)).fetchone() == (True,)
        assert db.job_wait(others)["state"] == "cancelled"
        session.commit()
    assert db.job_wait(mine)["state"] == "cancelled"
