"""What a session believes of queues, watches and subscriptions is what was committed last, whatever snapshot its transaction
holds, and whatever it had seen before: every declaration × isolation level × session × use."""

import itertools
from dataclasses import dataclass, replace

import psycopg
import pytest

ISOLATION = ["read committed", "repeatable read", "serializable"]


@dataclass(frozen=True)
class State:
    """What was declared, as far as the uses below depend on it."""
    queue: bool = True           # q is there
    may: bool = True             # the role may enqueue into it and look at its jobs
    priority: int = 5            # of q
    job: bool = True             # the job that was enqueued first is there
    tells: str | None = "key"    # what the watch's jobs say: the key, the row's columns, nothing
    columns: tuple = ("id", "v")
    subscription: bool = True


def say_queue(owner: str, user: str) -> str:
    return (f"SELECT pushy.queue_register('q', 'nothing()'), pushy.queue_grant('q', '{user}', 'enqueue'), "
            f"pushy.queue_grant('q', '{user}', 'monitor');")


SETUP = {
    "queue": lambda user: say_queue("postgres", user),
    "sink": lambda user: "SELECT pushy.queue_register('w', 'nothing()'); SELECT pushy.queue_pause('w');",
    "watch": lambda user: "SELECT pushy.watch('t', queue => 'w');",
    "subscription": lambda user: "SELECT pushy.subscription_create('s', '{heard}');",
}

