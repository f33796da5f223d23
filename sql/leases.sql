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
