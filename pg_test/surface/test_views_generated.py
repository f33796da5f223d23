"""Every view and every function, over objects with every optional part absent, by everybody; and NULL for every argument."""

import itertools

import psycopg
import pytest

from harness.gate import Gate
from stage.watching import paused_queue

# Columns that are never NULL, by view; every other column of every view is seen filled and seen NULL.
NEVER_NULL = {
    "queues": "queue paused priority max_attempts backoff retry_delay max_retry_delay timeout keep_completed keep_discarded batch lease created_at",
    "jobs": "id queue args state priority attempt max_attempts run_at enqueued_at depth timeout",
    "failures": "job_id queue attempt failed_at sqlstate message",
    "job_logs": "job_id queue attempt line said_at level message",
    "leases": "job_id queue leased_at until over",
    "workers": "kind pid state",
    "watches": "relation name events payload level merge state notices jobs errors",
    "subscriptions": "name cursor lag_notices lag_bytes resync state created_at",
    "log": "bytes notices is_full",
    "stats": "",
    "channel_grants": "channel",
    "queue_grants": "queue privilege",
    "sockets": "gateway id role address transport since channels topics sent buffered_notices buffered_bytes lag reported_at subscriptions",
}

# Columns that are NULL only without the preload, or where a transaction has not been announced yet: seen elsewhere.
NOT_HERE = {("workers", "since"), ("subscriptions", "lag"), ("queues", "running"), ("log", "pending"), ("log", "emitted"), ("log", "oldest"), ("log", "newest"), ("log", "oldest_at"), ("log", "newest_at")}


def views(db) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for view, column in db.rows("SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 "
                                "WHERE c.relnamespace = 'pushy'::regnamespace AND c.relkind = 'v' ORDER BY 1, a.attnum"):
        found.setdefault(view, []).append(column)
    return found


def watches(db) -> int:
    """A watch for every set of parts that watch() takes."""
    parts = {"channel": "c", "queue": "q", "columns": ["v"], "condition": "NEW.v > 0", "payload_expr": "NEW.v::text", "args_expr": "jsonb_build_object('v', NEW.v)", "topic_expr": "NEW.v::text",
             "merge": True, "level": "statement", "payload": "none"}
    taken = 0
    for number, chosen in enumerate(itertools.product([False, True], repeat=len(parts))):
        options = {name: value for (name, value), given in zip(parts.items(), chosen) if given}
        try:
            db.value("SELECT pushy.watch('t', name => %s" + "".join(f", {name} => %s" for name in options) + ")", f"w{number}", *options.values())
            taken += 1
        except psycopg.Error as refusal:
            assert refusal.sqlstate == "22023", (options, refusal)
    return taken


