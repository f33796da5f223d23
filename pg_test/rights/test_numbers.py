"""Numbers of jobs, queues, watches and subscriptions never come twice, whatever somebody does to a sequence; and drawing one leaves
the session's own sequences as they were."""

import psycopg
import pytest

SEQUENCES = {"position_seq", "first_position_seq", "queue_id_seq", "watch_id_seq", "subscription_id_seq"}


def sequences(db) -> set[str]:
    return {name for name, in db.rows("SELECT sequencename FROM pg_sequences WHERE schemaname LIKE 'pushy%'")}


def declared(db) -> set[tuple[str, int]]:
    return set(db.rows("SELECT 'queue', queue_id FROM pushy_internal.queue UNION ALL SELECT 'watch', watch_id FROM pushy_internal.watch"
                       " UNION ALL SELECT 'subscription', subscription_id FROM pushy_internal.subscription"))


def declare(db, names):
    for name in names:
        db.sql(f"SELECT pushy.queue_register('{name}', 'f(jsonb)'), pushy.watch('t', queue => '{name}'), pushy.subscription_create('{name}')")


@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
def test_no_number_comes_again_where_a_sequence_was_set_back(make_cluster, restarted):
    cluster = make_cluster({"max_prepared_transactions": 5})
    db = cluster.database()
    assert sequences(db) == SEQUENCES
    db.sql("CREATE FUNCTION f(jsonb) RETURNS void LANGUAGE sql AS ''; CREATE TABLE t (id int PRIMARY KEY)")
    declare(db, "abc")
    before = declared(db)
    if restarted:
        # What a table holds keeps its number.
        jobs = {number for number, in db.rows("SELECT pushy.enqueue('a') FROM generate_series(1, 5)")}
        db.jobs_wait("a")
        for name in SEQUENCES:
            db.sql(f"SELECT setval('pushy_internal.{name}', 1, false)")
        cluster.restart()
        db.close()
        assert db.value("SELECT pushy.enqueue('a')") > max(jobs)
        db.jobs_wait("a")
    else:
        # Nothing holds them any more, and transactions that have not ended may know them.
        for name in "abc":
            db.sql(f"SELECT pushy.unwatch('t', '{name}'), pushy.subscription_drop('{name}'), pushy.queue_drop('{name}')")
        for name in SEQUENCES:
            db.sql(f"SELECT setval('pushy_internal.{name}', 1, false)")
    declare(db, "xyz")
    after = declared(db)
    assert len(after - before) == 9, (before, after)


LAST = 2 ** 31 - 1


def test_numbers_of_what_is_declared_begin_again_after_the_last_one(make_cluster):
    cluster = make_cluster()
    db = cluster.database()
    db.sql("CREATE FUNCTION f(jsonb) RETURNS void LANGUAGE sql AS ''; CREATE TABLE t (id int PRIMARY KEY)")
    # The first few are held, and so is the last: by a row, because nothing is drawn to there.
    for column in ("queue_id", "watch_id", "subscription_id"):
        db.sql(f"SELECT setval('pushy_internal.{column}_seq', 1, false)")
    declare(db, "abc")
    for column in ("queue_id", "watch_id", "subscription_id"):
        table = column.removesuffix("_id")
        db.sql(f"UPDATE pushy_internal.{table} SET {column} = {LAST} WHERE {column} = (SELECT max({column}) FROM pushy_internal.{table})")
        db.sql(f"SELECT setval('pushy_internal.{column}_seq', {LAST - 1})")
    before = declared(db)
    cluster.restart()
    db.close()
    declare(db, "vwxyz")
    after = declared(db)
    assert before <= after and len(after - before) == 15, (before, after)
    assert all(0 < number <= LAST for _, number in after)
    # The next life goes on behind them.
    cluster.restart()
    db.close()
    declare(db, "m")
    assert len(declared(db) - after) == 3


@pytest.mark.parametrize("rolled_back", ["ROLLBACK", "ROLLBACK TO s"])
def test_a_script_that_is_rolled_back_leaves_the_sequence_ahead_of_what_was_drawn(make_cluster, rolled_back):
    db = make_cluster().database()
    db.sql("CREATE FUNCTION f(jsonb) RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_register('a', 'f(jsonb)'), pushy.enqueue('a')")
    db.jobs_wait("a")
    with db.connect(autocommit=False) as session:
        session.execute("SAVEPOINT s")
        session.execute("DROP EXTENSION pushy CASCADE")
        session.execute("CREATE EXTENSION pushy")
        session.execute("SELECT pushy.queue_register('a', 'f(jsonb)')")
        session.execute("SELECT pushy.enqueue('a') FROM generate_series(1, 1000)")
        session.execute(rolled_back)
        session.commit()
    drawn = db.value("SELECT pushy.enqueue('a')")
    assert db.value("SELECT last_value FROM pushy_internal.position_seq") >= drawn


