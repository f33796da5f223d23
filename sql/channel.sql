-- Channel names. A text like channel 'NewUser' is what one would write after LISTEN, so LISTEN NewUser hears it.
--
-- STABLE: what a text stands for depends on the database's encoding and locale, on the server version's
-- reserved words and, behind UESCAPE, on standard_conforming_strings. PARALLEL SAFE: they only parse.

CREATE FUNCTION pushy.channel_name(identifier text) RETURNS text
    LANGUAGE c STABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pushy_channel_name';

COMMENT ON FUNCTION pushy.channel_name(text) IS
    'The exact channel that LISTEN makes of an identifier; an error where LISTEN refuses it or would cut it';

CREATE FUNCTION pushy.channel_inspect(
    identifier text,
    OUT input text,
    OUT channel text,
    OUT byte_length int,
    OUT folded boolean,
    OUT truncated boolean,
    OUT quoted boolean,
    OUT listen_sql text,
    OUT notify_sql text,
    OUT error text)
    LANGUAGE c STABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pushy_channel_inspect';

COMMENT ON FUNCTION pushy.channel_inspect(text) IS
    'What LISTEN makes of an identifier, the cut included, and why channel_name refuses it; never an error. byte_length is before the cut';

CREATE FUNCTION pushy.channel_ident(channel text) RETURNS text
    LANGUAGE c STABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pushy_channel_ident';

COMMENT ON FUNCTION pushy.channel_ident(text) IS
    'The text to write after LISTEN for a channel of exactly this name, quoted where needed';

-- Like pg_notify() it must stay in the leader.
CREATE FUNCTION pushy.notify(channel text, payload text DEFAULT '', delivery text DEFAULT 'notify') RETURNS void
    LANGUAGE c VOLATILE PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pushy_notify';

COMMENT ON FUNCTION pushy.notify(text, text, text) IS
    'NOTIFY with a checked channel, written as after LISTEN, and a checked payload. delivery => ''relay'' writes it to the event log instead: the commit waits for nobody, LISTENers hear it from the relay a moment later, and subscriptions can read it. Allowed in a read-only transaction, as NOTIFY is';
