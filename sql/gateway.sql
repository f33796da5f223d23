-- Who may hear from outside, and what the gateway asks: see docs/gateway.md.

-- Keys of tokens. Not dumped, because there are secrets in it: whoever restores registers them again.
CREATE TABLE pushy_internal.gateway_key (
  name          text        NOT NULL,
  algorithm     text        NOT NULL CHECK (algorithm OPERATOR(pg_catalog.=) ANY (ARRAY['HS256', 'RS256', 'ES256', 'EdDSA', 'JWKS'])),
  material      text        NOT NULL,   -- the secret, a public key in PEM, or a JWKS document
  kid           text,
  issuer        text,
  audience      text,
  role_claim    text,                   -- the claim that names the role
  role          oid,                    -- of a token that names none
  registered_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  PRIMARY KEY (name)
) USING heap;
COMMENT ON TABLE pushy_internal.gateway_key IS 'Keys of tokens that the gateway takes, secrets among them; see pushy.gateway_key_register.';

-- Unlogged: after a crash there is none, so none works twice, though the commit that has redeemed it was not flushed yet.
CREATE UNLOGGED TABLE pushy_internal.ticket (
  hash       bytea       NOT NULL,   -- of the ticket, which nobody but its holder knows
  role       oid         NOT NULL,
  subject    text,
  channels   text[]      NOT NULL,   -- exact names
  topics     text,                   -- patterns, with commas between them; NULL: what the role may hear
  expires_at timestamptz NOT NULL,
  PRIMARY KEY (hash)
) USING heap WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);
COMMENT ON TABLE pushy_internal.ticket IS 'Tickets that were not redeemed yet; see pushy.ticket_create.';
CREATE INDEX ticket_end ON pushy_internal.ticket (expires_at);
COMMENT ON INDEX pushy_internal.ticket_end IS 'Tickets whose time is over.';
CREATE INDEX ticket_role ON pushy_internal.ticket (role);
COMMENT ON INDEX pushy_internal.ticket_role IS 'How many a role has made.';

-- One row for each gateway, which writes it while something changes.
CREATE UNLOGGED TABLE pushy_internal.gateway_report (
  pid         int         NOT NULL,   -- its session, or the worker that has started it
  started     timestamptz NOT NULL,   -- that session: another one may get its number
  address     text,                   -- NULL: started by the server
  reported_at timestamptz NOT NULL,
  sockets     jsonb       NOT NULL,   -- as many as a report has room for
  rooms       jsonb       NOT NULL,
  open        jsonb       NOT NULL,   -- how many sockets there are, by transport
  room_count  bigint      NOT NULL,
  PRIMARY KEY (pid)
) USING heap WITH (fillfactor = 50);
COMMENT ON TABLE pushy_internal.gateway_report IS 'What gateways have last said of their sockets; see the view pushy.sockets.';


CREATE FUNCTION pushy.gateway_key_register(
  name text,
  secret text DEFAULT NULL,
  public_key text DEFAULT NULL,
  jwks text DEFAULT NULL,
  kid text DEFAULT NULL,
  issuer text DEFAULT NULL,
  audience text DEFAULT NULL,
  role_claim text DEFAULT NULL,
  role text DEFAULT NULL)
RETURNS text LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_gateway_key_register_v1';
COMMENT ON FUNCTION pushy.gateway_key_register(text, text, text, text, text, text, text, text, text) IS
  'Declares a key of tokens that the gateway takes: a secret (HS256), a public key in PEM (RS256, ES256 or EdDSA, as it is), or a JWKS document of public keys. Where none is given a new key gets a secret that is answered this once, and one that is there keeps its own, so that no statement has a secret in it. A token is for the role that its claim role_claim names, or else for role. Superusers may, and whoever they have granted EXECUTE, for roles that they are a member of.';

CREATE FUNCTION pushy.gateway_key_drop(name text)
RETURNS boolean LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_gateway_key_drop_v1';
COMMENT ON FUNCTION pushy.gateway_key_drop(text) IS
  'Takes a key of tokens away and closes the sockets that came by it; answers whether there was one.';

CREATE FUNCTION pushy.ticket_create(
  channels text[],
  topics text DEFAULT NULL,
  subject text DEFAULT NULL,
  valid interval DEFAULT '1 minute')