# What a role with pg_write_all_data may do to a sequence: {held} is the highest number of a table, {end} the last one there is.
ATTACKS = {
    "nothing": "SELECT 1",
    "back to its start": "SELECT setval('{name}', 1, false)",
    "back to what is held": "SELECT setval('{name}', {held})",
    "back to before what is held": "SELECT setval('{name}', {held} - 1)",
    "far ahead": "SELECT setval('{name}', {end} / 2)",
    "to its end": "SELECT setval('{name}', {end})",
    "around": "SELECT setval('{name}', {end}), nextval('{name}')",
}
HELD = {"position_seq": "SELECT max(greatest(id, position)) FROM pushy_internal.live_job"} | {
    f"{number}_id_seq": f"SELECT max({number}_id) FROM pushy_internal.{number}" for number in ("queue", "watch", "subscription")}


def attack(db, statement):
    with db.connect(user="etl") as etl:
        for name, held in HELD.items():
            end = 2 ** 63 - 1 if name == "position_seq" else LAST
            etl.execute(statement.format(name=f"pushy_internal.{name}", held=db.value(held), end=end))


def script(ending):
    """DROP and CREATE EXTENSION in one transaction, which draws numbers of each kind, and ends so."""
    def happens(cluster, databases):
        for db in databases:
            with db.connect(autocommit=False) as session:
                for statement in ("SAVEPOINT s", "DROP EXTENSION pushy CASCADE", "CREATE EXTENSION pushy", "GRANT USAGE ON SCHEMA pushy TO public",
                                  "SELECT pushy.queue_register('strict', 'note(jsonb)', concurrency => 1), pushy.queue_pause('strict'), pushy.watch('t'), pushy.subscription_create('s')",
                                  "SELECT pushy.enqueue('strict') FROM generate_series(1, 600)", ending):
                    session.execute(statement)
                session.commit()
        return databases
    return happens


def restarts(cluster, databases):
    cluster.restart()
    return databases


def crashes(cluster, databases):
    cluster.crash()
    return databases


def fails_over(cluster, databases):
    standby = cluster.standby()
    for db in databases:
        there = db.of(standby)
        there.wait_until("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", True, params=(db.value("SELECT pg_current_wal_flush_lsn()"),))
        there.close()
    cluster.stop("immediate")
    standby.promote()
    return [db.of(standby) for db in databases]


HAPPENS = {
    "nothing": lambda cluster, databases: databases, "a restart": restarts, "a crash": crashes, "a promotion": fails_over,
    "a script rolled back": script("ROLLBACK"), "a script rolled back to a savepoint": script("ROLLBACK TO s"), "a script": script("SELECT 1"),
}


def furnish(db, prepares):
    """Jobs in strict order of which the first has come to stand behind the others, what is declared, and the same in a transaction that is prepared."""
    db.sql("CREATE FUNCTION f(jsonb) RETURNS void LANGUAGE sql AS ''; CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY);"
           "CREATE TABLE ran (n serial, job bigint)")
    db.sql("CREATE FUNCTION note(jsonb) RETURNS void LANGUAGE sql AS 'INSERT INTO public.ran (job) SELECT id FROM pushy.current_job()'")
    declare(db, "abc")
    db.sql("SELECT pushy.queue_register('strict', 'note(jsonb)', concurrency => 1), pushy.queue_pause('strict')")
    first = db.value("SELECT pushy.enqueue('strict', delay => '1 day')")
    order = [number for number, in db.rows("SELECT pushy.enqueue('strict') FROM generate_series(1, 300)")]
    db.sql("SELECT pushy.job_retry(%s)", first)
    order.append(first)
    if prepares:
        with db.connect(autocommit=False) as session:
            session.execute("SELECT pushy.queue_register('late', 'f(jsonb)'), pushy.watch('u', queue => 'late'), pushy.subscription_create('late')")
            order.append(session.execute("SELECT pushy.enqueue('strict')").fetchone()[0])
            session.execute(f"PREPARE TRANSACTION '{db.name}'")
    return order


