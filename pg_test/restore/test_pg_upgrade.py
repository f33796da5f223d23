"""pg_upgrade from an older PostgreSQL: queues, watches, channels, subscriptions and history go on, and nobody says so."""

import json
import subprocess
from pathlib import Path

import psycopg
import pytest

from harness.cluster import Cluster
from harness.database import Database
from harness.installation import REPOSITORY, Installation, built, chosen_pg_config, major_of
from harness.waiting import wait_for
from stage.life import LEDGER, run

# To 16.2, and from 17.12 to 18.6, pg_upgrade itself fails, without Pushy, as from 15.20: what these dump has a column option that those
# do not know. So it is tried from another 15 (tools/majors.sh).
OLDER = {17: (15, 16), 18: (15, 16)}


def script(package: Path) -> str:
    return next(package.rglob("pushy--*.sql")).read_text()


def older_installation(scratch, major: int) -> Installation:
    """Of an older PostgreSQL with Pushy as built for it, of which there is one copy."""
    package = REPOSITORY / "target" / f"package-dev-{major}"
    folder = subprocess.check_output([REPOSITORY / "tools" / "majors.sh", "--folder"], text=True).strip()
    for place in (f"{folder}/{major}/usr/lib/postgresql/{major}", f"{folder}/{major}/pgserver/pginstall", f"/usr/lib/postgresql/{major}"):
        if package.exists() and Path(place).exists():
            assert script(package) == script(built("dev")), f"{package} is of other sources: tools/build.sh dev with its PG_CONFIG"
            return Installation.create(scratch, package, f"{place}/bin/pg_config")
    pytest.skip(f"no PostgreSQL {major} with Pushy here: run make test-majors")


@pytest.fixture(params=sorted({old for olds in OLDER.values() for old in olds}))
def old(request, tmp_path_factory, scratch):
    if request.param not in OLDER.get(major_of(chosen_pg_config()), ()):
        pytest.skip("not an upgrade that is tried")
    folder = scratch / f"old{request.param}.{request.node.name[:4]}.{id(request)}"
    installation = older_installation(folder / "pg", request.param)
    # Whoever is idle leaves, because a database is copied that nobody is in.
    cluster = Cluster(folder / "c", installation, {"pushy.executor_linger": "1s"}).create().start()
    yield cluster
    cluster.remove()


def upgraded(old, new):
    """`new` with everything of `old`, started."""
    new.run("pg_upgrade", "-b", old.installation.bindir, "-B", new.installation.bindir, "-d", old.data, "-D", new.data,
            "-U", "postgres", "-s", new.folder, timeout=300)
    return new.start()


def new_one(make_cluster, old):
    new = make_cluster(fresh=True, start=False)
    if major_of(chosen_pg_config()) >= 18:
        # From 18 on initdb switches checksums on, and pg_upgrade wants both alike.
        new.run("pg_checksums", "--disable", "-D", new.data)
    return new


def test_pg_upgrade_keeps_everything_going(old, make_cluster):
    db = old.database("shop")
    db.sql(LEDGER)
    db.sql("""
        CREATE ROLE tenant LOGIN; CREATE ROLE reader LOGIN; GRANT INSERT ON ledger TO tenant; GRANT CREATE ON SCHEMA public TO tenant;
        SELECT pushy.queue_register('q', 'note(jsonb)', run_as => 'tenant'), pushy.queue_register('p', 'note(jsonb)');
        SELECT pushy.queue_grant('q', 'reader', 'monitor'), pushy.queue_pause('p');
        CREATE TABLE orders (id int PRIMARY KEY, v int); GRANT ALL ON orders TO tenant;
        SELECT pushy.watch('orders', queue => 'q', args_expr => 'to_jsonb(NEW.id)', condition => 'NEW.v > 0', events => '{insert}');
        SELECT pushy.watch('orders', name => 'heard', channel => 'heard', delivery => 'notify');
        SELECT pushy.subscription_create('s', '{news}')""")
    run(db, count=2)
    db.sql("SELECT pushy.notify('news', 'before', delivery => 'relay')")
    later = db.value("SELECT pushy.enqueue('q', '99', delay => '1 day')")
    waiting = db.value("SELECT pushy.enqueue('p', '50')")
    history = db.rows("SELECT id, state::text FROM pushy.jobs ORDER BY id")
    old.stop()

    new = upgraded(old, new_one(make_cluster, old))
    db = db.of(new)
    wait_for("the scheduler to have looked", lambda: db.value("SELECT count(*) FROM pushy.queues WHERE parked IS NULL"),
             lambda found: found == 2, evidence=new.log.tail)
    assert db.rows("SELECT id, state::text FROM pushy.jobs ORDER BY id") == history
    assert db.job(later)["state"] == "scheduled" and db.job(waiting)["state"] == "available"
    # What there is goes on: jobs, watches to a queue and to a channel, grants, the subscription's place.
    heard = db.listen("heard")
    db.sql("INSERT INTO orders VALUES (7, 1), (8, -1)")
    assert [json.loads(heard.wait_for().payload)["key"] for _ in range(2)] == [{"id": 7}, {"id": 8}]
    db.jobs_wait("q")
    db.sql("SELECT pushy.queue_resume('p')")
    db.jobs_wait("p")
    assert [n for n, in db.rows("SELECT n FROM ledger ORDER BY n")] == [1, 2, 7, 50]
    db.sql("SELECT pushy.notify('news', 'after', delivery => 'relay')")
    with db.connect(user="reader") as reader:
        assert reader.execute("SELECT count(*) > 0 FROM pushy.jobs WHERE queue = 'q'").fetchone() == (True,)
    read = wait_for("both notices", lambda: db.rows("SELECT payload FROM pushy.subscription_read('s')"), lambda rows: len(rows) >= 2)
    assert [payload for payload, in read] == ["before", "after"]
    assert db.rows("SELECT name, resumed, reason FROM pushy.resume_after_restore()") == [], "nothing waits for somebody"
    assert "after pg_upgrade 5 queues, watches, channels and subscriptions of this database go on, 0 do not" in new.log.since()


