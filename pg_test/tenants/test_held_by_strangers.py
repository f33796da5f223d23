"""No worker waits for what somebody else holds: every function, every row and every table of Pushy is held in turn, in an
open or a prepared transaction, while another tenant's jobs and notices must go on."""

import os
import re
from pathlib import Path

import psycopg
import pytest
from harness.installation import REPOSITORY
from harness.waiting import PATIENCE, wait_for
from stage.strangers import Tenant

# A worker's own statement gives a lock up after 0.1 s.
LONGEST_WAIT = 0.7

# What each function of the schema is called with; {m} is the tenant, the others are numbers of jobs.
CALLS = {
    "queue_register": "SELECT pushy.queue_register('{m}_gone', '{m}.gone()', priority => 3)",
    "queue_alter": "SELECT pushy.queue_alter('{m}_gone', priority => 3)",
    "queue_rename": "SELECT pushy.queue_rename('{m}_gone', '{m}_gone_too')",
    "queue_pause": "SELECT pushy.queue_pause('{m}_gone')",
    "queue_resume": "SELECT pushy.queue_resume('{m}_gone')",
    "queue_drop": "SELECT pushy.queue_drop('{m}_q', force => true)",
    "queue_grant": "SELECT pushy.queue_grant('{m}_gone', 'postgres', 'work')",
    "queue_revoke": "SELECT pushy.queue_revoke('{m}_gone', 'postgres', 'work')",
    "queue_run": "SELECT pushy.queue_run('{m}_run')",
    "enqueue": "SELECT pushy.enqueue('{m}_q', unique_key => 'taken'), pushy.enqueue('{m}_q', unique_key => 'new')",
    "enqueue_many": "SELECT pushy.enqueue_many('{m}_q', ARRAY['{{}}'::jsonb, '{{}}'])",
    "job_cancel": "SELECT pushy.job_cancel({later}), pushy.job_cancel({ready})",
    "job_retry": "SELECT pushy.job_retry({discarded}), pushy.job_retry({later})",
    "job_claim": "SELECT * FROM pushy.job_claim('{m}_out', 1, '1 ms')",
    "job_complete": "SELECT pushy.job_complete(job_id, token) FROM pushy.job_claim('{m}_out')",
    "job_fail": "SELECT pushy.job_fail(job_id, token, retry_in => '1 ms') FROM pushy.job_claim('{m}_out')",
    "job_extend": "SELECT pushy.job_extend(job_id, token, '1 ms') FROM pushy.job_claim('{m}_out')",
    "job_release": "SELECT pushy.job_release(job_id, token, '1 ms') FROM pushy.job_claim('{m}_out')",
    "job_log": "SELECT pushy.job_log('x', 'info', job_id, token) FROM pushy.job_claim('{m}_out')",
    "jobs_settle": "SELECT pushy.jobs_settle(jsonb_build_array(jsonb_build_object('job_id', job_id, 'token', token, 'outcome', 'complete'))) FROM pushy.job_claim('{m}_out')",
    "watch": "SELECT pushy.watch('{m}.watched', queue => '{m}_q', columns => '{{n}}')",
    "unwatch": "SELECT pushy.unwatch('{m}.watched')",
    "watch_pause": "SELECT pushy.watch_pause('{m}.watched')",
    "watch_resume": "SELECT pushy.watch_resume('{m}.watched')",
    "notify": "SELECT pushy.notify('{m}_news', 'held', delivery => 'relay')",
    "subscription_create": "SELECT pushy.subscription_create('{m}_sub', '{{{m}_news}}', queue => '{m}_fed')",
    "subscription_read": "SELECT * FROM pushy.subscription_read('{m}_sub')",
    "subscription_ack": "SELECT pushy.subscription_ack('{m}_sub', cursor) FROM pushy.subscription_read('{m}_sub')",
    "subscription_drop": "SELECT pushy.subscription_drop('{m}_sub')",
    "channel_grant": "SELECT pushy.channel_grant('{m}_secret', 'postgres')",
    "channel_revoke": "SELECT pushy.channel_revoke('{m}_own', 'postgres')",
    "ticket_create": "SELECT pushy.ticket_create('{{{m}_own}}')",
    "the watched write": "INSERT INTO {m}.watched VALUES (1, repeat('x', 9000))",
}


