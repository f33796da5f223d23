"""Whoever waits, while what it waits for is taken away, or comes back as another, or is closed and opened again: it is woken at once, and
goes on with what is there now, or gets an error that says what has become of it."""

import threading
import time

import psycopg
import pytest

from harness.waiting import PATIENCE, wait_for

# As long as each may wait in vain: far longer than waking takes.
LONGEST = {"job_wait": "60 s"}
CALLS = {
    "job_claim_wait": "CALL pushy.job_claim_wait('q', '{longest}')",
    "jobs_wait": "CALL pushy.jobs_wait('q', '{longest}')",
    "job_wait": "SELECT (pushy.job_wait({job}, '{longest}')).state = 'completed'",
    "subscription_wait": "CALL pushy.subscription_wait('s', '{longest}')",
    "log_wait": "CALL pushy_internal.log_wait('{here}', '{{c}}', NULL, '{longest}')",
}
GONE, NOT_SO, DENIED = "42704", "55000", "42501"
REGISTER = "SELECT pushy.queue_register('q'), pushy.queue_grant('q', '{role}', 'claim'), pushy.queue_grant('q', '{role}', 'monitor')"
DROP = "SELECT pushy.queue_drop('q', force => true)"
CREATE = "SET ROLE {role}; SELECT pushy.subscription_create('s', '{{c}}'); RESET ROLE"
DROP_READER = "SET ROLE {role}; SELECT pushy.subscription_drop('s'); RESET ROLE"
LEAVE = "DROP EXTENSION pushy"

# What is done, in transactions one after the other, and how the waits end that it concerns: with an error, or true, which all others
# answer when what they wait for comes.
WAYS = {
    "dropped": ([DROP], {"job_claim_wait": {GONE}, "job_wait": {GONE}}),
    "dropped by a prepared transaction": (
        [f"BEGIN; {DROP}; PREPARE TRANSACTION 'drop'", "COMMIT PREPARED 'drop'"], {"job_claim_wait": {GONE}, "job_wait": {GONE}}),
    "dropped and registered": ([f"{DROP}; {REGISTER}"], {"job_wait": {GONE}}),
    "dropped, then registered": ([DROP, REGISTER], {"job_claim_wait": {GONE, True}, "job_wait": {GONE}}),
    "renamed": (["SELECT pushy.queue_rename('q', 'r')"], {"job_claim_wait": {GONE}}),
    "renamed, and another registered": ([f"SELECT pushy.queue_rename('q', 'r'); {REGISTER}"], {}),
    "paused, then resumed": (["SELECT pushy.queue_pause('q')", "SELECT pushy.queue_resume('q')"], {}),
    "denied": (["SELECT pushy.queue_revoke('q', '{role}', 'claim'), pushy.queue_revoke('q', '{role}', 'monitor')"],
               {"job_claim_wait": {DENIED}, "jobs_wait": {DENIED}, "job_wait": {GONE}}),
    "subscription dropped": ([DROP_READER], {"subscription_wait": {GONE}}),
    "subscription dropped by a prepared transaction": (
        [f"BEGIN; {DROP_READER}; PREPARE TRANSACTION 'drop'", "COMMIT PREPARED 'drop'"], {"subscription_wait": {GONE}}),
    "subscription dropped and created": ([f"{DROP_READER}; {CREATE}"], {"subscription_wait": {GONE}}),
    "subscription dropped, then created": ([DROP_READER, CREATE], {"subscription_wait": {GONE}}),
    "subscription created again": ([CREATE], {}),
    "channel denied": (["SELECT pushy.channel_revoke('c', '{team}')"], {"subscription_wait": {DENIED}}),
    "group left": (["REVOKE {team} FROM {role}"], {"subscription_wait": {DENIED}}),
    "extension dropped": ([LEAVE], dict.fromkeys(CALLS, {NOT_SO})),
    "extension dropped and created": ([f"{LEAVE}; CREATE EXTENSION pushy"], dict.fromkeys(CALLS, {NOT_SO})),
    "extension dropped, then created": (
        [LEAVE, "CREATE EXTENSION pushy", f"GRANT USAGE ON SCHEMA pushy TO PUBLIC; {REGISTER}"], dict.fromkeys(CALLS, {NOT_SO})),
}