def test_what_was_not_at_home_before_stays_so(old, make_cluster):
    """A copy by template waits for somebody, after pg_upgrade too."""
    db = old.database("shop")
    db.sql(LEDGER)
    db.sql("SELECT pushy.queue_register('q', 'note(jsonb)')")
    db.close()
    wait_for("everybody to have left", lambda: old.connect().execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = 'shop'").fetchone(), lambda found: found == (0,))
    old.connect().execute("CREATE DATABASE copy TEMPLATE shop")
    old.stop()
    new = upgraded(old, new_one(make_cluster, old))
    there = db.of(new)
    wait_for("the scheduler to have looked", lambda: there.rows("SELECT parked FROM pushy.queues"), lambda found: found == [(None,)],
             evidence=new.log.tail)
    there = Database(new, "copy")
    run_at = there.value("SELECT pushy.enqueue('q', '1')")
    new.log.wait_for("came here by a restore or a copy")
    assert there.job(run_at)["state"] == "available"
    assert there.rows("SELECT name, resumed FROM pushy.resume_after_restore()") == [("q", True)]
    there.jobs_wait("q")


def test_roles_are_known_by_their_numbers_which_pg_upgrade_keeps(make_cluster):
    """As pg_upgrade leaves it: the rows tell of another cluster. A role that was renamed is the same, and a namesake of one that was
    dropped inherits nothing, also when somebody resumes what did not go on by itself."""
    cluster = make_cluster(fresh=True)
    db = cluster.database("shop")
    db.sql(LEDGER)
    db.sql("""
        CREATE ROLE renamed LOGIN; CREATE ROLE gone LOGIN; CREATE ROLE reader; GRANT USAGE ON SCHEMA pushy TO PUBLIC; GRANT INSERT ON ledger TO PUBLIC;
        CREATE TABLE t (id int PRIMARY KEY); GRANT TRIGGER ON t TO PUBLIC;
        SELECT pushy.queue_register('r', 'note(jsonb)', run_as => 'renamed'), pushy.queue_register('g', 'note(jsonb)', run_as => 'gone');
        SELECT pushy.queue_grant('r', 'gone', 'monitor'), pushy.queue_grant('r', 'reader', 'monitor')""")
    for name in ("renamed", "gone"):
        with db.connect(user=name) as session:
            session.execute(f"SELECT pushy.subscription_create('{name}', '{{news}}'), pushy.channel_grant('{name}', 'reader'),"
                            f" pushy.watch('t', name => '{name}', channel => 'of_{name}')")
    db.sql("""
        ALTER ROLE renamed RENAME TO other; CREATE ROLE renamed LOGIN; ALTER ROLE reader RENAME TO another; CREATE ROLE reader;
        DROP ROLE gone; CREATE ROLE gone LOGIN""")
    for table in ("queue", "watch", "subscription", "channel"):
        db.sql(f"UPDATE pushy_internal.{table} SET home_system = 1")
    db.sql("UPDATE pushy_internal.watch SET home_extension = 1; UPDATE pushy_internal.subscription SET home_extension = 1; UPDATE pushy_internal.home SET system = 1, extension = 1")
    db.close()
    cluster.restart()
    db = db.of(cluster)
    for _ in range(2):
        db.wait_until("SELECT former = '{1}' FROM pushy_internal.home")
        assert db.rows("SELECT queue, owner::text, run_as::text FROM pushy.queues WHERE queue = 'r'") == [("r", "postgres", "other")]
        job = db.value("SELECT pushy.enqueue('r', '1')")
        assert db.job_wait(job)["state"] == "completed"
        waits = db.value("SELECT pushy.enqueue('g', '2')")
        assert db.rows("SELECT grantee::regrole::text FROM pushy_internal.queue_acl ORDER BY 1") == [("another",)]
        owners = dict(db.rows("SELECT name, owner::regrole::text FROM pushy_internal.watch"))
        assert owners["renamed"] == "other" and owners["gone"] != "gone"
        with db.connect(user="gone") as session:
            assert session.execute("SELECT count(*) FROM pushy.subscriptions WHERE name = 'gone' AND owner::text = 'gone'").fetchone() == (0,)
            with pytest.raises(psycopg.Error):
                session.execute("SELECT * FROM pushy.subscription_read('gone')")
        # By somebody who believes that it helps.
        db.sql("SELECT * FROM pushy.resume_after_restore()")
    assert db.job(waits)["attempt"] == 0 and db.rows("SELECT n FROM ledger WHERE n = 2") == []