@pytest.fixture
def everything(db, role):
    """Objects in every state, with every optional part given somewhere and absent elsewhere; who owns them, who may see them, who may not."""
    owner, grantee, stranger = role(), role("IN ROLE pg_read_all_stats"), role()
    gate = Gate(db)
    db.sql(f"GRANT CREATE ON SCHEMA public TO {owner}")
    with db.connect(user=owner) as session:
        session.execute(f"""
            CREATE TABLE t (id int PRIMARY KEY, v int);
            CREATE FUNCTION nothing() RETURNS void LANGUAGE sql AS '';
            CREATE FUNCTION answers(args jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT args';
            CREATE FUNCTION fails() RETURNS void LANGUAGE plpgsql AS $$BEGIN RAISE 'no' USING DETAIL = 'd', HINT = 'h'; END$$;
            CREATE FUNCTION stops() RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM pushy.job_progress(0.5, 'half'); PERFORM {gate.stop}; END$$;
            CREATE PROCEDURE steps() LANGUAGE plpgsql AS $$BEGIN PERFORM pushy.job_log('said'), pushy.job_checkpoint('1'); COMMIT; RAISE 'no'; END$$;
            CREATE FUNCTION gone() RETURNS void LANGUAGE sql AS '';
            SELECT pushy.queue_register('q', 'nothing()'), pushy.queue_pause('q'), pushy.queue_register('limited', 'nothing()', concurrency => 1),
                   pushy.queue_register('answers', 'answers(jsonb)'), pushy.queue_register('fails', 'fails()', retry_delay => '1 h'),
                   pushy.queue_register('discards', 'fails()', max_attempts => 1), pushy.queue_register('stops', 'stops()', timeout => '1 h'), pushy.queue_register('gone', 'gone()'), pushy.queue_register('steps', 'steps()', retry_delay => '1 h'),
                   pushy.queue_register('out'), pushy.enqueue_many('out', '{{1,2,3}}')""")
        session.execute("SELECT pushy.job_claim('out', worker => 'w'), pushy.job_extend(job_id, token, fraction => 0.5, message => 'half') FROM pushy.job_claim('out')")
        session.execute(f"SELECT pushy.queue_grant(q, '{grantee}', p) FROM unnest('{{q,answers,fails,discards,stops,steps}}'::text[]) q, unnest('{{enqueue,work,monitor}}'::text[]) p")
        assert watches(OfSession(session)) > 60
        session.execute("SELECT pushy.watch('t', name => 'fails', channel => 'c', payload_expr => '(1 / (NEW.v - NEW.v))::text'), "
                        "pushy.watch('t', name => 'quiet', channel => 'c', events => '{truncate}')")
        session.execute("DROP FUNCTION gone()")
        session.execute("""SELECT pushy.enqueue('q', run_at => 'tomorrow'), pushy.enqueue('q', unique_key => 'k'), pushy.job_cancel(pushy.enqueue('q')),
                                  pushy.enqueue('answers', '1'), pushy.enqueue('fails'), pushy.enqueue('discards'), pushy.enqueue('steps'), pushy.enqueue('stops'), pushy.enqueue('limited')""")
        session.execute(f"""SELECT pushy.channel_grant('one', '{grantee}'), pushy.channel_grant('two', '{grantee}'), pushy.channel_grant('three', '{grantee}');
                           SELECT pushy.channel_revoke('three', '{grantee}')""")
        session.execute("""SELECT pushy.subscription_create('s1'), pushy.subscription_create('s2', '{c}', topics => '{a/*}'), pushy.subscription_create('s3', '{c}', queue => 'q')""")
    db.sql("INSERT INTO t SELECT n, n FROM generate_series(1, 3) n; UPDATE t SET v = -v; DELETE FROM t")
    gate.wait_for_arrival()
    for queue in ("answers", "discards", "limited"):
        db.jobs_wait(queue)
    db.wait_until("SELECT count(*) FROM pushy.failures", 3)
    # As an executor writes it down; when it does is not of interest here.
    db.sql("UPDATE pushy_internal.queue SET parked = 'function gone() does not exist' WHERE queue = 'gone'")
    yield db, {"superuser": "postgres", "owner": owner, "grantee": grantee, "stranger": stranger}
    gate.open()
    db.jobs_wait("stops")


class OfSession:
    def __init__(self, session):
        self.session = session

    def value(self, query, *params):
        return self.session.execute(query, params or None).fetchone()[0]


def test_every_view_is_read_by_everybody_and_shows_every_column_filled_and_null(everything):
    db, roles = everything
    # What only the server itself makes: a failure that has no more than it must, a job that came by a restore.
    db.sql("INSERT INTO pushy_internal.failure (job_id, queue_id, attempt, failed_at, sqlstate, message) "
           "SELECT id, queue_id, 2, now(), 'P0001', 'm' FROM pushy_internal.live_job LIMIT 1")
    # What is inserted is taken for a dump's.
    db.sql("UPDATE pushy_internal.failure f SET queue_id = l.queue_id, job_id = l.id FROM pushy_internal.live_job l "
           "WHERE l.id = f.job_id % (1::bigint << 42) AND f.queue_id < 0")
    db.sql("UPDATE pushy_internal.live_job SET enqueued_by = 0 WHERE unique_key = 'k'")
    db.sql("UPDATE pushy_internal.live_job l SET caused_by = 1 WHERE unique_key = 'k'")
    db.sql("UPDATE pushy_internal.subscription SET stopped = 'why', home_system = 0 WHERE name = 's3'")
    db.sql("UPDATE pushy_internal.watch SET paused = true WHERE name = 'w1'")
    # What is for later.
    db.sql("UPDATE pushy_internal.channel_acl SET topics = 'post/42' WHERE channel = (SELECT min(channel) FROM pushy_internal.channel_acl)")
    # Of roles that are gone.
    db.sql("UPDATE pushy_internal.queue SET owner = 1, run_as = 1 WHERE queue = 'discards'; UPDATE pushy_internal.watch SET owner = 1 WHERE name = 'quiet';"
           "UPDATE pushy_internal.subscription SET owner = 1 WHERE name = 's1'; UPDATE pushy_internal.channel SET owner = 1 WHERE channel = 'two'")
    db.sql("UPDATE pushy_internal.lease SET claimed_by = 1 WHERE worker = 'w'; INSERT INTO pushy_internal.queue_acl (queue_id, grantee, grantee_name, privilege) SELECT queue_id, 1, 'gone', 'work' FROM pushy_internal.queue WHERE queue = 'q';"
           "UPDATE pushy_internal.queue_acl SET queue_id = (SELECT queue_id FROM pushy_internal.queue WHERE queue = 'q') WHERE grantee = 1")
    socket = '{"id": %d, %s "role": "postgres", "address": "::1", "transport": "websocket", "since_us": 1, "channels": [["one", ""]], "sent": 1, ' \
        '"buffered_notices": 0, "buffered_bytes": 0, "lag_us": 0, "subscriptions": 1}'
    named = '"subject": "ann",'
    db.rows("SELECT pushy_internal.gateway_report(%s, '[]', '{\"open\": {\"websocket\": 2}, \"rooms\": 0}')", f"[{socket % (1, '')}, {socket % (2, named)}]")
    filled, null = set(), set()
    with db.connect() as session:
        session.execute("SELECT pushy.subscription_ack('s2', cursor) FROM pushy.subscription_read('s2', 1)")
    for view, columns in views(db).items():
        for who, user in roles.items():
            with db.connect(user=user) as session:
                for row in session.execute(f"SELECT * FROM pushy.{view}").fetchall():
                    filled |= {(view, column) for column, value in zip(columns, row) if value is not None}
                    null |= {(view, column) for column, value in zip(columns, row) if value is None}
                for column in columns:
                    session.execute(f'SELECT "{column}" FROM pushy.{view} WHERE "{column}" IS NOT NULL')
    every = {(view, column) for view, columns in views(db).items() for column in columns}
    never = {(view, column) for view, names in NEVER_NULL.items() for column in names.split()}
    assert every - filled == set(), "never filled"
    assert null & never == set(), "NULL, and said never to be"
    assert every - null - never - NOT_HERE == set(), "never NULL"


