-- From 0.1.0 to 0.2.0: workers outside and their leases, procedures as handlers, words by which a handler ends its attempt.

SELECT pushy_internal.script_begins();

-- Tables
ALTER TABLE pushy_internal.queue
  ADD COLUMN lease_us bigint NOT NULL DEFAULT 60000000 CHECK (lease_us OPERATOR(pg_catalog.>=) 0);
ALTER TABLE pushy_internal.queue_acl DROP CONSTRAINT queue_acl_privilege_check;
ALTER TABLE pushy_internal.queue_acl ADD CONSTRAINT queue_acl_privilege_check
  CHECK (privilege OPERATOR(pg_catalog.=) ANY (ARRAY['enqueue', 'work', 'monitor', 'claim']));

ALTER TABLE pushy_internal.failure ADD COLUMN enqueued_at timestamptz;
ALTER TABLE pushy_internal.promised_cancel ADD COLUMN enqueued_at timestamptz;
CREATE SEQUENCE pushy_internal.first_position_seq CYCLE;
COMMENT ON SEQUENCE pushy_internal.first_position_seq IS
  'The first number of a job that was given out here: what is loaded keeps its own number only below.';

ALTER TABLE pushy_internal.live_job ADD COLUMN snoozes int, ADD COLUMN leased boolean;
ALTER TABLE pushy_internal.live_job DROP CONSTRAINT live_job_state;
ALTER TABLE pushy_internal.live_job ADD CONSTRAINT live_job_state CHECK (
  (state OPERATOR(pg_catalog.=) 'a'::pg_catalog."char" AND position IS NOT NULL AND leased IS NULL)
  OR (state OPERATOR(pg_catalog.=) ANY (ARRAY['s'::pg_catalog."char", 'r'::pg_catalog."char"]) AND position IS NULL AND leased IS NULL)
  OR (state OPERATOR(pg_catalog.=) 'x'::pg_catalog."char" AND position IS NULL AND leased IS NOT NULL AND leased));
DROP INDEX pushy_internal.live_job_due;

CREATE INDEX live_job_due ON pushy_internal.live_job (run_at, id) WHERE position IS NULL AND leased IS NULL;
COMMENT ON INDEX pushy_internal.live_job_due IS 'Jobs waiting for their time.';

-- Claims that outlive a transaction. Beside the job's row, because a lease that is extended would write its arguments anew each time.
-- Who changes a lease has locked the job's row before.
CREATE TABLE pushy_internal.lease (
  job_id     bigint      NOT NULL,
  until      timestamptz NOT NULL,   -- infinity: until the session that has claimed it ends
  token      uuid        NOT NULL,   -- who does not know it changes nothing
  leased_at  timestamptz NOT NULL,
  said_at    timestamptz NOT NULL,   -- when it was said until when it lasts: by the claim, or by the last extension
  position   bigint      NOT NULL,   -- where the job stood: it goes back there when it is released
  queue_id   int         NOT NULL,
  claimed_by oid         NOT NULL,
  session    bigint,                 -- the session whose end ends it, by a number that no other has; NULL: it ends by time
  fraction   real,                   -- what job_extend said last
  worker     text,
  message    text,
  inside     boolean     NOT NULL DEFAULT false,   -- of an executor, for a procedure: it ends with that process
  enqueued_at timestamptz NOT NULL,  -- the job: with its number it says which one of several dumps this is of, here and in the tables below
  PRIMARY KEY (job_id)
) USING heap WITH (
  autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
  autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 100000
);
COMMENT ON TABLE pushy_internal.lease IS 'Jobs that workers outside have claimed, and procedures that run; see the view pushy.leases.';
CREATE INDEX lease_end ON pushy_internal.lease (until, job_id);
COMMENT ON INDEX pushy_internal.lease_end IS 'Which lease ends next.';
CREATE INDEX lease_worker ON pushy_internal.lease (queue_id, worker);
COMMENT ON INDEX pushy_internal.lease_worker IS 'What a worker holds, and how much of a queue is leased.';
CREATE INDEX lease_session ON pushy_internal.lease (session, job_id) WHERE session IS NOT NULL;
COMMENT ON INDEX pushy_internal.lease_session IS 'Leases that end with a session.';
CREATE INDEX lease_inside ON pushy_internal.lease (job_id) WHERE inside;
COMMENT ON INDEX pushy_internal.lease_inside IS 'What executors hold, or held before they ended.';

-- Beside the job's row, as its failures: few jobs have one of these.
CREATE TABLE pushy_internal.job_log (
  job_id   bigint      NOT NULL,
  line     int         NOT NULL,   -- in the order of saying, from 1; the first are gone where there were many
  attempt  int         NOT NULL,
  queue_id int         NOT NULL,
  said_at  timestamptz NOT NULL,
  level    text        NOT NULL CHECK (level OPERATOR(pg_catalog.=) ANY (ARRAY['debug', 'info', 'warning', 'error'])),
  message  text        NOT NULL,
  enqueued_at timestamptz NOT NULL,
  PRIMARY KEY (job_id, line)
) USING heap;
COMMENT ON TABLE pushy_internal.job_log IS 'What handlers have said with pushy.job_log; see the view pushy.job_logs.';

CREATE TABLE pushy_internal.checkpoint (
  job_id   bigint      NOT NULL,
  queue_id int         NOT NULL,
  state    jsonb       NOT NULL,
  enqueued_at timestamptz NOT NULL,
  PRIMARY KEY (job_id)
) USING heap WITH (fillfactor = 50);
COMMENT ON TABLE pushy_internal.checkpoint IS 'How far an unfinished job was at its last pushy.job_checkpoint, for its next attempt.';

ALTER TYPE pushy.job ADD ATTRIBUTE checkpoint jsonb CASCADE;

CREATE TYPE pushy.claimed_job AS (
  job_id       bigint,
  token        uuid,
  queue        text,
  args         jsonb,
  attempt      int,
  max_attempts int,
  priority     int,
  run_at       timestamptz,
  enqueued_at  timestamptz,
  enqueued_by  name,
  unique_key   text,
  caused_by    bigint,
  depth        int,
  lease_until  timestamptz,
  last_error   text
);
COMMENT ON TYPE pushy.claimed_job IS
  'One job as a worker outside has claimed it. token is what it proves its claim with; attempt is the number of this attempt, from 1; last_error is of the one before.';

SELECT pg_catalog.pg_extension_config_dump('pushy_internal.lease', '');
SELECT pg_catalog.pg_extension_config_dump('pushy_internal.job_log', '');
SELECT pg_catalog.pg_extension_config_dump('pushy_internal.checkpoint', '');

-- What keeps writers out of the new tables, as write_guard.sql has it.
DO $$
DECLARE
  name pg_catalog.text;
BEGIN
  FOREACH name IN ARRAY ARRAY['pushy_internal.lease', 'pushy_internal.job_log', 'pushy_internal.checkpoint'] LOOP
    EXECUTE pg_catalog.format(
      'CREATE TRIGGER refuse_write BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %1$s '
      'FOR EACH STATEMENT EXECUTE FUNCTION pushy_internal.refuse_write(''dumped''); '
      'ALTER TABLE %1$s ENABLE ALWAYS TRIGGER refuse_write; '
      'COMMENT ON TRIGGER refuse_write ON %1$s IS ''Keeps out everybody but the owner, whatever privileges they have.''; '
      'CREATE TRIGGER pass_over_row BEFORE INSERT ON %1$s FOR EACH ROW EXECUTE FUNCTION pushy_internal.pass_over_row(); '
      'ALTER TABLE %1$s ENABLE ALWAYS TRIGGER pass_over_row; '
      'COMMENT ON TRIGGER pass_over_row ON %1$s IS ''Takes the rows of a dump in as what waits, and passes over those that the database''''s owner loads, because refuse_write lets the statement begin.''; '
      'CREATE TRIGGER refuse_applied AFTER INSERT OR UPDATE OR DELETE ON %1$s '
      'FOR EACH ROW WHEN (pushy_internal.is_apply_worker()) EXECUTE FUNCTION pushy_internal.refuse_write(); '
      'ALTER TABLE %1$s ENABLE ALWAYS TRIGGER refuse_applied; '
      'COMMENT ON TRIGGER refuse_applied ON %1$s IS ''Keeps out rows that logical replication brings by a subscription of anybody but the owner.''', name);
  END LOOP;
END
$$;

-- Queues are held by their numbers. One that was dropped and registered again by its owner was found by its name.
UPDATE pushy_internal.watch w SET queue_id = q.queue_id, queue_owner = q.owner
  FROM pushy_internal.queue q
 WHERE q.queue OPERATOR(pg_catalog.=) w.queue
   AND q.home_system OPERATOR(pg_catalog.=) w.home_system AND q.home_database OPERATOR(pg_catalog.=) w.home_database
   AND pg_catalog.pg_has_role(q.owner, w.queue_owner, 'USAGE')
   AND NOT EXISTS (SELECT FROM pushy_internal.queue o WHERE o.queue_id OPERATOR(pg_catalog.=) w.queue_id);
UPDATE pushy_internal.subscription s SET queue_id = q.queue_id, queue_owner = q.owner
  FROM pushy_internal.queue q
 WHERE q.queue OPERATOR(pg_catalog.=) s.queue
   AND q.home_system OPERATOR(pg_catalog.=) s.home_system AND q.home_database OPERATOR(pg_catalog.=) s.home_database
   AND pg_catalog.pg_has_role(q.owner, s.queue_owner, 'USAGE')
   AND NOT EXISTS (SELECT FROM pushy_internal.queue o WHERE o.queue_id OPERATOR(pg_catalog.=) s.queue_id);

-- Topics: of notices in the log, of watches, of subscriptions.
DO $$
BEGIN
  FOR part IN 0 .. 5 LOOP
    EXECUTE pg_catalog.format('ALTER TABLE pushy_internal.log_%s ADD COLUMN topic text, ALTER COLUMN topic SET STORAGE PLAIN', part);
  END LOOP;
END
$$;
ALTER TABLE pushy_internal.watch ADD COLUMN topic_expr text;
ALTER TABLE pushy_internal.oversize_notice ADD COLUMN topic text;
ALTER TABLE pushy_internal.subscription ADD COLUMN topics text[];

-- Functions with other arguments, or answers, than before. Views, defaults and bodies of others hold on to them by number, so each is made
-- beside the old one, and what it is becomes the old one's below.
ALTER FUNCTION pushy.queue_register(text, text, regrole, int, int, int, text, interval, interval, interval, interval, interval, boolean) RENAME TO queue_register_before;
ALTER FUNCTION pushy.queue_alter(text, text, regrole, int, int, int, text, interval, interval, interval, interval, interval, boolean, regrole) RENAME TO queue_alter_before;
ALTER FUNCTION pushy.watch(regclass, text, text[], name[], text, text, text, text, text, text, text, boolean, text) RENAME TO watch_before;
ALTER FUNCTION pushy.notify(text, text, text) RENAME TO notify_before;
ALTER FUNCTION pushy.subscription_create(text, text[], text, boolean) RENAME TO subscription_create_before;
ALTER FUNCTION pushy.subscription_read(text, int, text) RENAME TO subscription_read_before;
ALTER FUNCTION pushy_internal.queue_statistics(int) RENAME TO queue_statistics_before;
ALTER FUNCTION pushy_internal.subscription_rows() RENAME TO subscription_rows_before;

CREATE FUNCTION pushy.queue_register(
  queue text,
  handler text DEFAULT NULL,
  -- quote_ident: current_user::regrole alone fails for a role "Bob".
  run_as regrole DEFAULT pg_catalog.quote_ident(current_user)::pg_catalog.regrole,
  concurrency int DEFAULT NULL,
  priority int DEFAULT 5,
  max_attempts int DEFAULT 25,
  backoff text DEFAULT 'exponential',
  retry_delay interval DEFAULT '1 second',
  max_retry_delay interval DEFAULT '1 day',
  timeout interval DEFAULT '1 minute',
  keep_completed interval DEFAULT '1 hour',
  keep_discarded interval DEFAULT '30 days',
  batch boolean DEFAULT true,
  lease interval DEFAULT '1 minute')
