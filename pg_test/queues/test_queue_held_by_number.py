"""A watch and a subscription hold their queue by its number: whatever is done to the queue, in whatever order, here or in a copy or a
dump, the jobs go to it and to no other that has one of its names by then."""

import itertools

import pytest

from harness.waiting import wait_for
from stage.dumps import dump, restore

STEPS = ("again", "rename", "owner")
SHORT = [steps for length in (1, 2) for steps in itertools.product(STEPS, repeat=length)]
LONG = SHORT + list(itertools.product(STEPS, repeat=3))


class Held:
    """A queue that a watch and a subscription of its number feed."""

    def __init__(self, db, number, owner):
        self.number, self.owner = number, owner
        self.names = [f"q{number}"]
        self.register(db, self.names[0])
        db.sql(f"CREATE TABLE t{number} (id int); SELECT pushy.watch('t{number}', queue => 'q{number}', name => 'w{number}', args_expr => '''fed''::text');"
               f"SELECT pushy.subscription_create('s{number}', '{{c{number}}}', queue => 'q{number}')")

    @property
    def name(self):
        return self.names[-1]

    def register(self, db, name):
        db.sql(f"SET ROLE {self.owner}; SELECT pushy.queue_register('{name}', 'nothing()'), pushy.queue_pause('{name}'); RESET ROLE")

    def do(self, db, step, owners):
        if step == "again":
            db.sql("SELECT pushy.queue_drop(%s, force => true)", self.name)
            self.register(db, self.name)
        elif step == "rename":
            self.names.append(f"{self.name}n")
            db.sql("SELECT pushy.queue_rename(%s, %s)", *self.names[-2:])
        else:
            self.owner = owners[1 - owners.index(self.owner)]
            db.sql("SELECT pushy.queue_alter(%s, owner => %s, run_as => %s)", self.name, self.owner, self.owner)


def feed(db, all_held) -> None:
    """The names that are free are other queues' now, of the same owners; then each table and each channel has something new."""
    for held in all_held:
        for name in held.names[:-1]:
            held.register(db, name)
    for held in all_held:
        db.sql(f"INSERT INTO t{held.number} VALUES (1); SELECT pushy.notify('c{held.number}', 'fed', delivery => 'relay')")


def check(db, all_held) -> None:
    names = [(held.number, held.name, "active", None) for held in all_held]
    for view in ("watches", "subscriptions"):
        seen = f"SELECT substr(name, 2)::int, queue, state, fix FROM pushy.{view} ORDER BY 1"
        # The relay may have found a queue gone while it was.
        wait_for(f"{view} to be active", lambda: db.rows(seen), lambda rows: rows == names)
    feed(db, all_held)
    db.wait_until("SELECT count(*) FROM pushy.jobs WHERE args ->> 'payload' = 'fed'", len(all_held))
    for what in ("""args = '"fed"'""", "args ->> 'payload' = 'fed'"):
        got = db.rows(f"SELECT queue FROM pushy.jobs WHERE {what} ORDER BY 1")
        assert got == sorted((held.name,) for held in all_held), what


@pytest.fixture
def owners(db, role):
    owners = role(), role()
    db.sql("CREATE FUNCTION nothing() RETURNS void LANGUAGE sql AS ''; GRANT USAGE ON SCHEMA public TO PUBLIC")
    return owners


def test_jobs_go_to_the_queue_after_every_history(db, owners):
    all_held = [Held(db, number, owners[0]) for number, _ in enumerate(LONG)]
    for held, steps in zip(all_held, LONG):
        for step in steps:
            held.do(db, step, owners)
    check(db, all_held)


@pytest.mark.parametrize("by", ["copy", "dump"])
def test_so_they_do_where_a_part_of_the_history_was_elsewhere(db, owners, shared_cluster, by):
    """Steps come before the database is copied, before what came along is resumed, and after."""
    # What came along is dropped and registered again before it is resumed; other steps wait for that.
    cuts = [(steps, at, early) for steps in SHORT for at in range(len(steps) + 1) for early in {False, at < len(steps) and steps[at] == "again"}]
    all_held = [Held(db, number, owners[0]) for number, _ in enumerate(cuts)]
    for held, (steps, at, _) in zip(all_held, cuts):
        for step in steps[:at]:
            held.do(db, step, owners)
    name = f"{db.name}_{by}"
    if by == "copy":
        db.close()
        copy = shared_cluster.database(name, extension=False, options=f"TEMPLATE {db.name}")
    else:
        copy, _ = restore(shared_cluster, dump(db), name)
    try:
        for held, (steps, at, early) in zip(all_held, cuts):
            if early:
                held.do(copy, steps[at], owners)
        assert copy.rows("SELECT kind, name, reason FROM pushy.resume_after_restore() WHERE NOT resumed AND (kind <> 'queue' OR reason NOT LIKE '%is paused%')") == []
        for held, (steps, at, early) in zip(all_held, cuts):
            for step in steps[at + early:]:
                held.do(copy, step, owners)
        check(copy, all_held)
    finally:
        copy.drop()


@pytest.mark.parametrize("step", ["rename", "register"])
def test_another_queue_that_comes_to_the_name_of_one_dropped_is_meant_if_it_is_its_owners(db, owners, role, step):
    """As a deploy script does that registers the next version beside the first, drops that, and renames."""
    stranger = role()
    all_held = [Held(db, number, owners[0]) for number in range(2)]
    for held, owner in zip(all_held, (owners[0], stranger)):
        held.owner = owner
        if step == "rename":
            held.register(db, f"next{held.number}")
        db.sql("SELECT pushy.queue_drop(%s, force => true)", held.name)
        if step == "rename":
            db.sql("SELECT pushy.queue_rename(%s, %s)", f"next{held.number}", held.name)
        else:
            held.register(db, held.name)
    assert db.rows("SELECT name, state FROM pushy.watches ORDER BY 1") == [("w0", "active"), ("w1", "broken")]
    feed(db, all_held)
    db.wait_until("SELECT count(*) FROM pushy.jobs", 2)
    db.wait_until("SELECT stopped FROM pushy.subscriptions WHERE name = 's1'", 'queue "q1" was dropped, and is another role\'s now')
    assert {queue for queue, in db.rows("SELECT queue FROM pushy.jobs")} == {"q0"}
