"""The database that is tortured, and what must be true of it in the end."""

import contextlib
import threading
import time

import psycopg

from harness.cluster import Cluster
from harness.waiting import wait_for

SETTINGS = {
    "pushy.max_executors": 4,
    "pushy.executor_linger": "2s",
    "max_worker_processes": 16,
    "max_prepared_transactions": 20,
    "max_connections": 60,
    # An acknowledged commit is on the standby: a promotion takes back none.
    "synchronous_commit": "on",
    "wal_keep_size": "256MB",
    "wal_retrieve_retry_interval": "100ms",
    "hot_standby_feedback": "on",
}

SCHEMA = """
    -- What clients committed: written in the transaction of the enqueue.
    CREATE TABLE owed (job bigint NOT NULL);
    CREATE TABLE effect (job bigint NOT NULL);
    CREATE TABLE cancelled (job bigint NOT NULL);
    CREATE TABLE retried (job bigint NOT NULL);
    CREATE FUNCTION work(job pushy.job) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        IF job.id % 17 = 0 AND job.attempt = 1 THEN RAISE EXCEPTION 'at first'; END IF;
        IF job.id % 19 = 0 AND job.attempt <= 2 THEN RAISE EXCEPTION 'at first' USING ERRCODE = '40001'; END IF;
        IF job.id % 23 = 0 AND job.attempt = 1 THEN RAISE EXCEPTION 'no space' USING ERRCODE = '53100'; END IF;
        IF job.id % 29 = 0 THEN CREATE TEMP TABLE scratch (n int) ON COMMIT DROP; END IF;
        IF job.id % 31 = 0 AND job.attempt = 1 THEN INSERT INTO public.late VALUES (-1); END IF;
        IF job.id % 37 = 0 THEN PERFORM pg_sleep(0.02); END IF;
        INSERT INTO public.effect VALUES (job.id);
    END $$;
    CREATE TABLE parent (id int PRIMARY KEY);
    CREATE TABLE late (id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
    SELECT pushy.queue_register('q', 'work(pushy.job)', retry_delay => '10 ms', max_attempts => 1000, keep_completed => '1 day');
    SELECT pushy.queue_register('ordered', 'work(pushy.job)', concurrency => 2, retry_delay => '10 ms', max_attempts => 1000,
                                keep_completed => '1 day');

    -- Unique keys: a row and its copy, which a job of the row's key makes.
    CREATE TABLE item (id int PRIMARY KEY, v int NOT NULL DEFAULT 0);
    CREATE TABLE copy (id int PRIMARY KEY, v int NOT NULL DEFAULT 0);
    INSERT INTO item SELECT generate_series(1, 10);
    INSERT INTO copy SELECT generate_series(1, 10);
    CREATE FUNCTION copy_item(args jsonb) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE public.copy c SET v = i.v FROM public.item i WHERE i.id = (args->>'id')::int AND c.id = i.id;
    END $$;
    SELECT pushy.queue_register('copies', 'copy_item(jsonb)', retry_delay => '10 ms', max_attempts => 1000);

    -- A watch that owes a job for each change, and a subscription that reads each.
    CREATE TABLE watched (id int PRIMARY KEY, v int NOT NULL DEFAULT 0) WITH (fillfactor = 20);
    INSERT INTO watched SELECT generate_series(1, 10);
    CREATE TABLE seen_by_job (id int, v int);
    CREATE TABLE seen_by_reader (seq bigserial, id int, v int, resync boolean);
    CREATE FUNCTION see(args jsonb) RETURNS void LANGUAGE sql AS
        $$INSERT INTO public.seen_by_job VALUES ((args->'new'->>'id')::int, (args->'new'->>'v')::int)$$;
    SELECT pushy.queue_register('seen', 'see(jsonb)', retry_delay => '10 ms', max_attempts => 1000);
    SELECT pushy.watch('watched', channel => 'watched', queue => 'seen', payload => 'row', delivery => 'relay');
    SELECT pushy.subscription_create('reader', '{watched}');
    CREATE FUNCTION read_some() RETURNS int LANGUAGE plpgsql AS $$
    DECLARE
        found record;
        taken int := 0;
    BEGIN
        FOR found IN SELECT * FROM pushy.subscription_read('reader', 500) LOOP
            INSERT INTO public.seen_by_reader (id, v, resync)
            VALUES ((found.payload::jsonb->'new'->>'id')::int, (found.payload::jsonb->'new'->>'v')::int, found.resync);
            taken := taken + 1;
        END LOOP;
        IF taken > 0 THEN PERFORM pushy.subscription_ack('reader', found.cursor); END IF;
        RETURN taken;
    END $$;
"""


