"""What a batch commits together: nobody pays for another's failure, and jobs cannot tell that they share a transaction."""

import pytest

from stage.batches import count_runs_of, enqueue, runs_of, sizes, states
from harness.gate import Gate


def test_short_jobs_share_transactions(db):
    db.sql("""
        CREATE FUNCTION work() RETURNS text LANGUAGE sql AS 'SELECT pg_current_xact_id()::text';
        SELECT pushy.queue_register('q', 'work()', concurrency => 1)""")
    enqueue(db, 500)
    db.jobs_wait("q")
    assert sum(sizes(db)) == 500 and max(sizes(db)) > 8, sizes(db)


def test_jobs_of_a_queue_that_does_not_batch_have_a_transaction_each(db):
    db.sql("""
        CREATE FUNCTION work() RETURNS text LANGUAGE sql AS 'SELECT pg_current_xact_id()::text';
        SELECT pushy.queue_register('q', 'work()', batch => false)""")
    enqueue(db, 100)
    db.jobs_wait("q")
    assert sizes(db) == [1] * 100


# -- a failing COMMIT --------------------------------------------------------------------------------------------

# Jobs around the culprits: however the batches fall, one of them shares a batch with a culprit.
NEIGHBOURS = [culprit + away for culprit in (50, 100, 150) for away in (-3, -2, -1, 1, 2, 3)]


def deferred(db, options: str) -> None:
    """Queue `q`, whose jobs write a row each; those of jobs 50, 100 and 150 violate a deferred foreign key."""
    db.sql(f"""
        CREATE TABLE parent (id int PRIMARY KEY);
        INSERT INTO parent SELECT n FROM generate_series(1, 200) n WHERE n % 50 > 0 OR n = 200;
        CREATE TABLE child (job bigint, parent int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);""")
    count_runs_of(db, *NEIGHBOURS)
    db.sql(f"""
        CREATE FUNCTION work(job pushy.job) RETURNS text LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM public.ran((job.args->>'n')::int);
            INSERT INTO public.child VALUES (job.id, (job.args->>'n')::int);
            RETURN pg_current_xact_id()::text;
        END $$;
        SELECT pushy.queue_register('q', 'work(pushy.job)', retry_delay => '10 ms', max_attempts => 2, {options})""")


def assert_only_the_culprits_were_charged(db, jobs: list[int]) -> None:
    culprits = [jobs[n - 1] for n in (50, 100, 150)]
    assert states(db) == {"completed": 197, "discarded": 3}
    assert db.rows("SELECT id FROM pushy.jobs WHERE state = 'discarded' ORDER BY id") == [(job,) for job in culprits]
    assert db.rows("SELECT job_id, attempt, sqlstate FROM pushy.failures ORDER BY job_id, attempt") == \
        [(job, attempt, "23503") for job in culprits for attempt in (1, 2)]
    assert all("child_parent_fkey" in message for message, in db.rows("SELECT message FROM pushy.failures"))
    assert db.rows("SELECT job FROM child ORDER BY job") == [(job,) for job in jobs if job not in culprits]
    assert db.value("SELECT count(*) FROM pushy.jobs WHERE state = 'completed' AND attempt <> 1") == 0


def test_a_deferred_constraint_violated_at_commit_is_charged_to_its_job_alone(db):
    deferred(db, "concurrency => 1")
    jobs = enqueue(db, 200)
    db.jobs_wait("q")
    assert_only_the_culprits_were_charged(db, jobs)
    assert sum(runs_of(db, n) for n in NEIGHBOURS) > len(NEIGHBOURS), "no neighbour was rolled back: the culprits were never in a batch"


def test_a_deferred_constraint_violated_under_all_executors_is_charged_to_its_job_alone(db):
    deferred(db, "concurrency => NULL")
    jobs = enqueue(db, 200)
    db.jobs_wait("q")
    assert_only_the_culprits_were_charged(db, jobs)


def test_a_job_that_does_not_batch_pays_for_its_own_commit(db):
    deferred(db, "batch => false")
    jobs = enqueue(db, 200)
    db.jobs_wait("q")
    assert_only_the_culprits_were_charged(db, jobs)
    assert [runs_of(db, n) for n in (49, 99, 149)] == [1, 1, 1]


def test_a_failure_at_commit_is_kept_with_its_detail(db):
    deferred(db, "batch => false")
    db.sql("SELECT pushy.enqueue('q', '{\"n\": 50}', max_attempts => 1)")
    db.jobs_wait("q")
    assert db.value("SELECT detail FROM pushy.failures") == 'Key (parent)=(50) is not present in table "parent".'