RETURNS text LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_queue_register_v2';
COMMENT ON FUNCTION pushy.queue_register(text, text, regrole, int, int, int, text, interval, interval, interval, interval, interval, boolean, interval) IS
  'Declares a queue, with the function that does its jobs, and answers the signature of that function (NULL for none). Run it with every deploy, because what is left out is its default again, only owner and pause stay; handler takes (jsonb), (pushy.job) or nothing: ''public.send_mail(jsonb)'', or a name that only one such function has. Jobs run as run_as, which the caller may become, as many at a time as concurrency (NULL or 0: as there are executors; 1: in strict order), up to max_attempts times with backoff exponential, linear or fixed from retry_delay to max_retry_delay, cut short after timeout (0: never), kept for keep_completed or keep_discarded; batch => false commits each alone. Without a handler its jobs are claimed by workers outside, each for lease (see pushy.job_claim).';

CREATE FUNCTION pushy.queue_alter(
  queue text,
  handler text DEFAULT NULL,
  run_as regrole DEFAULT NULL,
  concurrency int DEFAULT NULL,
  priority int DEFAULT NULL,
  max_attempts int DEFAULT NULL,
  backoff text DEFAULT NULL,
  retry_delay interval DEFAULT NULL,
  max_retry_delay interval DEFAULT NULL,
  timeout interval DEFAULT NULL,
  keep_completed interval DEFAULT NULL,
  keep_discarded interval DEFAULT NULL,
  batch boolean DEFAULT NULL,
  owner regrole DEFAULT NULL,
  lease interval DEFAULT NULL)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_queue_alter_v2';
COMMENT ON FUNCTION pushy.queue_alter(text, text, regrole, int, int, int, text, interval, interval, interval, interval, interval, boolean, regrole, interval) IS
  'Changes some options of a queue and leaves the others as they are. Arguments are those of pushy.queue_register, where 0 is none and NULL leaves it (concurrency => 0 lifts the limit), and owner, another role, which the caller may become and which may become run_as; a superuser says it where the owner was dropped. The next pushy.queue_register sets all of it anew, but for the owner. For the queue''s owner.';

CREATE FUNCTION pushy.watch(
  relation regclass,
  channel text DEFAULT NULL,
  events text[] DEFAULT '{insert,update,delete}',
  columns name[] DEFAULT NULL,
  condition text DEFAULT NULL,
  payload text DEFAULT 'key',
  payload_expr text DEFAULT NULL,
  level text DEFAULT 'row',
  delivery text DEFAULT NULL,
  queue text DEFAULT NULL,
  args_expr text DEFAULT NULL,
  merge boolean DEFAULT NULL,
  name text DEFAULT NULL,
  topic_expr text DEFAULT NULL)
RETURNS text LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_watch_v2';
COMMENT ON FUNCTION pushy.watch(regclass, text, text[], name[], text, text, text, text, text, text, text, boolean, text, text) IS
  'Turns a table''s changes into notices or jobs, and answers the channel as LISTEN wants it. Run it with every deploy: a watch of the name (if none is given, the channel''s, or the queue''s where there is no channel) is replaced and keeps its pause. columns: an update counts when one of them IS DISTINCT from before; condition, payload_expr, args_expr and topic_expr (by which subscriptions choose) are SQL over NEW and OLD; payload is none, key, row or diff, as JSON; level is row or statement; queue makes a job of each notice, and only jobs where no channel is named; delivery is relay (the event log) or notify. Needs TRIGGER on the table and enqueue on the queue; what a notice shows every role of the database may hear.';

CREATE FUNCTION pushy.notify(channel text, payload text DEFAULT '', delivery text DEFAULT NULL, topic text DEFAULT NULL) RETURNS void
    LANGUAGE c VOLATILE PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pushy_notify_v2';
COMMENT ON FUNCTION pushy.notify(text, text, text, text) IS
    'Publishes a payload on a channel when the transaction commits. The channel is written as after LISTEN, and not one of Pushy''s own (pushy_ and more). delivery: relay writes it to the event log, so that the commit waits for nobody, the relay emits it to LISTENers a moment later, and subscriptions can read it; notify is NOTIFY; where nothing is said relay, and notify as long as no relay can come here. topic is a finer address within the channel, such as post/42, by which subscriptions choose; LISTENers do not see it, it does not go with delivery notify, and where no relay can come it is passed over.';

CREATE FUNCTION pushy.subscription_create(
  name text,
  channels text[] DEFAULT NULL,
  queue text DEFAULT NULL,
  from_oldest boolean DEFAULT false,
  topics text[] DEFAULT NULL,
  after text DEFAULT NULL)
RETURNS text LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_subscription_create_v2';
COMMENT ON FUNCTION pushy.subscription_create(text, text[], text, boolean, text[], text) IS
  'Declares a reader of the event log and answers its cursor. One that is there keeps its cursor, whatever from_oldest and after say, and takes the new channels, topics and queue, so a service can run it at each start. It reads notices delivered by relay, of channels written as after LISTEN (NULL: all; 1,000 at most), of topics that patterns match, such as post/* or user/7/** (NULL: all, and what has none), from now on, from the oldest still in the log, or after a cursor, and belongs to the current user. With queue, which needs privilege enqueue, each notice becomes a job with arguments {"channel", "topic", "payload"}, exactly once; everybody who may publish on such a channel makes these jobs, so the handler must not believe the payload.';

CREATE FUNCTION pushy.subscription_read(
  name text,
  max_notices int DEFAULT 100,
  after text DEFAULT NULL,
  OUT cursor text,
  OUT channel text,
  OUT payload text,
  OUT at timestamptz,
  OUT resync boolean,
  OUT topic text)
RETURNS SETOF record LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 100 AS 'MODULE_PATHNAME', 'pushy_subscription_read_v2';
COMMENT ON FUNCTION pushy.subscription_read(text, int, text) IS
  'The next notices of a subscription, max_notices of them at most (0: none), after the last one acknowledged or after the cursor given. They come again until pushy.subscription_ack; a transaction that has read keeps other sessions from the subscription until it ends. A row with resync (and no channel) says that notices are missing before it: read the tables anew, then go on. A payload too long for NOTIFY is a reference ("notice": id) that pushy.notice resolves; at is when the relay met the notice; for the subscription''s owner.';

CREATE FUNCTION pushy_internal.queue_statistics(
  queue_id int,
  OUT running int,
  OUT enqueued bigint,
  OUT completed bigint,
  OUT failed bigint,
  OUT retried bigint,
  OUT discarded bigint,
  OUT cancelled bigint,
  OUT given_back bigint,
  OUT run_again bigint,
  OUT parked bigint,
  OUT batches bigint,
  OUT rate_1m double precision,
  OUT wait_p50 interval,
  OUT wait_p95 interval,
  OUT wait_p99 interval,
  OUT run_mean interval,
  OUT run_p50 interval,
  OUT run_p95 interval,
  OUT run_p99 interval,
  OUT snoozed bigint)
RETURNS SETOF record LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1 AS 'MODULE_PATHNAME', 'pushy_queue_statistics_v2';
COMMENT ON FUNCTION pushy_internal.queue_statistics(int) IS
  'Counters of a queue, from shared memory; behind pushy.stats. No row for one that the caller may not monitor, or that does not exist.';

CREATE FUNCTION pushy_internal.subscription_rows(
  OUT name text,
  OUT owner name,
  OUT channels text[],
  OUT queue text,
  OUT cursor text,
  OUT lag_notices bigint,
  OUT lag_bytes bigint,
  OUT lag interval,
  OUT resync boolean,
  OUT stopped text,
  OUT state text,
  OUT fix text,
  OUT created_at timestamptz,
  OUT acked_at timestamptz,
  OUT topics text[])
RETURNS SETOF record LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'pushy_subscription_rows_v2';
COMMENT ON FUNCTION pushy_internal.subscription_rows() IS
  'Subscriptions that the caller owns, all of them for pg_read_all_stats; behind pushy.subscriptions.';

DO $$
DECLARE
  changed pg_catalog.record;
  made pg_catalog.record;
  said pg_catalog.text;
BEGIN
  FOR changed IN
    SELECT old.oid, old.new::pg_catalog.regprocedure AS new
      FROM ROWS FROM (pg_catalog.unnest(ARRAY[
        'pushy.queue_register_before(text, text, regrole, int, int, int, text, interval, interval, interval, interval, interval, boolean)',
        'pushy.queue_alter_before(text, text, regrole, int, int, int, text, interval, interval, interval, interval, interval, boolean, regrole)',
        'pushy.watch_before(regclass, text, text[], name[], text, text, text, text, text, text, text, boolean, text)',
        'pushy.notify_before(text, text, text)',
        'pushy.subscription_create_before(text, text[], text, boolean)',
        'pushy.subscription_read_before(text, int, text)',
        'pushy_internal.queue_statistics_before(int)',
        'pushy_internal.subscription_rows_before()']::pg_catalog.regprocedure[]::pg_catalog.oid[]), pg_catalog.unnest(ARRAY[
        'pushy.queue_register(text, text, regrole, int, int, int, text, interval, interval, interval, interval, interval, boolean, interval)',
        'pushy.queue_alter(text, text, regrole, int, int, int, text, interval, interval, interval, interval, interval, boolean, regrole, interval)',
        'pushy.watch(regclass, text, text[], name[], text, text, text, text, text, text, text, boolean, text, text)',
        'pushy.notify(text, text, text, text)',
        'pushy.subscription_create(text, text[], text, boolean, text[], text)',
        'pushy.subscription_read(text, int, text)',
        'pushy_internal.queue_statistics(int)',
        'pushy_internal.subscription_rows()']::pg_catalog.regprocedure[]::pg_catalog.oid[])) old (oid, new)
  LOOP
    SELECT p.* INTO STRICT made FROM pg_catalog.pg_proc p WHERE p.oid OPERATOR(pg_catalog.=) changed.new;
    said := pg_catalog.obj_description(made.oid, 'pg_proc');
    EXECUTE pg_catalog.format('DROP FUNCTION %s', changed.new);
    -- New arguments have defaults and stand behind the old ones, as new columns of answers do: a call that was read before is the same call.
    UPDATE pg_catalog.pg_proc SET
      proname = made.proname, pronargs = made.pronargs, pronargdefaults = made.pronargdefaults, proargtypes = made.proargtypes,
      proallargtypes = made.proallargtypes, proargmodes = made.proargmodes, proargnames = made.proargnames, proargdefaults = made.proargdefaults,
      procost = made.procost, prorows = made.prorows, provolatile = made.provolatile, proparallel = made.proparallel, prosrc = made.prosrc
     WHERE oid OPERATOR(pg_catalog.=) changed.oid;
    UPDATE pg_catalog.pg_description SET description = said
     WHERE classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass::pg_catalog.oid
       AND objoid OPERATOR(pg_catalog.=) changed.oid AND objsubid OPERATOR(pg_catalog.=) 0;
  END LOOP;
END
$$;

-- Reading without a subscription.

CREATE FUNCTION pushy.log_position()
RETURNS text LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_log_position_v1';
COMMENT ON FUNCTION pushy.log_position() IS
  'Answers a cursor that belongs to the snapshot of the calling statement, because the notice of each change that this snapshot does not see comes behind it. Read it first, then the tables, in one REPEATABLE READ transaction or one after the other, and go on from it with after => cursor of pushy.subscription_create. Nothing is missing between the two, and what was committed a moment before may come twice.';

CREATE FUNCTION pushy_internal.log_read(
  after text,
  channels text[] DEFAULT NULL,
  topics text[] DEFAULT NULL,
  max_notices int DEFAULT 1000,
  OUT cursor text,
  OUT channel text,
  OUT topic text,
  OUT payload text,
  OUT at timestamptz,
  OUT merge boolean,
  OUT resync boolean,
  OUT more boolean)
RETURNS SETOF record LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 100 AS 'MODULE_PATHNAME', 'pushy_log_read_v1';
COMMENT ON FUNCTION pushy_internal.log_read(text, text[], text[], int) IS
  'Internal: what the caller may read of the event log after a cursor, as pushy.subscription_read has it; for a gateway. The last row has no channel: its cursor is where the next call goes on, and more says whether there is more by now.';

CREATE PROCEDURE pushy_internal.log_wait(
  INOUT after text,
  channels text[] DEFAULT NULL,
  topics text[] DEFAULT NULL,
  timeout interval DEFAULT '1 hour',
  INOUT ready boolean DEFAULT NULL)
LANGUAGE c AS 'MODULE_PATHNAME', 'pushy_log_wait_v1';
COMMENT ON PROCEDURE pushy_internal.log_wait(text, text[], text[], interval, boolean) IS
  'Internal: waits until pushy_internal.log_read has something for the caller after a cursor, holding no snapshot; for a gateway. ready is false after the timeout, and after moves past what was not for the caller.';

