-- The event log: notices kept for a while, for the relay that emits them to LISTENers and for subscriptions.
--
-- Writers append to the current part, of which there is a small fixed number; a part is emptied by TRUNCATE, or in place
-- where that would wait for somebody.
-- The relay puts what has committed into ticks. Nothing of it is dumped, but for what subscriptions are.

-- No index: writers pay for nothing but the row, and readers know the address of each event from its tick.
-- No row is ever changed or deleted, so there is no key either. PLAIN keeps every row on one page (a payload
-- and a topic have at most 7,999 bytes together) and needs no TOAST tables. A row without a topic is no longer for the column:
-- the bitmap of NULLs has a bit to spare.
DO $$
BEGIN
  FOR part IN 0 .. 5 LOOP
    EXECUTE pg_catalog.format('
      CREATE TABLE pushy_internal.log_%1$s (
        xid       bigint  NOT NULL,  -- the top-level transaction, with its epoch
        lsn       bigint  NOT NULL,  -- where the WAL was, and on by one for each notice of the call: a later commit of the same row is behind
        caused_by bigint,            -- the job that wrote it
        depth     smallint,
        merge     boolean NOT NULL
      ) USING heap WITH (autovacuum_enabled = false);
      ALTER TABLE pushy_internal.log_%1$s
        ADD COLUMN channel text NOT NULL,
        ADD COLUMN payload text NOT NULL,
        ADD COLUMN topic text,
        ALTER COLUMN channel SET STORAGE PLAIN,
        ALTER COLUMN payload SET STORAGE PLAIN,
        ALTER COLUMN topic SET STORAGE PLAIN;
      COMMENT ON TABLE pushy_internal.log_%1$s IS ''Part %1$s of the event log; pushy.subscription_read reads it.'';
      CREATE TABLE pushy_internal.tick_%1$s (
        epoch      bigint NOT NULL,  -- which life of the relay
        tick       bigint NOT NULL,
        at         timestamptz NOT NULL,
        notices    int    NOT NULL,
        bytes      bigint NOT NULL,
        channels   bigint NOT NULL,  -- a bit for each channel in it, by hash: ticks without theirs are skipped by readers
        parts      int    NOT NULL,  -- a bit for each part of the log in which its notices lie
        emitted_epoch bigint NOT NULL, -- the last tick of which all was emitted to LISTENers when this one was written
        emitted_tick  bigint NOT NULL,
        lost       boolean NOT NULL, -- notices are missing before this tick, in no log
        seen       bytea  NOT NULL,  -- which transactions were over
        runs       bytea  NOT NULL,  -- where its notices lie, in order
        PRIMARY KEY (epoch, tick)
      ) USING heap WITH (autovacuum_enabled = false);
      COMMENT ON TABLE pushy_internal.tick_%1$s IS ''Ticks of the time when part %1$s of the event log was the current one.''',
      part);
  END LOOP;
END
$$;

CREATE TABLE pushy_internal.log_part (
  part        int         NOT NULL,
  opened_at   timestamptz,           -- NULL: empty
  closed_at   timestamptz,           -- NULL: current, or empty
  first_epoch bigint,                -- no tick in it is before this one
  first_tick  bigint,
  bytes       bigint,                -- how much is in it, about, once it is closed; NULL: as many as it has on disk
  blocks      int,                   -- pages it had when it was emptied in place: room to be used again; NULL: it is to be cleaned
  PRIMARY KEY (part)
) USING heap;
COMMENT ON TABLE pushy_internal.log_part IS 'The parts of the event log: since when each is in use.';
INSERT INTO pushy_internal.log_part (part, opened_at, first_epoch, first_tick, blocks) VALUES (0, pg_catalog.clock_timestamp(), 0, 0, 0);
INSERT INTO pushy_internal.log_part (part, blocks) VALUES (1, 0), (2, 0), (3, 0), (4, 0), (5, 0);

CREATE TABLE pushy_internal.log_state (
  only_row   boolean NOT NULL DEFAULT true CHECK (only_row),
  part       int     NOT NULL DEFAULT 0,   -- into which writers append
  epoch      bigint  NOT NULL DEFAULT 0,   -- the newest life of the relay
  -- Seconds since 2026, when this log began: its epochs are none of those of the log before, which a restore in place has ended.
  born       bigint  NOT NULL,
  -- The server's timeline when readers were last told that they may have read what it does not have.
  timeline   int     NOT NULL,
  -- The last notice that was emptied.
  lost_epoch bigint  NOT NULL DEFAULT 0,
  lost_tick  bigint  NOT NULL DEFAULT 0,
  lost_n     int     NOT NULL DEFAULT 0,
  -- The last tick that was emitted to LISTENers.
  emitted_epoch bigint  NOT NULL DEFAULT 0,
  emitted_tick  bigint  NOT NULL DEFAULT 0,
  -- The last tick when that was written, and which transactions were over then.
  last_epoch bigint  NOT NULL DEFAULT 0,
  last_tick  bigint  NOT NULL DEFAULT 0,
  last_n     int     NOT NULL DEFAULT 0,
  seen       bytea,
  -- Notices are in no log: each end of a transaction with a number below is followed by a resync; 0: none is.
  lost_until bigint  NOT NULL DEFAULT 0,
  PRIMARY KEY (only_row)
) USING heap WITH (fillfactor = 50);
COMMENT ON TABLE pushy_internal.log_state IS
  'One row: how far the event log was emptied and emitted. Written when the relay starts, falls idle, or switches to another part.';
INSERT INTO pushy_internal.log_state (born, timeline)
  VALUES (pg_catalog.date_part('epoch', pg_catalog.clock_timestamp())::pg_catalog.int8 OPERATOR(pg_catalog.-) 1767225600::pg_catalog.int8,
          -- The first eight digits of a WAL file's name.
          ('x'::pg_catalog.text OPERATOR(pg_catalog.||) pg_catalog.substr(pg_catalog.pg_walfile_name(
            pg_catalog.pg_current_wal_insert_lsn()), 1, 8))::pg_catalog.bit(32)::pg_catalog.int4);


CREATE SEQUENCE pushy_internal.subscription_id_seq AS int CYCLE;
COMMENT ON SEQUENCE pushy_internal.subscription_id_seq IS 'Numbers of subscriptions.';

CREATE TABLE pushy_internal.subscription (
  subscription_id int       NOT NULL,      -- by which its readers lock each other out
  name          text        NOT NULL,
  owner         oid         NOT NULL,
  owner_name    name        NOT NULL,
  channels      text[],                    -- exact names; NULL: all
  queue         text,                      -- each notice becomes a job of it; by number and owner too, as of a watch
  queue_id      int,
  queue_owner   oid,
  -- The last notice acknowledged, or passed over because it was of another channel; before all (epoch -1): it came from elsewhere.
  epoch         bigint      NOT NULL,
  tick          bigint      NOT NULL,
  n             int         NOT NULL,
  -- Where the cursor means something; elsewhere (a restore, a copy of the database) its reader is to resync.
  home_system   bigint      NOT NULL,
  home_database oid         NOT NULL,
  home_extension oid        NOT NULL,      -- a restore in place begins another log
  stopped       text,                      -- why its notices become no jobs
  created_at    timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  acked_at      timestamptz,
  topics        text[],                    -- patterns; NULL: all, and what has no topic
  PRIMARY KEY (name),
  CONSTRAINT subscription_queue CHECK ((queue IS NULL) OPERATOR(pg_catalog.=) (queue_id IS NULL)
                                       AND (queue IS NULL) OPERATOR(pg_catalog.=) (queue_owner IS NULL))
) USING heap WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
COMMENT ON TABLE pushy_internal.subscription IS 'Readers of the event log; see the view pushy.subscriptions.';
ALTER SEQUENCE pushy_internal.subscription_id_seq OWNED BY pushy_internal.subscription.subscription_id;
SELECT pg_catalog.pg_extension_config_dump('pushy_internal.subscription_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('pushy_internal.subscription', '');


CREATE FUNCTION pushy.subscription_create(
  name text,
  channels text[] DEFAULT NULL,
  queue text DEFAULT NULL,
  from_oldest boolean DEFAULT false,
  topics text[] DEFAULT NULL,
  after text DEFAULT NULL)
RETURNS text LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_subscription_create_v2';
COMMENT ON FUNCTION pushy.subscription_create(text, text[], text, boolean, text[], text) IS
  'Declares a reader of the event log and answers its cursor. One that is there keeps its cursor, whatever from_oldest and after say, and takes the new channels, topics and queue, so a service can run it at each start. It reads notices delivered by relay, of channels written as after LISTEN (NULL: all; 1,000 at most), of topics that patterns match, such as post/* or user/7/** (NULL: all, and what has none), from now on, from the oldest still in the log, or after a cursor, and belongs to the current user. With queue, which needs privilege enqueue, each notice becomes a job with arguments {"channel", "topic", "payload"}, exactly once; everybody who may publish on such a channel makes these jobs, so the handler must not believe the payload.';

CREATE FUNCTION pushy.subscription_read(
  name text,
  max_notices int DEFAULT 100,
  after text DEFAULT NULL,
  OUT cursor text,
  OUT channel text,
  OUT payload text,
  OUT at timestamptz,
  OUT resync boolean,
  OUT topic text)
RETURNS SETOF record LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 100 AS 'MODULE_PATHNAME', 'pushy_subscription_read_v2';
COMMENT ON FUNCTION pushy.subscription_read(text, int, text) IS
  'The next notices of a subscription, max_notices of them at most (0: none), after the last one acknowledged or after the cursor given. They come again until pushy.subscription_ack; a transaction that has read keeps other sessions from the subscription until it ends. A row with resync (and no channel) says that notices are missing before it: read the tables anew, then go on. A payload too long for NOTIFY is a reference ("notice": id) that pushy.notice resolves; at is when the relay met the notice; for the subscription''s owner.';

CREATE FUNCTION pushy.subscription_ack(name text, cursor text)
RETURNS boolean LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_subscription_ack_v1';
COMMENT ON FUNCTION pushy.subscription_ack(text, text) IS
  'Acknowledges all notices up to a cursor that pushy.subscription_read answered: in the transaction of their effects, each counts exactly once. False when that had been acknowledged already. For the subscription''s owner.';

CREATE PROCEDURE pushy.subscription_wait(name text, timeout interval DEFAULT '1 hour', INOUT ready boolean DEFAULT NULL)
LANGUAGE c AS 'MODULE_PATHNAME', 'pushy_subscription_wait_v1';
COMMENT ON PROCEDURE pushy.subscription_wait(text, interval, boolean) IS
  'Waits until a subscription has something to read, holding no snapshot and asking nothing meanwhile; ready is false after the timeout. CALL it outside a transaction block; PL/pgSQL wants a variable for ready. For the subscription''s owner.';

CREATE FUNCTION pushy.subscription_drop(name text)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_subscription_drop_v1';
COMMENT ON FUNCTION pushy.subscription_drop(text) IS
  'Drops a subscription. For its owner.';


-- Reading without a subscription.

CREATE FUNCTION pushy.log_position()
RETURNS text LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_log_position_v1';
COMMENT ON FUNCTION pushy.log_position() IS
  'Answers a cursor that belongs to the snapshot of the calling statement, because the notice of each change that this snapshot does not see comes behind it. Read it first, then the tables, in one REPEATABLE READ transaction or one after the other, and go on from it with after => cursor of pushy.subscription_create. Nothing is missing between the two, and what was committed a moment before may come twice.';

CREATE FUNCTION pushy_internal.log_read(
  after text,
  channels text[] DEFAULT NULL,
  topics text[] DEFAULT NULL,
  max_notices int DEFAULT 1000,
  OUT cursor text,
  OUT channel text,
  OUT topic text,
  OUT payload text,
  OUT at timestamptz,
  OUT merge boolean,
  OUT resync boolean,
  OUT more boolean)
RETURNS SETOF record LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 100 AS 'MODULE_PATHNAME', 'pushy_log_read_v1';
COMMENT ON FUNCTION pushy_internal.log_read(text, text[], text[], int) IS
  'Internal: what the caller may read of the event log after a cursor, as pushy.subscription_read has it; for a gateway. The last row has no channel: its cursor is where the next call goes on, and more says whether there is more by now.';

CREATE PROCEDURE pushy_internal.log_wait(
  INOUT after text,
  channels text[] DEFAULT NULL,
  topics text[] DEFAULT NULL,
  timeout interval DEFAULT '1 hour',
  INOUT ready boolean DEFAULT NULL)
LANGUAGE c AS 'MODULE_PATHNAME', 'pushy_log_wait_v1';
COMMENT ON PROCEDURE pushy_internal.log_wait(text, text[], text[], interval, boolean) IS
  'Internal: waits until pushy_internal.log_read has something for the caller after a cursor, holding no snapshot; for a gateway. ready is false after the timeout, and after moves past what was not for the caller.';


CREATE FUNCTION pushy_internal.subscription_rows(
  OUT name text,
  OUT owner name,
  OUT channels text[],
  OUT queue text,
  OUT cursor text,
  OUT lag_notices bigint,
  OUT lag_bytes bigint,
  OUT lag interval,
  OUT resync boolean,
  OUT stopped text,
  OUT state text,
  OUT fix text,
  OUT created_at timestamptz,
  OUT acked_at timestamptz,
  OUT topics text[])
RETURNS SETOF record LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'pushy_subscription_rows_v2';
COMMENT ON FUNCTION pushy_internal.subscription_rows() IS
  'Subscriptions that the caller owns, all of them for pg_read_all_stats; behind pushy.subscriptions.';

CREATE VIEW pushy.subscriptions WITH (security_barrier) AS
SELECT s.name, s.owner,
       CASE WHEN s.channels IS NOT NULL
            THEN ARRAY(SELECT pushy.channel_ident(c.name) FROM pg_catalog.unnest(s.channels) WITH ORDINALITY c(name, n) ORDER BY c.n) END AS channels,
       s.channels AS channel_names, s.queue, s.cursor, s.lag_notices, s.lag_bytes, s.lag, s.resync, s.stopped, s.state, s.fix, s.created_at, s.acked_at, s.topics
  FROM pushy_internal.subscription_rows() s;
COMMENT ON VIEW pushy.subscriptions IS
  'Readers of the event log that you own, and how far each is behind; all of them for pg_read_all_stats.';
COMMENT ON COLUMN pushy.subscriptions.name IS 'Name of the subscription.';
COMMENT ON COLUMN pushy.subscriptions.owner IS 'The role that created the subscription; NULL: that role is gone.';
COMMENT ON COLUMN pushy.subscriptions.channels IS 'The channels that it reads, as one writes them after LISTEN, quoted where need be; NULL: all.';
COMMENT ON COLUMN pushy.subscriptions.channel_names IS 'The channels as they are called, never quoted: what column channel of pushy.subscription_read has; NULL: all.';
COMMENT ON COLUMN pushy.subscriptions.queue IS 'The queue of which each notice becomes a job.';
COMMENT ON COLUMN pushy.subscriptions.cursor IS 'The last notice acknowledged, or passed over because it was of another channel.';
COMMENT ON COLUMN pushy.subscriptions.lag_notices IS 'Notices behind the cursor that the subscription is to read; of equal ones with merge, of which it reads the last, each counts. One look at the view reads 100,000 notices of the log at most; past that whole ticks count, of which the subscription may want a part. NULL, as the two that follow, where its owner may not read its channels, unless you read all statistics.';
COMMENT ON COLUMN pushy.subscriptions.lag_bytes IS 'Bytes of the channels and payloads of the notices behind the cursor.';
COMMENT ON COLUMN pushy.subscriptions.lag IS 'Age of the oldest notice that the subscription is to read and has not acknowledged; NULL where there is none.';
COMMENT ON COLUMN pushy.subscriptions.resync IS 'Whether the reader is told to resync with its next read. The log was emptied past the cursor, notices behind it found the log full or no relay that could come, a standby was promoted that may lack what was read, or the owner was not let into a channel when something was published there.';
COMMENT ON COLUMN pushy.subscriptions.stopped IS 'Why its notices become no jobs, as soon as its queue is gone or another''s or refuses its owner; tried again when a queue, a privilege or the subscription changes.';
COMMENT ON COLUMN pushy.subscriptions.state IS 'Whether the subscription does what it should: active, elsewhere, ownerless, denied, stopped, no_relay or resync. elsewhere came by a restore; the owner of an ownerless one was dropped, so a superuser creates it again as his, which keeps its cursor, or drops it; the owner of a denied one may not read one of its channels, which somebody has granted to others, so its reads are refused; stopped makes no jobs of its notices. no_relay hears nothing new, because no relay can come; the reader of resync is about to be told that notices are missing.';
COMMENT ON COLUMN pushy.subscriptions.fix IS 'The statement that makes the subscription active or, where none does by itself, what to do in words; NULL: it is active.';
COMMENT ON COLUMN pushy.subscriptions.created_at IS 'When the subscription was first created.';
COMMENT ON COLUMN pushy.subscriptions.acked_at IS 'When the subscription was last acknowledged.';
COMMENT ON COLUMN pushy.subscriptions.topics IS 'The patterns of topics that it reads; NULL: all, and what has no topic.';


CREATE FUNCTION pushy_internal.log_row(
  OUT bytes bigint,
  OUT notices bigint,
  OUT oldest text,
  OUT newest text,
  OUT oldest_at timestamptz,
  OUT newest_at timestamptz,
  OUT emitted text,
  OUT pending bigint,
  OUT is_full boolean)
RETURNS record LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_log_row_v1';
COMMENT ON FUNCTION pushy_internal.log_row() IS 'Size and bounds of the event log; behind pushy.log.';

CREATE FUNCTION pushy_internal.log_bounds(OUT bytes bigint, OUT oldest text)
RETURNS record LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_log_bounds_v1';
COMMENT ON FUNCTION pushy_internal.log_bounds() IS
  'Size of the event log and the cursor of its oldest tick, without reading the others; behind pushy.stats.';

CREATE VIEW pushy.log WITH (security_barrier) AS
SELECT l.bytes, l.notices, l.oldest, l.newest, l.oldest_at, l.newest_at, l.emitted, l.pending, l.is_full
  FROM pushy_internal.log_row() l;
COMMENT ON VIEW pushy.log IS 'The event log of this database in one row: its size, and how far it reaches.';
COMMENT ON COLUMN pushy.log.bytes IS 'Bytes on disk, its ticks included.';
COMMENT ON COLUMN pushy.log.notices IS 'Notices in the log.';
COMMENT ON COLUMN pushy.log.oldest IS 'Cursor of the oldest tick; NULL while there is none.';
COMMENT ON COLUMN pushy.log.newest IS 'Cursor of the newest notice.';
COMMENT ON COLUMN pushy.log.oldest_at IS 'When the relay met the oldest notice.';
COMMENT ON COLUMN pushy.log.newest_at IS 'When the relay met the newest notice.';
COMMENT ON COLUMN pushy.log.emitted IS 'Cursor of the last notice emitted to LISTENers.';
COMMENT ON COLUMN pushy.log.pending IS 'Notices of transactions that have not ended, as far as the relay knows; NULL while none runs.';
COMMENT ON COLUMN pushy.log.is_full IS 'Whether the log is at pushy.log_max_size and no part could be emptied: notices are not logged, and readers are to resync.';
