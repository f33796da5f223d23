-- Views for people, and the functions behind them. Each shows a role what it may see: the functions look at
-- current_user, which in a view is who asks, while the tables are read with the rights of the views' owner. They are asked
-- by number and answer as of now: a statement may read rows of long ago, when another's queue had the name.

CREATE FUNCTION pushy_internal.queue_visible(queue_id int)
RETURNS boolean LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_queue_visible_v1';
COMMENT ON FUNCTION pushy_internal.queue_visible(int) IS
  'Whether the current user has any privilege on a queue; the filter of pushy.queues. False for a queue that does not exist.';

CREATE FUNCTION pushy_internal.queue_monitored(queue_id int)
RETURNS boolean LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_queue_monitored_v1';
COMMENT ON FUNCTION pushy_internal.queue_monitored(int) IS
  'Whether the current user may monitor a queue; the filter of pushy.jobs and pushy.failures. False for a queue that does not exist.';

CREATE FUNCTION pushy_internal.running_jobs(
  OUT job_id bigint,
  OUT attempt int,
  OUT started_at timestamptz,
  OUT progress double precision,
  OUT progress_message text)
RETURNS SETOF record LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 2 AS 'MODULE_PATHNAME', 'pushy_running_jobs_v1';
COMMENT ON FUNCTION pushy_internal.running_jobs() IS
  'The jobs that run in this database now, of queues that the caller may monitor, from shared memory; behind pushy.jobs.';

CREATE FUNCTION pushy_internal.queue_running(queue_id int)
RETURNS int LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_queue_running_v1';
COMMENT ON FUNCTION pushy_internal.queue_running(int) IS
  'Executors that work on a queue now, from shared memory; behind pushy.queues. NULL for one that the caller may not monitor.';

CREATE FUNCTION pushy_internal.queue_obstacle(queue_id int)
RETURNS text LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_queue_obstacle_v1';
COMMENT ON FUNCTION pushy_internal.queue_obstacle(int) IS
  'What no executor finds, because none can come: no slot in shared memory (pushy.max_queues), or a role that may have no session; behind pushy.queues. NULL if nothing is, and for a queue on which the caller has no privilege.';

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

CREATE FUNCTION pushy_internal.worker_rows(
  OUT kind text,
  OUT pid int,
  OUT database text,
  OUT role text,
  OUT state text,
  OUT since timestamptz,
  OUT jobs_done bigint,
  OUT queue text,
  OUT job_id bigint,
  OUT progress double precision,
  OUT progress_message text)
RETURNS SETOF record LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 4 AS 'MODULE_PATHNAME', 'pushy_worker_rows_v1';
COMMENT ON FUNCTION pushy_internal.worker_rows() IS
  'Processes of Pushy that the caller may see, from shared memory; behind pushy.workers.';


CREATE FUNCTION pushy_internal.queue_owned(queue_id int) RETURNS boolean
LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_queue_owned_v1';
COMMENT ON FUNCTION pushy_internal.queue_owned(int) IS 'Whether the current user has the rights of the queue''s owner; behind the view pushy.queue_grants.';

CREATE VIEW pushy.queues WITH (security_barrier) AS
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
COMMENT ON VIEW pushy.queues IS
  'Queues on which you have a privilege, and how their jobs run. An interval of 0 is none, but a lease of 0 lasts until the session ends; lengths of time are kept as they were counted, a month as 30 days and a year as 12 months.';
