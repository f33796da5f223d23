-- Last of all: everything is taken from everybody, then given by name.
--
-- Nobody gets anything on tables and sequences, but for the database's owner, who reads what a dump has (last
-- paragraph). Functions check for themselves what the caller may do; those behind the views filter by the same rules.
-- What is given to PUBLIC here is for roles that have USAGE on the schema, which nobody has by this script:
-- GRANT USAGE ON SCHEMA pushy TO app. Nobody needs it on pushy_internal: views and triggers have found their functions already.

REVOKE ALL ON ALL TABLES IN SCHEMA pushy, pushy_internal FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA pushy, pushy_internal FROM PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA pushy, pushy_internal FROM PUBLIC;
-- Not the row types of tables: pg_dump warns of privileges on them.
REVOKE ALL ON TYPE pushy.job, pushy.claimed_job FROM PUBLIC;
REVOKE ALL ON SCHEMA pushy, pushy_internal FROM PUBLIC;

-- The default privileges of whoever runs this script have given others what they were never meant to have: a trigger on a
-- table of these runs as its owner. What is granted stays at the owner's and PUBLIC's from here on.
DO $$
DECLARE
  taken pg_catalog.record;
BEGIN
  FOR taken IN
    SELECT DISTINCT o.kind, o.name, a.grantee::pg_catalog.regrole::pg_catalog.text AS grantee
      FROM (SELECT CASE WHEN c.relkind OPERATOR(pg_catalog.=) 'S'::pg_catalog."char" THEN 'SEQUENCE' ELSE 'TABLE' END AS kind,
                   c.oid::pg_catalog.regclass::pg_catalog.text AS name, c.relacl AS acl, c.relowner AS owner
              FROM pg_catalog.pg_class c
             WHERE c.relnamespace OPERATOR(pg_catalog.=) ANY (ARRAY['pushy'::pg_catalog.regnamespace::pg_catalog.oid, 'pushy_internal'::pg_catalog.regnamespace::pg_catalog.oid])
               AND c.relkind OPERATOR(pg_catalog.=) ANY (ARRAY['r'::pg_catalog."char", 'v'::pg_catalog."char", 'S'::pg_catalog."char"])
            UNION ALL
            SELECT 'ROUTINE', p.oid::pg_catalog.regprocedure::pg_catalog.text, p.proacl, p.proowner
              FROM pg_catalog.pg_proc p
             WHERE p.pronamespace OPERATOR(pg_catalog.=) ANY (ARRAY['pushy'::pg_catalog.regnamespace::pg_catalog.oid, 'pushy_internal'::pg_catalog.regnamespace::pg_catalog.oid])
            UNION ALL
            SELECT 'TYPE', t.oid::pg_catalog.regtype::pg_catalog.text, t.typacl, t.typowner
              FROM pg_catalog.pg_type t
             WHERE t.oid OPERATOR(pg_catalog.=) ANY (ARRAY['pushy.job'::pg_catalog.regtype::pg_catalog.oid, 'pushy.claimed_job'::pg_catalog.regtype::pg_catalog.oid])
            UNION ALL
            SELECT 'SCHEMA', n.nspname::pg_catalog.text, n.nspacl, n.nspowner
              FROM pg_catalog.pg_namespace n WHERE n.nspname OPERATOR(pg_catalog.=) ANY (ARRAY['pushy'::pg_catalog.name, 'pushy_internal'::pg_catalog.name])) o
     CROSS JOIN LATERAL pg_catalog.aclexplode(o.acl) a
     WHERE a.grantee OPERATOR(pg_catalog.<>) o.owner AND a.grantee OPERATOR(pg_catalog.<>) 0::pg_catalog.oid
  LOOP
    EXECUTE pg_catalog.format('REVOKE ALL ON %s %s FROM %s', taken.kind, taken.name, taken.grantee);
  END LOOP;
END
$$;

-- Handlers take the one, and job_claim answers the other.
GRANT USAGE ON TYPE pushy.job, pushy.claimed_job TO PUBLIC;

GRANT SELECT ON pushy.channel_grants, pushy.queue_grants, pushy.queues, pushy.jobs, pushy.leases, pushy.failures, pushy.job_logs, pushy.workers, pushy.stats, pushy.watches, pushy.subscriptions,
  pushy.log, pushy.sockets, pushy_internal.metric_rows
  TO PUBLIC;

GRANT EXECUTE ON FUNCTION
  pushy.channel_name(text),
  pushy.channel_inspect(text),
  pushy.channel_ident(text),
  pushy.notify(text, text, text, text),
  pushy.channel_grant(text, text, text, text),
  pushy.channel_revoke(text, text, text)
  TO PUBLIC;

GRANT EXECUTE ON FUNCTION
  pushy.queue_register(text, text, regrole, int, int, int, text, interval, interval, interval, interval, interval, boolean, interval),
  pushy.queue_alter(text, text, regrole, int, int, int, text, interval, interval, interval, interval, interval, boolean, regrole, interval),
  pushy.queue_rename(text, text),
  pushy.queue_pause(text),
  pushy.queue_resume(text),
  pushy.queue_drop(text, boolean),
  pushy.queue_explain(text),
  pushy.queue_run(text, int, timestamptz),
  pushy.queue_grant(text, text, text),
  pushy.queue_revoke(text, text, text),
  pushy.has_queue_privilege(text, text),
  pushy.has_queue_privilege(text, text, text),
  pushy.resume_after_restore(boolean)
  TO PUBLIC;

