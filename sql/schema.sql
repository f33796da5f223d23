-- Tables, sequences and types. Each table says USING heap, because the library reads and writes heaps itself, and
-- default_table_access_method may be another. Nobody is granted anything on them: the functions of sql/*.sql read and
-- write them with the rights of the extension's owner, after checking the caller's. Each table has a primary
-- key; none has a foreign key (an enqueue would lock the queue's row), a trigger but those of write_guard.sql,
-- or a user's type.

-- Not schemas that are there already, where somebody else has planted functions beside ours, or still could.
DO $$
DECLARE
  name pg_catalog.name;
BEGIN
  FOR name IN
    SELECT n.nspname FROM pg_catalog.pg_namespace n
     WHERE n.nspname OPERATOR(pg_catalog.=) ANY (ARRAY['pushy'::pg_catalog.name, 'pushy_internal'::pg_catalog.name])
  LOOP
    RAISE EXCEPTION 'schema "%" exists', name
      USING ERRCODE = 'duplicate_schema',
            HINT = pg_catalog.format('Look into it, then run: DROP SCHEMA %s', name);
  END LOOP;
END
$$;

-- Made here, not by the control file, it is the extension's: a dump does not create it, and where the extension stands a
-- role that may not do that can load the dump. For the same reason the extension has no comment in the database: a dump would say it
-- again, and only the extension's owner may.
CREATE SCHEMA pushy;
COMMENT ON EXTENSION pushy IS NULL;
COMMENT ON SCHEMA pushy IS
  'Notices, queues and jobs that run inside the server. \df+ pushy.* is the manual; start with pushy.queue_register. A role that is to use it, unless it owns the database, needs GRANT USAGE ON SCHEMA pushy.';

CREATE SCHEMA pushy_internal;
COMMENT ON SCHEMA pushy_internal IS
  'What Pushy keeps for itself: its tables, their sequences, and the functions behind its views. Nothing here is for people, and each version may change it; see schema pushy.';

CREATE FUNCTION pushy_internal.script_begins()
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_script_begins_v1';
COMMENT ON FUNCTION pushy_internal.script_begins() IS
  'The first call of the install script and of every update script: refuses to go on with a library that is older than the script.';
SELECT pushy_internal.script_begins();


-- Numbers are given out from shared memory, and kept here for the next life of the server. CYCLE, as all of ours: after the last comes 1, and those in use are passed over.
CREATE SEQUENCE pushy_internal.queue_id_seq AS int CYCLE;
COMMENT ON SEQUENCE pushy_internal.queue_id_seq IS 'Numbers of queues: above zero, while those of a loaded dump are below.';
-- From anywhere on (below 2^30, as far as a first look follows it), because dumps of two databases may be loaded into a third, where a number is to be one queue's.
SELECT pg_catalog.setval('pushy_internal.queue_id_seq'::pg_catalog.regclass,
                         1::pg_catalog.int8 OPERATOR(pg_catalog.+) pg_catalog.floor(pg_catalog.random() OPERATOR(pg_catalog.*) 1000000000::pg_catalog.float8)::pg_catalog.int8);

CREATE TABLE pushy_internal.queue (
  queue_id         int         NOT NULL,  -- no queue's as long as anything has it: watches and subscriptions hold their queue by it
  queue            text        NOT NULL,
  -- Roles and handler by OID and by name: after a restore the two may disagree, and then nothing runs.
  owner            oid         NOT NULL,
  owner_name       name        NOT NULL,
  run_as           oid         NOT NULL,
  run_as_name      name        NOT NULL,
  handler_oid      oid         NOT NULL,  -- 0 and '': none, its jobs are done by workers outside
  handler          text        NOT NULL,
  -- Whose code it is: one that somebody else owns by now is another handler.
  handler_owner      oid       NOT NULL,
  handler_owner_name name      NOT NULL,
  concurrency      int         CHECK (concurrency OPERATOR(pg_catalog.>) 0),
  priority         int         NOT NULL CHECK (priority OPERATOR(pg_catalog.>=) 0 AND priority OPERATOR(pg_catalog.<=) 9),
  max_attempts     int         NOT NULL CHECK (max_attempts OPERATOR(pg_catalog.>) 0),
  backoff          text        NOT NULL CHECK (backoff OPERATOR(pg_catalog.=) ANY (ARRAY['exponential', 'linear', 'fixed'])),
  -- Lengths of time in microseconds; 0 is 'none'.
  retry_delay_us     bigint    NOT NULL CHECK (retry_delay_us OPERATOR(pg_catalog.>=) 0),
  max_retry_delay_us bigint    NOT NULL CHECK (max_retry_delay_us OPERATOR(pg_catalog.>=) 0),
  timeout_us         bigint    NOT NULL CHECK (timeout_us OPERATOR(pg_catalog.>=) 0),
  keep_completed_us  bigint    NOT NULL CHECK (keep_completed_us OPERATOR(pg_catalog.>=) 0),
  keep_discarded_us  bigint    NOT NULL CHECK (keep_discarded_us OPERATOR(pg_catalog.>=) 0),
  batch            boolean     NOT NULL,
  paused           boolean     NOT NULL DEFAULT false,
  -- Why no executor may run it, found by an executor: the handler is gone, the role may not, and so on
  parked           text,
  -- Where it was registered; elsewhere (a restore, a copy of the database) it stays paused.
  home_system      bigint      NOT NULL,
  home_database    oid         NOT NULL,
  created_at       timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  changed_at       timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  -- How long a worker outside has a job where its claim says nothing else. The default is for dumps of 0.1.0.
  lease_us         bigint      NOT NULL DEFAULT 60000000 CHECK (lease_us OPERATOR(pg_catalog.>=) 0),
  PRIMARY KEY (queue_id),
  UNIQUE (queue)
) USING heap;
COMMENT ON TABLE pushy_internal.queue IS 'Queues as registered; see the view pushy.queues.';
ALTER SEQUENCE pushy_internal.queue_id_seq OWNED BY pushy_internal.queue.queue_id;


-- Views show nothing of it, and no queue gets its number, until a scheduler has removed what it has left.
CREATE TABLE pushy_internal.dropped_queue (
  queue_id   int         NOT NULL,
  dropped_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  PRIMARY KEY (queue_id)
) USING heap;
COMMENT ON TABLE pushy_internal.dropped_queue IS 'Queues whose history and failures are still to be removed.';


-- Not dumped, on purpose: a database that has it was not restored but taken over, by pg_upgrade.
CREATE TABLE pushy_internal.home (
  system    bigint NOT NULL,
  database  oid    NOT NULL,
  extension oid    NOT NULL,
  -- Clusters that pg_upgrade has made this one of: their numbers of roles are this one's.
  former    bigint[] NOT NULL DEFAULT '{}',
  -- What the numbers of queues in a dump are mixed with when it is loaded: the same for good, because the tables of a dump come one
  -- by one, and a row must find the queue of another.
  load_salt int     NOT NULL DEFAULT pg_catalog.floor(pg_catalog.random() OPERATOR(pg_catalog.*) 2147483647::pg_catalog.float8)::pg_catalog.int4,
  PRIMARY KEY (system)
) USING heap;
COMMENT ON TABLE pushy_internal.home IS
  'One row: the cluster, the database and the number of the extension where it has lived until now. By it a scheduler sees that pg_upgrade was here. And what numbers of queues become when a dump is loaded.';
INSERT INTO pushy_internal.home (system, database, extension)
  SELECT (pg_catalog.pg_control_system()).system_identifier,
         (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()),
         (SELECT e.oid FROM pg_catalog.pg_extension e WHERE e.extname OPERATOR(pg_catalog.=) 'pushy');


-- Not dumped. Each row is inserted alone, and none is changed: nobody who resumes a queue, or loads one, waits for another.
CREATE TABLE pushy_internal.loaded_queue (
  queue_id     int  NOT NULL,   -- below zero
  mark         uuid NOT NULL DEFAULT pg_catalog.gen_random_uuid(),
  number_there int,             -- in the dump; its jobs keep their numbers. NULL: it runs here, or did, and is no queue's that is loaded later
  PRIMARY KEY (queue_id, mark)
) USING heap;
COMMENT ON TABLE pushy_internal.loaded_queue IS
  'What is known of queues that a dump has brought: whose jobs keep the numbers that they have there, and which run here by now.';


-- Not dumped: pg_restore shows no warning, so resume_after_restore tells what was passed over.
CREATE TABLE pushy_internal.passed_over (
  table_name name        NOT NULL,
  role_name  name        NOT NULL,   -- who loaded the dump
  at         timestamptz NOT NULL,
  why        text        NOT NULL,
  PRIMARY KEY (table_name, why)
) USING heap;
COMMENT ON TABLE pushy_internal.passed_over IS
  'Tables of which rows were passed over when somebody loaded a dump, until pushy.resume_after_restore has told it.';


CREATE TABLE pushy_internal.queue_acl (
  queue_id     int     NOT NULL,
  grantee      oid     NOT NULL,   -- 0 is PUBLIC
  grantee_name name    NOT NULL,
  privilege    text    NOT NULL CHECK (privilege OPERATOR(pg_catalog.=) ANY (ARRAY['enqueue', 'work', 'monitor', 'claim'])),
  PRIMARY KEY (queue_id, grantee, privilege)
) USING heap;
COMMENT ON TABLE pushy_internal.queue_acl IS 'Privileges on queues; see pushy.queue_grant.';


-- Kept here as that of queues; set to its end by somebody, it is not followed.
CREATE SEQUENCE pushy_internal.position_seq CYCLE;
COMMENT ON SEQUENCE pushy_internal.position_seq IS
  'Numbers of jobs, and positions in the order of ready jobs: a job''s first position is its number.';
-- Not dumped.
CREATE SEQUENCE pushy_internal.first_position_seq CYCLE;
COMMENT ON SEQUENCE pushy_internal.first_position_seq IS
  'The first number of a job that was given out here: what is loaded keeps its own number only below.';

-- Jobs that are not finished. A ready job has a position; what is in the future has none, so it is
-- outside the index that executors read.
CREATE TABLE pushy_internal.live_job (
  id           bigint      NOT NULL,
  position     bigint,
  run_at       timestamptz NOT NULL,   -- when it is, or was, due
  enqueued_at  timestamptz NOT NULL,
  timeout_us   bigint,                 -- NULL: the queue's
  caused_by    bigint,                 -- the job whose handler enqueued it
  queue_id     int         NOT NULL,
  enqueued_by  oid         NOT NULL,
  attempt      int         NOT NULL DEFAULT 0,   -- attempts charged (one that was given back is not)
  max_attempts int,                              -- NULL: the queue's
  priority     smallint    NOT NULL,
  depth        smallint    NOT NULL,             -- 0, or one more than the job that caused it
  give_backs   smallint    NOT NULL DEFAULT 0,   -- times it was given back uncharged since its last charged attempt
  state        "char"      NOT NULL,
  suspicions   smallint    NOT NULL DEFAULT 0,   -- how often it was suspected after a crash; if ever, it runs with no other job in the cluster
  unique_key   text,
  beside       bigint,                           -- with a key: the newest job of that key that had started, 0 for none
  args         jsonb       NOT NULL,
  snoozes      int,                              -- times a handler has put it off; NULL: none, and no log or checkpoint is kept of it
  leased       boolean,                          -- true: leased (pushy_internal.lease); NULL: not
  PRIMARY KEY (id),
  CONSTRAINT live_job_state CHECK (
    (state OPERATOR(pg_catalog.=) 'a'::pg_catalog."char" AND position IS NOT NULL AND leased IS NULL)
    OR (state OPERATOR(pg_catalog.=) ANY (ARRAY['s'::pg_catalog."char", 'r'::pg_catalog."char"]) AND position IS NULL AND leased IS NULL)
    OR (state OPERATOR(pg_catalog.=) 'x'::pg_catalog."char" AND position IS NULL AND leased IS NOT NULL AND leased))
) USING heap WITH (
  fillfactor = 90,
  autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
  autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 1000000,
  autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 100000
);
COMMENT ON TABLE pushy_internal.live_job IS 'Jobs not yet finished; see the view pushy.jobs.';

CREATE INDEX live_job_ready ON pushy_internal.live_job (queue_id, priority, position) WHERE position IS NOT NULL;
COMMENT ON INDEX pushy_internal.live_job_ready IS 'The order in which executors take ready jobs.';
-- Asked of columns whether they are NULL, and nothing else: the server prepares a predicate in each statement that inserts, and one with an
-- operator is planned and looked up each time (5 % of an enqueue).
CREATE INDEX live_job_due ON pushy_internal.live_job (run_at, id) WHERE position IS NULL AND leased IS NULL;
COMMENT ON INDEX pushy_internal.live_job_due IS 'Jobs waiting for their time.';
CREATE UNIQUE INDEX live_job_unique ON pushy_internal.live_job (queue_id, unique_key, beside) WHERE unique_key IS NOT NULL;
COMMENT ON INDEX pushy_internal.live_job_unique IS 'One job that waits for each unique key of a queue, and one more beside each that has started.';


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


-- Nobody can write into the row of a job that an executor holds. A number of its own for each promise, because who cancels
-- a job waits for nobody who cancels the same.
CREATE TABLE pushy_internal.promised_cancel (
  job_id   bigint NOT NULL,   -- below zero: of a loaded job whose queue is not at home yet
  promise  uuid   NOT NULL DEFAULT pg_catalog.gen_random_uuid(),
  queue_id int    NOT NULL,
  enqueued_at timestamptz,   -- the job; NULL: as 0.1.0 wrote it
  PRIMARY KEY (job_id, promise)
) USING heap;
COMMENT ON TABLE pushy_internal.promised_cancel IS 'Cancels of jobs that an executor held when pushy.job_cancel answered true, until they are carried out: read after a crash.';


-- Jobs that are finished, for as long as their queue keeps them.
CREATE TABLE pushy_internal.finished_job (
  id           bigint      NOT NULL,
  expires_at   timestamptz NOT NULL,
  run_at       timestamptz NOT NULL,
  enqueued_at  timestamptz NOT NULL,
  started_at   timestamptz,
  finished_at  timestamptz NOT NULL,
  timeout_us   bigint,
  caused_by    bigint,
  queue_id     int         NOT NULL,
  enqueued_by  oid         NOT NULL,
  attempt      int         NOT NULL,
  max_attempts int,
  priority     smallint    NOT NULL,
  depth        smallint    NOT NULL,
  state        "char"      NOT NULL,
  unique_key   text,
  args         jsonb       NOT NULL,
  result       jsonb,
  PRIMARY KEY (id),
  CONSTRAINT finished_job_state CHECK (state OPERATOR(pg_catalog.=) ANY (ARRAY['c'::pg_catalog."char", 'd'::pg_catalog."char", 'k'::pg_catalog."char"]))
) USING heap WITH (
  autovacuum_vacuum_scale_factor = 0.05,
  autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 500000
);
COMMENT ON TABLE pushy_internal.finished_job IS 'Finished jobs kept by their queue; see the view pushy.jobs.';
CREATE INDEX finished_job_expiry ON pushy_internal.finished_job (expires_at);
COMMENT ON INDEX pushy_internal.finished_job_expiry IS 'What retention removes next, row by row.';

-- Most completed jobs go into a child instead, which serves for a window of expiry times and is emptied as a
-- whole: no index on expires_at, no deletion, no vacuum. They are made here once and for all, because an
-- executor runs in a role that may not make tables. Those of one length of keeping take up to ten at a time.
DO $$
DECLARE
  child pg_catalog.text;
BEGIN
  FOR n IN 0 .. 15 LOOP
    child := pg_catalog.format('pushy_internal.finished_job_%s', pg_catalog.lpad(n::pg_catalog.text, 2, '0'));
    EXECUTE pg_catalog.format(
      'CREATE TABLE %s (PRIMARY KEY (id)) INHERITS (pushy_internal.finished_job) USING heap WITH (autovacuum_vacuum_insert_threshold = -1, '
      'autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 500000)', child);
    EXECUTE pg_catalog.format('COMMENT ON TABLE %s IS ''A window of finished jobs; see pushy_internal.rotation.''', child);
    PERFORM pg_catalog.pg_extension_config_dump(child::pg_catalog.regclass, '');
  END LOOP;
END
$$;

-- Not dumped: a scheduler finds the rows that a restore has brought.
CREATE TABLE pushy_internal.rotation (
  pool          text        NOT NULL,   -- the parent of the tables in rotation
  member        name        NOT NULL,   -- one of them
  removes_after timestamptz NOT NULL,   -- its rows may all be removed then
  is_free       boolean     NOT NULL DEFAULT false,   -- it was emptied in place, and can be used again
  PRIMARY KEY (member)
) USING heap;
COMMENT ON TABLE pushy_internal.rotation IS 'Which of the tables in rotation are in use, and when each is emptied.';


CREATE TABLE pushy_internal.failure (
  job_id      bigint      NOT NULL,
  attempt     int         NOT NULL,
  queue_id    int         NOT NULL,
  started_at  timestamptz,
  failed_at   timestamptz NOT NULL,
  sqlstate    text        NOT NULL,
  message     text        NOT NULL,
  detail      text,
  hint        text,
  context     text,
  enqueued_at timestamptz,   -- the job; NULL: as 0.1.0 wrote it
  PRIMARY KEY (job_id, queue_id, attempt)
) USING heap;
COMMENT ON TABLE pushy_internal.failure IS 'A row per failed attempt; see the view pushy.failures.';


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


CREATE TYPE pushy.job AS (
  id           bigint,
  queue        text,
  args         jsonb,
  state        text,
  priority     int,
  attempt      int,
  max_attempts int,
  run_at       timestamptz,
  enqueued_at  timestamptz,
  enqueued_by  name,
  unique_key   text,
  caused_by    bigint,
  depth        int,
  started_at   timestamptz,
  finished_at  timestamptz,
  result       jsonb,
  last_error   text,
  checkpoint   jsonb
);
COMMENT ON TYPE pushy.job IS
  'One job: what a handler may take as its argument, and what current_job() and job_wait() answer. The view pushy.jobs has these columns and more.';

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

SELECT pg_catalog.pg_extension_config_dump('pushy_internal.queue_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('pushy_internal.position_seq', '');
SELECT pg_catalog.pg_extension_config_dump('pushy_internal.queue', '');
SELECT pg_catalog.pg_extension_config_dump('pushy_internal.queue_acl', '');
SELECT pg_catalog.pg_extension_config_dump('pushy_internal.dropped_queue', '');
SELECT pg_catalog.pg_extension_config_dump('pushy_internal.live_job', '');
SELECT pg_catalog.pg_extension_config_dump('pushy_internal.lease', '');
SELECT pg_catalog.pg_extension_config_dump('pushy_internal.finished_job', '');
SELECT pg_catalog.pg_extension_config_dump('pushy_internal.failure', '');
SELECT pg_catalog.pg_extension_config_dump('pushy_internal.job_log', '');
SELECT pg_catalog.pg_extension_config_dump('pushy_internal.checkpoint', '');
SELECT pg_catalog.pg_extension_config_dump('pushy_internal.promised_cancel', '');