-- Words for handlers
CREATE FUNCTION pushy.job_checkpoint(state jsonb)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_job_checkpoint_v1';
COMMENT ON FUNCTION pushy.job_checkpoint(jsonb) IS
  'Called by a handler: how far its job is, kept by the handler''s next COMMIT, in the place of what was said before. The next attempt finds it in (pushy.current_job()).checkpoint; it is gone when the job is completed. For procedures, and for functions that end with pushy.job_snooze.';

CREATE FUNCTION pushy.job_snooze(delay interval DEFAULT NULL, until timestamptz DEFAULT NULL, reason text DEFAULT NULL)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_job_snooze_v1';
COMMENT ON FUNCTION pushy.job_snooze(interval, timestamptz, text) IS
  'Called by a handler: when it returns, its job is put off for delay, or until then, and comes again. What the handler has done is kept, the attempt is not charged, and reason goes to pushy.job_logs. An error after it fails the attempt all the same.';

CREATE FUNCTION pushy.job_discard(reason text DEFAULT NULL)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_job_discard_v1';
COMMENT ON FUNCTION pushy.job_discard(text) IS
  'Called by a handler: ends the attempt by an error, and the job with it, attempts left or not. What was done since the last COMMIT is undone; reason is the message in pushy.failures. Whoever catches the error does not change that.';

CREATE FUNCTION pushy.job_retry_in(delay interval, reason text DEFAULT NULL)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_job_retry_in_v1';
COMMENT ON FUNCTION pushy.job_retry_in(interval, text) IS
  'Called by a handler: ends the attempt by an error; the next one comes after delay instead of the queue''s backoff, if one is left. The attempt is charged and undone as any failed one; reason is its message in pushy.failures.';

CREATE FUNCTION pushy.job_log(message text, level text DEFAULT 'info', job_id bigint DEFAULT NULL, token uuid DEFAULT NULL)
RETURNS boolean LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_job_log_v1';
COMMENT ON FUNCTION pushy.job_log(text, text, bigint, uuid) IS
  'Says something about the running job, or about one that the caller has claimed (job_id, token), shown in pushy.job_logs. level is debug, info, warning or error. A handler''s words are kept when its attempt ends, whether it succeeds or fails; at most 100 of an attempt, 1,000 of a job (the newest) and 2,000 bytes of each. False where the claim is over.';

-- Workers outside: claiming jobs for a time, and saying how they ended.

CREATE FUNCTION pushy.job_claim(queue text, max_jobs int DEFAULT 1, lease interval DEFAULT NULL, worker text DEFAULT NULL)
RETURNS SETOF pushy.claimed_job LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'pushy_job_claim_v1';
COMMENT ON FUNCTION pushy.job_claim(text, int, interval, text) IS
  'Claims and answers up to max_jobs ready jobs of a queue without a handler, in order; none where nothing is ready that no open transaction holds, or the queue is paused. The claims hold from this transaction''s commit on, for lease (NULL: as the queue says; 0: until this session ends). Who repeats a call with the same worker, as the same role, because the answer was lost gets the jobs that this worker holds, with new tokens, so give each call a worker name of its own. Needs privilege claim.';

CREATE FUNCTION pushy.job_complete(job_id bigint, token uuid, result jsonb DEFAULT NULL)
RETURNS boolean LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_job_complete_v1';
COMMENT ON FUNCTION pushy.job_complete(bigint, uuid, jsonb) IS
  'Completes a claimed job, in this transaction: what else the transaction writes is done exactly once. It answers false, and nothing changed, where the token is not the one of the job''s claim of now: its lease was over, or somebody cancelled it. Needs privilege claim.';

CREATE FUNCTION pushy.job_fail(
  job_id bigint,
  token uuid,
  error text DEFAULT NULL,
  sqlstate text DEFAULT NULL,
  detail text DEFAULT NULL,
  retry_in interval DEFAULT NULL,
  discard boolean DEFAULT NULL)
RETURNS text LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_job_fail_v1';
COMMENT ON FUNCTION pushy.job_fail(bigint, uuid, text, text, text, interval, boolean) IS
  'Says that an attempt at a claimed job failed, charges it, and answers the job''s new state. That is retryable (available where it is due at once) after retry_in or the queue''s backoff, discarded after the last attempt or with discard. NULL, and nothing changed, where the token is not the one of the job''s claim of now. Needs privilege claim.';

CREATE FUNCTION pushy.job_extend(
  job_id bigint,
  token uuid,
  lease interval DEFAULT NULL,
  fraction double precision DEFAULT NULL,
  message text DEFAULT NULL)
RETURNS boolean LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_job_extend_v1';
COMMENT ON FUNCTION pushy.job_extend(bigint, uuid, interval, double precision, text) IS
  'Lets a claim hold for lease from now on (NULL: for as long as was said last, so that it ends no sooner; 0: until this session ends), and says how far the job is. What it says, from 0 to 1 and a word, is shown in pushy.leases and pushy.jobs. False: stop, because the job is no longer yours. Needs privilege claim.';

CREATE FUNCTION pushy.job_release(job_id bigint, token uuid, delay interval DEFAULT NULL)
RETURNS boolean LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_job_release_v1';
COMMENT ON FUNCTION pushy.job_release(bigint, uuid, interval) IS
  'Gives a claimed job back, uncharged: to its old place, or to be ready after delay. False, and nothing changed, where the token is not the one of the job''s claim of now. Needs privilege claim.';

CREATE FUNCTION pushy.jobs_settle(outcomes jsonb)
RETURNS int LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_jobs_settle_v1';
COMMENT ON FUNCTION pushy.jobs_settle(jsonb) IS
  'Says how many claimed jobs ended, in one statement, and answers of how many the token was the one of their claim. outcomes is an array of objects with job_id, token and outcome: complete (with result), fail (error, sqlstate, detail, retry_in), discard (error, sqlstate, detail), release (delay), snooze (delay, and as error why, for pushy.job_logs) or extend (lease, fraction, message); lengths of time in seconds. Needs privilege claim.';

CREATE PROCEDURE pushy.job_claim_wait(queue text, timeout interval DEFAULT '1 minute', INOUT ready boolean DEFAULT NULL)
LANGUAGE c AS 'MODULE_PATHNAME', 'pushy_job_claim_wait_v1';
COMMENT ON PROCEDURE pushy.job_claim_wait(text, interval, boolean) IS
  'Waits until a queue has jobs that pushy.job_claim would answer, holding no snapshot; ready is false after the timeout (0: it looks once). Of those who wait one is woken for each job, and must claim at once: after a second the next is woken. CALL it outside a transaction block. Needs privilege claim.';

CREATE FUNCTION pushy.queue_channel(queue text)
RETURNS text LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_queue_channel_v1';
COMMENT ON FUNCTION pushy.queue_channel(text) IS
  'Answers what to write after LISTEN to hear when a queue for workers outside has work and had none. It is told once, until somebody has claimed, so claim after LISTEN and after each notice, until nothing comes. It changes with the queue''s name. Needs privilege claim.';

-- Views. Columns are added behind those that were there, because views of others may stand on these.
CREATE OR REPLACE VIEW pushy.subscriptions WITH (security_barrier) AS
SELECT s.name, s.owner,
       CASE WHEN s.channels IS NOT NULL
            THEN ARRAY(SELECT pushy.channel_ident(c.name) FROM pg_catalog.unnest(s.channels) WITH ORDINALITY c(name, n) ORDER BY c.n) END AS channels,
       s.channels AS channel_names, s.queue, s.cursor, s.lag_notices, s.lag_bytes, s.lag, s.resync, s.stopped, s.state, s.fix, s.created_at, s.acked_at, s.topics
  FROM pushy_internal.subscription_rows() s;

CREATE FUNCTION pushy_internal.watch_visible(
  watch_id int, home_system bigint, home_database oid, home_extension oid, relation oid, owner oid)
RETURNS boolean LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_watch_visible_v1';
COMMENT ON FUNCTION pushy_internal.watch_visible(int, bigint, oid, oid, oid, oid) IS
  'Internal: whether the caller has made a watch or could make one of its table; the filter of the view pushy.watches.';

CREATE FUNCTION pushy_internal.watch_mend(w pushy_internal.watch, relation oid, has_lost boolean)
RETURNS text LANGUAGE sql STABLE PARALLEL UNSAFE COST 1 SET jit = off
BEGIN ATOMIC
  SELECT CASE
           WHEN y.missing IS NOT NULL
             THEN pg_catalog.format('Declare it again with pushy.watch without what is no column of %s any more: %s; or end it: SELECT pushy.unwatch(%L, %L)',
                                    relation::pg_catalog.regclass, y.missing, relation::pg_catalog.regclass, w.name)
           WHEN has_lost
             THEN pg_catalog.format('Declare it again with pushy.watch; or end it: SELECT pushy.unwatch(%L, %L)', relation::pg_catalog.regclass, w.name)
           WHEN z.missing IS NOT NULL
             THEN pg_catalog.format('Create what its expressions use and is gone, %s, and declare it again with pushy.watch, or declare it without; or end it: SELECT pushy.unwatch(%L, %L)',
                                    z.missing, relation::pg_catalog.regclass, w.name)
           -- A statement for its maker only: whoever else ran it would be the maker of words that somebody else wrote.
           WHEN NOT EXISTS (SELECT FROM pg_catalog.pg_roles m WHERE m.oid OPERATOR(pg_catalog.=) w.owner AND m.rolname OPERATOR(pg_catalog.=) CURRENT_USER)
             THEN pg_catalog.format('%s again with pushy.watch; or end it: SELECT pushy.unwatch(%L, %L)',
                                    COALESCE((SELECT pg_catalog.format('Who declared it, %I, declares it', o.rolname)
                                                FROM pg_catalog.pg_roles o WHERE o.oid OPERATOR(pg_catalog.=) w.owner),
                                             'Who declared it is gone: the table''s owner, or a superuser, ends it and declares it'),
                                    relation::pg_catalog.regclass, w.name)
           ELSE pg_catalog.format('SELECT pushy.watch(%s)', pg_catalog.concat_ws(', ',
             pg_catalog.format('%L, events => %L', relation::pg_catalog.regclass, w.events),
             CASE WHEN w.channel IS NOT NULL AND COALESCE(w.named_by, '') OPERATOR(pg_catalog.<>) 'table' THEN pg_catalog.format('channel => %L', pushy.channel_ident(w.channel)) END,
             CASE WHEN w.columns IS NOT NULL THEN pg_catalog.format('columns => %L', w.columns) END,
             CASE WHEN w.condition IS NOT NULL THEN pg_catalog.format('condition => %L', w.condition) END,
             CASE WHEN w.payload_expr IS NOT NULL THEN pg_catalog.format('payload_expr => %L', w.payload_expr)
                  ELSE pg_catalog.format('payload => %L', w.payload) END,
             pg_catalog.format('level => %L', w.level),
             CASE WHEN w.channel IS NOT NULL AND w.delivery IS NOT NULL THEN pg_catalog.format('delivery => %L', w.delivery) END,
             CASE WHEN w.queue IS NOT NULL THEN pg_catalog.format('queue => %L', w.queue) END,
             CASE WHEN w.args_expr IS NOT NULL THEN pg_catalog.format('args_expr => %L', w.args_expr) END,
             CASE WHEN w.topic_expr IS NOT NULL THEN pg_catalog.format('topic_expr => %L', w.topic_expr) END,
             CASE WHEN w.merge THEN 'merge => true' END,
             CASE WHEN w.named_by IS NULL THEN pg_catalog.format('name => %L', w.name) END))
         END
   -- What a watch that has lost triggers names and its table has not: DROP COLUMN with CASCADE takes the triggers with the column.
    FROM (
     SELECT pg_catalog.string_agg(pg_catalog.quote_ident(m.name), ', ' ORDER BY m.name) AS missing
       FROM (SELECT n.name::pg_catalog.text AS name FROM pg_catalog.unnest(w.columns) n(name)
              UNION
             SELECT CASE WHEN pg_catalog.starts_with(x.found[1], '"') THEN pg_catalog.replace(pg_catalog.btrim(x.found[1], '"'), '""', '"')
                         ELSE pg_catalog.lower(x.found[1]) END
               FROM pg_catalog.regexp_matches(pg_catalog.concat_ws(' ', w.condition, w.payload_expr, w.args_expr, w.topic_expr),
                                              '[[:<:]](?:new|old)[)]?[.]("(?:[^"]|"")+"|[[:alpha:]_][[:alnum:]_$]*)', 'gi') x(found)) m
      WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_attribute d
                         WHERE d.attrelid OPERATOR(pg_catalog.=) relation AND d.attname::pg_catalog.text OPERATOR(pg_catalog.=) m.name)) y
   -- And functions, types and operators, likewise, as far as words tell: what no schema has, outside of texts.
   CROSS JOIN LATERAL (
     SELECT pg_catalog.string_agg(DISTINCT m.what, ', ' ORDER BY m.what) AS missing
       FROM (SELECT pg_catalog.regexp_replace(pg_catalog.concat_ws(' ; ', w.condition, w.payload_expr, w.args_expr, w.topic_expr),
                                              '''(?:[^'']|'''')*''|[$][[:alpha:]_]*[$].*?[$][[:alpha:]_]*[$]', '''''', 'g') AS words) e
      CROSS JOIN LATERAL (
        SELECT pg_catalog.format('function %I', f.name) AS what
          FROM (SELECT CASE WHEN pg_catalog.starts_with(x.found[1], '"') THEN pg_catalog.btrim(x.found[1], '"') ELSE pg_catalog.lower(x.found[1]) END AS name
                  FROM pg_catalog.regexp_matches(e.words, '("(?:[^"]|"")+"|[[:<:]][[:alpha:]_][[:alnum:]_$]*)[[:space:]]*[(]', 'g') x(found)) f
         WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_proc p WHERE p.proname::pg_catalog.text OPERATOR(pg_catalog.=) f.name)
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_type p WHERE p.typname::pg_catalog.text OPERATOR(pg_catalog.=) f.name)
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_get_keywords() k WHERE k.word OPERATOR(pg_catalog.=) f.name)
         UNION ALL
        SELECT pg_catalog.format('type %I', f.name)
          FROM (SELECT CASE WHEN pg_catalog.starts_with(x.found[1], '"') THEN pg_catalog.btrim(x.found[1], '"') ELSE pg_catalog.lower(x.found[1]) END AS name
                  FROM pg_catalog.regexp_matches(e.words, '::[[:space:]]*(?:[[:alpha:]_][[:alnum:]_$]*[.])?("(?:[^"]|"")+"|[[:alpha:]_][[:alnum:]_$]*)', 'g') x(found)) f
         WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_type p WHERE p.typname::pg_catalog.text OPERATOR(pg_catalog.=) f.name)
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_get_keywords() k WHERE k.word OPERATOR(pg_catalog.=) f.name)
         UNION ALL
        SELECT pg_catalog.format('operator %s', x.found[1])
          FROM pg_catalog.regexp_matches(e.words, '([-+*/<>=~!@#%^&|`?]+)', 'g') x(found)
         WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_operator p WHERE p.oprname::pg_catalog.text OPERATOR(pg_catalog.=) x.found[1])
           AND x.found[1] OPERATOR(pg_catalog.!~) '^(!=|=>)$|--|/[*]|[*]/') m
      WHERE NOT has_lost AND y.missing IS NULL) z;
