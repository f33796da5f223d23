"""Accounts for jobs under faults: what was enqueued and committed, and how often each took effect."""


class Ledger:
    """Queue `q` of a database: each job leaves a row in `effects`, and its number in `enqueued` on the test's side.

    The handler does `before` its effect and `after` it, both plpgsql statements that may look at `job`."""

    def __init__(self, db, before: str = "", after: str = "", options: str = ""):
        self.db = db
        self.enqueued: list[int] = []
        db.sql(f"""
            CREATE TABLE effects (job bigint NOT NULL);
            CREATE FUNCTION work(job pushy.job) RETURNS void LANGUAGE plpgsql AS $$
            BEGIN
                {before}
                INSERT INTO public.effects VALUES (job.id);
                {after}
            END $$;
            SELECT pushy.queue_register('q', 'work(pushy.job)', retry_delay => '10 ms' {options})""")

    def enqueue(self, args: str = "{}", **options) -> int:
        named = "".join(f", {name} => %s" for name in options)
        job = self.db.value(f"SELECT pushy.enqueue('q', %s{named})", args, *options.values())
        self.enqueued.append(job)
        return job

    def enqueue_many(self, count: int, args: str = "{}") -> list[int]:
        jobs = [job for job, in self.db.rows("SELECT pushy.enqueue_many('q', array_fill(%s::jsonb, ARRAY[%s]))", args, count)]
        self.enqueued += jobs
        return jobs

    def charges(self) -> list[tuple]:
        """(job, attempt, SQLSTATE) of all failures."""
        return self.db.rows("SELECT job_id, attempt, sqlstate FROM pushy.failures ORDER BY job_id, attempt")

    def assert_balanced(self, discarded: tuple[int, ...] = (), deadline: float = 60) -> None:
        """Every committed job is terminal, each done one took effect once, no other did."""
        self.db.wait_until("SELECT count(*) FROM pushy_internal.live_job", 0, deadline)
        states = dict(self.db.rows("SELECT id, state::text FROM pushy.jobs"))
        assert states.keys() == set(self.enqueued), "a committed job is lost, or one came from nowhere"
        wrong = {job: state for job, state in states.items() if state != ("discarded" if job in discarded else "completed")}
        assert not wrong, f"{wrong}\n{self.charges()}"
        effects = self.db.rows("SELECT job, count(*) FROM effects GROUP BY job ORDER BY job")
        assert effects == [(job, 1) for job in sorted(self.enqueued) if job not in discarded], "not once each"


def python(db) -> None:
    """die(), which kills the process that calls it, and leave(), which ends it behind the server's back."""
    db.sql("""
        CREATE EXTENSION plpython3u;
        CREATE FUNCTION die() RETURNS void LANGUAGE plpython3u AS $$
import os, signal
os.kill(os.getpid(), signal.SIGKILL)
$$;
        CREATE FUNCTION leave() RETURNS void LANGUAGE plpython3u AS $$
import os
os._exit(0)
$$""")