COMMENT ON COLUMN pushy.queues.queue IS 'Name of the queue.';
COMMENT ON COLUMN pushy.queues.handler IS 'The function that does the work of one job; NULL where workers outside do it.';
COMMENT ON COLUMN pushy.queues.run_as IS 'The role with whose rights, and as whose session, jobs run; NULL: that role is gone.';
COMMENT ON COLUMN pushy.queues.owner IS 'The role that registered the queue, or was given it; NULL: that role is gone.';
COMMENT ON COLUMN pushy.queues.concurrency IS 'Executors, or leased jobs, at a time; NULL: no limit of its own.';
COMMENT ON COLUMN pushy.queues.running IS 'Executors that work on the queue now, or jobs that workers outside have leased; NULL where you may not monitor it, and without the preload.';
COMMENT ON COLUMN pushy.queues.paused IS 'Whether pushy.queue_pause has stopped it.';
COMMENT ON COLUMN pushy.queues.parked IS 'Why the queue does not run; pushy.queue_explain says what to do. It is what an executor has found, that its role may have no session now, that the queue came from elsewhere, or that no queue slot was free for it.';
COMMENT ON COLUMN pushy.queues.priority IS 'Priority of jobs that say none: 0 is first, 9 last.';
COMMENT ON COLUMN pushy.queues.max_attempts IS 'Attempts before a job is discarded.';
COMMENT ON COLUMN pushy.queues.backoff IS 'How the wait between attempts grows: exponential, linear or fixed.';
COMMENT ON COLUMN pushy.queues.retry_delay IS 'The wait after the first failed attempt.';
COMMENT ON COLUMN pushy.queues.max_retry_delay IS 'No wait between two attempts is longer; 0: there is no bound.';
COMMENT ON COLUMN pushy.queues.timeout IS 'A job that runs longer is cut short and fails; pushy.max_job_timeout counts where it is shorter.';
COMMENT ON COLUMN pushy.queues.keep_completed IS 'How long completed jobs stay in pushy.jobs.';
COMMENT ON COLUMN pushy.queues.keep_discarded IS 'How long discarded and cancelled jobs stay in pushy.jobs.';
COMMENT ON COLUMN pushy.queues.batch IS 'Whether short jobs may share a transaction.';
COMMENT ON COLUMN pushy.queues.created_at IS 'When the queue was first registered.';
COMMENT ON COLUMN pushy.queues.lease IS 'How long a worker outside has a job where its claim says nothing else; 0: until its session ends.';


CREATE FUNCTION pushy_internal.job_last_error(job_id bigint, queue_id int)
RETURNS text LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_job_last_error_v1';
COMMENT ON FUNCTION pushy_internal.job_last_error(bigint, int) IS
  'Internal: the message of the last failed attempt of a job, behind the view pushy.jobs. NULL for one of a queue that the caller may not monitor.';

CREATE FUNCTION pushy_internal.job_checkpoint_of(job_id bigint, queue_id int)
RETURNS jsonb LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_job_checkpoint_of_v1';
COMMENT ON FUNCTION pushy_internal.job_checkpoint_of(bigint, int) IS
  'Internal: what a job has last said with pushy.job_checkpoint, behind the view pushy.jobs. NULL for one of a queue that the caller may not monitor.';

-- An equality that cannot leak is asked before the filter, of foreign rows too, and EXPLAIN ANALYZE would tell how many
-- texts are equal to a guess. So a text is one only beside a queue that has passed the filter: CASE WHEN ... THEN text END.
--
-- The filter is on the queue alone, so it is asked once per queue and not per job, unless few jobs are asked for.
CREATE VIEW pushy.jobs WITH (security_barrier) AS
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
COMMENT ON VIEW pushy.jobs IS
  'Jobs of queues that you may monitor: unfinished ones, and finished ones for as long as their queue keeps them.';
COMMENT ON COLUMN pushy.jobs.id IS 'What pushy.enqueue answered.';
COMMENT ON COLUMN pushy.jobs.queue IS 'The queue of the job.';
COMMENT ON COLUMN pushy.jobs.args IS 'What the handler is given.';
COMMENT ON COLUMN pushy.jobs.state IS
  'scheduled (due later), available (due), running, retryable (failed, due again later), completed, discarded (failed for the last time) or cancelled.';
