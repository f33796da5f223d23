"""Jobs of a batch beside idle executors: who is idle gets its share, and what a claim takes is bounded in bytes."""

import re
from pathlib import Path

from stage.batches import enqueue, sizes, states

IDLE = "SELECT count(*) FROM pushy.workers WHERE kind = 'executor' AND state = 'idle' AND database = current_database()"


class Stop:
    """Where a job stays until `open`, without waiting for a lock: a batch puts off a job that waits for one."""

    def __init__(self, db, number: int):
        self.db, self.number = db, number
        self.keeper = db.connect()
        self.keeper.execute("SELECT pg_advisory_lock(%s)", (number,))
        db.sql(f"CREATE SEQUENCE arrived_{number}")

    def wait_for_arrival(self, count: int) -> None:
        self.db.wait_until(f"SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM arrived_{self.number}", count)

    def open(self) -> None:
        self.keeper.execute("SELECT pg_advisory_unlock(%s)", (self.number,))


def queues(db, *names: str, pause: float = 0.0002) -> None:
    """Queues whose jobs take `pause` seconds, but for those whose arguments say at which stop they stay."""
    db.sql(f"""
        CREATE FUNCTION work(args jsonb) RETURNS text LANGUAGE plpgsql AS $$
        BEGIN
            IF args ? 'stop' THEN
                PERFORM nextval('public.arrived_' || (args->>'stop'));
                WHILE NOT pg_try_advisory_xact_lock_shared((args->>'stop')::int) LOOP
                    PERFORM pg_sleep(0.002);
                END LOOP;
            ELSIF {pause} > 0 THEN
                PERFORM pg_sleep({pause});
            END IF;
            RETURN pg_current_xact_id();
        END $$""")
    for name in names:
        db.sql("SELECT pushy.queue_register(%s, 'work(jsonb)')", name)


def enqueue_stops(db, queue: str, *stops: int) -> None:
    db.sql("SELECT pushy.enqueue_many(%s, ARRAY(SELECT jsonb_build_object('stop', s) FROM unnest(%s::int[]) s))", queue, list(stops))


def bring_up(db, count: int) -> None:
    """Brings so many executors up, and lets them go idle."""
    stop = Stop(db, 100)
    db.sql("SELECT pushy.queue_register('up', 'work(jsonb)', batch => false)")
    enqueue_stops(db, "up", *[100] * count)
    stop.wait_for_arrival(count)
    stop.open()
    db.jobs_wait("up")
    db.wait_until(IDLE, count)


def is_batch(db, jobs: list[int]) -> bool:
    return db.value("SELECT count(DISTINCT result) FROM pushy.jobs WHERE id = ANY(%s)", jobs) == 1


def climb(db, size: int) -> list[int]:
    """Twice as many jobs at a time, each when those before are done, as a batch grows; the last ones, `size` of them."""
    for power in range(size.bit_length()):
        jobs = enqueue(db, 2 ** power)
        db.jobs_wait("q")
    return jobs


def test_jobs_enqueued_together_are_begun_by_all_idle_executors(make_cluster):
    db = make_cluster({"pushy.max_executors": 3}).database()
    queues(db, "q")
    bring_up(db, 3)
    for _ in range(5):
        climb(db, 8)
    db.wait_until(IDLE, 3)
    stop = Stop(db, 1)
    enqueue_stops(db, "q", 1, 1, 1)
    stop.wait_for_arrival(3)
    stop.open()
    db.jobs_wait("q")


def test_a_batch_shares_what_it_has_not_begun_when_somebody_becomes_idle(make_cluster):
    db = make_cluster({"pushy.max_executors": 2}).database()
    queues(db, "q", "other")
    bring_up(db, 2)
    first, last, other = Stop(db, 1), Stop(db, 2), Stop(db, 3)
    enqueue_stops(db, "other", 3)
    other.wait_for_arrival(1)
    # Nobody is idle but the one that takes these, so its batches grow, unless the machine is so busy that few jobs last long.
    while not is_batch(db, climb(db, 8)):
        pass
    enqueue_stops(db, "q", 1, *[2] * 6)
    first.wait_for_arrival(1)
    other.open()
    db.wait_until(IDLE, 1)
    first.open()
    last.wait_for_arrival(2)  # else the second waits in a batch beside an idle executor
    last.open()
    db.jobs_wait("q")
    assert set(states(db)) == {"completed"}


def test_a_full_queue_is_still_done_in_large_batches(db):
    db.sql("""
        CREATE FUNCTION work(args jsonb) RETURNS text LANGUAGE sql AS 'SELECT pg_current_xact_id()::text';
        SELECT pushy.queue_register('q', 'work(jsonb)')""")
    enqueue(db, 20_000)
    db.jobs_wait("q", deadline=60)
    assert sizes(db)[-1] >= 100
    assert len(sizes(db)) < 2_000


def test_a_claim_of_jobs_with_large_arguments_is_bounded_by_their_bytes(make_cluster):
    """64 jobs of 4 MB would be 256 MB in an executor, and 256 of 100 MB would end the server."""
    db = make_cluster({"pushy.max_executors": 1}).database()
    queues(db, "q", pause=0)
    stop = Stop(db, 1)
    while not is_batch(db, climb(db, 64)):
        pass
    db.sql("""
        SELECT count(pushy.enqueue('q', jsonb_build_object('stop', 1, 'big', repeat('x', 4 << 20)))) FROM generate_series(1, 64)""")
    stop.wait_for_arrival(1)
    (executor,) = db.workers()
    memory = int(re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{executor}/status").read_text())[1])
    assert memory < 100_000, f"{memory} kB"
    stop.open()
    db.jobs_wait("q")
    assert db.value("SELECT count(*) FROM pushy.jobs WHERE state = 'completed' AND args ? 'big'") == 64


def test_a_batch_of_jobs_with_large_results_is_bounded_by_their_bytes(db):
    db.sql("""
        CREATE FUNCTION work(args jsonb) RETURNS jsonb LANGUAGE sql AS
            $$SELECT CASE WHEN args ? 'big' THEN to_jsonb(repeat('x', (args->>'big')::int << 20)) END$$;
        SELECT pushy.queue_register('q', 'work(jsonb)', concurrency => 1)""")
    enqueue(db, 2_000)
    db.jobs_wait("q")
    before = db.value("SELECT batches FROM pushy.stats WHERE queue = 'q'")
    db.sql("""SELECT pushy.enqueue_many('q', ARRAY(SELECT '{"big": 8}'::jsonb FROM generate_series(1, 40)))""")
    db.jobs_wait("q")
    batches = db.value("SELECT batches FROM pushy.stats WHERE queue = 'q'") - before
    assert batches >= 5, f"320 MB of results in {batches} batches"