END;
COMMENT ON FUNCTION pushy_internal.watch_mend(pushy_internal.watch, oid, boolean) IS
  'Internal: what to do about a watch that has lost a trigger, or come without some of them, behind the view pushy.watches.';

CREATE FUNCTION pushy_internal.watch_state(
  w pushy_internal.watch,
  queue_fix text,
  no_relay text,
  relay_fix text,
  relay_can_come boolean,
  OUT relation oid,
  OUT owner name,
  OUT state text,
  OUT fix text)
RETURNS SETOF record LANGUAGE sql STABLE PARALLEL UNSAFE COST 1 ROWS 1 SET jit = off
BEGIN ATOMIC
  SELECT r.oid,
         CASE WHEN h.is_home
              THEN (SELECT o.rolname FROM pg_catalog.pg_roles o WHERE o.oid OPERATOR(pg_catalog.=) w.owner)
              ELSE w.owner_name END,
         s.state,
         CASE
           WHEN s.state OPERATOR(pg_catalog.=) 'active' THEN NULL
           WHEN s.has_lost OR s.state OPERATOR(pg_catalog.=) 'broken' AND queue_fix IS NULL
             THEN pushy_internal.watch_mend(w, r.oid, s.has_lost)
           WHEN s.state OPERATOR(pg_catalog.=) ANY ('{elsewhere,paused}'::pg_catalog.text[])
             THEN pg_catalog.format('SELECT pushy.watch_resume(%L, %L)', r.oid::pg_catalog.regclass, w.name)
           WHEN s.state OPERATOR(pg_catalog.=) 'broken' THEN queue_fix
           WHEN s.state OPERATOR(pg_catalog.=) 'no_relay' THEN COALESCE(relay_fix, no_relay)
           ELSE t.enable
         END
    FROM (SELECT pushy_internal.is_home(w.home_system, w.home_database, w.home_extension, w.relation) AS is_home OFFSET 0) h
   -- Numbers mean something at home only.
    JOIN pg_catalog.pg_class r
      ON r.oid OPERATOR(pg_catalog.=) CASE WHEN h.is_home THEN w.relation
                                           ELSE pushy_internal.watch_elsewhere(w.watch_id) END
   -- What the arguments of its triggers, and of their copies on partitions, begin with.
   CROSS JOIN LATERAL (
     SELECT (w.token::pg_catalog.text::pg_catalog.bytea OPERATOR(pg_catalog.||) pg_catalog.decode('00', 'hex')) AS args) a
   CROSS JOIN LATERAL (
     SELECT CASE WHEN r.relkind OPERATOR(pg_catalog.=) 'p'::pg_catalog."char"
                 THEN ARRAY(WITH RECURSIVE below(oid) AS (
                              SELECT i.inhrelid FROM pg_catalog.pg_inherits i WHERE i.inhparent OPERATOR(pg_catalog.=) r.oid
                              UNION ALL
                              SELECT i.inhrelid FROM below b JOIN pg_catalog.pg_inherits i ON i.inhparent OPERATOR(pg_catalog.=) b.oid)
                            SELECT b.oid FROM below b)
                 ELSE '{}'::pg_catalog.oid[] END AS below OFFSET 0) b
   -- Its triggers, and those of them, on partitions too, that ALTER TABLE has kept from firing. pg_partition_tree() would wait for
   -- whoever has locked a partition.
   CROSS JOIN LATERAL (
     SELECT pg_catalog.bool_or(f.disabled) AS disabled,
            pg_catalog.string_agg(f.enable, '; ' ORDER BY f.relation) AS enable
       FROM (SELECT g.tgrelid AS relation,
                    pg_catalog.bool_or(g.tgenabled OPERATOR(pg_catalog.=) 'D'::pg_catalog."char" AND g.fires) AS disabled,
                    pg_catalog.format('ALTER TABLE %s ', g.tgrelid::pg_catalog.regclass)
                    OPERATOR(pg_catalog.||)
                    pg_catalog.string_agg(pg_catalog.format('ENABLE TRIGGER %I', g.tgname), ', ' ORDER BY g.tgname)
                      FILTER (WHERE g.tgenabled OPERATOR(pg_catalog.=) ANY ('{D,R}'::pg_catalog."char"[]) AND g.fires) AS enable
               FROM (SELECT k.*,
                            w.expression_trigger IS NULL
                            OR k.oid OPERATOR(pg_catalog.<>) w.expression_trigger
                               AND k.tgparentid OPERATOR(pg_catalog.<>) w.expression_trigger AS fires
                       FROM (SELECT m.oid, m.tgrelid, m.tgname, m.tgenabled, m.tgparentid FROM pg_catalog.pg_trigger m
                              WHERE m.oid OPERATOR(pg_catalog.=) ANY (w.triggers)
                                AND (m.tgrelid OPERATOR(pg_catalog.=) w.relation OR m.tgrelid OPERATOR(pg_catalog.=) ANY (b.below))
                             UNION
                             SELECT m.oid, m.tgrelid, m.tgname, m.tgenabled, m.tgparentid FROM pg_catalog.pg_trigger m
                              WHERE m.tgrelid OPERATOR(pg_catalog.=) ANY (b.below)
                                AND pg_catalog.substring(m.tgargs, 1, pg_catalog.length(a.args)) OPERATOR(pg_catalog.=) a.args
                                AND m.tgparentid OPERATOR(pg_catalog.<>) 0::pg_catalog.oid
                                AND m.tgfoid OPERATOR(pg_catalog.=) 'pushy.watch_row()'::pg_catalog.regprocedure::pg_catalog.oid) k) g
              GROUP BY g.tgrelid) f) t
   CROSS JOIN LATERAL (
     SELECT CASE WHEN NOT h.is_home THEN 'elsewhere'
                 WHEN NOT pushy_internal.watch_is_whole(w.relation, w.triggers, w.fingerprint) THEN 'broken'
                 WHEN queue_fix IS NOT NULL THEN 'broken'
                 WHEN w.paused THEN 'paused'
                 WHEN t.disabled THEN 'disabled'
                 WHEN t.enable IS NOT NULL THEN 'replica'
                 WHEN w.channel IS NOT NULL AND (w.delivery OPERATOR(pg_catalog.=) 'relay' OR w.delivery IS NULL AND relay_can_come)
                      AND no_relay IS NOT NULL THEN 'no_relay'
                 ELSE 'active' END AS state,
            -- It cannot be resumed, because it came without some of its triggers.
            NOT h.is_home
            AND (SELECT pg_catalog.count(*) FROM pg_catalog.pg_trigger k
                  WHERE k.tgrelid OPERATOR(pg_catalog.=) r.oid
                    AND k.tgfoid OPERATOR(pg_catalog.=) ANY (ARRAY['pushy.watch_row()'::pg_catalog.regprocedure::pg_catalog.oid, 'pushy.watch_statement()'::pg_catalog.regprocedure::pg_catalog.oid])
                    AND k.tgparentid OPERATOR(pg_catalog.=) 0::pg_catalog.oid
                    AND pg_catalog.substring(k.tgargs, 1, pg_catalog.length(a.args)) OPERATOR(pg_catalog.=) a.args)
                OPERATOR(pg_catalog.<>) pg_catalog.cardinality(w.triggers) AS has_lost OFFSET 0) s;
END;
COMMENT ON FUNCTION pushy_internal.watch_state(pushy_internal.watch, text, text, text, boolean) IS
  'Internal: the table, the maker''s name, state and fix of a watch, behind the view pushy.watches; no row where its table is gone. It is called for watches that the caller may see, and costs the planner nothing, because one that adds up what each watch of everybody takes compiles (jit) what is done in milliseconds.';

CREATE OR REPLACE VIEW pushy.watches WITH (security_barrier) AS
SELECT u.relation, u.name, u.channel, u.channel_name, u.events, u.columns, u.condition, u.payload, u.payload_expr, u.level, u.delivery, u.queue,
       u.args_expr, u.merge, u.owner, u.state, u.fix, u.notices, u.jobs, u.errors, u.last_fired_at, u.last_error_at, u.topic_expr
  FROM (
  SELECT s.relation::pg_catalog.regclass AS relation,
         -- As in pushy.jobs, CASE keeps equalities behind the filter.
         CASE WHEN c.notices IS NOT NULL THEN w.name END AS name,
         CASE WHEN c.notices IS NOT NULL AND w.channel IS NOT NULL THEN pushy.channel_ident(w.channel) END AS channel,
         CASE WHEN c.notices IS NOT NULL THEN w.channel END AS channel_name,
         w.events,
         w.columns::pg_catalog.text[] AS columns,  -- Drivers know no arrays of names (node-postgres gives a text).
         CASE WHEN c.notices IS NOT NULL THEN w.condition END AS condition,
         CASE WHEN c.notices IS NOT NULL THEN w.payload END AS payload,
         CASE WHEN c.notices IS NOT NULL THEN w.payload_expr END AS payload_expr,
         CASE WHEN c.notices IS NOT NULL THEN w.level END AS level,
         CASE WHEN c.notices IS NOT NULL AND w.channel IS NOT NULL THEN COALESCE(w.delivery, 'relay') END AS delivery,
         CASE WHEN c.notices IS NOT NULL THEN w.queue END AS queue,
         CASE WHEN c.notices IS NOT NULL THEN w.args_expr END AS args_expr,
         w.merge,
         CASE WHEN c.notices IS NOT NULL THEN s.owner END AS owner,
         s.state,
         s.fix COLLATE pg_catalog."C" AS fix,
         c.notices,
         c.jobs,
         c.errors,
         c.last_fired_at,
         c.last_error_at,
         CASE WHEN c.notices IS NOT NULL THEN w.topic_expr END AS topic_expr
    FROM (
     -- Others' watches are left out before anything more is asked of them. OFFSET keeps that in this order.
     SELECT w.*, w AS declared FROM pushy_internal.watch w
      WHERE pushy_internal.watch_visible(w.watch_id, w.home_system, w.home_database, w.home_extension, w.relation, w.owner) OFFSET 0) w
   CROSS JOIN LATERAL pushy_internal.watch_counts(w.watch_id) c
   CROSS JOIN pushy_internal.relay_obstacle() o
   CROSS JOIN LATERAL pushy_internal.watch_state(w.declared, c.fix, o.reason, o.fix, o.can_come) s
   WHERE c.notices IS NOT NULL
  UNION ALL
  SELECT o.relation::pg_catalog.regclass, o.name, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'orphaned',
         pg_catalog.format('SELECT pushy.unwatch(%L, %L)', o.relation::pg_catalog.regclass, o.name),
         NULL, NULL, NULL, NULL, NULL, NULL
    FROM pushy_internal.watch_orphans() o
   WHERE pg_catalog.has_table_privilege(o.relation, 'TRIGGER')) u;