COMMENT ON COLUMN pushy.jobs.priority IS '0 is first, 9 last.';
COMMENT ON COLUMN pushy.jobs.attempt IS 'Attempts charged, and the running one.';
COMMENT ON COLUMN pushy.jobs.max_attempts IS 'Attempts before the job is discarded.';
COMMENT ON COLUMN pushy.jobs.run_at IS 'When the job is, or was, due.';
COMMENT ON COLUMN pushy.jobs.enqueued_at IS 'When the job was enqueued.';
COMMENT ON COLUMN pushy.jobs.enqueued_by IS 'The role that enqueued the job; NULL when that was dropped, or when the job came here by a restore and its role is not known.';
COMMENT ON COLUMN pushy.jobs.unique_key IS 'Who enqueues this key while the job waits is answered its number.';
COMMENT ON COLUMN pushy.jobs.caused_by IS 'The job whose handler enqueued this one.';
COMMENT ON COLUMN pushy.jobs.depth IS '0, or one more than the job that caused it.';
COMMENT ON COLUMN pushy.jobs.started_at IS 'When the attempt began that runs, or that ended the job. NULL for a job that waits, and for one that ended without an attempt: cancelled while it waited, or after its executor had let go of it, or discarded for the depth of its causes.';
COMMENT ON COLUMN pushy.jobs.finished_at IS 'When the job was completed, discarded or cancelled.';
COMMENT ON COLUMN pushy.jobs.result IS 'What the handler returned.';
COMMENT ON COLUMN pushy.jobs.last_error IS 'The message of the last failed attempt; pushy.failures has all.';
COMMENT ON COLUMN pushy.jobs.progress IS 'From 0 to 1, as the handler last said with pushy.job_progress, or a worker outside with pushy.job_extend.';
COMMENT ON COLUMN pushy.jobs.progress_message IS 'What was said with it.';
COMMENT ON COLUMN pushy.jobs.timeout IS 'How long an attempt may run; 0: for ever. pushy.max_job_timeout counts where it is shorter.';
COMMENT ON COLUMN pushy.jobs.expires_at IS 'When a finished job may be removed.';
COMMENT ON COLUMN pushy.jobs.checkpoint IS 'What a job that is not completed has last said with pushy.job_checkpoint.';


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


CREATE FUNCTION pushy.job_trace(
  job_id bigint,
  OUT tree text,
  OUT id bigint,
  OUT caused_by bigint,
  OUT depth int,
  OUT queue text,
  OUT state text,
  OUT attempt int,
  OUT enqueued_at timestamptz,
  OUT finished_at timestamptz,
  OUT args jsonb,
  OUT last_error text)
RETURNS SETOF record LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'pushy_job_trace_v1';
COMMENT ON FUNCTION pushy.job_trace(bigint) IS
  'The tree of causes that a job belongs to, as far as the caller may monitor its queues. It goes from the first job that is still kept down to the last that was caused, directly or by a watch of what a handler wrote.';


CREATE VIEW pushy.failures WITH (security_barrier) AS
SELECT f.job_id,
       q.queue,
       f.attempt,
       f.started_at,
       f.failed_at,
       CASE WHEN f.queue_id OPERATOR(pg_catalog.=) q.queue_id THEN f.sqlstate END AS sqlstate,
       CASE WHEN f.queue_id OPERATOR(pg_catalog.=) q.queue_id THEN f.message END AS message,
       CASE WHEN f.queue_id OPERATOR(pg_catalog.=) q.queue_id THEN f.detail END AS detail,
       CASE WHEN f.queue_id OPERATOR(pg_catalog.=) q.queue_id THEN f.hint END AS hint,
       CASE WHEN f.queue_id OPERATOR(pg_catalog.=) q.queue_id THEN f.context END AS context
  FROM pushy_internal.failure f
  JOIN pushy_internal.queue q ON q.queue_id OPERATOR(pg_catalog.=) f.queue_id
 WHERE pushy_internal.queue_monitored(q.queue_id);
COMMENT ON VIEW pushy.failures IS
  'A row per failed attempt of a job of the queues that you may monitor, for as long as the job is kept.';
COMMENT ON COLUMN pushy.failures.job_id IS 'The id in pushy.jobs.';
COMMENT ON COLUMN pushy.failures.queue IS 'The queue of the job.';
COMMENT ON COLUMN pushy.failures.attempt IS 'Which attempt failed; the first is 1. 0: none was made, because the job was discarded for the depth of its causes.';
COMMENT ON COLUMN pushy.failures.started_at IS 'When the attempt began; NULL where none was made.';
COMMENT ON COLUMN pushy.failures.failed_at IS 'When the attempt failed.';
COMMENT ON COLUMN pushy.failures.sqlstate IS 'PostgreSQL''s five-character code of the error.';
COMMENT ON COLUMN pushy.failures.message IS 'The message of the error.';
COMMENT ON COLUMN pushy.failures.detail IS 'The detail of the error.';
COMMENT ON COLUMN pushy.failures.hint IS 'The hint of the error.';
COMMENT ON COLUMN pushy.failures.context IS 'Where the error was raised, as the handler''s language says.';


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