GRANT EXECUTE ON FUNCTION
  pushy.enqueue(text, jsonb, timestamptz, interval, int, int, interval, text),
  pushy.enqueue_many(text, jsonb[], timestamptz, interval, int, int, interval),
  pushy.job_cancel(bigint),
  pushy.job_retry(bigint),
  pushy.job_wait(bigint, interval),
  pushy.job_progress(double precision, text),
  pushy.current_job(),
  pushy.job_checkpoint(jsonb),
  pushy.job_snooze(interval, timestamptz, text),
  pushy.job_discard(text),
  pushy.job_retry_in(interval, text),
  pushy.job_log(text, text, bigint, uuid),
  pushy.job_trace(bigint)
  TO PUBLIC;
GRANT EXECUTE ON FUNCTION
  pushy.job_claim(text, int, interval, text),
  pushy.job_complete(bigint, uuid, jsonb),
  pushy.job_fail(bigint, uuid, text, text, text, interval, boolean),
  pushy.job_extend(bigint, uuid, interval, double precision, text),
  pushy.job_release(bigint, uuid, interval),
  pushy.jobs_settle(jsonb),
  pushy.queue_channel(text)
  TO PUBLIC;
GRANT EXECUTE ON PROCEDURE pushy.job_claim_wait(text, interval, boolean) TO PUBLIC;
GRANT EXECUTE ON PROCEDURE pushy.jobs_wait(text, interval, boolean) TO PUBLIC;

GRANT EXECUTE ON FUNCTION pushy.version() TO PUBLIC;
GRANT EXECUTE ON FUNCTION pushy_internal.relay_obstacle() TO PUBLIC;
GRANT EXECUTE ON FUNCTION
  pushy.watch(regclass, text, text[], name[], text, text, text, text, text, text, text, boolean, text, text),
  pushy.unwatch(regclass, text),
  pushy.watch_pause(regclass, text),
  pushy.watch_resume(regclass, text),
  -- It asks who may read the channel.
  pushy.notice(bigint),
  -- Whoever makes a trigger, as a restore does, must find its function and be allowed to execute it; it refuses triggers made by hand.
  pushy.watch_row(),
  pushy.watch_statement()
  TO PUBLIC;

GRANT EXECUTE ON FUNCTION
  pushy.subscription_create(text, text[], text, boolean, text[], text),
  pushy.subscription_read(text, int, text),
  pushy.subscription_ack(text, text),
  pushy.subscription_drop(text),
  pushy.log_position(),
  -- As the caller may read; a gateway reads all.
  pushy_internal.log_read(text, text[], text[], int)
  TO PUBLIC;
GRANT EXECUTE ON PROCEDURE pushy_internal.log_wait(text, text[], text[], interval, boolean) TO PUBLIC;
GRANT EXECUTE ON PROCEDURE pushy.subscription_wait(text, interval, boolean) TO PUBLIC;

-- Not the rest of the gateway's: keys and the closing of sockets are for superusers, and what a gateway asks is given by pushy.gateway_grant.
GRANT EXECUTE ON FUNCTION
  pushy.ticket_create(text[], text, text, interval),
  pushy.presence(text, text),
  pushy.gateway_explain(),
  pushy.metrics(),
  pushy_internal.socket_rows(),
  pushy_internal.socket_counts(),
  pushy_internal.queue_histograms(int),
  pushy_internal.log_histogram(),
  pushy_internal.queue_oldest_ready(int)
  TO PUBLIC;

-- Whoever applies a subscription fires the trigger of which it is the condition, and is told why it is refused.
GRANT EXECUTE ON FUNCTION pushy_internal.is_apply_worker() TO PUBLIC;

-- Behind the views.
GRANT EXECUTE ON FUNCTION
  pushy_internal.queue_visible(int),
  pushy_internal.queue_monitored(int),
  pushy_internal.queue_owned(int),
  pushy_internal.running_jobs(),
  pushy_internal.queue_running(int),
  pushy_internal.queue_obstacle(int),
  pushy_internal.queue_statistics(int),
  pushy_internal.worker_rows(),
  pushy_internal.watch_visible(int, bigint, oid, oid, oid, oid),
  pushy_internal.watch_state(pushy_internal.watch, text, text, text, boolean),
  pushy_internal.watch_mend(pushy_internal.watch, oid, boolean),
  pushy_internal.job_last_error(bigint, int),
  pushy_internal.job_checkpoint_of(bigint, int),
  pushy_internal.watch_counts(int),
  pushy_internal.is_home(bigint, oid, oid, oid),
  pushy_internal.watch_is_whole(oid, oid[], text),
  pushy_internal.watch_elsewhere(int),
  pushy_internal.watch_orphans(),
  pushy_internal.subscription_rows(),
  pushy_internal.log_row(),
  pushy_internal.log_bounds(),
  pushy_internal.channel_grant_rows()
  TO PUBLIC;

-- pg_dump reads them, and the owner of a database, who may drop it, makes its backups and loads them. INSERT lets COPY
-- begin: write_guard.sql passes over each row. Sequences can be set, which harms nobody: numbers in use are passed
-- over, and positions are put back where they were.
GRANT USAGE ON SCHEMA pushy, pushy_internal TO pg_database_owner;
DO $$
DECLARE
  relation pg_catalog.regclass;
  kind pg_catalog."char";
BEGIN
  FOR relation, kind IN
    SELECT c.oid, c.relkind
      FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) ANY (e.extconfig)
     WHERE e.extname OPERATOR(pg_catalog.=) 'pushy'
  LOOP
    IF kind OPERATOR(pg_catalog.=) 'S'::pg_catalog."char" THEN
      EXECUTE pg_catalog.format('GRANT SELECT, UPDATE ON %s TO pg_database_owner', relation);
    ELSE
      EXECUTE pg_catalog.format('GRANT SELECT, INSERT ON %s TO pg_database_owner', relation);
    END IF;
  END LOOP;
END
$$;