class Mallory(Tenant):
    """A tenant with something of each kind that a worker would come upon."""

    def __init__(self, db, role: str, name: str):
        super().__init__(db, role, name)
        self.run(f"CREATE FUNCTION {name}.gone() RETURNS void LANGUAGE sql AS ''")
        self.run(f"SELECT pushy.queue_register('{name}_gone', '{name}.gone()')")
        self.run(f"SELECT pushy.queue_grant('{name}_gone', 'postgres', 'work')")
        self.run(f"SELECT pushy.queue_register('{name}_run', '{name}.gone()')")
        self.run(f"SELECT pushy.queue_pause('{name}_run')")
        self.run(f"SELECT pushy.queue_register('{name}_out'), pushy.enqueue_many('{name}_out', '{{1,2}}')")
        # What is leased already: its end comes while something else is held.
        self.run(f"SELECT pushy.job_claim('{name}_out', 1, '300 ms')")
        self.run(f"SELECT pushy.enqueue('{name}_run')")
        self.run(f"CREATE TABLE {name}.watched (n int PRIMARY KEY, t text)")
        self.run(f"SELECT pushy.watch('{name}.watched', queue => '{name}_q')")
        self.run(f"SELECT pushy.channel_grant('{name}_own', 'postgres')")
        # Kept long enough to be seen; retention is to meet it when it is held.
        self.run(f"SELECT pushy.queue_alter('{name}_q', keep_discarded => '3 s')")
        self.discarded = self.enqueue('{"fail": 1}')
        self.becomes(self.discarded, "discarded")
        self.expires = self.run("SELECT expires_at FROM pushy.jobs WHERE id = %s", self.discarded)[0][0]
        self.later = self.enqueue(delay="500 ms", key="taken")
        # Ready for long: its queue is not runnable.
        self.ready = self.run(f"SELECT pushy.enqueue('{name}_run')")[0][0]

    def statement(self, call: str) -> str:
        return CALLS[call].format(m=self.name, ready=self.ready, later=self.later, discarded=self.discarded)

    def stir(self) -> None:
        """Makes workers come upon what is held; whoever is refused, or would wait, is of no interest here."""
        self.db.wait_until("SELECT clock_timestamp() > %s", True, params=(self.expires,))
        with self.db.connect(user=self.role) as other:
            other.execute("SET lock_timeout = '200 ms'")
            for statement in (
                f"DROP FUNCTION {self.name}.gone()",
                f"SELECT pushy.enqueue('{self.name}_gone') FROM generate_series(1, 3)",
                f"SELECT pushy.enqueue('{self.name}_q', delay => '1 ms')",
                f"SELECT pushy.job_cancel({self.later})",
                f"SELECT pushy.notify('{self.name}_news', 'stirred', delivery => 'relay')",
                f"INSERT INTO {self.name}.watched VALUES (2, repeat('y', 9000))",
            ):
                try:
                    other.execute(statement)
                except psycopg.Error:
                    pass


def longest_wait(db) -> float:
    """How long (s) a worker of Pushy has waited for a lock, the longest of them."""
    query = (
        "SELECT coalesce(extract(epoch FROM max(clock_timestamp() - l.waitstart)), 0)::float8 FROM pg_locks l"
        " JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted AND a.backend_type LIKE 'pushy%'"
    )
    return db.value(query)


@pytest.fixture
def tenants(db, role):
    mallory, victim = role(), role()
    db.sql(f"GRANT CREATE ON DATABASE {db.name} TO PUBLIC; GRANT USAGE ON SCHEMA pushy TO {mallory}, {victim}")
    yield lambda name: Mallory(db, mallory, name), Tenant(db, victim, "v")
    for who in (mallory, victim):
        db.sql(f"DROP OWNED BY {who}")