CREATE VIEW pushy.queue_grants WITH (security_barrier) AS
SELECT q.queue,
       CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0::pg_catalog.oid THEN 'public'
            WHEN h.is_home THEN (SELECT r.rolname FROM pg_catalog.pg_roles r WHERE r.oid OPERATOR(pg_catalog.=) a.grantee)
            ELSE a.grantee_name END::pg_catalog.name AS grantee,
       a.privilege,
       CASE WHEN h.is_home THEN (SELECT r.rolname FROM pg_catalog.pg_roles r WHERE r.oid OPERATOR(pg_catalog.=) q.owner)
            ELSE q.owner_name END AS owner
  FROM pushy_internal.queue_acl a
  JOIN pushy_internal.queue q ON q.queue_id OPERATOR(pg_catalog.=) a.queue_id
 CROSS JOIN LATERAL (
   SELECT pushy_internal.is_home(q.home_system, q.home_database,
                              (SELECT e.oid FROM pg_catalog.pg_extension e WHERE e.extname OPERATOR(pg_catalog.=) 'pushy'),
                              'pushy_internal.queue'::pg_catalog.regclass::pg_catalog.oid) AS is_home) h
 WHERE pushy_internal.queue_owned(q.queue_id)
    OR (pushy_internal.queue_visible(q.queue_id)
        AND (a.grantee OPERATOR(pg_catalog.=) 0::pg_catalog.oid
             OR (h.is_home AND pg_catalog.pg_has_role(a.grantee, 'USAGE'))));
COMMENT ON VIEW pushy.queue_grants IS
  'Who may do what with a queue beside its owner: grants on queues that you own, and those to you and to all.';
COMMENT ON COLUMN pushy.queue_grants.queue IS 'The queue.';
COMMENT ON COLUMN pushy.queue_grants.grantee IS 'The role; public: all; NULL: that role is gone (pushy.queue_revoke takes the name it had).';
COMMENT ON COLUMN pushy.queue_grants.privilege IS 'enqueue, work, monitor or claim.';
COMMENT ON COLUMN pushy.queue_grants.owner IS 'The queue''s owner, who granted it; NULL: that role is gone.';


CREATE VIEW pushy.workers WITH (security_barrier) AS
SELECT w.kind, w.pid, w.database, w.role, w.state, w.since, w.jobs_done, w.queue, w.job_id, w.progress, w.progress_message
  FROM pushy_internal.worker_rows() w;
COMMENT ON VIEW pushy.workers IS
  'Pushy''s processes in the whole server: executors of roles whose rights you have; all of them for pg_read_all_stats, which pg_monitor includes.';
COMMENT ON COLUMN pushy.workers.kind IS 'launcher, scheduler, executor, relay or gateway.';
COMMENT ON COLUMN pushy.workers.pid IS 'Process id, as in pg_stat_activity.';
COMMENT ON COLUMN pushy.workers.database IS 'The database that the process works in.';
COMMENT ON COLUMN pushy.workers.role IS 'The role whose jobs an executor runs.';
COMMENT ON COLUMN pushy.workers.state IS 'What the process does. An executor is starting, busy, idle (waiting for the next job) or stopping; a scheduler and a relay are busy or idle. The launcher is on or off, as it has last read pushy.enabled: off, it starts nobody.';
COMMENT ON COLUMN pushy.workers.since IS 'When an executor''s job began, or else when the executor or the relay started; NULL for the launcher and a scheduler.';
COMMENT ON COLUMN pushy.workers.jobs_done IS 'Jobs an executor has run since it started.';
COMMENT ON COLUMN pushy.workers.queue IS 'The queue of the job that an executor runs; NULL for other databases.';
COMMENT ON COLUMN pushy.workers.job_id IS 'The id of the job that an executor runs.';
COMMENT ON COLUMN pushy.workers.progress IS 'From 0 to 1, as the handler last said with pushy.job_progress.';
COMMENT ON COLUMN pushy.workers.progress_message IS 'What the handler last said with pushy.job_progress.';


