"""Copies and restores: in the same cluster numbers of roles decide, so that a role which was made again under the name of a
dropped one has nothing of its; in another cluster, where numbers are strangers', names decide."""

import psycopg
import pytest

from harness.installation import REPOSITORY
from stage.dumps import dump, restore

# What each role has, and what shows that it still has it.
TRIES = {
    "owner": "SELECT pushy.queue_alter('owned', priority => 3)",
    "grantee": "SELECT pushy.has_queue_privilege('granted', 'monitor')",
    "maker": "SELECT pushy.watch_pause('t', 'w') = 1",
    "keeper": "SELECT pushy.channel_grant('kept', 'listener')",
    "listener": "SELECT pushy.subscription_create('mine', '{given}')",
    "reader": "SELECT count(*) >= 0 FROM pushy.subscription_read('s')",
}
ROLES = [*TRIES, "runner"]


@pytest.fixture
def shop(make_cluster):
    db = make_cluster().database("shop")
    for role in ROLES:
        db.sql(f"CREATE ROLE {role} LOGIN")
    db.sql("""
        CREATE SCHEMA ops; GRANT USAGE ON SCHEMA ops TO PUBLIC; CREATE FUNCTION ops.work() RETURNS void LANGUAGE sql AS '';
        CREATE TABLE t (i int PRIMARY KEY); GRANT SELECT, TRIGGER ON t TO maker;
        SELECT pushy.queue_register('run', 'ops.work()', run_as => 'runner'), pushy.queue_register('granted', 'ops.work()'),
               pushy.queue_grant('granted', 'grantee', 'monitor'), pushy.channel_grant('given', 'listener')""")
    for role, statement in (("owner", "pushy.queue_register('owned', 'ops.work()')"), ("maker", "pushy.watch('t', name => 'w', channel => 'told')"),
                            ("keeper", "pushy.channel_grant('kept', 'public')"), ("reader", "pushy.subscription_create('s', '{news}')")):
        with db.connect(user=role) as session:
            session.execute(f"SELECT {statement}")
    return db


def may(db, role: str, statement: str) -> bool:
    with db.connect(user=role, autocommit=False) as session:
        try:
            return session.execute(statement).fetchone()[0] is not False
        except psycopg.errors.InsufficientPrivilege:
            return False
        finally:
            session.rollback()


def having(db, suffix: str = "") -> set[str]:
    """The roles that have what they, or those before them of their name, were given."""
    return {role for role, statement in TRIES.items() if may(db, role + suffix, statement.replace("listener", f"listener{suffix}"))}


def give_fate(db, fate: str) -> None:
    for role in ROLES:
        if fate == "renamed":
            db.sql(f"ALTER ROLE {role} RENAME TO {role}_new")
        elif fate == "made again":
            db.sql(f"DROP OWNED BY {role}; DROP ROLE {role}; CREATE ROLE {role} LOGIN")


def copied(db, how: str, make_cluster):
    if how == "template":
        db.close()
        return db.cluster.database("copy", extension=False, options="TEMPLATE shop")
    if how == "dump":
        return restore(db.cluster, dump(db), "copy")[0]
    there = make_cluster(fresh=True)
    with there.connect() as admin:
        for role in ("one", "two", "three", *reversed(ROLES)):
            admin.execute(f"CREATE ROLE {role} LOGIN")
    return restore(there, dump(db), "shop")[0]


@pytest.mark.parametrize("how, fate", [(how, fate) for how in ("template", "dump") for fate in ("kept", "renamed", "made again")] + [("another cluster", "kept")])
def test_a_role_has_in_a_copy_what_it_had_and_its_namesake_nothing(shop, make_cluster, how, fate):
    assert having(shop) == set(TRIES)
    give_fate(shop, fate)
    suffix = "_new" if fate == "renamed" else ""
    assert having(shop, suffix) == (set() if fate == "made again" else set(TRIES))
    copy = copied(shop, how, make_cluster)
    before = having(copy, suffix)
    # Grants to roles count for nothing before somebody says that the copy runs.
    assert before == (set() if fate == "made again" else set(TRIES) - {"grantee", "listener"})
    if fate == "made again":
        for role in ROLES:
            with copy.connect(user=role) as session:
                session.execute("SELECT name, resumed, reason FROM pushy.resume_after_restore()")
        assert having(copy) == set()
    resumed = {name: reason for name, done, reason in copy.rows("SELECT name, resumed, reason FROM pushy.resume_after_restore()") if not done}
    if fate == "made again":
        assert having(copy) == set()
        assert resumed.keys() == {"owned", "run", "w on public.t", "kept", "s"}
        assert all("does not exist" in reason for reason in resumed.values()), resumed
        assert copy.value("SELECT count(*) FROM pushy_internal.queue_acl") == 0
        copy.sql("SELECT pushy.queue_register('owned', 'ops.work()')")
        assert copy.value("SELECT owner FROM pushy.queues WHERE queue = 'owned'") == "postgres"
    else:
        assert resumed == {}
        assert having(copy, suffix) == set(TRIES)
        job = copy.value("SELECT pushy.enqueue('run')")
        assert copy.job_wait(job)["state"] == "completed"
        assert copy.value("SELECT run_as FROM pushy.queues WHERE queue = 'run'") == f"runner{suffix}"


@pytest.mark.parametrize("how", ["here", "template"])
def test_what_is_shown_of_roles_that_are_gone_names_no_namesake(shop, make_cluster, how):
    give_fate(shop, "made again")
    db = shop if how == "here" else copied(shop, how, make_cluster)
    assert set(db.rows("SELECT channel, grantee::text, owner::text FROM pushy.channel_grants")) == {
        ("given", None, "postgres"), ("kept", "public", None)}
    with db.connect(user="keeper") as session, pytest.raises(psycopg.errors.InsufficientPrivilege) as error:
        session.execute("SELECT pushy.channel_grant('kept', 'keeper')")
    assert "is gone" in error.value.diag.message_hint and "keeper" not in error.value.diag.message_hint
    db.sql("SELECT pushy.channel_grant('kept', 'keeper')")
    assert set(db.rows("SELECT grantee::text, owner::text FROM pushy.channel_grants WHERE channel = 'kept'")) == {
        ("keeper", "postgres"), ("public", "postgres")}


def test_a_subscription_that_another_cluster_has_taken_in_is_its_owners_and_not_of_who_has_the_number(shop, make_cluster):
    copy = copied(shop, "another cluster", make_cluster)
    copy.sql("UPDATE pushy_internal.subscription SET owner = 'one'::regrole")
    with copy.connect(user="reader") as session:
        cursor = session.execute("SELECT cursor FROM pushy.subscription_read('s')").fetchone()[0]
        assert session.execute("SELECT pushy.subscription_ack('s', %s)", (cursor,)).fetchone() == (True,)
    assert not may(copy, "one", TRIES["reader"])
    assert may(copy, "reader", TRIES["reader"])
    assert copy.rows("SELECT owner::text, state FROM pushy.subscriptions") == [("reader", "active")]


def test_whom_a_table_means_is_asked_of_its_home():
    """A role is looked up by its bare name only where a caller says it."""
    source = REPOSITORY / "src"
    asking = {str(path.relative_to(source)) for path in source.rglob("*.rs") if "find_role(" in path.read_text()}
    assert asking == {"pg/catalog/identity/role.rs", "pg/catalog/home.rs", "gateway/authorize.rs", "gateway/keys.rs", "gateway/rights.rs"}