RETURNS text LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_ticket_create_v1';
COMMENT ON FUNCTION pushy.ticket_create(text[], text, text, interval) IS
  'Answers a ticket that lets one connection of the gateway read these channels, written as after LISTEN, as the current user. It works once, within the time of valid, 1 day at most. topics, patterns with commas between them, narrows what it is for, and subject is whom {sub} in grants stands for: the current user is believed about that. It counts from the commit on.';

CREATE FUNCTION pushy.socket_close(
  subject text DEFAULT NULL,
  channel text DEFAULT NULL,
  topic text DEFAULT NULL,
  reason text DEFAULT NULL)
RETURNS int LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_socket_close_v1';
COMMENT ON FUNCTION pushy.socket_close(text, text, text, text) IS
  'Has every gateway close the sockets of a subject, or of a channel (written as after LISTEN) and topic, when this transaction commits. Answers how many there were when the gateways last reported. For superusers, and whoever they have granted EXECUTE.';

CREATE FUNCTION pushy.presence(channel text, topic text, OUT subject text)
RETURNS SETOF text LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'pushy_presence_v1';
COMMENT ON FUNCTION pushy.presence(text, text) IS
  'Who is present in a topic of a channel, as its gateways have last reported: subjects of sockets that have asked for presence. For who may read the topic.';

CREATE FUNCTION pushy.gateway_explain(OUT reason text, OUT fix text)
RETURNS SETOF record LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 2 AS 'MODULE_PATHNAME', 'pushy_gateway_explain_v1';
COMMENT ON FUNCTION pushy.gateway_explain() IS
  'In words why nobody can connect to a gateway of this database and hear something, and what changes it.';

CREATE FUNCTION pushy.gateway_grant(role text)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_gateway_grant_v1';
COMMENT ON FUNCTION pushy.gateway_grant(text) IS
  'Lets a role be the gateway''s, outside the server: it may run the functions of a gateway, and so read every channel and the keys of tokens. It needs no more, not even USAGE on schema pushy. For superusers.';

CREATE FUNCTION pushy.gateway_revoke(role text)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_gateway_revoke_v1';
COMMENT ON FUNCTION pushy.gateway_revoke(text) IS
  'Takes back what pushy.gateway_grant gave. For superusers.';


CREATE FUNCTION pushy_internal.gateway_authorize(
  role text,
  subject text,
  INOUT channel text,
  topics text[],
  OUT allowed boolean,
  OUT reason text,
  OUT since text)
RETURNS record LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_gateway_authorize_v1';
COMMENT ON FUNCTION pushy_internal.gateway_authorize(text, text, text, text[]) IS
  'Internal: whether a role may hear these topics of a channel for a subject (no topics: all of the channel), and if not why. channel comes back as notices have it; nothing before the cursor since may be read. For a gateway.';

CREATE FUNCTION pushy_internal.gateway_redeem(ticket text, OUT role text, OUT subject text, OUT channels text[], OUT topics text)
RETURNS SETOF record LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1 AS 'MODULE_PATHNAME', 'pushy_gateway_redeem_v1';
COMMENT ON FUNCTION pushy_internal.gateway_redeem(text) IS
  'Internal: what a ticket was for, once; no row where there is none such, or its time is over. For a gateway.';

CREATE FUNCTION pushy_internal.gateway_keys(
  OUT name text,
  OUT algorithm text,
  OUT material text,
  OUT kid text,
  OUT issuer text,
  OUT audience text,
  OUT role_claim text,
  OUT role text)
RETURNS SETOF record LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'pushy_gateway_keys_v1';
COMMENT ON FUNCTION pushy_internal.gateway_keys() IS
  'Internal: the keys of tokens, with their secrets. For a gateway.';

CREATE FUNCTION pushy_internal.gateway_report(sockets text, rooms text, in_all text)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_gateway_report_v1';
COMMENT ON FUNCTION pushy_internal.gateway_report(text, text, text) IS
  'Internal: takes in what a gateway says of its sockets and rooms, and how many there are in all, as JSON, in place of what it said before. A row that is none is left out. For a gateway.';

CREATE FUNCTION pushy_internal.gateway_position()
RETURNS text LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_gateway_position_v1';
COMMENT ON FUNCTION pushy_internal.gateway_position() IS
  'Internal: what pushy.log_position answers. For a gateway, which needs no USAGE on schema pushy.';