# What a call needs beside a value of its type, by argument.
VALUES = {
    "queue": "'q'", "handler": "'nothing()'", "run_as": "current_user::regrole", "concurrency": "1", "priority": "5", "max_attempts": "3", "backoff": "'fixed'",
    "retry_delay": "'1 s'", "max_retry_delay": "'1 h'", "timeout": "'1 s'", "keep_completed": "'1 h'", "keep_discarded": "'1 h'", "batch": "true",
    "force": "true", "drop_rest": "true", "max_jobs": "1", "role": "'public'", "privilege": "'monitor'", "args": "'{}'", "run_at": "now()", "delay": "'0'", "unique_key": "'x'",
    "job_id": "(SELECT max(id) FROM pushy.jobs WHERE queue = 'answers')", "fraction": "0.5", "message": "'m'", "relation": "'t'", "channel": "'c'", "events": "'{insert,update}'",
    "columns": "'{v}'", "condition": "'true'", "payload": "'key'", "payload_expr": "NULL", "level": "'row'", "delivery": "'relay'", "args_expr": "NULL", "topic_expr": "NULL", "topic": "'a'",
    "token": "'00000000-0000-0000-0000-000000000000'", "result": "'1'", "error": "'no'", "sqlstate": "'P0001'", "detail": "'d'", "retry_in": "'1 s'", "discard": "false",
    "state": "'1'", "reason": "'r'",
    "lease": "'1 s'", "worker": "'w'", "outcomes": "'[]'",
    "merge": "false", "name": "'w1'", "channel_name": "'c'", "channels": "'{c}'", "from_oldest": "false", "max_notices": "1", "after": "'1-1-1'",
    "cursor": "(SELECT cursor FROM pushy.subscriptions WHERE name = 's1')", "ready": "NULL", "watch_id": "1", "queue_id": "1", "relation_name": "'public.t'", "owner_name": "'postgres'",
    "secret": "NULL", "public_key": "NULL", "jwks": "NULL", "kid": "'k'", "issuer": "'i'", "audience": "'a'", "role_claim": "'r'", "subject": "'ann'", "valid": "'1 s'",
    "ticket": "'t'", "sockets": "'[]'", "rooms": "'[]'", "in_all": "'{\"open\": {}, \"rooms\": 0}'",
    "home_system": "1", "home_database": "1", "home_extension": "1", "topics": "NULL", "new_name": "'renamed'", "until": "NULL", "triggers": "'{1}'", "fingerprint": "'x'", "owner": "current_user::regrole", "empty": "NULL",
}
OF_FUNCTION = {
    **{(f"watch_{what}", "w"): "(SELECT w FROM pushy_internal.watch w)" for what in ("state", "mend")}, ("watch_mend", "relation"): "'t'::regclass",
    ("watch_mend", "has_lost"): "true", **{("watch_state", text): "'x'" for text in ("queue_fix", "no_relay", "relay_fix")}, ("watch_state", "relay_can_come"): "true",
    ("watch_visible", "relation"): "1259", ("watch_visible", "owner"): "10",
    **{(name, "role"): "'postgres'" for name in ("gateway_key_register", "gateway_grant", "gateway_revoke")}, ("ticket_create", "channels"): "'{one}'",
               ("gateway_authorize", "topics"): "'{a}'", ("is_home", "relation"): "1", ("watch_is_whole", "relation"): "'t'::regclass", ("enqueue", "delay"): "NULL", ("job_log", "level"): "'info'", ("job_snooze", "until"): "now()", ("enqueue_many", "args"): "ARRAY['{}'::jsonb]", ("enqueue_many", "delay"): "NULL", ("notice", "id"): "1", ("job_fail", "discard"): "NULL", ("queue_channel", "queue"): "'out'", ("job_claim", "queue"): "'out'", ("job_claim_wait", "queue"): "'out'",
               ("watch_pause", "name"): "'w1'", ("channel_grant", "privilege"): "'listen'", ("channel_revoke", "privilege"): "'listen'", ("has_queue_privilege", "role"): "current_user"} | {
    (f"subscription_{verb}", "name"): "'s1'" for verb in ("create", "read", "ack", "wait", "drop")}

