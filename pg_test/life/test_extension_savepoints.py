"""The extension is dropped and created again inside a savepoint: what was enqueued before and after it survives the savepoint's
end, whatever that is, and so does what was enqueued inside where the savepoint is released."""

import itertools

import psycopg
import pytest

SETUP = """
    CREATE TABLE done (n int);
    CREATE FUNCTION work(args jsonb) RETURNS void LANGUAGE sql AS 'INSERT INTO public.done VALUES ((args ->> 0)::int)';
    CREATE TABLE t (id int PRIMARY KEY)"""
DECLARED = ("SELECT pushy.queue_register('q', 'work(jsonb)'); SELECT pushy.queue_register('other', 'work(jsonb)'); "
            "SELECT pushy.watch('t', queue => 'q', args_expr => 'jsonb_build_array(NEW.id)')")
DROP = "DROP EXTENSION pushy CASCADE"

# What happens between the jobs before and after: statements, and whether the extension is another than before when the savepoint
# has ended.
INSIDE = {
    "dropped": [DROP],
    "dropped and created": [DROP, "CREATE EXTENSION pushy"],
    "declared again": [DROP, "CREATE EXTENSION pushy", DECLARED],
    "declared again, with jobs": [DROP, "CREATE EXTENSION pushy", DECLARED, "SELECT pushy.enqueue('q', '[2]'); INSERT INTO t VALUES (3)"],
    "twice": [DROP, "CREATE EXTENSION pushy", DECLARED, "SELECT pushy.enqueue('q', '[2]')", DROP, "CREATE EXTENSION pushy", DECLARED],
    "created again within": [DROP, "SAVEPOINT inner_one", "CREATE EXTENSION pushy", DECLARED, "ROLLBACK TO inner_one", "CREATE EXTENSION pushy", DECLARED],
}
BEFORE = "SELECT pushy.enqueue('q', '[0]'); SELECT pushy.enqueue('other', '[1]'); INSERT INTO t VALUES (10)"
AFTER = "SELECT pushy.enqueue('q', '[4]'); INSERT INTO t VALUES (5); SELECT pushy.enqueue('other', '[6]')"


def end(db, session: psycopg.Connection, how: str) -> None:
    if not how.endswith("PREPARED"):
        session.execute(how)
        return
    gid = f"{db.name}_p"
    session.execute(f"PREPARE TRANSACTION '{gid}'")
    session.rollback()
    db.sql(f"{how} '{gid}'")


def numbers(db) -> list[int]:
    for queue in ("q", "other"):
        db.jobs_wait(queue)
    return sorted(n for n, in db.rows("SELECT n FROM done"))


@pytest.mark.parametrize("inside, ended", list(itertools.product(INSIDE, ["COMMIT", "ROLLBACK", "COMMIT PREPARED", "ROLLBACK PREPARED"])))
def test_a_savepoint_that_is_rolled_back_leaves_the_jobs_around_it(db, inside, ended):
    db.sql(SETUP), db.sql(DECLARED)
    # Places in memory of queues that had jobs before.
    db.sql("SELECT pushy.enqueue('q', '[7]')")
    with db.connect(autocommit=False) as session:
        for statement in (BEFORE, "SAVEPOINT s", *INSIDE[inside], "ROLLBACK TO s", AFTER):
            session.execute(statement)
        end(db, session, ended)
    assert numbers(db) == sorted([7, *([0, 1, 10, 4, 5, 6] if ended.startswith("COMMIT") else [])])
    # As if nothing had been.
    db.sql("INSERT INTO t VALUES (8); SELECT pushy.enqueue('other', '[9]')")
    assert numbers(db)[-3:] == ([8, 9, 10] if ended.startswith("COMMIT") else [7, 8, 9])
    assert db.value("SELECT count(DISTINCT id) FROM pushy.jobs") == len(numbers(db))


@pytest.mark.parametrize("ended", ["COMMIT", "COMMIT PREPARED"])
def test_a_savepoint_that_is_released_leaves_the_jobs_of_the_new_extension(db, ended):
    db.sql(SETUP), db.sql(DECLARED)
    with db.connect(autocommit=False) as session:
        for statement in (BEFORE, "SAVEPOINT s", *INSIDE["declared again, with jobs"], "RELEASE s", AFTER):
            session.execute(statement)
        end(db, session, ended)
    assert numbers(db) == [2, 3, 4, 5, 6]


@pytest.mark.parametrize("ended", ["COMMIT", "COMMIT PREPARED"])
def test_a_creation_that_is_rolled_back_leaves_the_database_without_it(db, ended):
    """A drop before the savepoint counts, although the savepoint said that the extension is there again."""
    db.sql(SETUP), db.sql(DECLARED)
    db.sql("SELECT pushy.enqueue('q', '[0]')")
    assert numbers(db) == [0]
    with db.connect(autocommit=False) as session:
        for statement in (DROP, "SAVEPOINT s", "CREATE EXTENSION pushy", DECLARED, "ROLLBACK TO s"):
            session.execute(statement)
        end(db, session, ended)
    db.sql("CREATE EXTENSION pushy"), db.sql(DECLARED)
    db.sql("SELECT pushy.enqueue('q', '[1]')")
    assert numbers(db) == [0, 1]