CREATE FUNCTION pushy_internal.socket_rows(
  OUT gateway text,
  OUT id bigint,
  OUT subject text,
  OUT role text,
  OUT address text,
  OUT transport text,
  OUT since timestamptz,
  OUT channels text[],
  OUT topics text[],
  OUT sent bigint,
  OUT buffered_notices bigint,
  OUT buffered_bytes bigint,
  OUT lag interval,
  OUT reported_at timestamptz,
  OUT subscriptions bigint)
RETURNS SETOF record LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 100 AS 'MODULE_PATHNAME', 'pushy_socket_rows_v1';
COMMENT ON FUNCTION pushy_internal.socket_rows() IS
  'Sockets of roles that the caller is a member of, all of them for pg_read_all_stats; behind pushy.sockets.';

CREATE VIEW pushy.sockets WITH (security_barrier) AS
SELECT s.gateway, s.id, s.subject, s.role, s.address, s.transport, s.since, s.channels, s.topics, s.sent, s.buffered_notices, s.buffered_bytes, s.lag, s.reported_at, s.subscriptions
  FROM pushy_internal.socket_rows() s;
COMMENT ON VIEW pushy.sockets IS
  'Who is connected to the gateways of this database as a role that you are a member of, as they have last reported; all of them for pg_read_all_stats. A gateway with several thousands shows the first of them; pushy.metrics() counts them all.';
COMMENT ON COLUMN pushy.sockets.gateway IS 'Which gateway: the address that its session comes from, and its process; inside where the server has started it.';
COMMENT ON COLUMN pushy.sockets.id IS 'The number of the connection in its gateway.';
COMMENT ON COLUMN pushy.sockets.subject IS 'Whom the token or ticket was for; NULL: nobody by name, or not known yet.';
COMMENT ON COLUMN pushy.sockets.role IS 'The role whose grants count.';
COMMENT ON COLUMN pushy.sockets.address IS 'Where the client comes from, as the gateway sees it.';
COMMENT ON COLUMN pushy.sockets.transport IS 'How: sse (Server-Sent Events), websocket or poll (a long poll).';
COMMENT ON COLUMN pushy.sockets.since IS 'Since when it has been connected.';
COMMENT ON COLUMN pushy.sockets.channels IS 'The channels of its first 20 subscriptions, by name.';
COMMENT ON COLUMN pushy.sockets.topics IS 'The patterns of each of these subscriptions, with commas between them; empty: all topics. Where there is no room for more, an ellipsis.';
COMMENT ON COLUMN pushy.sockets.sent IS 'Messages that it was sent.';
COMMENT ON COLUMN pushy.sockets.buffered_notices IS 'Messages that wait for it.';
COMMENT ON COLUMN pushy.sockets.buffered_bytes IS 'Bytes of these.';
COMMENT ON COLUMN pushy.sockets.lag IS 'How long the first of these has been waiting.';
COMMENT ON COLUMN pushy.sockets.reported_at IS 'When its gateway said so.';
COMMENT ON COLUMN pushy.sockets.subscriptions IS 'How many subscriptions it has.';

CREATE FUNCTION pushy_internal.socket_counts(OUT transport text, OUT sockets bigint)
RETURNS SETOF record LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 3 AS 'MODULE_PATHNAME', 'pushy_socket_counts_v1';
COMMENT ON FUNCTION pushy_internal.socket_counts() IS
  'Internal: how many sockets there are, by transport. They are of all roles for pg_read_all_stats, else of those that the caller is a member of and that pushy.sockets shows; behind pushy.metrics.';


-- Behind pushy.metrics, too.
CREATE FUNCTION pushy_internal.queue_histograms(queue_id int, OUT of text, OUT up_to double precision, OUT jobs bigint, OUT seconds double precision)
RETURNS SETOF record LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 46 AS 'MODULE_PATHNAME', 'pushy_queue_histograms_v1';
COMMENT ON FUNCTION pushy_internal.queue_histograms(int) IS
  'Internal: how many jobs of a queue have waited (of: wait), and run (run), for up to so many seconds. Buckets are from 64 microseconds on in powers of two, and then without end; seconds is the sum of all, of runs. No row for a queue that the caller may not monitor; from shared memory, behind pushy.metrics.';

