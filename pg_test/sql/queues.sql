-- Queues: register, alter, pause, resume, drop; privileges.
\pset null '(null)'
CREATE FUNCTION fine(args jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT args';

SELECT pushy.queue_register('regress_queues', 'fine(jsonb)');
SELECT queue, handler, concurrency, priority, max_attempts, backoff, retry_delay, max_retry_delay, timeout,
       keep_completed, keep_discarded, batch, paused
  FROM pushy.queues WHERE queue = 'regress_queues';

SELECT pushy.queue_register('regress_queues', 'fine(jsonb)', concurrency => 2, priority => 1, max_attempts => 3,
    backoff => 'linear', retry_delay => '2 s', max_retry_delay => '1 min', timeout => '10 s', keep_completed => '5 min',
    keep_discarded => '1 day', batch => false);
SELECT concurrency, priority, max_attempts, backoff, retry_delay, max_retry_delay, timeout, keep_completed,
       keep_discarded, batch
  FROM pushy.queues WHERE queue = 'regress_queues';

SELECT pushy.queue_alter('regress_queues', priority => 9);
SELECT concurrency, priority FROM pushy.queues WHERE queue = 'regress_queues';

SELECT pushy.queue_pause('regress_queues');
SELECT paused FROM pushy.queues WHERE queue = 'regress_queues';
SELECT * FROM pushy.queue_explain('regress_queues');
SELECT pushy.queue_resume('regress_queues');

-- Privileges.
CREATE ROLE regress_pushy_writer;
GRANT USAGE ON SCHEMA pushy TO regress_pushy_writer;
SET ROLE regress_pushy_writer;
SELECT pushy.enqueue('regress_queues');
RESET ROLE;
SELECT pushy.queue_grant('regress_queues', 'regress_pushy_writer', 'enqueue');
SET ROLE regress_pushy_writer;
SELECT privilege, pushy.has_queue_privilege('regress_queues', privilege)
  FROM unnest(ARRAY['enqueue', 'work', 'monitor']) AS privilege;
SELECT pushy.enqueue('regress_queues') > 0 AS enqueued;
SELECT pushy.queue_pause('regress_queues');
RESET ROLE;
CALL pushy.jobs_wait('regress_queues', '30 s');
SELECT pushy.queue_revoke('regress_queues', 'regress_pushy_writer', 'enqueue');
SET ROLE regress_pushy_writer;
SELECT pushy.enqueue('regress_queues');
RESET ROLE;

-- Errors.
SELECT pushy.queue_register('regress_queues', 'nothing(jsonb)');
SELECT pushy.queue_register('regress_queues', 'fine(jsonb)', priority => 10);
SELECT pushy.queue_register('regress_queues', 'fine(jsonb)', backoff => 'random');
SELECT pushy.queue_register(NULL, 'fine(jsonb)');
SELECT pushy.queue_pause('regress_no_such_queue');

SELECT pushy.queue_drop('regress_queues');
SELECT count(*) FROM pushy.queues WHERE queue = 'regress_queues';
REVOKE USAGE ON SCHEMA pushy FROM regress_pushy_writer;
DROP ROLE regress_pushy_writer;
DROP FUNCTION fine(jsonb);