CREATE OR REPLACE VIEW pushy.queues WITH (security_barrier) AS
SELECT q.queue,
       CASE WHEN q.handler OPERATOR(pg_catalog.<>) '' THEN q.handler END AS handler,
       CASE WHEN h.is_home
            THEN (SELECT o.rolname FROM pg_catalog.pg_roles o WHERE o.oid OPERATOR(pg_catalog.=) q.run_as)
            ELSE q.run_as_name END AS run_as,
       CASE WHEN h.is_home
            THEN (SELECT o.rolname FROM pg_catalog.pg_roles o WHERE o.oid OPERATOR(pg_catalog.=) q.owner)
            ELSE q.owner_name END AS owner,
       q.concurrency,
       CASE WHEN q.handler OPERATOR(pg_catalog.<>) '' THEN pushy_internal.queue_running(q.queue_id)
            WHEN pushy_internal.queue_monitored(q.queue_id)
            THEN (SELECT pg_catalog.count(*)::pg_catalog.int4 FROM pushy_internal.lease s WHERE s.queue_id OPERATOR(pg_catalog.=) q.queue_id)
       END AS running,
       q.paused,
       CASE WHEN h.is_home THEN COALESCE(q.parked, pushy_internal.queue_obstacle(q.queue_id))
            ELSE pg_catalog.format('it came here by a restore or a copy and waits for SELECT pushy.queue_resume(%L), or for pushy.resume_after_restore(), which resumes all that came along', q.queue) END AS parked,
       q.priority,
       q.max_attempts,
       q.backoff,
       pg_catalog.justify_hours(q.retry_delay_us     OPERATOR(pg_catalog.*) '1 microsecond'::pg_catalog.interval) AS retry_delay,
       pg_catalog.justify_hours(q.max_retry_delay_us OPERATOR(pg_catalog.*) '1 microsecond'::pg_catalog.interval) AS max_retry_delay,
       pg_catalog.justify_hours(q.timeout_us         OPERATOR(pg_catalog.*) '1 microsecond'::pg_catalog.interval) AS timeout,
       pg_catalog.justify_hours(q.keep_completed_us  OPERATOR(pg_catalog.*) '1 microsecond'::pg_catalog.interval) AS keep_completed,
       pg_catalog.justify_hours(q.keep_discarded_us  OPERATOR(pg_catalog.*) '1 microsecond'::pg_catalog.interval) AS keep_discarded,
       q.batch,
       q.created_at,
       pg_catalog.justify_hours(q.lease_us           OPERATOR(pg_catalog.*) '1 microsecond'::pg_catalog.interval) AS lease
  FROM pushy_internal.queue q
 CROSS JOIN LATERAL (
   SELECT pushy_internal.is_home(q.home_system, q.home_database,
                              (SELECT e.oid FROM pg_catalog.pg_extension e WHERE e.extname OPERATOR(pg_catalog.=) 'pushy'),
                              'pushy_internal.queue'::pg_catalog.regclass::pg_catalog.oid) AS is_home) h
 WHERE pushy_internal.queue_visible(q.queue_id);

CREATE FUNCTION pushy_internal.job_last_error(job_id bigint, queue_id int)
RETURNS text LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_job_last_error_v1';
COMMENT ON FUNCTION pushy_internal.job_last_error(bigint, int) IS
  'Internal: the message of the last failed attempt of a job, behind the view pushy.jobs. NULL for one of a queue that the caller may not monitor.';

CREATE FUNCTION pushy_internal.job_checkpoint_of(job_id bigint, queue_id int)
RETURNS jsonb LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_job_checkpoint_of_v1';
COMMENT ON FUNCTION pushy_internal.job_checkpoint_of(bigint, int) IS
  'Internal: what a job has last said with pushy.job_checkpoint, behind the view pushy.jobs. NULL for one of a queue that the caller may not monitor.';

CREATE OR REPLACE VIEW pushy.jobs WITH (security_barrier) AS
SELECT j.id,
       q.queue,
       j.args,
       CASE WHEN j.queue_id OPERATOR(pg_catalog.<>) q.queue_id THEN NULL
            WHEN j.state OPERATOR(pg_catalog.=) 'c'::pg_catalog."char" THEN 'completed'
            WHEN j.state OPERATOR(pg_catalog.=) 'd'::pg_catalog."char" THEN 'discarded'
            WHEN j.state OPERATOR(pg_catalog.=) 'k'::pg_catalog."char" THEN 'cancelled'
            WHEN r.job_id IS NOT NULL                                  THEN 'running'
            WHEN j.state OPERATOR(pg_catalog.=) 'x'::pg_catalog."char" THEN 'running'
            WHEN j.state OPERATOR(pg_catalog.=) 's'::pg_catalog."char" THEN 'scheduled'
            WHEN j.state OPERATOR(pg_catalog.=) 'r'::pg_catalog."char" THEN 'retryable'
            ELSE 'available'
       END AS state,
       j.priority::pg_catalog.int4 AS priority,
       COALESCE(r.attempt, j.leased_attempt, j.attempt) AS attempt,
       COALESCE(j.max_attempts, q.max_attempts) AS max_attempts,
       j.run_at,
       j.enqueued_at,
       -- Of a role that is gone the server says 'unknown (OID=...)', which another role may be called.
       CASE WHEN j.queue_id OPERATOR(pg_catalog.=) q.queue_id
                 AND pg_catalog.pg_get_userbyid(j.enqueued_by)
                 OPERATOR(pg_catalog.<>) pg_catalog.format('unknown (OID=%s)', j.enqueued_by)::pg_catalog.name
            THEN pg_catalog.pg_get_userbyid(j.enqueued_by) END AS enqueued_by,
       CASE WHEN j.queue_id OPERATOR(pg_catalog.=) q.queue_id THEN j.unique_key END AS unique_key,
       j.caused_by,
       j.depth::pg_catalog.int4 AS depth,
       COALESCE(r.started_at, j.started_at) AS started_at,
       j.finished_at,
       j.result,
       pushy_internal.job_last_error(j.id, q.queue_id) AS last_error,
       COALESCE(r.progress, j.progress) AS progress,
       COALESCE(r.progress_message, CASE WHEN j.queue_id OPERATOR(pg_catalog.=) q.queue_id THEN j.progress_message END) AS progress_message,
       pg_catalog.justify_hours(COALESCE(j.timeout_us, q.timeout_us)
                                OPERATOR(pg_catalog.*) '1 microsecond'::pg_catalog.interval) AS timeout,
       j.expires_at,
       pushy_internal.job_checkpoint_of(j.id, q.queue_id) AS checkpoint
  FROM (SELECT l.id, l.queue_id, l.state, l.priority, l.attempt, l.max_attempts, l.run_at, l.enqueued_at, l.enqueued_by,
               l.unique_key, l.caused_by, l.depth, l.timeout_us, l.args,
               s.leased_at AS started_at, NULL::pg_catalog.timestamptz AS finished_at,
               NULL::pg_catalog.jsonb AS result, NULL::pg_catalog.timestamptz AS expires_at,
               CASE WHEN s.job_id IS NOT NULL THEN l.attempt OPERATOR(pg_catalog.+) 1 END AS leased_attempt,
               s.fraction::pg_catalog.text::pg_catalog.float8 AS progress, s.message AS progress_message
          FROM pushy_internal.live_job l
          LEFT JOIN pushy_internal.lease s ON s.job_id OPERATOR(pg_catalog.=) l.id
        UNION ALL
        SELECT d.id, d.queue_id, d.state, d.priority, d.attempt, d.max_attempts, d.run_at, d.enqueued_at, d.enqueued_by,
               d.unique_key, d.caused_by, d.depth, d.timeout_us, d.args, d.started_at, d.finished_at, d.result, d.expires_at,
               NULL::pg_catalog.int4, NULL::pg_catalog.float8, NULL::pg_catalog.text
          FROM pushy_internal.finished_job d) j
  JOIN pushy_internal.queue q ON q.queue_id OPERATOR(pg_catalog.=) j.queue_id
  LEFT JOIN pushy_internal.running_jobs() r ON r.job_id OPERATOR(pg_catalog.=) j.id
 WHERE pushy_internal.queue_monitored(q.queue_id);

CREATE OR REPLACE VIEW pushy.stats WITH (security_barrier) AS
SELECT u.queue, u.running, u.enqueued, u.completed, u.failed, u.retried, u.discarded, u.cancelled, u.given_back, u.run_again, u.parked, u.batches, u.rate_1m,
       u.wait_p50, u.wait_p95, u.wait_p99, u.run_mean, u.run_p50, u.run_p95, u.run_p99, u.log_bytes, u.log_oldest, u.snoozed
  FROM (SELECT q.queue,
               CASE WHEN q.handler OPERATOR(pg_catalog.<>) '' THEN s.running
                    ELSE (SELECT pg_catalog.count(*)::pg_catalog.int4 FROM pushy_internal.lease l WHERE l.queue_id OPERATOR(pg_catalog.=) q.queue_id)
               END AS running,
               s.enqueued, s.completed, s.failed, s.retried, s.discarded, s.cancelled, s.given_back, s.run_again, s.parked, s.batches, s.rate_1m,
               s.wait_p50, s.wait_p95, s.wait_p99, s.run_mean, s.run_p50, s.run_p95, s.run_p99,
               NULL::pg_catalog.int8 AS log_bytes, NULL::pg_catalog.text AS log_oldest, s.snoozed
          FROM pushy_internal.queue q
         CROSS JOIN LATERAL pushy_internal.queue_statistics(q.queue_id) s
        -- A query for one queue does not look at the log: no name is equal to NULL, as the planner sees.
        UNION ALL
        SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, l.bytes, l.oldest, NULL
          FROM pushy_internal.log_bounds() l) u;

CREATE VIEW pushy.leases WITH (security_barrier) AS
SELECT s.job_id,
       q.queue,
       CASE WHEN s.queue_id OPERATOR(pg_catalog.=) q.queue_id THEN s.worker END AS worker,
       CASE WHEN s.queue_id OPERATOR(pg_catalog.=) q.queue_id
                 AND pg_catalog.pg_get_userbyid(s.claimed_by)
                 OPERATOR(pg_catalog.<>) pg_catalog.format('unknown (OID=%s)', s.claimed_by)::pg_catalog.name
            THEN pg_catalog.pg_get_userbyid(s.claimed_by) END AS claimed_by,
       s.leased_at,
       s.until,
       s.until OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp() AS over,
       s.fraction::pg_catalog.text::pg_catalog.float8 AS progress,
       CASE WHEN s.queue_id OPERATOR(pg_catalog.=) q.queue_id THEN s.message END AS progress_message
  FROM pushy_internal.lease s
  JOIN pushy_internal.queue q ON q.queue_id OPERATOR(pg_catalog.=) s.queue_id
 WHERE pushy_internal.queue_monitored(q.queue_id);
COMMENT ON VIEW pushy.leases IS
  'Jobs that workers outside have claimed, and procedures that run, of queues that you may monitor. The tokens are their workers'' alone.';