CREATE FUNCTION pushy_internal.queue_oldest_ready(queue_id int)
RETURNS double precision LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_queue_oldest_ready_v1';
COMMENT ON FUNCTION pushy_internal.queue_oldest_ready(int) IS
  'Internal: for how many seconds the first ready job of a queue has been due, of each priority, the longest; 0 if none waits. It looks at one job of each priority where shared memory says that one waits; behind pushy.metrics. NULL for a queue that the caller may not monitor.';

CREATE FUNCTION pushy_internal.log_histogram(OUT up_to double precision, OUT ticks bigint)
RETURNS SETOF record LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 23 AS 'MODULE_PATHNAME', 'pushy_log_histogram_v1';
COMMENT ON FUNCTION pushy_internal.log_histogram() IS
  'Internal: how many ticks of the event log came within so many seconds of the first commit that they have. Buckets are from 64 microseconds on in powers of two, and then without end; from shared memory, behind pushy.metrics.';

-- Of what can be seen of queues by the caller, from shared memory but for the jobs that workers outside have leased, and one ready job of each priority.
CREATE VIEW pushy_internal.metric_rows WITH (security_barrier) AS
SELECT m.name, m.help, m.kind, CASE WHEN s.queue IS NULL THEN '{}'::pg_catalog.jsonb ELSE pg_catalog.jsonb_build_object('queue', s.queue) END AS labels, m.value, m.name AS family, 0::pg_catalog.float8 AS place
  FROM pushy.stats s
 CROSS JOIN LATERAL (VALUES
   (1, 'pushy_queue_running', 'Jobs that run, or are leased', 'gauge', s.running::pg_catalog.float8),
   (2, 'pushy_queue_enqueued_total', 'Jobs that were enqueued', 'counter', s.enqueued::pg_catalog.float8),
   (3, 'pushy_queue_completed_total', 'Jobs that have completed', 'counter', s.completed::pg_catalog.float8),
   (4, 'pushy_queue_failed_total', 'Attempts that failed', 'counter', s.failed::pg_catalog.float8),
   (5, 'pushy_queue_retried_total', 'Attempts that were put off for another one', 'counter', s.retried::pg_catalog.float8),
   (6, 'pushy_queue_discarded_total', 'Jobs that were discarded', 'counter', s.discarded::pg_catalog.float8),
   (7, 'pushy_queue_cancelled_total', 'Jobs that were cancelled', 'counter', s.cancelled::pg_catalog.float8),
   (8, 'pushy_queue_given_back_total', 'Attempts that were given back uncharged', 'counter', s.given_back::pg_catalog.float8),
   (9, 'pushy_queue_parked_total', 'Times that the queue was parked', 'counter', s.parked::pg_catalog.float8),
   (10, 'pushy_log_bytes', 'Bytes of the event log on disk', 'gauge', s.log_bytes::pg_catalog.float8)) m (n, name, help, kind, value)
 WHERE m.value IS NOT NULL
UNION ALL
SELECT 'pushy_workers', 'Background workers', 'gauge',
       pg_catalog.jsonb_build_object('kind', w.kind, 'state', w.state), pg_catalog.count(*)::pg_catalog.float8, 'pushy_workers', 0
  FROM pushy.workers w GROUP BY w.kind, w.state
UNION ALL
SELECT 'pushy_sockets', 'Connections to gateways', 'gauge',
       pg_catalog.jsonb_build_object('transport', s.transport), s.sockets::pg_catalog.float8, 'pushy_sockets', 0
  FROM pushy_internal.socket_counts() s
UNION ALL
SELECT 'pushy_queue_oldest_ready_seconds', 'For how long the oldest ready job has been due', 'gauge',
       pg_catalog.jsonb_build_object('queue', q.queue), o.age, 'pushy_queue_oldest_ready_seconds', 0
  FROM pushy_internal.queue q CROSS JOIN LATERAL (VALUES (pushy_internal.queue_oldest_ready(q.queue_id))) o (age)
 WHERE o.age IS NOT NULL