-- A queue at a time: who asks for one by name pays for one, as text's = is leakproof and passes the barrier. The
-- UNION ALL stands in a query of its own: flattened, as PostgreSQL does at the top of a view, it has no barrier.
CREATE VIEW pushy.stats WITH (security_barrier) AS
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
COMMENT ON VIEW pushy.stats IS
  'Counts and latencies of queues that you may monitor; read from shared memory, no job is looked at. They go on after a clean restart (smart or fast), as PostgreSQL''s own do, and begin at zero after a crash, an immediate stop and a promotion of a standby. One row more, with no queue, is of the event log, of which pushy.log says more.';
COMMENT ON COLUMN pushy.stats.queue IS 'Name of the queue; NULL: the row of the event log.';
COMMENT ON COLUMN pushy.stats.running IS 'Executors that work on the queue now, or jobs that workers outside have leased.';
COMMENT ON COLUMN pushy.stats.enqueued IS 'Jobs enqueued and committed.';
COMMENT ON COLUMN pushy.stats.completed IS 'Jobs completed.';
COMMENT ON COLUMN pushy.stats.failed IS 'Attempts that failed, whatever came next.';
COMMENT ON COLUMN pushy.stats.retried IS 'Failed attempts after which the job was to be tried again.';
COMMENT ON COLUMN pushy.stats.discarded IS 'Jobs that failed for the last time, or were enqueued beyond pushy.max_depth; not those whose queue is gone.';
COMMENT ON COLUMN pushy.stats.cancelled IS 'Jobs cancelled.';
COMMENT ON COLUMN pushy.stats.given_back IS 'Attempts that somebody else cut short, as by ending their executor: not charged, and made again. More than three in a row of one job are charged.';
COMMENT ON COLUMN pushy.stats.run_again IS 'Finished jobs that pushy.job_retry made run again. enqueued + run_again - completed - discarded - cancelled are the jobs that are not finished.';
COMMENT ON COLUMN pushy.stats.parked IS 'Times that the queue was parked because it could not run; pushy.queues.parked says why, pushy.queue_explain what to do.';
COMMENT ON COLUMN pushy.stats.batches IS 'Transactions of executors that ran jobs of the queue.';
COMMENT ON COLUMN pushy.stats.rate_1m IS 'Jobs finished a second, over the last minute.';
COMMENT ON COLUMN pushy.stats.wait_p50 IS 'Time from due to start that half of the jobs did not exceed; from a histogram, off by 12 % at most as a rule.';
COMMENT ON COLUMN pushy.stats.wait_p95 IS 'Time from due to start that 95 % of the jobs did not exceed; as exact as wait_p50.';
COMMENT ON COLUMN pushy.stats.wait_p99 IS 'Time from due to start that 99 % of the jobs did not exceed; as exact as wait_p50.';
COMMENT ON COLUMN pushy.stats.run_mean IS 'Mean time that a handler ran in an executor; runs of pushy.queue_run are not measured.';
COMMENT ON COLUMN pushy.stats.run_p50 IS 'Time that half of the handlers'' runs did not exceed; as wait_p50.';
COMMENT ON COLUMN pushy.stats.run_p95 IS 'Time that 95 % of the handlers'' runs did not exceed; as exact as wait_p50.';
COMMENT ON COLUMN pushy.stats.run_p99 IS 'Time that 99 % of the handlers'' runs did not exceed; as exact as wait_p50.';
COMMENT ON COLUMN pushy.stats.log_bytes IS 'Bytes of the event log on disk, in its row.';
COMMENT ON COLUMN pushy.stats.log_oldest IS 'Cursor of the oldest tick that can still be read, in the row of the event log; NULL while there is none.';
COMMENT ON COLUMN pushy.stats.snoozed IS 'Attempts whose handlers have put their jobs off with pushy.job_snooze: not charged.';