def at_commit(db, body: str, handler: str = "") -> None:
    """A handler work() whose row runs `body` in a deferred trigger, so at COMMIT."""
    db.sql(f"""
        CREATE TABLE written (n int);
        CREATE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {body}; RETURN NULL; END$$;
        CREATE CONSTRAINT TRIGGER late AFTER INSERT ON written DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION at_commit();
        CREATE FUNCTION work() RETURNS void LANGUAGE plpgsql AS $$BEGIN {handler} INSERT INTO public.written VALUES (1); END$$;
        SELECT pushy.queue_register('q', 'work()', retry_delay => '10 ms', max_attempts => 2)""")


def test_a_job_that_ends_its_session_at_commit_is_discarded_in_the_end(db):
    at_commit(db, "PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(0)")
    done = db.job_wait(db.value("SELECT pushy.enqueue('q')"))
    assert (done["state"], done["attempt"]) == ("discarded", 2)
    assert db.rows("SELECT sqlstate FROM pushy.failures") == [("57P01",)] * 2


def test_a_job_whose_deferred_trigger_says_that_the_disk_is_full_pays_for_it_and_holds_up_no_other(db):
    """What a trigger raises is its job's, as in the handler itself: charged, recorded, ended by max_attempts."""
    at_commit(db, "IF NEW.n = 50 THEN RAISE disk_full; END IF")
    db.sql("""
        CREATE FUNCTION work(args jsonb) RETURNS void LANGUAGE sql AS 'INSERT INTO public.written VALUES ((args->>''n'')::int)';
        SELECT pushy.queue_alter('q', handler => 'work(jsonb)')""")
    failing = enqueue(db, 100)[49]
    db.jobs_wait("q")
    assert states(db) == {"completed": 99, "discarded": 1}
    assert db.rows("SELECT job_id, attempt, sqlstate FROM pushy.failures ORDER BY attempt") == \
        [(failing, 1, "53100"), (failing, 2, "53100")]


def test_a_job_that_never_ends_its_commit_runs_into_its_timeout(db):
    gate = Gate(db)
    at_commit(db, f"PERFORM {gate.stop}")
    done = db.job_wait(db.value("SELECT pushy.enqueue('q', timeout => '200 ms', max_attempts => 1)"))
    assert done["state"] == "discarded" and "timeout" in done["last_error"], done
    gate.open()


def test_a_job_is_cancelled_while_it_commits(db):
    gate = Gate(db)
    at_commit(db, f"PERFORM {gate.stop}")
    job = db.value("SELECT pushy.enqueue('q')")
    gate.wait_for_arrival()
    assert db.value("SELECT pushy.job_cancel(%s)", job)
    assert db.job_wait(job)["state"] == "cancelled"
    gate.open()
    assert db.rows("SELECT FROM written") == []


# -- what jobs of a batch do not see of each other ---------------------------------------------------------------

def test_each_job_may_create_the_same_temporary_table_on_commit_drop(db):
    db.sql("""
        CREATE FUNCTION work(args jsonb) RETURNS int LANGUAGE plpgsql AS $$
        BEGIN
            CREATE TEMP TABLE scratch ON COMMIT DROP AS SELECT (args->>'n')::int AS n;
            RETURN (SELECT sum(n) FROM scratch);
        END $$;
        SELECT pushy.queue_register('q', 'work(jsonb)', max_attempts => 1, concurrency => 1)""")
    enqueue(db, 50)
    db.jobs_wait("q")
    assert db.rows("SELECT (args->>'n')::int = result::int, count(*) FROM pushy.jobs WHERE state = 'completed' GROUP BY 1") \
        == [(True, 50)], db.rows("SELECT message FROM pushy.failures")


@pytest.mark.parametrize("makes, finds", [
    ("CREATE TEMP TABLE left_over (n int)", "to_regclass('pg_temp.left_over')"),
    ("CREATE TEMP SEQUENCE left_over", "to_regclass('pg_temp.left_over')"),
    ("CREATE TEMP VIEW left_over AS SELECT 1", "to_regclass('pg_temp.left_over')"),
    ("CREATE FUNCTION pg_temp.left_over() RETURNS int LANGUAGE sql RETURN 1", "to_regprocedure('pg_temp.left_over()')"),
])
def test_a_temporary_object_is_not_seen_by_the_next_job(db, makes, finds):
    db.sql(f"""
        CREATE FUNCTION work() RETURNS boolean LANGUAGE plpgsql AS $$
        DECLARE seen boolean := {finds} IS NOT NULL;
        BEGIN
            {makes};
            RETURN seen;
        END $$;
        SELECT pushy.queue_register('q', 'work()', max_attempts => 1, concurrency => 1)""")
    enqueue(db, 20)
    db.jobs_wait("q")
    assert db.rows("SELECT state, result, count(*) FROM pushy.jobs GROUP BY 1, 2") == [("completed", False, 20)]


