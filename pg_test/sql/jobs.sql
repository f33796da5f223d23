-- Jobs: enqueue, wait, cancel, retry; what they leave behind.
\pset null '(null)'
CREATE FUNCTION twice(args jsonb) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    RETURN 2 * (args->>'n')::int;
END
$$;
SELECT pushy.queue_register('regress_jobs', 'twice(jsonb)', max_attempts => 2, retry_delay => '10 ms');

SELECT pushy.enqueue('regress_jobs', '{"n": 21}') AS job \gset
SELECT state, args, result, attempt, max_attempts, priority, last_error FROM pushy.job_wait(:job);

SELECT pushy.enqueue('regress_jobs', '{"n": "x"}') AS job \gset
SELECT state, args, result, attempt, max_attempts, last_error FROM pushy.job_wait(:job);
SELECT attempt, sqlstate, message FROM pushy.failures WHERE job_id = :job ORDER BY attempt;

BEGIN;
SELECT pushy.enqueue('regress_jobs', '{"n": 1}') AS job \gset
ROLLBACK;
SELECT count(*) FROM pushy.jobs WHERE id = :job;

SELECT pushy.enqueue('regress_jobs', '{"n": 1}', delay => '1 hour', unique_key => 'k') AS job \gset
SELECT pushy.enqueue('regress_jobs', '{"n": 2}', unique_key => 'k') = :job AS the_same_job;
SELECT state, unique_key, run_at - enqueued_at AS delay FROM pushy.jobs WHERE id = :job;
SELECT pushy.job_retry(:job);
SELECT state, result FROM pushy.job_wait(:job);
SELECT pushy.job_cancel(:job);

SELECT pushy.enqueue('regress_jobs', '{"n": 1}', delay => '1 hour') AS job \gset
SELECT pushy.job_cancel(:job);
SELECT state, result, attempt FROM pushy.job_wait(:job);

SELECT count(*) FROM pushy.enqueue_many('regress_jobs', ARRAY['{"n": 1}', '{"n": 2}', '{"n": 3}']::jsonb[]);
CALL pushy.jobs_wait('regress_jobs', '30 s');
SELECT state, count(*) FROM pushy.jobs WHERE queue = 'regress_jobs' GROUP BY state ORDER BY state::text;

-- Errors.
SELECT pushy.enqueue('regress_no_such_queue');
SELECT pushy.enqueue('regress_jobs', NULL);
SELECT pushy.enqueue('regress_jobs', priority => 10);
SELECT pushy.enqueue('regress_jobs', run_at => now(), delay => '1 s');
SELECT pushy.enqueue('regress_jobs', delay => '-1 s');
SELECT pushy.job_cancel(-1);
SELECT pushy.job_wait(NULL);
SELECT pushy.job_progress(0.5);
SELECT pushy.current_job() IS NULL AS outside_a_job;

SELECT pushy.queue_drop('regress_jobs', force => true);
DROP FUNCTION twice(jsonb);
