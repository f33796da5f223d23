"""What a role may have of what all share: counted in the whole cluster, exactly, also where its transactions run at the same time; and where nothing is
refused, that the others lose nothing."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from harness.refusal import refused
from harness.waiting import wait_for

WORK = "CREATE FUNCTION work(args jsonb) RETURNS void LANGUAGE sql AS ''"
# What is counted: the setting, and a call that adds one of a name.
COUNTED = {
    "queues": ("max_queues_per_role", "SELECT pushy.queue_register('{}', 'work(jsonb)')"),
    "channels with an owner": ("max_channels_per_role", "SELECT pushy.channel_grant('{}', 'public')"),
    "subscriptions": ("max_channels_per_role", "SELECT pushy.subscription_create('{}')"),
}


@pytest.fixture(scope="module")
def bounded(new_cluster):
    """Two of each are allowed."""
    cluster = new_cluster({"pushy.max_queues_per_role": 2, "pushy.max_channels_per_role": 2})
    yield cluster
    cluster.remove()


@pytest.fixture
def roles(bounded):
    bounded.numbered = getattr(bounded, "numbered", 0) + 1
    names = [f"tenant_{bounded.numbered}", f"other_{bounded.numbered}"]
    with bounded.connect() as admin:
        for name in names:
            admin.execute(f"CREATE ROLE {name} LOGIN")
    return names


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.parametrize("what", COUNTED)
def test_two_transactions_of_a_role_together_do_not_pass_its_bound(bounded, roles, what, isolation, end):
    setting, add = COUNTED[what]
    db = bounded.database()
    db.sql(WORK)
    tenant, other = roles
    begin = f"BEGIN ISOLATION LEVEL {isolation}"
    with db.connect(user=tenant) as first, db.connect(user=tenant) as second, db.connect(user=other) as stranger, ThreadPoolExecutor(1) as thread:
        first.execute(add.format("a"))
        for session in (first, second):
            session.execute(begin)
            session.execute("SELECT 1")
        first.execute(add.format("b"))
        answer = thread.submit(second.execute, add.format("c"))
        db.wait_until("SELECT wait_event_type FROM pg_stat_activity WHERE pid = %s", "Lock", params=(second.info.backend_pid,))
        stranger.execute("SET statement_timeout = '10 s'")
        stranger.execute(add.format("s"))
        first.execute(end)
        if end == "commit":
            with pytest.raises(psycopg.errors.ConfigurationLimitExceeded, match=setting):
                answer.result()
            second.execute("ROLLBACK")
        else:
            answer.result()
            second.execute("COMMIT")
        refused(first, add.format("d"), "53400", setting)
        with db.connect() as admin:
            admin.execute(add.format("e"))
    db.drop()


def test_queues_of_a_role_are_counted_in_all_databases(bounded, roles):
    here, there = bounded.database(), bounded.database()
    add = COUNTED["queues"][1]
    for db in (here, there):
        db.sql(WORK)
        with db.connect(user=roles[0]) as session:
            session.execute(add.format("q"))
    for db in (here, there):
        with db.connect(user=roles[0]) as session:
            refused(session, add.format("more"), "53400", "max_queues_per_role")
            session.execute(add.format("q"))
    here.drop()
    with there.connect(user=roles[0]) as session:
        there.wait_until("SELECT count(*) FROM pg_database WHERE datname = %s", 0, params=(here.name,))
        session.execute(add.format("more"))
    there.drop()


def test_a_subscription_declared_again_waits_for_nobody(bounded, roles):
    """A service does it at each start."""
    db = bounded.database()
    create = COUNTED["subscriptions"][1]
    with db.connect(user=roles[0]) as first, db.connect(user=roles[0], autocommit=False) as second:
        first.execute(create.format("s"))
        second.execute(create.format("t"))
        first.execute("SET statement_timeout = '10 s'")
        first.execute(create.format("s"))
        second.rollback()
    db.drop()


def test_counters_of_watches_are_left_for_whoever_has_none(make_cluster):
    db = make_cluster().database()
    db.sql("CREATE ROLE hog LOGIN; CREATE ROLE other LOGIN; GRANT CREATE ON SCHEMA public TO hog, other")
    with db.connect(user="hog") as hog:
        hog.execute("CREATE TABLE t (id int); SELECT pushy.watch('t', 'c', '{insert}', payload => 'none', name => '1')")
        # The others are copies of the first: 1,700 declarations take minutes on a busy machine.
        db.sql("""
            DO $$
            DECLARE
                w pushy_internal.watch; trigger oid;
            BEGIN
                SELECT * INTO w FROM pushy_internal.watch;
                FOR n IN 2 .. 1700 LOOP
                    w.watch_id := w.watch_id + 1; w.token := gen_random_uuid(); w.name := n;
                    EXECUTE format('CREATE TRIGGER c%s AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION pushy.watch_row(%L, %L)',
                                   n, w.token, w.name);
                    SELECT oid INTO trigger FROM pg_trigger WHERE tgrelid = 't'::regclass AND tgname = 'c' || n;
                    w.triggers := ARRAY[trigger];
                    -- As src/watch/declare/triggers.rs makes it: else the copy is no watch.
                    SELECT encode(sha256(convert_to(ROW(t.oid, t.tgfoid, t.tgtype, t.tgisinternal, t.tgparentid, t.tgconstraint, t.tgdeferrable, t.tginitdeferred,
                                                        t.tgattr, encode(t.tgargs, 'hex'), t.tgqual::text, t.tgoldtable, t.tgnewtable)::text,
                                                    getdatabaseencoding())), 'hex') INTO w.fingerprint FROM pg_trigger t WHERE t.oid = trigger;
                    INSERT INTO pushy_internal.watch SELECT w.*;
                END LOOP;
                -- What is inserted is taken for a dump's.
                UPDATE pushy_internal.watch SET home_database = w.home_database;
            END$$""")
        hog.execute("INSERT INTO t VALUES (1)")
        assert hog.execute("SELECT count(*) FILTER (WHERE notices = 1), count(*) FROM pushy.watches").fetchone() == (1639, 1700)
    with db.connect(user="other") as other:
        other.execute("CREATE TABLE mine (id int); SELECT pushy.watch('mine', payload => 'none'); INSERT INTO mine VALUES (1)")
        assert other.execute("SELECT notices FROM pushy.watches WHERE relation = 'mine'::regclass").fetchone() == (1,)


def test_a_role_fills_its_share_of_the_log_and_pushes_out_nobody(make_cluster):
    db = make_cluster({"pushy.log_max_size_per_role": "1MB", "pushy.log_keep": 10}).database()
    db.sql("CREATE ROLE flood LOGIN; CREATE ROLE other LOGIN; CREATE TABLE t (v text); GRANT ALL ON t TO flood, other;"
           "SELECT pushy.watch('t', payload => 'row'), pushy.subscription_create('s')")
    write = "INSERT INTO t SELECT repeat('x', 1000) FROM generate_series(1, 100)"
    with db.connect(user="flood") as flood, db.connect(user="other") as other:
        other.execute("INSERT INTO t VALUES ('first')")
        written = 0
        with pytest.raises(psycopg.errors.ConfigurationLimitExceeded, match="log_max_size_per_role"):
            for _ in range(20):
                flood.execute(write)
                written += 100
        assert 300 <= written <= 1000
        refused(flood, write, "53400", "log_max_size_per_role")
        # Nobody else: neither a role that has written less, nor a superuser.
        other.execute("INSERT INTO t VALUES ('last')")
        db.sql(write.replace('100)', '2000)'))
        db.wait_until("SELECT count(*) FROM pushy.subscription_read('s', 10000)", 2 + written + 2000)
        notices = [payload for payload, in db.rows("SELECT payload FROM pushy.subscription_read('s', 10000)")]
        assert "first" in notices[0] and "last" in notices[written + 1]
        # What it wrote is emptied with time, and room for as much is there again.
        wait_for("the role to write again", lambda: accepted(flood, write), bool)


TELL = {  # how 7,000 bytes come into the log, by a job
    "notify": ("PERFORM pushy.notify('c', repeat(i::text, 7000 / length(i::text)), 'relay')", ""),
    "watch": ("INSERT INTO told VALUES (repeat(i::text, 7000 / length(i::text)))",
              "SELECT pushy.watch('told', payload => 'row', delivery => 'relay')"),
    "deferred": ("INSERT INTO told VALUES (repeat(i::text, 7000 / length(i::text)))",
                 """CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS
                        $$BEGIN PERFORM pushy.notify('c', NEW.v, 'relay'); RETURN NULL; END$$;
                    CREATE CONSTRAINT TRIGGER later AFTER INSERT ON told DEFERRABLE INITIALLY DEFERRED
                        FOR EACH ROW EXECUTE FUNCTION tell()"""),
}


@pytest.fixture(scope="module")
def small_log(new_cluster):
    cluster = new_cluster({"pushy.log_max_size_per_role": "1MB"})
    with cluster.connect() as admin:
        admin.execute("CREATE ROLE bob LOGIN")
    yield cluster
    cluster.remove()


@pytest.mark.parametrize("batch", [True, False], ids=["batches", "one by one"])
@pytest.mark.parametrize("how", TELL)
def test_a_job_above_its_roles_share_of_the_log_pays_for_it_and_holds_up_no_other(small_log, how, batch):
    db = small_log.database()
    tell, made = TELL[how]
    db.sql("CREATE TABLE told (v text); GRANT ALL ON told TO bob; GRANT CREATE ON SCHEMA public TO bob;" + made)
    with db.connect(user="bob") as bob:
        bob.execute(f"""
            CREATE FUNCTION nf(args jsonb) RETURNS void LANGUAGE plpgsql AS $$
            DECLARE i int := args->>'big';
            BEGIN
                IF i IS NOT NULL THEN {tell}; END IF;
            END$$""")
        bob.execute("SELECT pushy.queue_register('q', 'nf(jsonb)', max_attempts => 1, batch => %s, keep_completed => '1 day')", (batch,))
        bob.execute("SELECT count(pushy.enqueue('q', jsonb_build_object('big', i))) FROM generate_series(1, 160) i")
        small, = bob.execute("SELECT pushy.enqueue('q', '{}')").fetchone()
    db.jobs_wait("q")
    assert db.job(small)["state"] == "completed"
    states = dict(db.rows("SELECT state::text, count(*) FROM pushy.jobs GROUP BY state"))
    assert sum(states.values()) == 161 and 10 <= states["discarded"] <= 40, states
    failures = set(db.rows("SELECT sqlstate, message LIKE 'notices of role bob % pushy.log_max_size_per_role' FROM pushy.failures"))
    assert failures == {("53400", True)}
    told = db.value("SELECT count(*) FROM pushy_internal.log_0 WHERE channel !~ '^pushy_'")
    assert told == states["completed"] - 1, "what a job had to say is there, and of one that failed nothing"
    assert "jobs wait: " not in small_log.log.since()
    db.drop()


def test_equal_notices_of_a_job_are_counted_once(small_log):
    """What is the last word on its channel already is not told again."""
    db = small_log.database()
    db.sql("GRANT CREATE ON SCHEMA public TO bob")
    with db.connect(user="bob") as bob:
        bob.execute("""
            CREATE FUNCTION repeats() RETURNS void LANGUAGE plpgsql AS $$
            BEGIN
                FOR i IN 1 .. 140 LOOP
                    PERFORM pushy.notify('c' || i % 10, repeat('x', 7000), 'relay');
                END LOOP;
            END$$""")
        bob.execute("SELECT pushy.queue_register('r', 'repeats()', max_attempts => 1, batch => false)")
        # 70 kB of the 1 MB each.
        bob.execute("SELECT count(pushy.enqueue('r')) FROM generate_series(1, 16)")
    db.jobs_wait("r")
    counts = dict(db.rows("SELECT state::text, count(*) FROM pushy.jobs WHERE queue = 'r' GROUP BY state"))
    assert counts.get("discarded", 0) == 2, counts
    db.drop()


def accepted(session, statement: str) -> bool:
    try:
        session.execute(statement)
    except psycopg.errors.ConfigurationLimitExceeded:
        return False
    return True


def test_windows_of_finished_jobs_taken_by_one_role_cost_the_others_none(make_cluster):
    """Sixteen tables; where all are taken, the others' jobs are kept and shown as before, and removed one by one."""
    db = make_cluster({"pushy.max_executors": 2}).database()
    db.sql(WORK)
    db.sql("CREATE ROLE hog LOGIN; CREATE ROLE other LOGIN")
    with db.connect(user="hog") as hog:
        for n in range(1, 31):
            hog.execute(f"SELECT pushy.queue_register('h{n}', 'work(jsonb)', keep_completed => '{n * 3} days')")
            hog.execute(f"SELECT count(pushy.enqueue('h{n}')) FROM generate_series(1, 200)")
    taken = "SELECT count(*) FROM pushy_internal.rotation"
    for n in range(1, 31):
        db.jobs_wait(f"h{n}")
        db.sql(f"SELECT count(pushy.enqueue('h{n}')) FROM generate_series(1, 100)")
    db.wait_until(taken, lambda now: now <= 16)
    with db.connect(user="other") as other:
        other.execute("SELECT pushy.queue_register('o', 'work(jsonb)')")
        other.execute("SELECT count(pushy.enqueue('o')) FROM generate_series(1, 500)")
    db.jobs_wait("o")
    assert db.rows("SELECT state, count(*) FROM pushy.jobs WHERE queue = 'o' GROUP BY 1") == [("completed", 500)]