COMMENT ON COLUMN pushy.leases.job_id IS 'The job.';
COMMENT ON COLUMN pushy.leases.queue IS 'The queue of the job.';
COMMENT ON COLUMN pushy.leases.worker IS 'The name that the worker gave to pushy.job_claim; NULL where it gave none, and for a procedure in the server.';
COMMENT ON COLUMN pushy.leases.claimed_by IS 'The role that claimed it; NULL when that was dropped.';
COMMENT ON COLUMN pushy.leases.leased_at IS 'When it was claimed.';
COMMENT ON COLUMN pushy.leases.until IS 'When the lease ends, unless it is extended; infinity: with the session, or the executor, that has claimed it.';
COMMENT ON COLUMN pushy.leases.over IS 'Whether the lease is over, and the job is about to be taken back.';
COMMENT ON COLUMN pushy.leases.progress IS 'From 0 to 1, as the worker outside last said with pushy.job_extend; of a procedure see pushy.jobs.';
COMMENT ON COLUMN pushy.leases.progress_message IS 'What the worker said with it.';

COMMENT ON COLUMN pushy.workers.state IS 'What the process does. An executor is starting, busy, idle (waiting for the next job) or stopping; a scheduler and a relay are busy or idle. The launcher is on or off, as it has last read pushy.enabled: off, it starts nobody.';

CREATE VIEW pushy.job_logs WITH (security_barrier) AS
SELECT l.job_id,
       q.queue,
       l.attempt,
       l.line,
       l.said_at,
       CASE WHEN l.queue_id OPERATOR(pg_catalog.=) q.queue_id THEN l.level END AS level,
       CASE WHEN l.queue_id OPERATOR(pg_catalog.=) q.queue_id THEN l.message END AS message
  FROM pushy_internal.job_log l
  JOIN pushy_internal.queue q ON q.queue_id OPERATOR(pg_catalog.=) l.queue_id
 WHERE pushy_internal.queue_monitored(q.queue_id);
COMMENT ON VIEW pushy.job_logs IS
  'What handlers and workers outside have said with pushy.job_log, of jobs of the queues that you may monitor, for as long as the job is kept.';
COMMENT ON COLUMN pushy.job_logs.job_id IS 'The id in pushy.jobs.';
COMMENT ON COLUMN pushy.job_logs.queue IS 'The queue of the job.';
COMMENT ON COLUMN pushy.job_logs.attempt IS 'The attempt that said it; the first is 1.';
COMMENT ON COLUMN pushy.job_logs.line IS 'The order in which it was said, from 1; of a job the last 1,000 lines are kept.';
COMMENT ON COLUMN pushy.job_logs.said_at IS 'When it was said.';
COMMENT ON COLUMN pushy.job_logs.level IS 'debug, info, warning or error.';
COMMENT ON COLUMN pushy.job_logs.message IS 'What was said.';

-- Words that changed
COMMENT ON FUNCTION pushy.queue_grant(text, text, text) IS
  'Gives a role a privilege on a queue: enqueue (add jobs), work (cancel and retry them), claim (do them from outside) or monitor (see their arguments, results and errors). role is an exact name, or public for everybody. For the queue''s owner, who has all four.';
COMMENT ON VIEW pushy.queues IS
  'Queues on which you have a privilege, and how their jobs run. An interval of 0 is none, but a lease of 0 lasts until the session ends; lengths of time are kept as they were counted, a month as 30 days and a year as 12 months.';
COMMENT ON FUNCTION pushy.channel_grant(text, text, text, text) IS
  'Lets a role read a channel, by subscriptions and pushy.notice, and closes the channel to all who are not granted it. channel is written as after LISTEN, role is an exact name or ''public'', and topics, patterns with commas between them (post/*, user/7/**), lets it read only what has such a topic. Who grants a channel first owns it, which any role that may use Pushy can do unless another role''s watch publishes on it or another role''s subscription names it; names that begin with pushy_ are Pushy''s own. What was written before the grant is not read, and LISTEN, which asks for no privilege, still hears everything.';
COMMENT ON COLUMN pushy.channel_grants.topics IS 'The patterns of topics that may be read, with commas between them; {sub} stands for whom the gateway has let in, and for no role. NULL: all topics, and what has none.';
COMMENT ON FUNCTION pushy.has_queue_privilege(text, text) IS
  'Whether the current user has privilege enqueue, work, monitor or claim on a queue: as its owner, by a grant to a role whose rights it has, or to public.';
COMMENT ON FUNCTION pushy.has_queue_privilege(text, text, text) IS
  'Whether a role, by its exact name, or public, which is everybody, has privilege enqueue, work, monitor or claim on a queue.';
COMMENT ON COLUMN pushy.watches.payload_expr IS 'The payload of notices, not of jobs, as SQL over NEW and OLD, as it was written or, since a column was renamed, as the server writes it.';
COMMENT ON COLUMN pushy.watches.args_expr IS 'The arguments of jobs as SQL over NEW and OLD, as it was written or, since a column was renamed, as the server writes it; NULL: the payload. With a payload_expr, which is for notices only, that is the payload of key.';
COMMENT ON COLUMN pushy.watches.topic_expr IS 'The topic of a notice as SQL over NEW and OLD, as it was written or, since a column was renamed, as the server writes it; NULL: notices have none.';
COMMENT ON COLUMN pushy.subscriptions.lag_notices IS 'Notices behind the cursor that the subscription is to read; of equal ones with merge, of which it reads the last, each counts. One look at the view reads 100,000 notices of the log at most; past that whole ticks count, of which the subscription may want a part. NULL, as the two that follow, where its owner may not read its channels, unless you read all statistics.';
COMMENT ON COLUMN pushy.subscriptions.topics IS 'The patterns of topics that it reads; NULL: all, and what has no topic.';
COMMENT ON COLUMN pushy.queues.handler IS 'The function that does the work of one job; NULL where workers outside do it.';
COMMENT ON COLUMN pushy.queues.concurrency IS 'Executors, or leased jobs, at a time; NULL: no limit of its own.';
COMMENT ON COLUMN pushy.queues.running IS 'Executors that work on the queue now, or jobs that workers outside have leased; NULL where you may not monitor it, and without the preload.';
COMMENT ON COLUMN pushy.queues.lease IS 'How long a worker outside has a job where its claim says nothing else; 0: until its session ends.';
COMMENT ON COLUMN pushy.jobs.progress IS 'From 0 to 1, as the handler last said with pushy.job_progress, or a worker outside with pushy.job_extend.';
COMMENT ON COLUMN pushy.jobs.progress_message IS 'What was said with it.';
COMMENT ON COLUMN pushy.jobs.checkpoint IS 'What a job that is not completed has last said with pushy.job_checkpoint.';
COMMENT ON COLUMN pushy.queue_grants.privilege IS 'enqueue, work, monitor or claim.';
COMMENT ON COLUMN pushy.stats.running IS 'Executors that work on the queue now, or jobs that workers outside have leased.';
COMMENT ON COLUMN pushy.workers.kind IS 'launcher, scheduler, executor, relay or gateway.';
COMMENT ON COLUMN pushy.stats.snoozed IS 'Attempts whose handlers have put their jobs off with pushy.job_snooze: not charged.';

-- The gateway, as gateway.sql has it.
ALTER TABLE pushy_internal.channel_acl ADD COLUMN granted_cursor text;

-- Keys of tokens. Not dumped, because there are secrets in it: whoever restores registers them again.
CREATE TABLE pushy_internal.gateway_key (
  name          text        NOT NULL,
  algorithm     text        NOT NULL CHECK (algorithm OPERATOR(pg_catalog.=) ANY (ARRAY['HS256', 'RS256', 'ES256', 'EdDSA', 'JWKS'])),
  material      text        NOT NULL,   -- the secret, a public key in PEM, or a JWKS document
  kid           text,
  issuer        text,
  audience      text,
  role_claim    text,                   -- the claim that names the role
  role          oid,                    -- of a token that names none
  registered_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  PRIMARY KEY (name)
) USING heap;
COMMENT ON TABLE pushy_internal.gateway_key IS 'Keys of tokens that the gateway takes, secrets among them; see pushy.gateway_key_register.';

-- Unlogged: after a crash there is none, so none works twice, though the commit that has redeemed it was not flushed yet.
CREATE UNLOGGED TABLE pushy_internal.ticket (
  hash       bytea       NOT NULL,   -- of the ticket, which nobody but its holder knows
  role       oid         NOT NULL,
  subject    text,
  channels   text[]      NOT NULL,   -- exact names
  topics     text,                   -- patterns, with commas between them; NULL: what the role may hear
  expires_at timestamptz NOT NULL,
  PRIMARY KEY (hash)
) USING heap WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);
COMMENT ON TABLE pushy_internal.ticket IS 'Tickets that were not redeemed yet; see pushy.ticket_create.';
CREATE INDEX ticket_end ON pushy_internal.ticket (expires_at);
COMMENT ON INDEX pushy_internal.ticket_end IS 'Tickets whose time is over.';
CREATE INDEX ticket_role ON pushy_internal.ticket (role);
COMMENT ON INDEX pushy_internal.ticket_role IS 'How many a role has made.';

-- One row for each gateway, which writes it while something changes.
CREATE UNLOGGED TABLE pushy_internal.gateway_report (
  pid         int         NOT NULL,   -- its session, or the worker that has started it
  started     timestamptz NOT NULL,   -- that session: another one may get its number
  address     text,                   -- NULL: started by the server
  reported_at timestamptz NOT NULL,
  sockets     jsonb       NOT NULL,   -- as many as a report has room for
  rooms       jsonb       NOT NULL,
  open        jsonb       NOT NULL,   -- how many sockets there are, by transport
  room_count  bigint      NOT NULL,
  PRIMARY KEY (pid)
) USING heap WITH (fillfactor = 50);
COMMENT ON TABLE pushy_internal.gateway_report IS 'What gateways have last said of their sockets; see the view pushy.sockets.';


CREATE FUNCTION pushy.gateway_key_register(
  name text,
  secret text DEFAULT NULL,
  public_key text DEFAULT NULL,
  jwks text DEFAULT NULL,
  kid text DEFAULT NULL,
  issuer text DEFAULT NULL,
  audience text DEFAULT NULL,
  role_claim text DEFAULT NULL,
  role text DEFAULT NULL)
RETURNS text LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_gateway_key_register_v1';
COMMENT ON FUNCTION pushy.gateway_key_register(text, text, text, text, text, text, text, text, text) IS
  'Declares a key of tokens that the gateway takes: a secret (HS256), a public key in PEM (RS256, ES256 or EdDSA, as it is), or a JWKS document of public keys. Where none is given a new key gets a secret that is answered this once, and one that is there keeps its own, so that no statement has a secret in it. A token is for the role that its claim role_claim names, or else for role. Superusers may, and whoever they have granted EXECUTE, for roles that they are a member of.';

CREATE FUNCTION pushy.gateway_key_drop(name text)
RETURNS boolean LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_gateway_key_drop_v1';
COMMENT ON FUNCTION pushy.gateway_key_drop(text) IS
  'Takes a key of tokens away and closes the sockets that came by it; answers whether there was one.';

CREATE FUNCTION pushy.ticket_create(
  channels text[],
  topics text DEFAULT NULL,
  subject text DEFAULT NULL,
  valid interval DEFAULT '1 minute')
RETURNS text LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_ticket_create_v1';
COMMENT ON FUNCTION pushy.ticket_create(text[], text, text, interval) IS
  'Answers a ticket that lets one connection of the gateway read these channels, written as after LISTEN, as the current user. It works once, within the time of valid, 1 day at most. topics, patterns with commas between them, narrows what it is for, and subject is whom {sub} in grants stands for: the current user is believed about that. It counts from the commit on.';

CREATE FUNCTION pushy.socket_close(
  subject text DEFAULT NULL,
  channel text DEFAULT NULL,
  topic text DEFAULT NULL,
  reason text DEFAULT NULL)
RETURNS int LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_socket_close_v1';
COMMENT ON FUNCTION pushy.socket_close(text, text, text, text) IS
  'Has every gateway close the sockets of a subject, or of a channel (written as after LISTEN) and topic, when this transaction commits. Answers how many there were when the gateways last reported. For superusers, and whoever they have granted EXECUTE.';

CREATE FUNCTION pushy.presence(channel text, topic text, OUT subject text)
RETURNS SETOF text LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'pushy_presence_v1';
COMMENT ON FUNCTION pushy.presence(text, text) IS
  'Who is present in a topic of a channel, as its gateways have last reported: subjects of sockets that have asked for presence. For who may read the topic.';