# name: (what is declared before, as far as it is not all, what is declared in between, what that changes). Statements of
# the subscription's owner begin with 'user: '.
DECLARATIONS = {
    "nothing": (["queue", "sink", "watch", "subscription"], "", {}),
    "queue_register": (["sink", "watch", "subscription"], "{queue}", {"queue": True, "job": False}),
    "queue_register again": (None, "SELECT pushy.queue_register('q', 'nothing()', priority => 3)", {"priority": 3}),
    "queue_alter": (None, "SELECT pushy.queue_alter('q', priority => 7)", {"priority": 7}),
    "queue_alter, another handler": (None, "SELECT pushy.queue_alter('q', handler => 'nothing(jsonb)')", {}),
    "queue_pause": (None, "SELECT pushy.queue_pause('q')", {}),
    "queue_pause, queue_resume": (None, "SELECT pushy.queue_pause('q'); SELECT pushy.queue_resume('q')", {}),
    "queue_drop": (None, "SELECT pushy.queue_drop('q')", {"queue": False, "job": False}),
    "queue_drop, force": (None, "SELECT pushy.queue_drop('q', force => true)", {"queue": False, "job": False}),
    "queue_drop, queue_register": (None, "SELECT pushy.queue_drop('q'); {queue}", {"job": False}),
    "queue_drop, queue_register without grants":
        (None, "SELECT pushy.queue_drop('q'); SELECT pushy.queue_register('q', 'nothing()')", {"job": False, "may": False}),
    "queue_grant": (["bare queue", "sink", "watch", "subscription"],
                    "SELECT pushy.queue_grant('q', '{user}', 'enqueue'), pushy.queue_grant('q', '{user}', 'monitor')", {"may": True}),
    "queue_revoke": (None, "SELECT pushy.queue_revoke('q', '{user}', 'enqueue'), pushy.queue_revoke('q', '{user}', 'monitor')",
                     {"may": False}),
    "REVOKE of the role that was granted":
        (["queue of a group", "sink", "watch", "subscription"], "REVOKE {group} FROM {user}", {"may": False}),
    "handler dropped": (None, "DROP FUNCTION nothing()", {}),
    "watch": (["queue", "sink", "subscription"], "{watch}", {"tells": "key"}),
    "watch with other options": (None, "SELECT pushy.watch('t', queue => 'w', payload => 'row')", {"tells": "row"}),
    "watch of other events": (None, "SELECT pushy.watch('t', queue => 'w', events => '{{delete}}')", {"tells": None}),
    "unwatch": (None, "SELECT pushy.unwatch('t')", {"tells": None}),
    "unwatch, watch": (None, "SELECT pushy.unwatch('t'); SELECT pushy.watch('t', queue => 'w', payload => 'row')", {"tells": "row"}),
    "watch_pause": (None, "SELECT pushy.watch_pause('t')", {"tells": None}),
    "watch_pause, watch_resume": (None, "SELECT pushy.watch_pause('t'); SELECT pushy.watch_resume('t')", {}),
    "the watch's queue dropped": (None, "SELECT pushy.queue_drop('w', force => true)", {"tells": None}),
    "ALTER TABLE ADD COLUMN": (["queue", "sink", "row watch", "subscription"], "ALTER TABLE t ADD COLUMN extra int",
                               {"tells": "row", "columns": ("extra", "id", "v")}),
    "ALTER TABLE DROP COLUMN": (["queue", "sink", "row watch", "subscription"], "ALTER TABLE t DROP COLUMN v",
                                {"tells": "row", "columns": ("id",)}),
    "ALTER TABLE ADD PRIMARY KEY": (None, "ALTER TABLE t DROP CONSTRAINT t_pkey; ALTER TABLE t ADD CONSTRAINT k PRIMARY KEY (id)", {}),
    "subscription_create": (["queue", "sink", "watch"], "user: {subscription}", {"subscription": True}),
    "subscription_drop": (None, "user: SELECT pushy.subscription_drop('s')", {"subscription": False}),
    "DROP EXTENSION, CREATE EXTENSION": (None, "DROP EXTENSION pushy CASCADE; CREATE EXTENSION pushy; GRANT USAGE ON SCHEMA pushy TO PUBLIC",
                                         {"queue": False, "job": False, "tells": None, "subscription": False}),
    "DROP EXTENSION, CREATE EXTENSION and all again":
        (None, "DROP EXTENSION pushy CASCADE; CREATE EXTENSION pushy; GRANT USAGE ON SCHEMA pushy TO PUBLIC; {queue} {sink} {watch}", {"job": False, "subscription": False}),
}
MORE_SETUP = {
    "bare queue": lambda user: "SELECT pushy.queue_register('q', 'nothing()');",
    "queue of a group": lambda user: "SELECT pushy.queue_register('q', 'nothing()'), pushy.queue_grant('q', '{group}', 'enqueue'), "
                                     "pushy.queue_grant('q', '{group}', 'monitor');",
    "row watch": lambda user: "SELECT pushy.watch('t', queue => 'w', payload => 'row');",
}
UNDEFINED, DENIED = "42704", "42501"
_numbers = itertools.count(1)


def before(setup: list[str] | None) -> State:
    if setup is None:
        return State()
    return State(queue=any("queue" in part for part in setup), job=any("queue" in part for part in setup), may="bare queue" not in setup,
                 tells="row" if "row watch" in setup else "key" if "watch" in setup else None, subscription="subscription" in setup)