UNION ALL
SELECT n.name, CASE WHEN h.of OPERATOR(pg_catalog.=) 'wait' THEN 'From due to start, of completed jobs' ELSE 'How long handlers of completed jobs have run' END, 'histogram',
       pg_catalog.jsonb_build_object('queue', q.queue) OPERATOR(pg_catalog.||) n.le, n.value,
       pg_catalog.format('pushy_queue_%s_seconds', h.of), n.place
  FROM pushy_internal.queue q
 CROSS JOIN LATERAL pushy_internal.queue_histograms(q.queue_id) h
 CROSS JOIN LATERAL (VALUES
   (pg_catalog.format('pushy_queue_%s_seconds_bucket', h.of), h.jobs::pg_catalog.float8, h.up_to,
    pg_catalog.jsonb_build_object('le', CASE WHEN h.up_to OPERATOR(pg_catalog.=) 'Infinity'::pg_catalog.float8 THEN '+Inf' ELSE h.up_to::pg_catalog.numeric::pg_catalog.text END)),
   (pg_catalog.format('pushy_queue_%s_seconds_count', h.of), CASE WHEN h.up_to OPERATOR(pg_catalog.=) 'Infinity'::pg_catalog.float8 THEN h.jobs::pg_catalog.float8 END, 'Infinity', '{}'::pg_catalog.jsonb),
   (pg_catalog.format('pushy_queue_%s_seconds_sum', h.of), h.seconds, 'NaN', '{}'::pg_catalog.jsonb)) n (name, value, place, le)
 WHERE n.value IS NOT NULL
UNION ALL
SELECT n.name, 'From the first word of a commit to the tick of the event log that has it', 'histogram', n.le, h.ticks::pg_catalog.float8,
       'pushy_log_tick_seconds', n.place
  FROM pushy_internal.log_histogram() h
 CROSS JOIN LATERAL (VALUES
   ('pushy_log_tick_seconds_bucket', h.up_to,
    pg_catalog.jsonb_build_object('le', CASE WHEN h.up_to OPERATOR(pg_catalog.=) 'Infinity'::pg_catalog.float8 THEN '+Inf' ELSE h.up_to::pg_catalog.numeric::pg_catalog.text END)),
   ('pushy_log_tick_seconds_count', CASE WHEN h.up_to OPERATOR(pg_catalog.=) 'Infinity'::pg_catalog.float8 THEN h.up_to END, '{}'::pg_catalog.jsonb)) n (name, place, le)
 WHERE n.place IS NOT NULL;
COMMENT ON VIEW pushy_internal.metric_rows IS
  'What pushy.metrics answers, with what its rows are ordered by.';
COMMENT ON COLUMN pushy_internal.metric_rows.name IS 'The metric, as Prometheus names it.';
COMMENT ON COLUMN pushy_internal.metric_rows.help IS 'What it counts.';
COMMENT ON COLUMN pushy_internal.metric_rows.kind IS 'counter, gauge or histogram.';
COMMENT ON COLUMN pushy_internal.metric_rows.labels IS 'What it is of.';
COMMENT ON COLUMN pushy_internal.metric_rows.value IS 'The number.';
COMMENT ON COLUMN pushy_internal.metric_rows.family IS 'The metric that rows of a histogram belong to.';
COMMENT ON COLUMN pushy_internal.metric_rows.place IS 'Where in its family and labels the row stands: the upper end of a bucket.';

CREATE FUNCTION pushy.metrics(OUT name text, OUT help text, OUT kind text, OUT labels jsonb, OUT value double precision)
RETURNS SETOF record LANGUAGE sql VOLATILE PARALLEL UNSAFE ROWS 1000 SET search_path = pg_catalog, pg_temp
-- Read when it is made: who calls it may not look into pushy_internal.
BEGIN ATOMIC
  SELECT a.name, a.help, a.kind, a.labels, a.value FROM pushy_internal.metric_rows a
   ORDER BY a.family, a.labels OPERATOR(pg_catalog.-) 'le', a.place, a.name;
END;
COMMENT ON FUNCTION pushy.metrics() IS
  'What a monitor counts, in rows as Prometheus has them. They are of queues that the caller may monitor, with histograms of waits and runs and the age of the oldest ready job, of workers, the event log and sockets. The gateway''s /metrics has the same beside its own counters.';

CREATE FUNCTION pushy_internal.gateway_metrics(OUT name text, OUT help text, OUT kind text, OUT labels jsonb, OUT value double precision)
RETURNS SETOF record LANGUAGE sql VOLATILE SECURITY DEFINER PARALLEL UNSAFE ROWS 100 SET search_path = pg_catalog, pg_temp AS $$
  SELECT m.name, m.help, m.kind, m.labels, m.value FROM pushy.metrics() m
$$;
COMMENT ON FUNCTION pushy_internal.gateway_metrics() IS
  'Internal: pushy.metrics() of the whole database. For a gateway.';