CREATE FUNCTION pushy.gateway_explain(OUT reason text, OUT fix text)
RETURNS SETOF record LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 2 AS 'MODULE_PATHNAME', 'pushy_gateway_explain_v1';
COMMENT ON FUNCTION pushy.gateway_explain() IS
  'In words why nobody can connect to a gateway of this database and hear something, and what changes it.';

CREATE FUNCTION pushy.gateway_grant(role text)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_gateway_grant_v1';
COMMENT ON FUNCTION pushy.gateway_grant(text) IS
  'Lets a role be the gateway''s, outside the server: it may run the functions of a gateway, and so read every channel and the keys of tokens. It needs no more, not even USAGE on schema pushy. For superusers.';

CREATE FUNCTION pushy.gateway_revoke(role text)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_gateway_revoke_v1';
COMMENT ON FUNCTION pushy.gateway_revoke(text) IS
  'Takes back what pushy.gateway_grant gave. For superusers.';


CREATE FUNCTION pushy_internal.gateway_authorize(
  role text,
  subject text,
  INOUT channel text,
  topics text[],
  OUT allowed boolean,
  OUT reason text,
  OUT since text)
RETURNS record LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_gateway_authorize_v1';
COMMENT ON FUNCTION pushy_internal.gateway_authorize(text, text, text, text[]) IS
  'Internal: whether a role may hear these topics of a channel for a subject (no topics: all of the channel), and if not why. channel comes back as notices have it; nothing before the cursor since may be read. For a gateway.';

CREATE FUNCTION pushy_internal.gateway_redeem(ticket text, OUT role text, OUT subject text, OUT channels text[], OUT topics text)
RETURNS SETOF record LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1 AS 'MODULE_PATHNAME', 'pushy_gateway_redeem_v1';
COMMENT ON FUNCTION pushy_internal.gateway_redeem(text) IS
  'Internal: what a ticket was for, once; no row where there is none such, or its time is over. For a gateway.';

CREATE FUNCTION pushy_internal.gateway_keys(
  OUT name text,
  OUT algorithm text,
  OUT material text,
  OUT kid text,
  OUT issuer text,
  OUT audience text,
  OUT role_claim text,
  OUT role text)
RETURNS SETOF record LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'pushy_gateway_keys_v1';
COMMENT ON FUNCTION pushy_internal.gateway_keys() IS
  'Internal: the keys of tokens, with their secrets. For a gateway.';

CREATE FUNCTION pushy_internal.gateway_report(sockets text, rooms text, in_all text)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_gateway_report_v1';
COMMENT ON FUNCTION pushy_internal.gateway_report(text, text, text) IS
  'Internal: takes in what a gateway says of its sockets and rooms, and how many there are in all, as JSON, in place of what it said before. A row that is none is left out. For a gateway.';

CREATE FUNCTION pushy_internal.gateway_position()
RETURNS text LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_gateway_position_v1';
COMMENT ON FUNCTION pushy_internal.gateway_position() IS
  'Internal: what pushy.log_position answers. For a gateway, which needs no USAGE on schema pushy.';


CREATE FUNCTION pushy_internal.socket_rows(
  OUT gateway text,
  OUT id bigint,
  OUT subject text,
  OUT role text,
  OUT address text,
  OUT transport text,
  OUT since timestamptz,
  OUT channels text[],
  OUT topics text[],
  OUT sent bigint,
  OUT buffered_notices bigint,
  OUT buffered_bytes bigint,
  OUT lag interval,
  OUT reported_at timestamptz,
  OUT subscriptions bigint)
RETURNS SETOF record LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 100 AS 'MODULE_PATHNAME', 'pushy_socket_rows_v1';
COMMENT ON FUNCTION pushy_internal.socket_rows() IS
  'Sockets of roles that the caller is a member of, all of them for pg_read_all_stats; behind pushy.sockets.';

CREATE VIEW pushy.sockets WITH (security_barrier) AS
SELECT s.gateway, s.id, s.subject, s.role, s.address, s.transport, s.since, s.channels, s.topics, s.sent, s.buffered_notices, s.buffered_bytes, s.lag, s.reported_at, s.subscriptions
  FROM pushy_internal.socket_rows() s;
COMMENT ON VIEW pushy.sockets IS
  'Who is connected to the gateways of this database as a role that you are a member of, as they have last reported; all of them for pg_read_all_stats. A gateway with several thousands shows the first of them; pushy.metrics() counts them all.';
COMMENT ON COLUMN pushy.sockets.gateway IS 'Which gateway: the address that its session comes from, and its process; inside where the server has started it.';
COMMENT ON COLUMN pushy.sockets.id IS 'The number of the connection in its gateway.';
COMMENT ON COLUMN pushy.sockets.subject IS 'Whom the token or ticket was for; NULL: nobody by name, or not known yet.';
COMMENT ON COLUMN pushy.sockets.role IS 'The role whose grants count.';
COMMENT ON COLUMN pushy.sockets.address IS 'Where the client comes from, as the gateway sees it.';
COMMENT ON COLUMN pushy.sockets.transport IS 'How: sse (Server-Sent Events), websocket or poll (a long poll).';
COMMENT ON COLUMN pushy.sockets.since IS 'Since when it has been connected.';
COMMENT ON COLUMN pushy.sockets.channels IS 'The channels of its first 20 subscriptions, by name.';
COMMENT ON COLUMN pushy.sockets.topics IS 'The patterns of each of these subscriptions, with commas between them; empty: all topics. Where there is no room for more, an ellipsis.';
COMMENT ON COLUMN pushy.sockets.sent IS 'Messages that it was sent.';
COMMENT ON COLUMN pushy.sockets.buffered_notices IS 'Messages that wait for it.';
COMMENT ON COLUMN pushy.sockets.buffered_bytes IS 'Bytes of these.';
COMMENT ON COLUMN pushy.sockets.lag IS 'How long the first of these has been waiting.';
COMMENT ON COLUMN pushy.sockets.reported_at IS 'When its gateway said so.';
COMMENT ON COLUMN pushy.sockets.subscriptions IS 'How many subscriptions it has.';

CREATE FUNCTION pushy_internal.socket_counts(OUT transport text, OUT sockets bigint)
RETURNS SETOF record LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 3 AS 'MODULE_PATHNAME', 'pushy_socket_counts_v1';
COMMENT ON FUNCTION pushy_internal.socket_counts() IS
  'Internal: how many sockets there are, by transport. They are of all roles for pg_read_all_stats, else of those that the caller is a member of and that pushy.sockets shows; behind pushy.metrics.';


-- Behind pushy.metrics, too.
CREATE FUNCTION pushy_internal.queue_histograms(queue_id int, OUT of text, OUT up_to double precision, OUT jobs bigint, OUT seconds double precision)
RETURNS SETOF record LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 46 AS 'MODULE_PATHNAME', 'pushy_queue_histograms_v1';
COMMENT ON FUNCTION pushy_internal.queue_histograms(int) IS
  'Internal: how many jobs of a queue have waited (of: wait), and run (run), for up to so many seconds. Buckets are from 64 microseconds on in powers of two, and then without end; seconds is the sum of all, of runs. No row for a queue that the caller may not monitor; from shared memory, behind pushy.metrics.';

CREATE FUNCTION pushy_internal.queue_oldest_ready(queue_id int)
RETURNS double precision LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_queue_oldest_ready_v1';
COMMENT ON FUNCTION pushy_internal.queue_oldest_ready(int) IS
  'Internal: for how many seconds the first ready job of a queue has been due, of each priority, the longest; 0 if none waits. It looks at one job of each priority where shared memory says that one waits; behind pushy.metrics. NULL for a queue that the caller may not monitor.';

CREATE FUNCTION pushy_internal.log_histogram(OUT up_to double precision, OUT ticks bigint)
RETURNS SETOF record LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 23 AS 'MODULE_PATHNAME', 'pushy_log_histogram_v1';
COMMENT ON FUNCTION pushy_internal.log_histogram() IS
  'Internal: how many ticks of the event log came within so many seconds of the first commit that they have. Buckets are from 64 microseconds on in powers of two, and then without end; from shared memory, behind pushy.metrics.';

-- Of what can be seen of queues by the caller, from shared memory but for the jobs that workers outside have leased, and one ready job of each priority.
CREATE VIEW pushy_internal.metric_rows WITH (security_barrier) AS
SELECT m.name, m.help, m.kind, CASE WHEN s.queue IS NULL THEN '{}'::pg_catalog.jsonb ELSE pg_catalog.jsonb_build_object('queue', s.queue) END AS labels, m.value, m.name AS family, 0::pg_catalog.float8 AS place
  FROM pushy.stats s
 CROSS JOIN LATERAL (VALUES
   (1, 'pushy_queue_running', 'Jobs that run, or are leased', 'gauge', s.running::pg_catalog.float8),
   (2, 'pushy_queue_enqueued_total', 'Jobs that were enqueued', 'counter', s.enqueued::pg_catalog.float8),
   (3, 'pushy_queue_completed_total', 'Jobs that have completed', 'counter', s.completed::pg_catalog.float8),
   (4, 'pushy_queue_failed_total', 'Attempts that failed', 'counter', s.failed::pg_catalog.float8),
   (5, 'pushy_queue_retried_total', 'Attempts that were put off for another one', 'counter', s.retried::pg_catalog.float8),
   (6, 'pushy_queue_discarded_total', 'Jobs that were discarded', 'counter', s.discarded::pg_catalog.float8),
   (7, 'pushy_queue_cancelled_total', 'Jobs that were cancelled', 'counter', s.cancelled::pg_catalog.float8),
   (8, 'pushy_queue_given_back_total', 'Attempts that were given back uncharged', 'counter', s.given_back::pg_catalog.float8),
   (9, 'pushy_queue_parked_total', 'Times that the queue was parked', 'counter', s.parked::pg_catalog.float8),
   (10, 'pushy_log_bytes', 'Bytes of the event log on disk', 'gauge', s.log_bytes::pg_catalog.float8)) m (n, name, help, kind, value)
 WHERE m.value IS NOT NULL
UNION ALL
SELECT 'pushy_workers', 'Background workers', 'gauge',
       pg_catalog.jsonb_build_object('kind', w.kind, 'state', w.state), pg_catalog.count(*)::pg_catalog.float8, 'pushy_workers', 0
  FROM pushy.workers w GROUP BY w.kind, w.state
UNION ALL
SELECT 'pushy_sockets', 'Connections to gateways', 'gauge',
       pg_catalog.jsonb_build_object('transport', s.transport), s.sockets::pg_catalog.float8, 'pushy_sockets', 0
  FROM pushy_internal.socket_counts() s
UNION ALL
SELECT 'pushy_queue_oldest_ready_seconds', 'For how long the oldest ready job has been due', 'gauge',
       pg_catalog.jsonb_build_object('queue', q.queue), o.age, 'pushy_queue_oldest_ready_seconds', 0
  FROM pushy_internal.queue q CROSS JOIN LATERAL (VALUES (pushy_internal.queue_oldest_ready(q.queue_id))) o (age)
 WHERE o.age IS NOT NULL
UNION ALL
SELECT n.name, CASE WHEN h.of OPERATOR(pg_catalog.=) 'wait' THEN 'From due to start, of completed jobs' ELSE 'How long handlers of completed jobs have run' END, 'histogram',
       pg_catalog.jsonb_build_object('queue', q.queue) OPERATOR(pg_catalog.||) n.le, n.value,
       pg_catalog.format('pushy_queue_%s_seconds', h.of), n.place
  FROM pushy_internal.queue q
 CROSS JOIN LATERAL pushy_internal.queue_histograms(q.queue_id) h
 CROSS JOIN LATERAL (VALUES
   (pg_catalog.format('pushy_queue_%s_seconds_bucket', h.of), h.jobs::pg_catalog.float8, h.up_to,
    pg_catalog.jsonb_build_object('le', CASE WHEN h.up_to OPERATOR(pg_catalog.=) 'Infinity'::pg_catalog.float8 THEN '+Inf' ELSE h.up_to::pg_catalog.numeric::pg_catalog.text END)),
   (pg_catalog.format('pushy_queue_%s_seconds_count', h.of), CASE WHEN h.up_to OPERATOR(pg_catalog.=) 'Infinity'::pg_catalog.float8 THEN h.jobs::pg_catalog.float8 END, 'Infinity', '{}'::pg_catalog.jsonb),
   (pg_catalog.format('pushy_queue_%s_seconds_sum', h.of), h.seconds, 'NaN', '{}'::pg_catalog.jsonb)) n (name, value, place, le)
 WHERE n.value IS NOT NULL