def test_a_key_freed_by_a_job_can_be_taken_by_a_later_job_of_the_batch(db):
    """The later job enqueues the key of the earlier one: the new job is not lost."""
    db.sql("""
        CREATE FUNCTION work(args jsonb) RETURNS bigint LANGUAGE sql AS
            $$SELECT pushy.enqueue('again', unique_key => args->>'key') WHERE args ? 'key'$$;
        CREATE FUNCTION again() RETURNS void LANGUAGE sql AS '';
        SELECT pushy.queue_register('again', 'again()', concurrency => 1);
        SELECT pushy.queue_register('q', 'work(jsonb)', concurrency => 1)""")
    db.sql("SELECT pushy.queue_pause('again')")
    for _ in range(3):
        enqueue(db, 31)
    db.sql("SELECT pushy.queue_pause('q')")
    first = [db.value("SELECT pushy.enqueue('q', unique_key => %s)", f"k{n}") for n in range(10)]
    db.sql("CREATE OR REPLACE FUNCTION work(args jsonb) RETURNS bigint LANGUAGE sql AS "
           "$$SELECT pushy.enqueue('q', '{}', unique_key => args->>'key') WHERE args ? 'key'$$")
    later = [db.value("SELECT pushy.enqueue('q', jsonb_build_object('key', %s::text))", f"k{n}") for n in range(10)]
    db.sql("SELECT pushy.queue_resume('q')")
    db.jobs_wait("q")
    again = [db.job(job)["result"] for job in later]
    assert not set(again) & set(first), "the new job was taken for the finished one"
    assert db.value("SELECT count(*) FROM pushy.jobs WHERE id = ANY (%s) AND state = 'completed'", again) == 10


def test_statement_timestamp_is_each_jobs_own_and_now_is_the_batchs(db):
    db.sql("""
        CREATE FUNCTION work() RETURNS jsonb LANGUAGE sql AS
            'SELECT jsonb_build_object(''now'', now(), ''statement'', statement_timestamp(), ''xact'', pg_current_xact_id()::text)';
        SELECT pushy.queue_register('q', 'work()', concurrency => 1)""")
    enqueue(db, 300)
    db.jobs_wait("q")
    largest = db.row("""
        SELECT count(*) AS jobs, count(DISTINCT result->>'now') AS nows, count(DISTINCT result->>'statement') AS statements,
               bool_and((result->>'now')::timestamptz <= (result->>'statement')::timestamptz
                        AND (result->>'statement')::timestamptz <= finished_at) AS ordered
          FROM pushy.jobs GROUP BY result->>'xact' ORDER BY 1 DESC LIMIT 1""")
    assert largest["jobs"] > 8 and largest["nows"] == 1 and largest["ordered"]
    assert largest["statements"] > largest["jobs"] / 2, largest  # two may fall into the same microsecond


@pytest.mark.parametrize("blocks", [0, 3])
def test_a_batch_never_overflows_the_cache_of_subtransactions(db, blocks):
    """Each subtransaction that writes stamps a row with its own id; 64 of a transaction fit the cache."""
    block = "BEGIN INSERT INTO public.written VALUES (pg_current_xact_id()::text); EXCEPTION WHEN division_by_zero THEN NULL; END;"
    db.sql(f"""
        CREATE TABLE written (transaction text);
        CREATE FUNCTION work() RETURNS text LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO public.written VALUES (pg_current_xact_id()::text);
            {block * blocks}
            RETURN pg_current_xact_id()::text;
        END $$;
        SELECT pushy.queue_register('q', 'work()', concurrency => 1)""")
    enqueue(db, 600)
    db.jobs_wait("q")
    most = db.value("SELECT max(n) FROM (SELECT count(DISTINCT xmin::text) n FROM written GROUP BY transaction) _")
    assert 4 < most <= 64, sizes(db)


def test_slow_jobs_are_not_claimed_in_bulk(db):
    """After jobs of 30 ms each, four that stop at a gate stand there in four executors."""
    gate = Gate(db)
    db.sql(f"""
        CREATE FUNCTION work(args jsonb) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            WHILE clock_timestamp() < statement_timestamp() + interval '30 ms' LOOP END LOOP;
            IF args ? 'gate' THEN PERFORM {gate.stop}; END IF;
        END $$;
        SELECT pushy.queue_register('q', 'work(jsonb)')""")
    enqueue(db, 12)
    db.jobs_wait("q")
    db.sql("SELECT pushy.enqueue_many('q', array_fill('{\"gate\": 1}'::jsonb, ARRAY[4]))")
    assert len(set(gate.wait_for_arrival(4))) == 4
    gate.open()
    db.jobs_wait("q")