# Errors that say what is amiss with the call as it stands, whatever the argument: not of a NULL.
BESIDE_THE_POINT = {
    "job_progress": {"55000"},      # no job runs here
    "job_snooze": {"55000", "22023", "22004"}, "job_discard": {"55000"}, "job_retry_in": {"55000"}, "job_log": {"55000", "22004"},
    "notice": {"42704"},            # there is none
    "socket_close": {"22023"},      # a topic of no channel
    "ticket_create": {"42501"},     # nobody was granted the channel
    "channel_revoke": {"42704"},    # nobody has it
    "subscription_wait": {"2D000"}, "jobs_wait": {"2D000"}, "job_claim_wait": {"2D000"}, "log_wait": {"2D000"},  # CALL in a transaction
}


def routines(db) -> list[tuple]:
    """Schema, name, arguments (name, type, optional), whether a procedure."""
    found = []
    for schema, name, names, types, defaults, kind in db.rows("""
            SELECT p.pronamespace::regnamespace::text, p.proname, p.proargnames[1:p.pronargs], ARRAY(SELECT format_type(t, NULL) FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY u(t, n) ORDER BY n),
                   p.pronargdefaults, p.prokind::text
              FROM pg_proc p WHERE p.pronamespace = ANY (ARRAY['pushy', 'pushy_internal']::regnamespace[]) AND p.prorettype <> 'trigger'::regtype ORDER BY p.proname, p.pronargs"""):
        names = names or []
        arguments = [(argument, of, place >= len(types) - defaults) for place, (argument, of) in enumerate(zip(names, types))]
        found.append((schema, name, arguments, kind == "p"))
    return found


def test_null_for_an_argument_is_refused_by_its_name_or_is_its_default(db):
    """One at a time, of every function: 22004 where a value is due, and never a NULL answered in silence to a user."""
    paused_queue(db)
    db.sql("CREATE FUNCTION answers(args jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT args'; CREATE TABLE t (id int PRIMARY KEY, v int);"
           "SELECT pushy.queue_register('answers', 'answers(jsonb)'), pushy.queue_register('out'), pushy.watch('t', channel => 'c', name => 'w1'), pushy.subscription_create('s1')")
    db.job_wait(db.value("SELECT pushy.enqueue('answers')"))
    wrong = []
    for schema, name, arguments, is_procedure in routines(db):
        given = {argument: OF_FUNCTION.get((name, argument), VALUES.get(argument)) for argument, _, _ in arguments}
        assert None not in given.values(), f"give a value for {name}({given})"
        for argument, kind, optional in arguments:
            call = ", ".join(f"{other} => {'NULL' if other == argument else value}::{type}" for (other, type, _), value in zip(arguments, given.values()))
            statement = f"{'CALL' if is_procedure else 'SELECT * FROM'} {schema}.{name}({call})"
            with db.connect(autocommit=False) as session:
                try:
                    answer = session.execute(statement)
                    rows = answer.fetchall() if answer.description else []
                    seen = None
                except psycopg.Error as refusal:
                    seen, rows = (refusal.sqlstate, refusal.diag.message_primary), []
                session.rollback()
            named = seen is not None and seen[0] == "22004" and f'"{argument}"' in seen[1]
            if optional or schema == "pushy_internal":
                fine = seen is None or (named and schema == "pushy_internal") or seen[0] in BESIDE_THE_POINT.get(name, ())
            elif name == "channel_inspect":
                fine = seen is None and rows[0][-1] == 'argument "channel" must not be null'
            else:
                fine = named
            if not fine:
                wrong.append((statement, seen, rows[:1]))
    assert wrong == [], "\n".join(map(str, wrong))