UNION ALL
SELECT n.name, 'From the first word of a commit to the tick of the event log that has it', 'histogram', n.le, h.ticks::pg_catalog.float8,
       'pushy_log_tick_seconds', n.place
  FROM pushy_internal.log_histogram() h
 CROSS JOIN LATERAL (VALUES
   ('pushy_log_tick_seconds_bucket', h.up_to,
    pg_catalog.jsonb_build_object('le', CASE WHEN h.up_to OPERATOR(pg_catalog.=) 'Infinity'::pg_catalog.float8 THEN '+Inf' ELSE h.up_to::pg_catalog.numeric::pg_catalog.text END)),
   ('pushy_log_tick_seconds_count', CASE WHEN h.up_to OPERATOR(pg_catalog.=) 'Infinity'::pg_catalog.float8 THEN h.up_to END, '{}'::pg_catalog.jsonb)) n (name, place, le)
 WHERE n.place IS NOT NULL;
COMMENT ON VIEW pushy_internal.metric_rows IS
  'What pushy.metrics answers, with what its rows are ordered by.';
COMMENT ON COLUMN pushy_internal.metric_rows.name IS 'The metric, as Prometheus names it.';
COMMENT ON COLUMN pushy_internal.metric_rows.help IS 'What it counts.';
COMMENT ON COLUMN pushy_internal.metric_rows.kind IS 'counter, gauge or histogram.';
COMMENT ON COLUMN pushy_internal.metric_rows.labels IS 'What it is of.';
COMMENT ON COLUMN pushy_internal.metric_rows.value IS 'The number.';
COMMENT ON COLUMN pushy_internal.metric_rows.family IS 'The metric that rows of a histogram belong to.';
COMMENT ON COLUMN pushy_internal.metric_rows.place IS 'Where in its family and labels the row stands: the upper end of a bucket.';

CREATE FUNCTION pushy.metrics(OUT name text, OUT help text, OUT kind text, OUT labels jsonb, OUT value double precision)
RETURNS SETOF record LANGUAGE sql VOLATILE PARALLEL UNSAFE ROWS 1000 SET search_path = pg_catalog, pg_temp
-- Read when it is made: who calls it may not look into pushy_internal.
BEGIN ATOMIC
  SELECT a.name, a.help, a.kind, a.labels, a.value FROM pushy_internal.metric_rows a
   ORDER BY a.family, a.labels OPERATOR(pg_catalog.-) 'le', a.place, a.name;
END;
COMMENT ON FUNCTION pushy.metrics() IS
  'What a monitor counts, in rows as Prometheus has them. They are of queues that the caller may monitor, with histograms of waits and runs and the age of the oldest ready job, of workers, the event log and sockets. The gateway''s /metrics has the same beside its own counters.';

CREATE FUNCTION pushy_internal.gateway_metrics(OUT name text, OUT help text, OUT kind text, OUT labels jsonb, OUT value double precision)
RETURNS SETOF record LANGUAGE sql VOLATILE SECURITY DEFINER PARALLEL UNSAFE ROWS 100 SET search_path = pg_catalog, pg_temp AS $$
  SELECT m.name, m.help, m.kind, m.labels, m.value FROM pushy.metrics() m
$$;
COMMENT ON FUNCTION pushy_internal.gateway_metrics() IS
  'Internal: pushy.metrics() of the whole database. For a gateway.';

-- What keeps writers out of these tables, as write_guard.sql has it.
DO $$
DECLARE
  name pg_catalog.text;
BEGIN
  FOREACH name IN ARRAY ARRAY['pushy_internal.gateway_key', 'pushy_internal.ticket', 'pushy_internal.gateway_report'] LOOP
    EXECUTE pg_catalog.format(
      'CREATE TRIGGER refuse_write BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %1$s '
      'FOR EACH STATEMENT EXECUTE FUNCTION pushy_internal.refuse_write(); '
      'ALTER TABLE %1$s ENABLE ALWAYS TRIGGER refuse_write; '
      'COMMENT ON TRIGGER refuse_write ON %1$s IS ''Keeps out everybody but the owner, whatever privileges they have.''; '
      'CREATE TRIGGER refuse_applied AFTER INSERT OR UPDATE OR DELETE ON %1$s '
      'FOR EACH ROW WHEN (pushy_internal.is_apply_worker()) EXECUTE FUNCTION pushy_internal.refuse_write(); '
      'ALTER TABLE %1$s ENABLE ALWAYS TRIGGER refuse_applied; '
      'COMMENT ON TRIGGER refuse_applied ON %1$s IS ''Keeps out rows that logical replication brings by a subscription of anybody but the owner.''', name);
  END LOOP;
END
$$;

-- The new objects belong to whom the others belong to, whoever runs this. What default privileges gave to others is taken back;
-- then they are given as grants.sql has it.
DO $$
DECLARE
  owner pg_catalog.text := (SELECT c.relowner::pg_catalog.regrole::pg_catalog.text FROM pg_catalog.pg_class c
                             WHERE c.oid OPERATOR(pg_catalog.=) 'pushy_internal.queue'::pg_catalog.regclass::pg_catalog.oid);
  made pg_catalog.record;
  other pg_catalog.text;
BEGIN
  FOR made IN
    SELECT CASE WHEN c.relkind OPERATOR(pg_catalog.=) 'v'::pg_catalog."char" THEN 'VIEW'
                WHEN c.relkind OPERATOR(pg_catalog.=) 'S'::pg_catalog."char" THEN 'SEQUENCE' ELSE 'TABLE' END AS kind,
           CASE WHEN c.relkind OPERATOR(pg_catalog.=) 'S'::pg_catalog."char" THEN 'SEQUENCE' ELSE 'TABLE' END AS granted,
           c.oid::pg_catalog.regclass::pg_catalog.text AS name, c.relacl AS acl
      FROM pg_catalog.pg_class c
     WHERE c.oid OPERATOR(pg_catalog.=) ANY (ARRAY['pushy_internal.lease', 'pushy_internal.job_log', 'pushy_internal.checkpoint',
             'pushy_internal.first_position_seq', 'pushy.leases', 'pushy.job_logs',
             'pushy_internal.gateway_key', 'pushy_internal.ticket', 'pushy_internal.gateway_report', 'pushy.sockets', 'pushy_internal.metric_rows']::pg_catalog.regclass[]::pg_catalog.oid[])
    UNION ALL
    SELECT 'ROUTINE', 'ROUTINE', p.oid::pg_catalog.regprocedure::pg_catalog.text, p.proacl
      FROM pg_catalog.pg_proc p
     WHERE p.oid OPERATOR(pg_catalog.=) ANY (ARRAY[
             'pushy.log_position()',
             'pushy_internal.log_read(text, text[], text[], int)',
             'pushy_internal.log_wait(text, text[], text[], interval, boolean)',
             'pushy.job_checkpoint(jsonb)',
             'pushy.job_snooze(interval, timestamptz, text)',
             'pushy.job_discard(text)',
             'pushy.job_retry_in(interval, text)',
             'pushy.job_log(text, text, bigint, uuid)',
             'pushy.job_claim(text, int, interval, text)',
             'pushy.job_complete(bigint, uuid, jsonb)',
             'pushy.job_fail(bigint, uuid, text, text, text, interval, boolean)',
             'pushy.job_extend(bigint, uuid, interval, double precision, text)',
             'pushy.job_release(bigint, uuid, interval)',
             'pushy.jobs_settle(jsonb)',
             'pushy.job_claim_wait(text, interval, boolean)',
             'pushy.queue_channel(text)',
             'pushy.gateway_key_register(text, text, text, text, text, text, text, text, text)',
             'pushy.gateway_key_drop(text)',
             'pushy.ticket_create(text[], text, text, interval)',
             'pushy.socket_close(text, text, text, text)',
             'pushy.presence(text, text)',
             'pushy.gateway_explain()',
             'pushy.gateway_grant(text)',
             'pushy.gateway_revoke(text)',
             'pushy.metrics()',
             'pushy_internal.gateway_authorize(text, text, text, text[])',
             'pushy_internal.gateway_redeem(text)',
             'pushy_internal.gateway_keys()',
             'pushy_internal.gateway_report(text, text, text)',
             'pushy_internal.gateway_position()',
             'pushy_internal.gateway_metrics()',
             'pushy_internal.socket_rows()',
             'pushy_internal.watch_visible(int, bigint, oid, oid, oid, oid)',
             'pushy_internal.watch_state(pushy_internal.watch, text, text, text, boolean)',
             'pushy_internal.watch_mend(pushy_internal.watch, oid, boolean)',
             'pushy_internal.job_last_error(bigint, int)',
             'pushy_internal.job_checkpoint_of(bigint, int)',
             'pushy_internal.socket_counts()',
             'pushy_internal.queue_histograms(int)',
             'pushy_internal.log_histogram()',
             'pushy_internal.queue_oldest_ready(int)']::pg_catalog.regprocedure[]::pg_catalog.oid[])
    UNION ALL
    SELECT 'TYPE', 'TYPE', t.oid::pg_catalog.regtype::pg_catalog.text, t.typacl
      FROM pg_catalog.pg_type t WHERE t.oid OPERATOR(pg_catalog.=) 'pushy.claimed_job'::pg_catalog.regtype::pg_catalog.oid
  LOOP
    EXECUTE pg_catalog.format('ALTER %s %s OWNER TO %s', made.kind, made.name, owner);
    EXECUTE pg_catalog.format('REVOKE ALL ON %s %s FROM PUBLIC', made.granted, made.name);
    FOR other IN
      SELECT DISTINCT e.grantee::pg_catalog.regrole::pg_catalog.text
        FROM pg_catalog.aclexplode(made.acl) e
       WHERE e.grantee OPERATOR(pg_catalog.<>) e.grantor AND e.grantee OPERATOR(pg_catalog.<>) 0::pg_catalog.oid
    LOOP
      EXECUTE pg_catalog.format('REVOKE ALL ON %s %s FROM %s', made.granted, made.name, other);
    END LOOP;
  END LOOP;
END
$$;
GRANT USAGE ON TYPE pushy.claimed_job TO PUBLIC;
GRANT SELECT ON pushy.leases, pushy.job_logs, pushy.sockets, pushy_internal.metric_rows TO PUBLIC;
GRANT SELECT, INSERT ON pushy_internal.lease, pushy_internal.job_log, pushy_internal.checkpoint TO pg_database_owner;
GRANT EXECUTE ON FUNCTION
  pushy.log_position(),
  pushy_internal.log_read(text, text[], text[], int),
  pushy.job_checkpoint(jsonb),
  pushy.job_snooze(interval, timestamptz, text),
  pushy.job_discard(text),
  pushy.job_retry_in(interval, text),
  pushy.job_log(text, text, bigint, uuid),
  pushy.job_claim(text, int, interval, text),
  pushy.job_complete(bigint, uuid, jsonb),
  pushy.job_fail(bigint, uuid, text, text, text, interval, boolean),
  pushy.job_extend(bigint, uuid, interval, double precision, text),
  pushy.job_release(bigint, uuid, interval),
  pushy.jobs_settle(jsonb),
  pushy.queue_channel(text),
  pushy.ticket_create(text[], text, text, interval),
  pushy.presence(text, text),
  pushy.gateway_explain(),
  pushy.metrics(),
  pushy_internal.socket_rows(),
  pushy_internal.watch_visible(int, bigint, oid, oid, oid, oid),
  pushy_internal.watch_state(pushy_internal.watch, text, text, text, boolean),
  pushy_internal.watch_mend(pushy_internal.watch, oid, boolean),
  pushy_internal.job_last_error(bigint, int),
  pushy_internal.job_checkpoint_of(bigint, int),
  pushy_internal.socket_counts(),
  pushy_internal.queue_histograms(int),
  pushy_internal.log_histogram(),
  pushy_internal.queue_oldest_ready(int)
  TO PUBLIC;
GRANT EXECUTE ON PROCEDURE pushy.job_claim_wait(text, interval, boolean) TO PUBLIC;
GRANT EXECUTE ON PROCEDURE pushy_internal.log_wait(text, text[], text[], interval, boolean) TO PUBLIC;