def test_every_function_is_known_here(db):
    """A new one that writes belongs into CALLS."""
    writes_nothing_that_stays = {
        # What reads.
        "channel_name", "channel_inspect", "channel_ident", "queue_explain", "has_queue_privilege", "job_wait", "jobs_wait",
        "current_job", "job_trace", "notice", "subscription_wait", "job_progress", "queue_visible", "queue_monitored", "running_jobs",
        "queue_obstacle", "queue_running", "queue_statistics", "worker_rows", "watch_counts", "is_home", "watch_elsewhere",
        "job_claim_wait", "queue_channel", "subscription_rows", "log_row", "log_bounds", "relay_obstacle", "channel_grant_rows",
        "log_position", "log_read", "log_wait", "socket_rows", "presence", "gateway_explain", "metrics",
        "socket_counts", "queue_histograms", "queue_oldest_ready", "log_histogram", "watch_visible", "watch_state", "watch_mend",
        "job_last_error", "job_checkpoint_of",
        # Words of a handler, in its own transaction or none.
        "job_snooze", "job_discard", "job_retry_in", "job_checkpoint",
        # Triggers: 'the watched write'.
        "watch_row", "watch_statement",
        # For the extension's owner, who may lock whole tables as well.
        "resume_after_restore", "extension_created",
    }
    functions = {name for name, in db.rows("SELECT DISTINCT proname FROM pg_proc WHERE pronamespace = ANY (ARRAY['pushy', 'pushy_internal']::regnamespace[])")}
    tested = set(CALLS)
    assert writes_nothing_that_stays & tested == set()
    unknown = {name for name in functions - tested - writes_nothing_that_stays if writes(db, name)}
    assert unknown == set(), "to be held by a stranger: add a call to CALLS"


def writes(db, name: str) -> bool:
    """Whether a plain role may call it: what only the owner may call is no stranger's means."""
    query = (
        "SELECT bool_or(has_function_privilege('pg_monitor', oid, 'EXECUTE')) FROM pg_proc"
        " WHERE pronamespace = ANY (ARRAY['pushy', 'pushy_internal']::regnamespace[]) AND proname = %s AND provolatile = 'v' AND prorettype <> 'trigger'::regtype"
    )
    return bool(db.value(query, name))


@pytest.mark.parametrize("call", CALLS)
def test_a_call_held_open_or_prepared_delays_nobody_else(db, tenants, call):
    make_mallory, victim = tenants
    victim.goes_on()
    mallory = make_mallory("m1")
    holder = db.connect(user=mallory.role, autocommit=False)
    holder.execute(mallory.statement(call))
    mallory.stir()
    victim.goes_on()
    assert longest_wait(db) < LONGEST_WAIT * PATIENCE
    holder.rollback()

    mallory = make_mallory("m2")
    holder = db.connect(user=mallory.role)
    try:
        holder.execute("BEGIN")
        holder.execute(mallory.statement(call))
        holder.execute(f"PREPARE TRANSACTION 'held {db.name}'")
    except psycopg.errors.FeatureNotSupported:
        # It sends a NOTIFY, which cannot be prepared.
        return
    mallory.stir()
    victim.goes_on()
    assert longest_wait(db) < LONGEST_WAIT * PATIENCE
    db.sql(f"ROLLBACK PREPARED 'held {db.name}'")
    victim.goes_on()


# Rows of mallory's, and those that are nobody's.
ROWS = {
    "queue": "queue LIKE 'm%'",
    "queue_acl": "queue_id IN (SELECT queue_id FROM pushy_internal.queue WHERE queue LIKE 'm%')",
    "live_job": "queue_id IN (SELECT queue_id FROM pushy_internal.queue WHERE queue LIKE 'm%')",
    "finished_job": "queue_id IN (SELECT queue_id FROM pushy_internal.queue WHERE queue LIKE 'm%')",
    "failure": "queue_id IN (SELECT queue_id FROM pushy_internal.queue WHERE queue LIKE 'm%')",
    "subscription": "name LIKE 'm%'",
}
# Of these an UPDATE by hand moves rows that ticks point at, which is another matter.
LOG = ("log_", "tick_")


def tables(db) -> list[str]:
    return [name for name, in db.rows(
        "SELECT relname FROM pg_class WHERE relnamespace = ANY (ARRAY['pushy', 'pushy_internal']::regnamespace[]) AND relkind = 'r' ORDER BY relname")]