class Wait:
    """A session that waits, and how that ended: with an answer or the SQLSTATE of an error, after so many seconds."""

    def __init__(self, db, user: str, call: str):
        self.db, self.session, self.call = db, db.connect(user=user), call
        self.ended = self.took = None
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()

    def _wait(self) -> None:
        began = time.monotonic()
        try:
            ended = self.session.execute(self.call).fetchone()[-1]
        except psycopg.Error as error:
            ended = error.sqlstate
        self.took, self.ended = time.monotonic() - began, ended

    def assert_sleeps(self) -> "Wait":
        self.db.wait_until("SELECT wait_event = 'Extension' FROM pg_stat_activity WHERE pid = %s", True, params=(self.session.info.backend_pid,))
        return self

    def end(self):
        """How it ended; not by its timeout."""
        self._thread.join(45)
        assert self.took is not None and self.took < 45, f"{self.call} was not woken"
        return self.ended


def may_fail(db, statement: str, *params) -> None:
    """What the wait waits for, where it is still there."""
    try:
        db.sql(statement, *params)
    except psycopg.Error:
        pass


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("call", CALLS)
def test_who_waits_is_woken_when_what_it_waits_for_is_taken_away(db, role, call, way):
    names = {"team": role()}
    names["role"] = role(f"IN ROLE {names['team']}")
    db.sql("CREATE FUNCTION work(jsonb) RETURNS void LANGUAGE sql AS ''")
    statements, ends = WAYS[way]
    for statement in (REGISTER, "SELECT pushy.channel_grant('c', '{team}')", CREATE):
        db.sql(statement.format(**names))
    job = db.value("SELECT pushy.enqueue('q')")
    [(_, token)] = db.rows("SELECT job_id, token FROM pushy.job_claim('q', lease => '1 hour')")
    user = "postgres" if call == "log_wait" else names["role"]
    said = CALLS[call].format(job=job, here=db.value("SELECT pushy.log_position()"), longest=LONGEST.get(call, "10 minutes"))
    wait = Wait(db, user, said).assert_sleeps()
    if call == "job_wait" and LEAVE in statements[0]:
        # A function holds its locks of the tables: who drops them waits.
        with pytest.raises(psycopg.errors.LockNotAvailable):
            db.sql("SET lock_timeout = '100 ms'; " + LEAVE)
        ends = {}
    else:
        for statement in statements:
            db.sql(statement.format(**names))
    expected = ends.get(call, {True})
    # It comes where there is still somebody to whom it could: who waits for something else has heard of that before.
    may_fail(db, "SELECT pushy.job_complete(%s, %s)", job, token)
    if call == "job_claim_wait":
        may_fail(db, "SELECT pushy.enqueue('q')")
    may_fail(db, "SELECT pushy.notify('c', 'x')")
    assert wait.end() in expected


def test_who_waits_to_claim_hears_that_the_queue_was_given_a_handler(db):
    db.sql("CREATE FUNCTION work(jsonb) RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_register('q')")
    wait = Wait(db, "postgres", "CALL pushy.job_claim_wait('q', '10 minutes')").assert_sleeps()
    db.sql("SELECT pushy.queue_register('q', 'work(jsonb)')")
    assert wait.end() == NOT_SO


def reloading(setting: str, value: str):
    return [f"ALTER SYSTEM SET {setting} = {value}", "SELECT pg_reload_conf()"]


# What keeps jobs from being claimed, and what lets them be again.
CLOSINGS = {
    "pushy.enabled": (reloading("pushy.enabled", "off"), reloading("pushy.enabled", "on")),
    "pushy.databases": (reloading("pushy.databases", "'elsewhere'"), reloading("pushy.databases", "'*'")),
    "a database that takes no connections": (
        ['ALTER DATABASE "{here}" ALLOW_CONNECTIONS false'], ['ALTER DATABASE "{here}" ALLOW_CONNECTIONS true']),
    "a transaction that alters the extension": (["BEGIN", "ALTER EXTENSION pushy UPDATE"], ["ROLLBACK"]),
    "a pause": (["SELECT pushy.queue_pause('q'), pushy.queue_pause('other')"],
                ["SELECT pushy.queue_resume('q'), pushy.queue_resume('other')"]),
    "the queue's concurrency": (["SELECT pushy.queue_alter('q', concurrency => 1), pushy.queue_alter('other', concurrency => 1)",
                                 "SELECT job_id FROM pushy.job_claim('other')", "SELECT job_id FROM pushy.job_claim('q')"],
                                ["SELECT pushy.queue_alter('q', concurrency => 2)"]),
}


