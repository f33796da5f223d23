"""Two tenants: what one of them, or a superuser, holds in an open or prepared transaction must not delay the other."""

from harness.waiting import PATIENCE, wait_for

# How long a step of the victim's may take while a stranger holds something.
BOUND = 8.0


class Tenant:
    """A role with a queue `<name>_q`, whose handler fails where it is told to, a queue `<name>_fed` that a subscription
    feeds, and a session that listens to `<name>_news`."""

    def __init__(self, db, role: str, name: str):
        self.db, self.role, self.name = db, role, name
        self.session = db.connect(user=role)
        self.run(f"CREATE SCHEMA {name}")
        self.run(
            f"CREATE FUNCTION {name}.work(args jsonb) RETURNS void LANGUAGE plpgsql AS"
            " 'BEGIN IF args ? ''fail'' THEN RAISE ''no''; END IF; END'"
        )
        self.run(f"CREATE FUNCTION {name}.take(args jsonb) RETURNS void LANGUAGE sql AS ''")
        self.run(
            f"SELECT pushy.queue_register('{name}_q', '{name}.work(jsonb)', max_attempts => 2, retry_delay => '50 ms',"
            " keep_discarded => '50 ms')"
        )
        self.run(f"SELECT pushy.queue_register('{name}_fed', '{name}.take(jsonb)')")
        self.run(f"SELECT pushy.subscription_create('{name}_sub', '{{{name}_news}}', queue => '{name}_fed')")
        self.run(f"SELECT pushy.subscription_create('{name}_reader', '{{{name}_news}}')")
        self.listener = db.connect(user=role)
        self.listener.execute(f"LISTEN {name}_news")
        self.notices = 0

    def run(self, statement: str, *params):
        cursor = self.session.execute(statement, params or None)
        return cursor.fetchall() if cursor.description else []

    def enqueue(self, args: str = "{}", delay: str | None = None, key: str | None = None) -> int:
        query = f"SELECT pushy.enqueue('{self.name}_q', %s, delay => %s::interval, unique_key => %s)"
        return self.run(query, args, delay, key)[0][0]

    def state(self, job: int) -> str | None:
        found = self.run("SELECT state FROM pushy.jobs WHERE id = %s", job)
        return found[0][0] if found else None

    def becomes(self, job: int, *states: str | None) -> None:
        wait_for(f"job {job} of {self.name} to be {states}", lambda: self.state(job), lambda seen: seen in states, BOUND,
                 evidence=lambda: f"{self.waits()}\n{self.db.cluster.log.tail(15)}")

    def waits(self) -> list:
        query = (
            "SELECT backend_type, wait_event_type, wait_event, pg_blocking_pids(pid) FROM pg_stat_activity"
            " WHERE backend_type LIKE 'pushy%' AND wait_event_type = 'Lock'"
        )
        return self.db.rows(query)

    def notify(self) -> str:
        self.notices += 1
        payload = f"{self.notices}"
        self.run(f"SELECT pushy.notify('{self.name}_news', %s, delivery => 'relay')", payload)
        return payload

    def goes_on(self) -> None:
        """Jobs ready, delayed, retried, cancelled and expired, a notice heard, one that becomes a job, one that is read."""
        ready, later = self.enqueue(), self.enqueue(delay="50 ms")
        failing, never = self.enqueue('{"fail": 1}'), self.enqueue(delay="1 hour")
        self.run("SELECT pushy.job_cancel(%s)", never)
        payload = self.notify()
        self.becomes(ready, "completed")
        self.becomes(later, "completed")
        # Discarded, or expired since.
        self.becomes(failing, "discarded", None)
        self.becomes(never, "cancelled", None)
        # Retention comes with the next thing that is due.
        self.becomes(self.enqueue(delay="60 ms"), "completed")
        wait_for("the discarded job to be removed", lambda: (self.poke(), self.state(failing))[1], lambda seen: seen is None, BOUND,
                 evidence=lambda: f"{self.waits()}\n{self.db.cluster.log.tail(15)}")
        heard = []
        wait_for("the notice to be heard", lambda: heard.extend(self.listener.notifies(timeout=0.2, stop_after=1)) or heard,
                 lambda heard: any(notice.payload == payload for notice in heard), BOUND, evidence=lambda: str(self.waits()))
        fed = f"SELECT count(*) FROM pushy.jobs WHERE queue = '{self.name}_fed' AND state = 'completed' AND args->>'payload' = %s"
        wait_for("the notice to be a job", lambda: self.run(fed, payload)[0][0], lambda count: count == 1, BOUND,
                 evidence=lambda: str(self.waits()))
        read = f"SELECT payload, pushy.subscription_ack('{self.name}_reader', cursor) FROM pushy.subscription_read('{self.name}_reader')"
        assert payload in [row[0] for row in self.run(read)]

    def poke(self) -> None:
        self.enqueue(delay="1 ms")


__all__ = ["Tenant", "BOUND", "PATIENCE"]
