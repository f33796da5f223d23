-- The farm: a queue without a handler, done by programs outside.

-- A lease that is short, so that nobody waits long for what a dead worker held.
SELECT pushy.queue_register('pictures', lease => '3 seconds', retry_delay => '0');

-- What the workers make: each writes its line in the transaction that completes the job.
CREATE TABLE made (job bigint, worker text, attempt int, at timestamptz DEFAULT clock_timestamp());

SELECT pushy.enqueue_many('pictures', array_agg(jsonb_build_object('picture', format('%s.png', n)))) FROM generate_series(1, 600) n;