@pytest.mark.parametrize("what", HAPPENS)
def test_no_number_is_two_things_whatever_was_done_to_the_sequences_and_happened_then(make_cluster, what):
    cluster = make_cluster({"max_prepared_transactions": 20, "wal_level": "replica", "hot_standby": "on"})
    with cluster.connect() as admin:
        admin.execute("CREATE ROLE etl LOGIN IN ROLE pg_write_all_data")
    databases = [cluster.database() for _ in ATTACKS]
    # A script would wait for the end of one that is prepared.
    prepares, is_script = "script" not in what, what == "a script"
    orders = [furnish(db, prepares) for db in databases]
    before = [declared(db) for db in databases]
    for db, statement in zip(databases, ATTACKS.values()):
        attack(db, statement)
        db.close()
    databases = HAPPENS[what](cluster, databases)
    for how, db, order, was in zip(ATTACKS, databases, orders, before):
        db.close()
        new = [number for number, in db.rows("SELECT pushy.enqueue('strict') FROM generate_series(1, 600)")]
        assert min(new) > max(order), how
        assert max(new) < 2 ** 53, how
        declare(db, "xyz")
        if prepares:
            db.sql(f"COMMIT PREPARED '{db.name}'")
        is_ = declared(db)
        assert is_script or was <= is_, how
        assert len(is_ - was) == (12 if prepares else 9) + 3 * is_script, (how, is_ - was)
        order = [number for number, in db.rows("SELECT id FROM pushy_internal.live_job ORDER BY position")] if is_script else order + new
        db.sql("SELECT pushy.queue_resume('strict')")
        db.jobs_wait("strict")
        assert [job for job, in db.rows("SELECT job FROM ran ORDER BY n")] == order, how


# A row that is loaded, and says number or position {number}.
ROWS = {
    "live_job": "(id, position, run_at, enqueued_at, queue_id, enqueued_by, priority, depth, state, args) VALUES ({number}, 1, now(), now(), 1, 10, 3, 0, 'a', '{{}}')",
    "live_job, position": "(id, position, run_at, enqueued_at, queue_id, enqueued_by, priority, depth, state, args) VALUES (1000, {number}, now(), now(), 1, 10, 3, 0, 'a', '{{}}')",
    "finished_job": "(id, expires_at, run_at, enqueued_at, finished_at, queue_id, enqueued_by, attempt, priority, depth, state, args)"
                    " VALUES ({number}, now() + '1 day', now(), now(), now(), 1, 10, 1, 3, 0, 'c', '{{}}')",
    "failure": "(job_id, attempt, queue_id, failed_at, sqlstate, message) VALUES ({number}, 1, 1, now(), 'XX000', 'no')",
}


@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
def test_a_number_of_a_job_is_not_given_out_where_any_table_says_it(make_cluster, restarted):
    cluster = make_cluster()
    databases = {table: cluster.database() for table in ROWS}
    for table, db in databases.items():
        db.sql("CREATE FUNCTION f(jsonb) RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_register('q', 'f(jsonb)')")
        db.sql(f"INSERT INTO pushy_internal.{table.split(',')[0]} {ROWS[table].format(number=100_000)}")
        db.sql("SELECT setval('pushy_internal.position_seq', 1, false)")
        db.close()
    if restarted:
        cluster.restart()
    for table, db in databases.items():
        assert db.value("SELECT pushy.enqueue('q')") > 100_000, table


def test_a_dump_that_is_loaded_over_its_own_database_runs_no_job_twice_where_the_sequence_was_set_back(make_cluster):
    """The first row that was loaded believed the sequence, where no number had been drawn since the server started."""
    cluster = make_cluster()
    db = cluster.database()
    db.sql("CREATE FUNCTION f(jsonb) RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_register('q', 'f(jsonb)'), pushy.queue_pause('q')")
    db.sql("SELECT pushy.enqueue('q') FROM generate_series(1, 5)")
    account = ["-h", cluster.folder, "-p", cluster.port, "-U", "postgres"]
    path = cluster.folder / "jobs.dump"
    cluster.run("pg_dump", *account, "-Fc", "-f", path, db.name)
    db.sql("SELECT pushy.queue_resume('q')")
    db.jobs_wait("q")
    db.sql("SELECT setval('pushy_internal.position_seq', 1, false)")
    db.close()
    cluster.restart()
    cluster.run("pg_restore", *account, "-d", db.name, "--data-only", "-t", "live_job", path)
    assert db.value("SELECT count(*) FROM pushy_internal.live_job") == 0


