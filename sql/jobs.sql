-- Jobs: adding them, steering them, waiting for them.

CREATE FUNCTION pushy.enqueue(
  queue text,
  args jsonb DEFAULT '{}',
  run_at timestamptz DEFAULT NULL,
  delay interval DEFAULT NULL,
  priority int DEFAULT NULL,
  max_attempts int DEFAULT NULL,
  timeout interval DEFAULT NULL,
  unique_key text DEFAULT NULL)
RETURNS bigint LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_enqueue_v1';
COMMENT ON FUNCTION pushy.enqueue(text, jsonb, timestamptz, interval, int, int, interval, text) IS
  'Adds a job to a queue in this transaction and answers its number. The job runs once this transaction has committed, at run_at or after delay if given; priority is 0 (first) to 9 (last), and what is left out, or NULL, is as the queue says; args are {} then. While a job with this unique_key waits (one that has started does not count), its number is answered instead: it keeps its own args, time and priority, and starts after this transaction has ended, so put only the key into args and read the row in the handler. Needs privilege enqueue.';

CREATE FUNCTION pushy.enqueue_many(
  queue text,
  args jsonb[],
  run_at timestamptz DEFAULT NULL,
  delay interval DEFAULT NULL,
  priority int DEFAULT NULL,
  max_attempts int DEFAULT NULL,
  timeout interval DEFAULT NULL)
RETURNS SETOF bigint LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 100 AS 'MODULE_PATHNAME', 'pushy_enqueue_many_v1';
COMMENT ON FUNCTION pushy.enqueue_many(text, jsonb[], timestamptz, interval, int, int, interval) IS
  'Adds a job for each element of args in one statement and answers their numbers in order; otherwise as pushy.enqueue, but that no element is NULL.';

CREATE FUNCTION pushy.job_cancel(job_id bigint)
RETURNS boolean LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_job_cancel_v1';
COMMENT ON FUNCTION pushy.job_cancel(bigint) IS
  'Cancels a job: one that waits in this transaction, one that runs when this transaction commits, its effects rolled back. True means that it ends as cancelled unless this transaction is rolled back; false, that it has finished, since the statement began perhaps, or is the one that calls. Where a job is just ending, the call waits for that. Needs privilege work on its queue.';

CREATE FUNCTION pushy.job_retry(job_id bigint)
RETURNS boolean LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_job_retry_v1';
COMMENT ON FUNCTION pushy.job_retry(bigint) IS
  'Makes a job ready now: one that waits for its time, or a finished one to run again, with one attempt more if they were used up. False when it is ready or running anyway, when another job of its unique key waits, which runs in its place, or when it has ended since the statement began and nothing of it is kept; an error where this very transaction cancels it. Needs privilege work on its queue.';

CREATE FUNCTION pushy.job_wait(job_id bigint, timeout interval DEFAULT '30 seconds')
RETURNS pushy.job LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_job_wait_v1';
COMMENT ON FUNCTION pushy.job_wait(bigint, interval) IS
  'Waits until a job has finished or the timeout, a minute at most (0: it looks once), is over, and answers it as it is then: look at its state. A completed job of a queue that keeps none (keep_completed => ''0'') is answered without its result where the wait began before its end, and does not exist any more for one that begins later. Refuses a job of its own transaction. Needs privilege monitor on its queue.';

CREATE PROCEDURE pushy.jobs_wait(queue text, timeout interval DEFAULT '1 hour', INOUT empty boolean DEFAULT NULL)
LANGUAGE c AS 'MODULE_PATHNAME', 'pushy_jobs_wait_v1';
COMMENT ON PROCEDURE pushy.jobs_wait(text, interval, boolean) IS
  'Waits until a queue has nothing left to do but jobs scheduled for later, holding no snapshot. Jobs that wait for another attempt, whose time has come, or that somebody commits at this moment, count, whoever holds them; empty is false after the timeout (0: it looks once), and a NOTICE tells at once where the queue is paused or cannot run. CALL it outside a transaction block; PL/pgSQL wants a variable for empty, as in CALL pushy.jobs_wait(''q'', ''1 hour'', is_empty). Needs privilege monitor.';

CREATE FUNCTION pushy.job_progress(fraction double precision, message text DEFAULT NULL)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_job_progress_v1';
COMMENT ON FUNCTION pushy.job_progress(double precision, text) IS
  'Called by a handler: how far its job is, from 0 to 1, and a word about it (128 bytes are kept). Shown at once in pushy.jobs and pushy.workers, without a write.';

CREATE FUNCTION pushy.current_job()
RETURNS pushy.job LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_current_job_v1';
COMMENT ON FUNCTION pushy.current_job() IS
  'The job whose handler is running in this session, NULL outside of one.';

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