class Session:
    """One session, which does all the uses in one transaction and says what became of each."""

    def __init__(self, db, user: str, isolation: str):
        self.db = db
        self.connection = db.connect(user=user, autocommit=False,
                                     options=f"-c default_transaction_isolation={isolation.replace(' ', chr(92) + ' ')}")

    def hold_snapshot(self) -> None:
        self.connection.execute("SELECT pg_current_snapshot()")

    def use(self, job: int) -> dict:
        number = next(_numbers)
        seen = {
            "enqueue": self._try("SELECT pushy.enqueue('q', %s::text::jsonb)", number),
            "many": self._try("SELECT count(*) FROM pushy.enqueue_many('q', array[%s::text::jsonb])", -number),
            "unique": self._try("SELECT pushy.enqueue('q', %s::text::jsonb, unique_key => %s::text)", number * 1_000_000, number),
            "may": self._try("SELECT pushy.has_queue_privilege('q', 'enqueue')"),
            "wait": self._try("SELECT state FROM pushy.job_wait(%s, '0')", job),
            "read": self._try("SELECT count(*) >= 0 FROM pushy.subscription_read('s', 10)"),
            "write": self._try("INSERT INTO t (id) VALUES (%s) RETURNING id", number),
        }
        self.connection.commit()
        for use, args in (("enqueue", number), ("many", -number), ("unique", number * 1_000_000)):
            if not isinstance(seen[use], str):
                seen[use] = self.db.rows("SELECT priority FROM pushy.jobs WHERE queue = 'q' AND args = to_jsonb(%s)", args)
        seen["write"] = [args for args, in self.db.rows(
            "SELECT args FROM pushy.jobs WHERE queue = 'w' AND args #> '{key,id}' = to_jsonb(%s)", number)]
        return seen

    def _try(self, statement: str, *values):
        try:
            with self.connection.transaction():
                return self.connection.execute(statement, values).fetchone()[0]
        except psycopg.Error as error:
            return error.sqlstate


def right(state: State, seen: dict) -> dict:
    """What each use has to answer in this state."""
    enqueued = [(state.priority,)]
    access = None if state.queue and state.may else UNDEFINED if not state.queue else DENIED
    told = []
    if state.tells:
        told = seen["write"] and [dict(seen["write"][0])]
        if told and state.tells == "row":
            assert tuple(sorted(told[0]["new"])) == state.columns, told
        elif told:
            assert "new" not in told[0], told
        assert len(told) == 1, "the write was not told"
    return {
        "enqueue": access or enqueued,
        "many": access or enqueued,
        "unique": access or enqueued,
        "may": UNDEFINED if not state.queue else state.may,
        # Of a job of a queue that is nothing to it a role hears what it hears of none.
        "wait": "completed" if state.job and state.may else UNDEFINED,
        "read": True if state.subscription else UNDEFINED,
        "write": told,
    }


@pytest.mark.parametrize("isolation", ISOLATION)
@pytest.mark.parametrize("declaration", DECLARATIONS)
def test_a_session_goes_by_what_was_declared_last(db, role, declaration, isolation):
    group, user = role(), role()
    setup, declare, changes = DECLARATIONS[declaration]
    db.sql(f"""
        GRANT {group} TO {user};
        CREATE FUNCTION nothing() RETURNS void LANGUAGE sql AS '';
        CREATE FUNCTION nothing(jsonb) RETURNS void LANGUAGE sql AS '';
        CREATE TABLE t (id int PRIMARY KEY, v int);
        GRANT INSERT, SELECT ON t TO {user};""")
    parts = {name: make(user).replace("{group}", group) for name, make in (SETUP | MORE_SETUP).items()}
    owner = db.connect(user=user)

    def run(statements: str) -> None:
        owned = statements.startswith("user: ")
        statements = statements.removeprefix("user: ").format(user=user, group=group, **parts)
        for statement in filter(str.strip, statements.split(";")):
            (owner if owned else db.main).execute(statement)

    for part in setup if setup is not None else SETUP:
        (owner if part == "subscription" else db.main).execute(parts[part])
    state, job = before(setup), 0
    if state.queue:
        db.sql("SELECT setval('pushy_internal.position_seq', 1000000)")  # no job of another extension has its number
        job = db.value("SELECT pushy.enqueue('q')")
        db.job_wait(job)

    sessions = {name: Session(db, user, isolation) for name in ("fresh", "used", "old", "old and used")}
    for name in ("used", "old and used"):
        seen = sessions[name].use(job)
        assert seen == right(state, seen), (name, "before")
    if state.queue:
        db.jobs_wait("q")
    for name in ("old", "old and used"):
        sessions[name].hold_snapshot()
    run(declare)
    state = replace(state, **changes)
    for turn in ("this transaction", "the next", "the one after"):
        for name, session in sessions.items():
            seen = session.use(job)
            assert seen == right(state, seen), (name, turn)