def test_an_open_enqueue_does_not_come_into_the_next_queue(db, role):
    victim, mallory = role(), role("IN ROLE pg_write_all_data")
    db.sql("CREATE FUNCTION f(jsonb) RETURNS void LANGUAGE sql AS ''")
    db.sql(f"GRANT CREATE ON SCHEMA public TO {victim}, {mallory}")
    hers, his = db.connect(user=victim), db.connect(user=mallory)
    hers.execute("CREATE TABLE t (id int PRIMARY KEY)")
    hers.execute("SELECT pushy.queue_register('cards', 'f(jsonb)')")
    with db.connect(user=victim, autocommit=False) as opened:
        opened.execute("SELECT pushy.watch('t', queue => 'cards', payload => 'row')")
        opened.execute("SELECT pushy.subscription_create('s', '{c}', queue => 'cards')")
        hers.execute("SELECT pushy.queue_drop('cards', force => true)")
        his.execute("SELECT setval('pushy_internal.queue_id_seq', 1, false)")
        his.execute("SELECT pushy.queue_register('loot', 'f(jsonb)')")
        his.execute("SELECT pushy.queue_grant('loot', 'public')")
        opened.commit()
    hers.execute("INSERT INTO t VALUES (1)")
    assert his.execute("SELECT count(*) FROM pushy.jobs").fetchone() == (0,)
    hers.close(), his.close()


# Each function that draws a number, and each firing of a watch that feeds a queue.
DRAWS = {
    "enqueue": "SELECT pushy.enqueue('q')",
    "enqueue, unique": "SELECT pushy.enqueue('q', unique_key => 'k')",
    "enqueue, later": "SELECT pushy.enqueue('q', delay => '1 hour')",
    "enqueue_many": "SELECT pushy.enqueue_many('q', ARRAY['{}', '{}']::jsonb[])",
    "job_retry": "SELECT pushy.job_retry((SELECT id FROM pushy.jobs WHERE state = 'cancelled' LIMIT 1))",
    "queue_run": "SELECT pushy.queue_run('q')",
    "queue_register": "SELECT pushy.queue_register('other', 'f(jsonb)')",
    "watch": "SELECT pushy.watch('t', channel => 'other')",
    "subscription_create": "SELECT pushy.subscription_create('other')",
    "a row inserted": "INSERT INTO t VALUES (10)",
    "a row updated": "UPDATE t SET id = 11 WHERE id = 10",
    "a row deleted": "DELETE FROM t WHERE id = 11",
    "a statement": "INSERT INTO s VALUES (10)",
    "rows truncated": "TRUNCATE s",
}


@pytest.mark.parametrize("used", [True, False], ids=["used", "unused"])
@pytest.mark.parametrize("user", ["owner", "superuser"])
def test_drawing_a_number_is_not_felt_by_lastval_and_currval(db, role, user, used):
    """lastval() after an INSERT failed for want of a privilege, or was a job's number."""
    name = role()
    db.sql(f"GRANT CREATE ON SCHEMA public TO {name}")
    with db.connect(user=name) as owner:
        for statement in ("CREATE FUNCTION f(jsonb) RETURNS void LANGUAGE sql AS ''", "CREATE SEQUENCE own",
                          "CREATE TABLE t (id int PRIMARY KEY)", "CREATE TABLE s (id int PRIMARY KEY)",
                          "SELECT pushy.queue_register('q', 'f(jsonb)', keep_discarded => '1 day')", "SELECT pushy.queue_pause('q')",
                          "SELECT pushy.watch('t', queue => 'q')", "SELECT pushy.watch('s', queue => 'q', level => 'statement', events => '{insert,truncate}')",
                          "SELECT pushy.job_cancel(pushy.enqueue('q'))"):
            owner.execute(statement)
    with db.connect(user=name if user == "owner" else "postgres") as session:
        for what, statement in DRAWS.items():
            if user == "superuser" and what in ("queue_run", "queue_register"):
                continue  # Code of others is run by their role only.
            session.execute("DISCARD SEQUENCES")
            if used:
                session.execute("SELECT nextval('own')")
            session.execute(statement)
            seen = []
            for ask in ("SELECT lastval()", "SELECT currval('own')"):
                try:
                    seen += session.execute(ask).fetchone()
                except psycopg.errors.ObjectNotInPrerequisiteState:
                    seen.append(None)
            expected = db.value("SELECT last_value FROM own") if used else None
            assert seen == [expected, expected], what