class World:
    """One database on whichever server is the primary now. Clients connect by `session`, faults change `primary`."""

    def __init__(self, primary: Cluster):
        self.primary, self.name = primary, "torture"
        self.primary.database(self.name).sql(SCHEMA)
        self.primary.database("bystander")
        # Held by whoever replaces the primary.
        self.replacing = threading.RLock()
        self.acknowledged: list[int] = []
        self.cancelled: list[int] = []
        self.counts: dict[str, int] = {}
        self.promotions = 0
        self.guard = threading.Lock()
        self.stopping = threading.Event()
        self.follow()

    def follow(self) -> None:
        """Gives the primary a standby whose flush each commit waits for."""
        self.standby = self.primary.standby()
        self.primary.configure(synchronous_standby_names="*").reload()

    def session(self, **options) -> psycopg.Connection:
        return self.primary.connect(self.name, **options)

    def count(self, what: str) -> None:
        with self.guard:
            self.counts[what] = self.counts.get(what, 0) + 1

    def value(self, query: str, *params):
        with contextlib.closing(self.session()) as session:
            return session.execute(query, params).fetchone()[0]

    def rows(self, query: str, *params) -> list[tuple]:
        with contextlib.closing(self.session()) as session:
            return session.execute(query, params).fetchall()

    # -- the end ---------------------------------------------------------------------------------------------

    def settle(self, deadline: float) -> None:
        """Waits until nothing is left to do: no prepared transaction, no job, nothing to read."""
        end = time.monotonic() + deadline
        for gid, in self.rows("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"):
            with contextlib.closing(self.session()) as session:
                session.execute(f"COMMIT PREPARED '{gid}'")
        for queue in ("q", "ordered", "copies", "seen"):
            with contextlib.closing(self.session()) as session:
                session.execute("SELECT pushy.queue_resume(%s)", (queue,))
        wait_for("every job to be done", lambda: self.value("SELECT count(*) FROM pushy.jobs WHERE finished_at IS NULL"),
                 lambda left: left == 0, max(1.0, end - time.monotonic()), evidence=self.evidence)
        wait_for("every notice to be read", self.unread, lambda left: left <= 0, max(1.0, end - time.monotonic()),
                 evidence=self.evidence)

    def unread(self) -> int:
        while self.value("SELECT read_some()"):
            pass
        if self.value("SELECT count(*) FROM seen_by_reader WHERE resync") > self.promotions:
            return 0  # an imbalance: nothing here keeps the log from what the reader has not read
        return self.value("SELECT (SELECT sum(v) FROM watched) - (SELECT count(*) FROM seen_by_reader WHERE NOT resync)")

    def evidence(self) -> str:
        left = self.rows("""SELECT queue, state, attempt, last_error, now() - run_at, count(*), min(id) FROM pushy.jobs
                             WHERE finished_at IS NULL GROUP BY 1, 2, 3, 4, 5 LIMIT 20""")
        why = {queue: self.rows("SELECT reason FROM pushy.queue_explain(%s)", queue) for queue in {row[0] for row in left}}
        return f"{left}\n{why}\n{self.primary.log.tail(60)}"

    def imbalances(self) -> list[str]:
        """What is not as promised; empty where all is well."""
        checks = {
            "acknowledged to a client and not there": (
                "SELECT job FROM unnest(%s::bigint[]) job WHERE job NOT IN (SELECT job FROM owed)", self.acknowledged),
            "enqueued by a rolled back transaction": (
                "SELECT id FROM pushy.jobs WHERE queue IN ('q', 'ordered') AND id NOT IN (SELECT job FROM owed)", None),
            "committed and lost": (
                """SELECT o.job FROM owed o WHERE NOT EXISTS (SELECT FROM effect e WHERE e.job = o.job)
                      AND NOT EXISTS (SELECT FROM cancelled c WHERE c.job = o.job)""", None),
            "done twice": (
                """SELECT e.job FROM effect e GROUP BY e.job
                   HAVING count(*) > 1 + (SELECT count(*) FROM retried r WHERE r.job = e.job)""", None),
            "cancelled, as job_cancel said, and done": (
                "SELECT c.job FROM cancelled c JOIN effect e USING (job) WHERE c.job NOT IN (SELECT job FROM retried)", None),
            "cancelled, and not shown so": (
                """SELECT c.job FROM cancelled c JOIN pushy.jobs j ON j.id = c.job
                    WHERE j.state <> 'cancelled' AND c.job NOT IN (SELECT job FROM retried)""", None),
            "stale: changed with an enqueue of its key that no run came after": (
                "SELECT i.id FROM item i JOIN copy c USING (id) WHERE c.v <> i.v", None),
            "changed and not seen by a job, or twice": (
                """SELECT w.id FROM watched w LEFT JOIN (SELECT id, count(*) AS n, count(DISTINCT v) AS d FROM seen_by_job GROUP BY id) s
                     USING (id) WHERE coalesce(s.n, 0) <> w.v OR coalesce(s.d, 0) <> w.v""", None),
            "read out of order, or twice, or not at all": (
                """SELECT id FROM (SELECT id, v, row_number() OVER (PARTITION BY id ORDER BY seq) AS n FROM seen_by_reader) s
                    WHERE v <> n""", None),
            "told to read the tables again, without a promotion": (
                "SELECT seq FROM seen_by_reader WHERE resync OFFSET %s", self.promotions),
        }
        wrong = []
        for what, (query, argument) in checks.items():
            found = self.rows(query, *([argument] if argument is not None else []))
            if found:
                wrong.append(f"{what}: {len(found)}, {[row[0] for row in found[:10]]}")
        return wrong
