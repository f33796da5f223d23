-- Queues: declaring, changing, stopping, dropping them, and who may do what.

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

CREATE FUNCTION pushy.queue_rename(queue text, new_name text)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_queue_rename_v1';
COMMENT ON FUNCTION pushy.queue_rename(text, text) IS
  'Gives a queue another name. Its jobs, history and privileges, and the watches and subscriptions that feed it, stay with it; who enqueues by the old name is refused, or finds another queue that has the name by then. A watch that has the queue''s name takes the new one when it is declared again. For the queue''s owner.';

CREATE FUNCTION pushy.queue_pause(queue text)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_queue_pause_v1';
COMMENT ON FUNCTION pushy.queue_pause(text) IS
  'Starts no more jobs of a queue; those that run end as usual, and jobs can still be enqueued. For the queue''s owner.';

CREATE FUNCTION pushy.queue_resume(queue text)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_queue_resume_v1';
COMMENT ON FUNCTION pushy.queue_resume(text) IS
  'Starts jobs of a queue again, paused or parked; an error that says why when its handler cannot run. Takes over new names of its roles and handler, and a handler that was dropped and created again. For the queue''s owner.';

CREATE FUNCTION pushy.queue_drop(queue text, force boolean DEFAULT false)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_queue_drop_v1';
COMMENT ON FUNCTION pushy.queue_drop(text, boolean) IS
  'Drops a queue with its history, failures and privileges; refused while it has unfinished jobs, or watches or subscriptions feed it. With force the jobs are deleted too, those that run are cancelled, and what feeds it makes no jobs then. A drop that is prepared takes jobs until COMMIT PREPARED, which discards them, published on pushy_control without a queue and shown by no view. For the queue''s owner.';

CREATE FUNCTION pushy.queue_run(queue text, max_jobs int DEFAULT NULL, until timestamptz DEFAULT NULL)
RETURNS bigint LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_queue_run_v1';
COMMENT ON FUNCTION pushy.queue_run(text, int, timestamptz) IS
  'Runs what is due of a queue in this session and this transaction, and answers how many: for tests, where nothing is committed. At most max_jobs run (0: none; NULL: all), paused or not; with until also those that are due by then, as if it were that time, retries that come due included. A job''s timeout is not watched, only the session''s statement_timeout, and the transaction cannot be prepared. For the queue''s owner, in a session of the role that the queue runs as.';

CREATE FUNCTION pushy.queue_explain(queue text, OUT reason text, OUT fix text)
RETURNS SETOF record LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 2 AS 'MODULE_PATHNAME', 'pushy_queue_explain_v1';
COMMENT ON FUNCTION pushy.queue_explain(text) IS
  'Why jobs of a queue do not run now, what blocks most first. fix is the statement that changes it, or what to do in words where no statement does by itself; NULL where there is nothing to do. Needs privilege monitor.';

CREATE FUNCTION pushy.queue_grant(queue text, role text, privilege text DEFAULT 'enqueue')
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_queue_grant_v1';
COMMENT ON FUNCTION pushy.queue_grant(text, text, text) IS
  'Gives a role a privilege on a queue: enqueue (add jobs), work (cancel and retry them), claim (do them from outside) or monitor (see their arguments, results and errors). role is an exact name, or public for everybody. For the queue''s owner, who has all four.';

CREATE FUNCTION pushy.queue_revoke(queue text, role text, privilege text DEFAULT 'enqueue')
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_queue_revoke_v1';
COMMENT ON FUNCTION pushy.queue_revoke(text, text, text) IS
  'Takes back what pushy.queue_grant gave; also from a role that is gone, by its name. For the queue''s owner.';

CREATE FUNCTION pushy.has_queue_privilege(queue text, privilege text)
RETURNS boolean LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_has_queue_privilege_v1';
COMMENT ON FUNCTION pushy.has_queue_privilege(text, text) IS
  'Whether the current user has privilege enqueue, work, monitor or claim on a queue: as its owner, by a grant to a role whose rights it has, or to public.';

CREATE FUNCTION pushy.has_queue_privilege(queue text, role text, privilege text)
RETURNS boolean LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_has_queue_privilege_of_v1';
COMMENT ON FUNCTION pushy.has_queue_privilege(text, text, text) IS
  'Whether a role, by its exact name, or public, which is everybody, has privilege enqueue, work, monitor or claim on a queue.';

CREATE FUNCTION pushy.resume_after_restore(drop_rest boolean DEFAULT false, OUT kind text, OUT name text, OUT resumed boolean, OUT reason text)
RETURNS SETOF record LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_resume_after_restore_v1';
COMMENT ON FUNCTION pushy.resume_after_restore(boolean) IS
  'Lets queues, watches, channels and subscriptions go on that came here by a restore or a copy of the database and wait so that nothing is done twice. Those that are yours, or all of them for the owner of the extension; a subscription''s reader is to resync, by a job where it feeds a queue. Roles are found by number in the same cluster and by name in another, handlers by name. kind is queue, watch (named "w on public.t"), channel, subscription, rows (of a table of Pushy''s that were passed over when a dump was loaded; said once, to the extension''s owner or who loaded it), or jobs (that were loaded without their queue, because one of its name was here: they never run, and with drop_rest the owner of the extension deletes them; so for kind channel grants that were loaded without their channel, and for kind watch those without their table); reason says what is missing.';
