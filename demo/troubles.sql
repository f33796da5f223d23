-- What else happens to jobs: one that fails, one that is cancelled, a queue that is paused.

CREATE FUNCTION send_mail(mail jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the mail server does not know %', mail->>'to'
        USING ERRCODE = 'connection_exception';
END
$$;
SELECT pushy.queue_register('mail', 'send_mail(jsonb)', max_attempts => 3, backoff => 'fixed', retry_delay => '200 ms');

CREATE FUNCTION write_report(report jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_sleep(30);
END
$$;
SELECT pushy.queue_register('reports', 'write_report(jsonb)');

CREATE FUNCTION close_the_books(day jsonb) RETURNS text LANGUAGE sql AS $$
    SELECT format('the books of %s are closed', day->>'day')
$$;
SELECT pushy.queue_register('nightly', 'close_the_books(jsonb)');
