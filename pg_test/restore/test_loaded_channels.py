"""Rows of a dump that say who reads channels: all ways in which they are loaded, from wherever, before or after somebody grants the channel
here. They let in whom the dump let in, once that is resumed, and nobody where the channel was granted here or was not loaded."""

import itertools

import pytest

from restore.test_loaded_beside import deploy, dump, fill, load

ROLES = ("keeper", "friend", "mallory", "victim")
AHEAD = 2**60
COLUMNS = {"channel": "channel, owner, owner_name, home_system, home_database",
           "channel_acl": "channel, grantee, grantee_name, privilege, granted_lsn, home_system, home_database"}

# Where the dump is from (ours: this cluster), whose numbers its owner and its grantee have here (None: nobody's), and where its WAL was.
PLACES = {
    "this cluster": (True, "keeper", "friend", 1),
    "a twin that is ahead": (True, "keeper", "friend", AHEAD),
    "this cluster, whose roles are gone": (True, None, None, 1),
    "this cluster, whose roles were renamed": (True, "mallory", "mallory", 1),
    "another cluster, numbers free": (False, None, None, AHEAD),
    "another cluster, numbers taken": (False, "mallory", "mallory", AHEAD),
}
# What is loaded in which order; `other`: of a dump of mallory's, from yet another cluster.
WAYS = {
    "whole": ["channel", "channel_acl"],
    "grants first": ["channel_acl", "channel"],
    "grants alone": ["channel_acl"],
    "channel alone": ["channel"],
    "twice": ["channel", "channel_acl", "channel", "channel_acl"],
    "over another dump": ["other channel", "other channel_acl", "channel", "channel_acl"],
    "beside grants of another dump": ["other channel_acl", "channel"],
    "below grants of another dump": ["channel", "other channel_acl"],
}
GRANTED = ("never", "before", "after", "after it was resumed")
CASES = {f"c{n}": case for n, case in enumerate(itertools.product(PLACES, WAYS, GRANTED, ("friend", "public")))}


def readers(place, way, granted, grantee):
    """Whom the channel lets in in the end."""
    if granted == "before" or (way == "grants alone" and granted != "never"):
        return {"victim"}
    if way == "grants alone":
        return set(ROLES)
    is_ours, owner, friend, _ = PLACES[place]
    owner, friend = (owner, friend) if is_ours else ("keeper", "friend")
    lets_in = "channel_acl" in WAYS[way]
    if lets_in and grantee == "public":
        return set(ROLES)
    return {role for role in (owner, friend if lets_in else None) if role}


@pytest.fixture
def here(make_cluster):
    db = make_cluster({"pushy.max_channels_per_role": 0}).database()
    db.sql("".join(f"CREATE ROLE {role} LOGIN;" for role in ROLES))
    db.numbers = {role: db.value("SELECT oid FROM pg_roles WHERE rolname = %s", role) for role in ROLES}
    db.system = db.value("SELECT system_identifier FROM pg_control_system()")
    return db


def row(db, step, channel, place, grantee):
    is_ours, owner, friend, lsn = PLACES[place]
    table, is_other = step.split()[-1], step.startswith("other")
    system = db.system + 2 if is_other else db.system if is_ours else db.system + 1
    if table == "channel":
        name, number = ("mallory", db.numbers["mallory"]) if is_other else ("keeper", db.numbers.get(owner, 4_000_000_001))
        return (channel, number, name, system, 5)
    if grantee == "public":
        return (channel, 0, "public", "listen", lsn, system, 5)
    name, number = ("mallory", db.numbers["mallory"]) if is_other else ("friend", db.numbers.get(friend, 4_000_000_002))
    return (channel, number, name, "listen", lsn, system, 5)


def copy_in(db):
    """One COPY for each step: rows that are passed over do not keep out the others."""
    for at in range(4):
        for table in ("channel", "channel_acl"):
            rows = [row(db, steps[at], channel, place, grantee) for channel, (place, way, _, grantee) in CASES.items()
                    for steps in [WAYS[way]] if at < len(steps) and steps[at].split()[-1] == table]
            if rows:
                with db.main.cursor().copy(f"COPY pushy_internal.{table} ({COLUMNS[table]}) FROM STDIN") as copy:
                    for values in rows:
                        copy.write_row(values)


