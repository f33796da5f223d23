-- Channel names. A text like channel 'NewUser' is what one would write after LISTEN, so LISTEN NewUser hears it.
--
-- STABLE: what a text stands for depends on the database's encoding and locale, on the server version's
-- reserved words and, behind UESCAPE, on standard_conforming_strings. PARALLEL SAFE: they only parse.

CREATE FUNCTION pushy.channel_name(channel text) RETURNS text
    LANGUAGE c STABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pushy_channel_name_v1';

COMMENT ON FUNCTION pushy.channel_name(text) IS
    'The exact name that LISTEN makes of an identifier; an error where LISTEN refuses it or would cut it.';

CREATE FUNCTION pushy.channel_inspect(
    channel text,
    OUT input text,
    OUT channel_name text,
    OUT byte_length int,
    OUT folded boolean,
    OUT truncated boolean,
    OUT quoted boolean,
    OUT listen_sql text,
    OUT notify_sql text,
    OUT error text)
    LANGUAGE c STABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pushy_channel_inspect_v1';

COMMENT ON FUNCTION pushy.channel_inspect(text) IS
    'What LISTEN makes of an identifier, the cut included, and why channel_name refuses it; never an error. byte_length is before the cut.';

CREATE FUNCTION pushy.channel_ident(channel_name text) RETURNS text
    LANGUAGE c STABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pushy_channel_ident_v1';

COMMENT ON FUNCTION pushy.channel_ident(text) IS
    'The text to write after LISTEN for a channel of exactly this name, quoted where need be.';

-- Who reads a channel. One without a row here is open to every role that may use Pushy.
CREATE TABLE pushy_internal.channel (
  channel       text   NOT NULL,   -- its exact name
  owner         oid    NOT NULL,   -- who granted it first
  owner_name    name   NOT NULL,
  -- Where it was granted; elsewhere (a restore, a copy of the database) only grants to PUBLIC count.
  home_system   bigint NOT NULL,
  home_database oid    NOT NULL,
  PRIMARY KEY (channel)
) USING heap;
COMMENT ON TABLE pushy_internal.channel IS 'Channels that were granted, and whose they are; see pushy.channel_grant.';

CREATE TABLE pushy_internal.channel_acl (
  channel      text        NOT NULL,
  grantee      oid         NOT NULL,   -- 0 is PUBLIC
  grantee_name name        NOT NULL,
  privilege    text        NOT NULL CHECK (privilege OPERATOR(pg_catalog.=) 'listen'),
  topics       text,                   -- patterns, with commas between them; NULL: all topics, and notices without one
  granted_lsn  bigint      NOT NULL,   -- where the WAL was: what was written before is not read
  granted_at   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  -- Where its channel was at home when it was given, as in the row of the channel: it counts only while it is there still, so what a
  -- dump brings is of no channel but one of that dump.
  home_system   bigint NOT NULL,
  home_database oid    NOT NULL,
  granted_cursor text,                 -- the newest notice of the log then; NULL: as 0.1.0 wrote it
  PRIMARY KEY (channel, grantee, privilege)
) USING heap;
COMMENT ON TABLE pushy_internal.channel_acl IS 'Who reads the channels of pushy_internal.channel; see the view pushy.channel_grants.';

SELECT pg_catalog.pg_extension_config_dump('pushy_internal.channel', '');
SELECT pg_catalog.pg_extension_config_dump('pushy_internal.channel_acl', '');

CREATE FUNCTION pushy.channel_grant(channel text, role text, privilege text DEFAULT 'listen', topics text DEFAULT NULL)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_channel_grant_v1';
COMMENT ON FUNCTION pushy.channel_grant(text, text, text, text) IS
  'Lets a role read a channel, by subscriptions and pushy.notice, and closes the channel to all who are not granted it. channel is written as after LISTEN, role is an exact name or ''public'', and topics, patterns with commas between them (post/*, user/7/**), lets it read only what has such a topic. Who grants a channel first owns it, which any role that may use Pushy can do unless another role''s watch publishes on it or another role''s subscription names it; names that begin with pushy_ are Pushy''s own. What was written before the grant is not read, and LISTEN, which asks for no privilege, still hears everything.';

CREATE FUNCTION pushy.channel_revoke(channel text, role text, privilege text DEFAULT 'listen')
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_channel_revoke_v1';
COMMENT ON FUNCTION pushy.channel_revoke(text, text, text) IS
  'Takes back what pushy.channel_grant gave, also from a subscription that is being read. Without grants the channel is its owner''s alone; a grant to ''public'' opens it. For the channel''s owner.';

CREATE FUNCTION pushy_internal.channel_grant_rows(
  OUT channel text,
  OUT grantee name,
  OUT privilege text,
  OUT topics text,
  OUT owner name,
  OUT granted_at timestamptz)
RETURNS SETOF record LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'pushy_channel_grant_rows_v1';
COMMENT ON FUNCTION pushy_internal.channel_grant_rows() IS
  'Grants on channels that the caller owns, and those to it and to all; behind pushy.channel_grants.';

CREATE VIEW pushy.channel_grants WITH (security_barrier) AS
SELECT g.channel, g.grantee, g.privilege, g.topics, g.owner, g.granted_at
  FROM pushy_internal.channel_grant_rows() g;
COMMENT ON VIEW pushy.channel_grants IS
  'Who may read channels that are not open: grants on channels that you own, and those to you and to all.';
COMMENT ON COLUMN pushy.channel_grants.channel IS 'What to write after LISTEN.';
COMMENT ON COLUMN pushy.channel_grants.grantee IS 'The role; public: all; NULL: nobody but the owner.';
COMMENT ON COLUMN pushy.channel_grants.privilege IS 'What was granted: listen.';
COMMENT ON COLUMN pushy.channel_grants.topics IS 'The patterns of topics that may be read, with commas between them; {sub} stands for whom the gateway has let in, and for no role. NULL: all topics, and what has none.';
COMMENT ON COLUMN pushy.channel_grants.owner IS 'Who granted the channel first: grants and revokes. NULL: that role is gone; a superuser who grants the channel owns it then.';
COMMENT ON COLUMN pushy.channel_grants.granted_at IS 'When the grant was given: what was written before is not read.';

-- Like pg_notify() it must stay in the leader.
CREATE FUNCTION pushy.notify(channel text, payload text DEFAULT '', delivery text DEFAULT NULL, topic text DEFAULT NULL) RETURNS void
    LANGUAGE c VOLATILE PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pushy_notify_v2';

COMMENT ON FUNCTION pushy.notify(text, text, text, text) IS
    'Publishes a payload on a channel when the transaction commits. The channel is written as after LISTEN, and not one of Pushy''s own (pushy_ and more). delivery: relay writes it to the event log, so that the commit waits for nobody, the relay emits it to LISTENers a moment later, and subscriptions can read it; notify is NOTIFY; where nothing is said relay, and notify as long as no relay can come here. topic is a finer address within the channel, such as post/42, by which subscriptions choose; LISTENers do not see it, it does not go with delivery notify, and where no relay can come it is passed over.';