@pytest.mark.parametrize("mode", ["KEY SHARE", "SHARE", "NO KEY UPDATE", "UPDATE", "an uncommitted update", "prepared"])
def test_rows_held_delay_nobody_else(db, tenants, mode):
    make_mallory, victim = tenants
    victim.goes_on()
    mallory = make_mallory("m1")
    holder = db.connect()
    holder.execute("BEGIN")
    for table in tables(db):
        whose = next((where for of, where in ROWS.items() if table == of or table.startswith(of + "_")), "true")
        if table.startswith("queue_acl"):
            whose = ROWS["queue_acl"]
        if mode in ("KEY SHARE", "SHARE", "NO KEY UPDATE", "UPDATE"):
            holder.execute(f"SELECT 1 FROM ONLY pushy_internal.{table} WHERE {whose} FOR {mode}")
        elif not table.startswith(LOG) or table in ("log_part", "log_state"):
            column = holder.execute("SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum = 1", [f"pushy_internal.{table}"]).fetchone()[0]
            holder.execute(f"UPDATE ONLY pushy_internal.{table} SET {column} = {column} WHERE {whose}")
    if mode == "prepared":
        holder.execute(f"PREPARE TRANSACTION 'held {db.name}'")
    mallory.stir()
    victim.goes_on()
    assert longest_wait(db) < LONGEST_WAIT * PATIENCE
    holder.execute(f"ROLLBACK PREPARED 'held {db.name}'" if mode == "prepared" else "ROLLBACK")
    victim.goes_on()


@pytest.mark.parametrize("mode", ["open", "prepared"])
def test_no_row_held_makes_a_worker_spin(db, tenants, mode):
    """Whatever a worker wants and somebody holds is tried again in a moment, not at once: what is held in each table in turn, with
    something due that needs it, costs next to no processor time."""
    make_mallory, victim = tenants
    mallory = make_mallory("m1")
    costs, wanted = {}, {"queue", "live_job", "finished_job", "failure", "subscription", "oversize_notice", "log_part", "log_state", "watch"}
    for table in tables(db):
        with db.connect() as holder:
            # Retention may be faster, with what is due for long: it removes a minute's rows at once.
            held = wait_for(f"rows of {table} to hold", lambda: hold_what_is_due(db, mallory, holder, table), lambda held: held or table not in wanted)
            wanted -= {table} if held else set()
            if mode == "prepared":
                holder.execute(f"PREPARE TRANSACTION 'held {db.name}'")
            mallory.stir()
            costs[table] = processor_time_of_workers(db, 1.0)
            holder.execute(f"ROLLBACK PREPARED 'held {db.name}'" if mode == "prepared" else "ROLLBACK")
    assert wanted == set()
    assert {table: cost for table, cost in costs.items() if cost > 0.2} == {}
    victim.goes_on()


def hold_what_is_due(db, mallory, holder, table: str) -> bool:
    mallory.becomes(mallory.enqueue('{"fail": 1}'), "discarded")
    db.sql("UPDATE pushy_internal.finished_job SET expires_at = now() - interval '10 min';"
           " INSERT INTO pushy_internal.oversize_notice (id, expires_at, lsn, channel, payload)"
           " SELECT coalesce(max(id), 0) + 1, now() - interval '10 min', 0, '', '' FROM pushy_internal.oversize_notice")
    holder.execute("ROLLBACK")
    holder.execute("BEGIN")
    if table.startswith(LOG) and table not in ("log_part", "log_state"):
        rows = holder.execute(f"SELECT 1 FROM ONLY pushy_internal.{table} FOR UPDATE")
    else:
        column = holder.execute("SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum = 1", [f"pushy_internal.{table}"]).fetchone()[0]
        rows = holder.execute(f"UPDATE ONLY pushy_internal.{table} SET {column} = {column}")
    return rows.rowcount > 0