@pytest.mark.parametrize("closing", CLOSINGS)
def test_who_waits_is_woken_when_jobs_may_be_claimed_again(cluster, closing):
    db = cluster.database()
    close, opens = ([statement.format(here=db.name) for statement in statements] for statements in CLOSINGS[closing])
    db.sql("SELECT pushy.queue_register('q'), pushy.queue_register('other')")
    # One to be leased, and one that shows when nothing is claimed any more.
    db.sql("SELECT pushy.enqueue('q'), pushy.enqueue('other'), pushy.enqueue('other')")
    closer = cluster.connect() if "connections" in closing else db.connect()
    prober = db.connect(autocommit=False)

    def claimable() -> int:
        found = prober.execute("SELECT count(*) FROM pushy.job_claim('other')").fetchone()[0]
        prober.rollback()
        return found
    if "concurrency" not in closing:
        db.rows("SELECT job_id FROM pushy.job_claim('q')")
        waits = [Wait(db, "postgres", "CALL pushy.job_claim_wait('q', '10 minutes')").assert_sleeps() for _ in range(2)]
    for statement in close:
        closer.execute(statement)
    if "concurrency" in closing:
        waits = [Wait(db, "postgres", "CALL pushy.job_claim_wait('q', '10 minutes')").assert_sleeps() for _ in range(2)]
    wait_for("nothing to be claimed", claimable, lambda found: found == 0)
    db.sql("SELECT pushy.enqueue('q')")
    said = db.rows("SELECT reason FROM pushy.queue_explain('q')")
    assert not any("about to" in reason for reason, in said), said
    for wait in waits:
        assert wait.assert_sleeps().ended is None
    for statement in opens:
        closer.execute(statement)
    # The second by the scheduler, because nobody claims.
    assert [wait.end() for wait in waits] == [True, True]


def test_who_waits_for_notices_and_jobs_is_woken_when_pushy_is_enabled_again(cluster):
    db = cluster.database()
    db.sql("CREATE FUNCTION work(jsonb) RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_register('q', 'work(jsonb)')")
    db.sql("SELECT pushy.subscription_create('s', '{c}')")
    db.job_wait(db.value("SELECT pushy.enqueue('q')"))
    for statement in reloading("pushy.enabled", "off"):
        db.sql(statement)
    db.wait_until("SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'pushy executor%'", 0)
    db.wait_until("SELECT current_setting('pushy.enabled')", "off")
    job = db.value("SELECT pushy.enqueue('q')")
    calls = [CALLS[name].format(job=job, longest=LONGEST.get(name, "10 minutes")) for name in ("jobs_wait", "job_wait", "subscription_wait")]
    waits = [Wait(db, "postgres", call).assert_sleeps() for call in calls]
    db.sql("SELECT pushy.notify('c', 'x')")
    for statement in reloading("pushy.enabled", "on"):
        db.sql(statement)
    assert [wait.end() for wait in waits] == [True, True, True]


def test_who_may_not_claim_any_more_hands_on_that_it_was_woken(db, role):
    team, other = role(), role()
    denied = role(f"IN ROLE {team}")
    db.sql("SELECT pushy.queue_register('q'), pushy.queue_grant('q', %s, 'claim'), pushy.queue_grant('q', %s, 'claim')", team, other)
    # Else each is woken a second after the one before, by the scheduler.
    waits = [Wait(db, name, "CALL pushy.job_claim_wait('q', '10 minutes')").assert_sleeps() for name in [denied] * 25 + [other]]
    # Nobody who waits hears of that.
    db.sql(f"REVOKE {team} FROM {denied}")
    enqueued_at = time.monotonic()
    db.sql("SELECT pushy.enqueue('q')")
    assert [wait.end() for wait in waits] == [DENIED] * 25 + [True]
    assert time.monotonic() - enqueued_at < 12