def grant_those(db, when):
    for channel, (place, way, granted, _) in CASES.items():
        if granted == when:
            is_ours, owner, _, _ = PLACES[place]
            is_victims = when == "before" or way == "grants alone"
            by = "victim" if is_victims else (owner or "postgres") if is_ours else "keeper"
            db.sql(f"SET ROLE {by}; SELECT pushy.channel_grant('{channel}', '{by}'); RESET ROLE")


def heard(db, name):
    """Which roles read which channels, of what was published last."""
    found = {channel: set() for channel in CASES}
    db.sql(f"SELECT pushy.notify(c, '{name}', delivery => 'relay') FROM unnest(%s::text[]) c", list(CASES))
    db.wait_until("SELECT pending FROM pushy.log", 0)
    for role in ROLES:
        with db.connect(user=role) as session:
            session.execute("SELECT pushy.subscription_create(%s, from_oldest => true)", (f"{role} {name}",))
            for channel, in session.execute("SELECT channel FROM pushy.subscription_read(%s, 10000) WHERE payload = %s", (f"{role} {name}", name)).fetchall():
                found[channel].add(role)
    return found


def test_who_reads_a_channel_of_a_dump(here):
    here.sql("SELECT pushy.notify('x', 'the log is used', delivery => 'relay')")
    grant_those(here, "before")
    copy_in(here)
    found = heard(here, "loaded")
    for channel, case in CASES.items():
        place, way, granted, grantee = case
        if granted == "before":
            assert found[channel] == {"victim"}, case
        elif grantee == "friend" and way != "grants alone":
            # Not even a grantee, before somebody says so.
            assert found[channel] <= {"mallory" if place.endswith("renamed") else "keeper"}, case
    grant_those(here, "after")
    said = dict(here.rows("SELECT name, reason FROM pushy.resume_after_restore() WHERE kind = 'channel' AND NOT resumed AND name LIKE 'grants%'"))
    assert "let nobody in" in said["grants without their channel"]
    grant_those(here, "after it was resumed")
    found = heard(here, "resumed")
    wrong = [(case, found[channel]) for channel, case in CASES.items() if found[channel] != readers(*case)]
    assert wrong == [], len(wrong)
    dropped = here.value("SELECT reason FROM pushy.resume_after_restore(drop_rest => true) WHERE name = 'grants without their channel'")
    assert dropped.startswith("dropped")
    rest = "SELECT count(*) FROM pushy_internal.channel_acl a WHERE NOT EXISTS (SELECT FROM pushy_internal.channel c WHERE c.channel = a.channel)"
    assert here.value(rest) == 0


def test_a_grant_that_is_ahead_of_the_log_is_mended_by_another(here):
    """However it came there: a restore to an earlier time, or a superuser."""
    here.sql("SELECT pushy.channel_grant('c', 'friend'); UPDATE pushy_internal.channel_acl SET granted_lsn = %s" % AHEAD)
    here.sql("SELECT pushy.channel_grant('c', 'friend')")
    with here.connect(user="friend") as session:
        session.execute("SELECT pushy.subscription_create('s', '{c}')")
        here.sql("SELECT pushy.notify('c', 'x', delivery => 'relay')")
        assert session.execute("CALL pushy.subscription_wait('s', '30 s')").fetchone() == (True,)
        assert session.execute("SELECT payload, resync FROM pushy.subscription_read('s')").fetchall() == [("x", False)]


@pytest.mark.parametrize("table", ["queue", "subscription", "channel"])
def test_a_name_that_is_taken_keeps_out_its_own_row_alone(db, table):
    deploy(db)
    fill(db, "dump")
    db.sql("SELECT pushy.subscription_create('t'), pushy.channel_grant('other', 'public')")
    file = dump(db, ["-Fc"])
    target = db.cluster.database()
    deploy(target, ("b",))
    target.sql("SELECT pushy.subscription_create('t'), pushy.channel_grant('other', 'public')")
    load(target, file, ["--data-only", "-t", table], ())
    name = {"queue": "queue", "subscription": "name", "channel": "channel"}[table]
    here = {name for name, in target.rows(f"SELECT {name} FROM pushy_internal.{table}")}
    assert here == {"queue": {"a", "b", "bad"}, "subscription": {"s", "t"}, "channel": {"news", "other"}}[table]
    target.drop()