def processor_time_of_workers(db, seconds: float) -> float:
    """What the workers use (s) while so many seconds pass."""
    pids = [pid for pid, in db.rows("SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'pushy%'")]

    def used(pid: int) -> float:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except FileNotFoundError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    before = {pid: used(pid) for pid in pids}
    db.sql("SELECT pg_sleep(%s)", seconds)
    return sum(max(0.0, used(pid) - before[pid]) for pid in pids)


@pytest.mark.parametrize("mode", ["ACCESS SHARE", "ROW SHARE", "ROW EXCLUSIVE", "SHARE UPDATE EXCLUSIVE"])
def test_whole_tables_held_by_readers_writers_and_vacuum_delay_nobody(db, tenants, mode):
    _, victim = tenants
    victim.goes_on()
    with db.connect(autocommit=False) as holder:
        for table in tables(db):
            holder.execute(f"LOCK TABLE ONLY pushy_internal.{table} IN {mode} MODE")
        victim.goes_on()
        assert longest_wait(db) < LONGEST_WAIT * PATIENCE
        holder.rollback()
    victim.goes_on()


@pytest.mark.parametrize("mode", ["SHARE", "SHARE ROW EXCLUSIVE", "EXCLUSIVE", "ACCESS EXCLUSIVE"])
def test_no_worker_waits_for_a_table_that_its_owner_has_locked_and_all_come_back(db, tenants, mode):
    """Whoever locks a table that everybody writes stops what needs it, and nothing for longer."""
    make_mallory, victim = tenants
    victim.goes_on()
    mallory = make_mallory("m1")
    with db.connect(user=victim.role) as visitor:
        visitor.execute("SET lock_timeout = '50 ms'")
        for table in tables(db):
            with db.connect(autocommit=False) as holder:
                holder.execute(f"LOCK TABLE ONLY pushy_internal.{table} IN {mode} MODE")
                for statement in (
                    "SELECT pushy.enqueue('v_q')",
                    "SELECT pushy.enqueue('v_q', delay => '20 ms')",
                    "SELECT pushy.enqueue('v_q', '{\"fail\": 1}')",
                    "SELECT pushy.notify('v_news', 'locked', delivery => 'relay')",
                ):
                    try:
                        visitor.execute(statement)
                    except psycopg.errors.LockNotAvailable:
                        pass
                waits = [(holder.execute("SELECT pg_sleep(0.02)"), longest_wait(db))[1] for _ in range(10)]
                assert max(waits) < LONGEST_WAIT * PATIENCE, f"{table}: {victim.waits()}"
                holder.rollback()
    mallory.stir()
    victim.goes_on()
    victim.run("CALL pushy.jobs_wait('v_q', '20 s')")


def test_no_statement_of_a_worker_locks_rows_without_skipping_those_that_are_held():
    """What locks and waits is called by functions of users only; and a worker's transaction begins in one place, bounded."""
    source = REPOSITORY / "src"
    files = {path.relative_to(source).as_posix(): path.read_text() for path in source.rglob("*.rs")}
    waiting = {name for name, text in files.items() if re.search(r"FOR (NO KEY )?(UPDATE|SHARE)(?! OF \w+ SKIP LOCKED| SKIP LOCKED)[^,;.)]*\"", text)}
    assert waiting == {"log/subscription/table.rs", "job/moves/promote.rs"}
    by_heap = {name for name, text in files.items() if "lock_now(" in text and not name.startswith("pg/")}
    assert by_heap == {"queue/definition.rs", "job/stored/live.rs", "job/moves/failure_rows.rs", "job/moves/out_of_history.rs"}
    # Their functions that wait.
    waits = re.compile(r"find_for_update|lock_owned|live::lock\(|lock_now|out_of_history|promote_of|object_lock::take")
    of_workers = [name for name, text in files.items() if name.startswith(("worker/", "relay/")) or name in ("job/stored/rotation.rs", "queue/park.rs")
                  if waits.search(text)]
    assert of_workers == []
    begins = [name for name, text in files.items() if "StartTransactionCommand()" in text]
    # A procedure's transactions are its own, as those of a client are: what it waits for holds up nobody's bookkeeping.
    assert sorted(begins) == ["pg/call/procedure.rs", "pg/transaction/worker_transaction.rs"]
