-- Watches: a table's changes become notices, or jobs.

CREATE SEQUENCE pushy_internal.watch_id_seq AS int CYCLE;
COMMENT ON SEQUENCE pushy_internal.watch_id_seq IS 'Numbers of watches.';

CREATE TABLE pushy_internal.watch (
  watch_id      int         NOT NULL,
  -- What its triggers say whose they are by: a number may be another watch's after a restore, so a watch that is loaded gets a new one.
  token         uuid        NOT NULL,
  -- The table by OID and by name as it was when declared: after a restore they find it, the name or its triggers.
  relation      oid         NOT NULL,
  relation_name text        NOT NULL,
  relation_owner_name name  NOT NULL,
  name          text        NOT NULL,
  -- Whose name it has, and follows when that is renamed: its table's, and the channel too, or its queue's. NULL: the caller's choice.
  named_by      text        CHECK (named_by OPERATOR(pg_catalog.=) ANY (ARRAY['table', 'queue'])),
  owner         oid         NOT NULL,
  owner_name    name        NOT NULL,
  channel       text,                   -- its exact name; NULL: jobs only
  events        text[]      NOT NULL CHECK (events OPERATOR(pg_catalog.<@) ARRAY['insert', 'update', 'delete', 'truncate']),
  columns       name[],
  -- As they were written, or as the server writes them since a column was renamed; the triggers keep what is evaluated.
  condition     text,
  payload       text        NOT NULL CHECK (payload OPERATOR(pg_catalog.=) ANY (ARRAY['none', 'key', 'row', 'diff', 'expression'])),
  payload_expr  text,
  level         text        NOT NULL CHECK (level OPERATOR(pg_catalog.=) ANY (ARRAY['row', 'statement'])),
  delivery      text        CHECK (delivery OPERATOR(pg_catalog.=) ANY (ARRAY['notify', 'relay'])),
  -- By number and owner too: another queue may have the name one day.
  queue         text,
  queue_id      int,
  queue_owner   oid,
  args_expr     text,
  merge         boolean     NOT NULL,
  paused        boolean     NOT NULL,
  -- Where it was declared; elsewhere (a restore, a copy of the database) it publishes nothing.
  home_system   bigint      NOT NULL,
  home_database oid         NOT NULL,
  home_extension oid        NOT NULL,
  triggers      oid[]       NOT NULL,
  expression_trigger oid,               -- the one of them that holds the condition and the expressions
  -- What the triggers said when they were made, as the server writes it: where a restore brings some, anybody may have made them.
  trigger_texts text[]      NOT NULL,
  -- Their fingerprint when they were made: whoever has TRIGGER on the table may replace one, which leaves it its number.
  fingerprint   text        NOT NULL,
  created_at    timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  changed_at    timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  topic_expr    text,
  PRIMARY KEY (watch_id),
  CONSTRAINT watch_queue CHECK ((queue IS NULL) OPERATOR(pg_catalog.=) (queue_id IS NULL)
                                AND (queue IS NULL) OPERATOR(pg_catalog.=) (queue_owner IS NULL))
) USING heap;
COMMENT ON TABLE pushy_internal.watch IS 'Watches as declared; see the view pushy.watches.';
CREATE UNIQUE INDEX watch_name ON pushy_internal.watch (relation, name, home_system, home_database, home_extension);
COMMENT ON INDEX pushy_internal.watch_name IS 'One watch per table and name.';
CREATE UNIQUE INDEX watch_token ON pushy_internal.watch (token);
COMMENT ON INDEX pushy_internal.watch_token IS 'How a trigger that fires finds its watch.';
ALTER SEQUENCE pushy_internal.watch_id_seq OWNED BY pushy_internal.watch.watch_id;

SELECT pg_catalog.pg_extension_config_dump('pushy_internal.watch_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('pushy_internal.watch', '');


CREATE TABLE pushy_internal.oversize_notice (
  id         bigint      NOT NULL,  -- at random
  expires_at timestamptz NOT NULL,
  lsn        bigint      NOT NULL,  -- where the WAL was: a role that was let into the channel later does not read it
  channel    text        NOT NULL,
  payload    text        NOT NULL,
  topic      text,                  -- NULL: none
  PRIMARY KEY (id)
) USING heap WITH (autovacuum_vacuum_scale_factor = 0.05);
COMMENT ON TABLE pushy_internal.oversize_notice IS 'Payloads too long for NOTIFY; see pushy.notice.';
CREATE INDEX oversize_notice_expiry ON pushy_internal.oversize_notice (expires_at);
COMMENT ON INDEX pushy_internal.oversize_notice_expiry IS 'What retention removes next.';


CREATE FUNCTION pushy.watch_row()
RETURNS trigger LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_watch_row_v1';
COMMENT ON FUNCTION pushy.watch_row() IS
  'What the triggers of a watch call, which pushy.watch makes; nobody else does. It is in this schema because whoever restores a dump of a watched table must find it.';

CREATE FUNCTION pushy.watch_statement()
RETURNS trigger LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_watch_statement_v1';
COMMENT ON FUNCTION pushy.watch_statement() IS
  'What the statement triggers of a watch call, which pushy.watch makes; nobody else does. It is in this schema because whoever restores a dump of a watched table must find it.';

CREATE FUNCTION pushy.watch(
  relation regclass,
  channel text DEFAULT NULL,
  events text[] DEFAULT '{insert,update,delete}',
  columns name[] DEFAULT NULL,
  condition text DEFAULT NULL,
  payload text DEFAULT 'key',
  payload_expr text DEFAULT NULL,
  level text DEFAULT 'row',
  delivery text DEFAULT NULL,
  queue text DEFAULT NULL,
  args_expr text DEFAULT NULL,
  merge boolean DEFAULT NULL,
  name text DEFAULT NULL,
  topic_expr text DEFAULT NULL)
RETURNS text LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_watch_v2';
COMMENT ON FUNCTION pushy.watch(regclass, text, text[], name[], text, text, text, text, text, text, text, boolean, text, text) IS
  'Turns a table''s changes into notices or jobs, and answers the channel as LISTEN wants it. Run it with every deploy: a watch of the name (if none is given, the channel''s, or the queue''s where there is no channel) is replaced and keeps its pause. columns: an update counts when one of them IS DISTINCT from before; condition, payload_expr, args_expr and topic_expr (by which subscriptions choose) are SQL over NEW and OLD; payload is none, key, row or diff, as JSON; level is row or statement; queue makes a job of each notice, and only jobs where no channel is named; delivery is relay (the event log) or notify. Needs TRIGGER on the table and enqueue on the queue; what a notice shows every role of the database may hear.';

CREATE FUNCTION pushy.unwatch(relation regclass, name text DEFAULT NULL)
RETURNS int LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_unwatch_v1';
COMMENT ON FUNCTION pushy.unwatch(regclass, text) IS
  'Ends the watch of this name, or all of the table''s; answers how many there were. For the watch''s maker and the table''s owner.';

CREATE FUNCTION pushy.watch_pause(relation regclass, name text DEFAULT NULL)
RETURNS int LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_watch_pause_v1';
COMMENT ON FUNCTION pushy.watch_pause(regclass, text) IS
  'Makes no notices and no jobs of the table''s changes until pushy.watch_resume, to seed it or load it in bulk: one watch by name, or all. Answers how many watches that were, paused before or not. Changes made meanwhile are not made up for. For the watch''s maker and the table''s owner.';

CREATE FUNCTION pushy.watch_resume(relation regclass, name text DEFAULT NULL)
RETURNS int LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_watch_resume_v1';
COMMENT ON FUNCTION pushy.watch_resume(regclass, text) IS
  'Makes notices and jobs of the table''s changes again: one watch by name, or all. Answers how many watches that were, paused before or not; one that is broken stays so, with a warning. For the watch''s maker and the table''s owner.';

CREATE FUNCTION pushy.notice(id bigint)
RETURNS text LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_notice_v1';
COMMENT ON FUNCTION pushy.notice(bigint) IS
  'The whole payload of a notice that was too long for NOTIFY and came as a reference ("notice": id). It is kept for pushy.notice_keep. For roles that may read the channel; the number cannot be guessed.';

CREATE FUNCTION pushy_internal.watch_counts(
  watch_id int,
  OUT notices bigint,
  OUT jobs bigint,
  OUT errors bigint,
  OUT last_fired_at timestamptz,
  OUT last_error_at timestamptz,
  OUT fix text)
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_watch_counts_v1';
COMMENT ON FUNCTION pushy_internal.watch_counts(int) IS
  'Internal: the counts of a watch, and what to do when its jobs cannot be enqueued; behind the view pushy.watches. NULLs of one that the caller may not see.';

CREATE FUNCTION pushy_internal.is_home(home_system bigint, home_database oid, home_extension oid, relation oid)
RETURNS boolean LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'pushy_is_home_v1';
COMMENT ON FUNCTION pushy_internal.is_home(bigint, oid, oid, oid) IS
  'Internal: whether a watch or a queue was declared here and its table is still there, behind the views pushy.watches, pushy.queues and pushy.queue_grants.';

CREATE FUNCTION pushy_internal.watch_is_whole(relation oid, triggers oid[], fingerprint text)
RETURNS boolean LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_watch_is_whole_v1';
COMMENT ON FUNCTION pushy_internal.watch_is_whole(oid, oid[], text) IS
  'Internal: whether the triggers of a watch are all there, as the watch has made them, behind the view pushy.watches.';

CREATE FUNCTION pushy_internal.watch_elsewhere(watch_id int)
RETURNS oid LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_watch_elsewhere_v1';
COMMENT ON FUNCTION pushy_internal.watch_elsewhere(int) IS
  'Internal: the table of a watch that came by a restore, behind the view pushy.watches.';

CREATE FUNCTION pushy_internal.relay_obstacle(OUT reason text, OUT fix text, OUT can_come boolean)
RETURNS record LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_relay_obstacle_v1';
COMMENT ON FUNCTION pushy_internal.relay_obstacle() IS
  'Internal: why no relay emits what is logged in this database, behind the views pushy.watches and pushy.subscriptions. NULL: one does, or would.';

CREATE FUNCTION pushy_internal.watch_orphans(OUT relation oid, OUT name text)
RETURNS SETOF record LANGUAGE c STABLE PARALLEL UNSAFE ROWS 1 AS 'MODULE_PATHNAME', 'pushy_watch_orphans_v1';
COMMENT ON FUNCTION pushy_internal.watch_orphans() IS
  'Internal: tables with triggers whose watch is not here, behind the view pushy.watches.';

CREATE FUNCTION pushy_internal.watch_visible(
  watch_id int, home_system bigint, home_database oid, home_extension oid, relation oid, owner oid)
RETURNS boolean LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_watch_visible_v1';
COMMENT ON FUNCTION pushy_internal.watch_visible(int, bigint, oid, oid, oid, oid) IS
  'Internal: whether the caller has made a watch or could make one of its table; the filter of the view pushy.watches.';

CREATE FUNCTION pushy_internal.watch_mend(w pushy_internal.watch, relation oid, has_lost boolean)
RETURNS text LANGUAGE sql STABLE PARALLEL UNSAFE COST 1 SET jit = off
BEGIN ATOMIC
  SELECT CASE
           WHEN y.missing IS NOT NULL
             THEN pg_catalog.format('Declare it again with pushy.watch without what is no column of %s any more: %s; or end it: SELECT pushy.unwatch(%L, %L)',
                                    relation::pg_catalog.regclass, y.missing, relation::pg_catalog.regclass, w.name)
           WHEN has_lost
             THEN pg_catalog.format('Declare it again with pushy.watch; or end it: SELECT pushy.unwatch(%L, %L)', relation::pg_catalog.regclass, w.name)
           WHEN z.missing IS NOT NULL
             THEN pg_catalog.format('Create what its expressions use and is gone, %s, and declare it again with pushy.watch, or declare it without; or end it: SELECT pushy.unwatch(%L, %L)',
                                    z.missing, relation::pg_catalog.regclass, w.name)
           -- A statement for its maker only: whoever else ran it would be the maker of words that somebody else wrote.
           WHEN NOT EXISTS (SELECT FROM pg_catalog.pg_roles m WHERE m.oid OPERATOR(pg_catalog.=) w.owner AND m.rolname OPERATOR(pg_catalog.=) CURRENT_USER)
             THEN pg_catalog.format('%s again with pushy.watch; or end it: SELECT pushy.unwatch(%L, %L)',
                                    COALESCE((SELECT pg_catalog.format('Who declared it, %I, declares it', o.rolname)
                                                FROM pg_catalog.pg_roles o WHERE o.oid OPERATOR(pg_catalog.=) w.owner),
                                             'Who declared it is gone: the table''s owner, or a superuser, ends it and declares it'),
                                    relation::pg_catalog.regclass, w.name)
           ELSE pg_catalog.format('SELECT pushy.watch(%s)', pg_catalog.concat_ws(', ',
             pg_catalog.format('%L, events => %L', relation::pg_catalog.regclass, w.events),
             CASE WHEN w.channel IS NOT NULL AND COALESCE(w.named_by, '') OPERATOR(pg_catalog.<>) 'table' THEN pg_catalog.format('channel => %L', pushy.channel_ident(w.channel)) END,
             CASE WHEN w.columns IS NOT NULL THEN pg_catalog.format('columns => %L', w.columns) END,
             CASE WHEN w.condition IS NOT NULL THEN pg_catalog.format('condition => %L', w.condition) END,
             CASE WHEN w.payload_expr IS NOT NULL THEN pg_catalog.format('payload_expr => %L', w.payload_expr)
                  ELSE pg_catalog.format('payload => %L', w.payload) END,
             pg_catalog.format('level => %L', w.level),
             CASE WHEN w.channel IS NOT NULL AND w.delivery IS NOT NULL THEN pg_catalog.format('delivery => %L', w.delivery) END,
             CASE WHEN w.queue IS NOT NULL THEN pg_catalog.format('queue => %L', w.queue) END,
             CASE WHEN w.args_expr IS NOT NULL THEN pg_catalog.format('args_expr => %L', w.args_expr) END,
             CASE WHEN w.topic_expr IS NOT NULL THEN pg_catalog.format('topic_expr => %L', w.topic_expr) END,
             CASE WHEN w.merge THEN 'merge => true' END,
             CASE WHEN w.named_by IS NULL THEN pg_catalog.format('name => %L', w.name) END))
         END
   -- What a watch that has lost triggers names and its table has not: DROP COLUMN with CASCADE takes the triggers with the column.
    FROM (
     SELECT pg_catalog.string_agg(pg_catalog.quote_ident(m.name), ', ' ORDER BY m.name) AS missing
       FROM (SELECT n.name::pg_catalog.text AS name FROM pg_catalog.unnest(w.columns) n(name)
              UNION
             SELECT CASE WHEN pg_catalog.starts_with(x.found[1], '"') THEN pg_catalog.replace(pg_catalog.btrim(x.found[1], '"'), '""', '"')
                         ELSE pg_catalog.lower(x.found[1]) END
               FROM pg_catalog.regexp_matches(pg_catalog.concat_ws(' ', w.condition, w.payload_expr, w.args_expr, w.topic_expr),
                                              '[[:<:]](?:new|old)[)]?[.]("(?:[^"]|"")+"|[[:alpha:]_][[:alnum:]_$]*)', 'gi') x(found)) m
      WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_attribute d
                         WHERE d.attrelid OPERATOR(pg_catalog.=) relation AND d.attname::pg_catalog.text OPERATOR(pg_catalog.=) m.name)) y
   -- And functions, types and operators, likewise, as far as words tell: what no schema has, outside of texts.
   CROSS JOIN LATERAL (
     SELECT pg_catalog.string_agg(DISTINCT m.what, ', ' ORDER BY m.what) AS missing
       FROM (SELECT pg_catalog.regexp_replace(pg_catalog.concat_ws(' ; ', w.condition, w.payload_expr, w.args_expr, w.topic_expr),
                                              '''(?:[^'']|'''')*''|[$][[:alpha:]_]*[$].*?[$][[:alpha:]_]*[$]', '''''', 'g') AS words) e
      CROSS JOIN LATERAL (
        SELECT pg_catalog.format('function %I', f.name) AS what
          FROM (SELECT CASE WHEN pg_catalog.starts_with(x.found[1], '"') THEN pg_catalog.btrim(x.found[1], '"') ELSE pg_catalog.lower(x.found[1]) END AS name
                  FROM pg_catalog.regexp_matches(e.words, '("(?:[^"]|"")+"|[[:<:]][[:alpha:]_][[:alnum:]_$]*)[[:space:]]*[(]', 'g') x(found)) f
         WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_proc p WHERE p.proname::pg_catalog.text OPERATOR(pg_catalog.=) f.name)
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_type p WHERE p.typname::pg_catalog.text OPERATOR(pg_catalog.=) f.name)
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_get_keywords() k WHERE k.word OPERATOR(pg_catalog.=) f.name)
         UNION ALL
        SELECT pg_catalog.format('type %I', f.name)
          FROM (SELECT CASE WHEN pg_catalog.starts_with(x.found[1], '"') THEN pg_catalog.btrim(x.found[1], '"') ELSE pg_catalog.lower(x.found[1]) END AS name
                  FROM pg_catalog.regexp_matches(e.words, '::[[:space:]]*(?:[[:alpha:]_][[:alnum:]_$]*[.])?("(?:[^"]|"")+"|[[:alpha:]_][[:alnum:]_$]*)', 'g') x(found)) f
         WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_type p WHERE p.typname::pg_catalog.text OPERATOR(pg_catalog.=) f.name)
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_get_keywords() k WHERE k.word OPERATOR(pg_catalog.=) f.name)
         UNION ALL
        SELECT pg_catalog.format('operator %s', x.found[1])
          FROM pg_catalog.regexp_matches(e.words, '([-+*/<>=~!@#%^&|`?]+)', 'g') x(found)
         WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_operator p WHERE p.oprname::pg_catalog.text OPERATOR(pg_catalog.=) x.found[1])
           AND x.found[1] OPERATOR(pg_catalog.!~) '^(!=|=>)$|--|/[*]|[*]/') m
      WHERE NOT has_lost AND y.missing IS NULL) z;
END;
COMMENT ON FUNCTION pushy_internal.watch_mend(pushy_internal.watch, oid, boolean) IS
  'Internal: what to do about a watch that has lost a trigger, or come without some of them, behind the view pushy.watches.';

CREATE FUNCTION pushy_internal.watch_state(
  w pushy_internal.watch,
  queue_fix text,
  no_relay text,
  relay_fix text,
  relay_can_come boolean,
  OUT relation oid,
  OUT owner name,
  OUT state text,
  OUT fix text)
RETURNS SETOF record LANGUAGE sql STABLE PARALLEL UNSAFE COST 1 ROWS 1 SET jit = off
BEGIN ATOMIC
  SELECT r.oid,
         CASE WHEN h.is_home
              THEN (SELECT o.rolname FROM pg_catalog.pg_roles o WHERE o.oid OPERATOR(pg_catalog.=) w.owner)
              ELSE w.owner_name END,
         s.state,
         CASE
           WHEN s.state OPERATOR(pg_catalog.=) 'active' THEN NULL
           WHEN s.has_lost OR s.state OPERATOR(pg_catalog.=) 'broken' AND queue_fix IS NULL
             THEN pushy_internal.watch_mend(w, r.oid, s.has_lost)
           WHEN s.state OPERATOR(pg_catalog.=) ANY ('{elsewhere,paused}'::pg_catalog.text[])
             THEN pg_catalog.format('SELECT pushy.watch_resume(%L, %L)', r.oid::pg_catalog.regclass, w.name)
           WHEN s.state OPERATOR(pg_catalog.=) 'broken' THEN queue_fix
           WHEN s.state OPERATOR(pg_catalog.=) 'no_relay' THEN COALESCE(relay_fix, no_relay)
           ELSE t.enable
         END
    FROM (SELECT pushy_internal.is_home(w.home_system, w.home_database, w.home_extension, w.relation) AS is_home OFFSET 0) h
   -- Numbers mean something at home only.
    JOIN pg_catalog.pg_class r
      ON r.oid OPERATOR(pg_catalog.=) CASE WHEN h.is_home THEN w.relation
                                           ELSE pushy_internal.watch_elsewhere(w.watch_id) END
   -- What the arguments of its triggers, and of their copies on partitions, begin with.
   CROSS JOIN LATERAL (
     SELECT (w.token::pg_catalog.text::pg_catalog.bytea OPERATOR(pg_catalog.||) pg_catalog.decode('00', 'hex')) AS args) a
   CROSS JOIN LATERAL (
     SELECT CASE WHEN r.relkind OPERATOR(pg_catalog.=) 'p'::pg_catalog."char"
                 THEN ARRAY(WITH RECURSIVE below(oid) AS (
                              SELECT i.inhrelid FROM pg_catalog.pg_inherits i WHERE i.inhparent OPERATOR(pg_catalog.=) r.oid
                              UNION ALL
                              SELECT i.inhrelid FROM below b JOIN pg_catalog.pg_inherits i ON i.inhparent OPERATOR(pg_catalog.=) b.oid)
                            SELECT b.oid FROM below b)
                 ELSE '{}'::pg_catalog.oid[] END AS below OFFSET 0) b
   -- Its triggers, and those of them, on partitions too, that ALTER TABLE has kept from firing. pg_partition_tree() would wait for
   -- whoever has locked a partition.
   CROSS JOIN LATERAL (
     SELECT pg_catalog.bool_or(f.disabled) AS disabled,
            pg_catalog.string_agg(f.enable, '; ' ORDER BY f.relation) AS enable
       FROM (SELECT g.tgrelid AS relation,
                    pg_catalog.bool_or(g.tgenabled OPERATOR(pg_catalog.=) 'D'::pg_catalog."char" AND g.fires) AS disabled,
                    pg_catalog.format('ALTER TABLE %s ', g.tgrelid::pg_catalog.regclass)
                    OPERATOR(pg_catalog.||)
                    pg_catalog.string_agg(pg_catalog.format('ENABLE TRIGGER %I', g.tgname), ', ' ORDER BY g.tgname)
                      FILTER (WHERE g.tgenabled OPERATOR(pg_catalog.=) ANY ('{D,R}'::pg_catalog."char"[]) AND g.fires) AS enable
               FROM (SELECT k.*,
                            w.expression_trigger IS NULL
                            OR k.oid OPERATOR(pg_catalog.<>) w.expression_trigger
                               AND k.tgparentid OPERATOR(pg_catalog.<>) w.expression_trigger AS fires
                       FROM (SELECT m.oid, m.tgrelid, m.tgname, m.tgenabled, m.tgparentid FROM pg_catalog.pg_trigger m
                              WHERE m.oid OPERATOR(pg_catalog.=) ANY (w.triggers)
                                AND (m.tgrelid OPERATOR(pg_catalog.=) w.relation OR m.tgrelid OPERATOR(pg_catalog.=) ANY (b.below))
                             UNION
                             SELECT m.oid, m.tgrelid, m.tgname, m.tgenabled, m.tgparentid FROM pg_catalog.pg_trigger m
                              WHERE m.tgrelid OPERATOR(pg_catalog.=) ANY (b.below)
                                AND pg_catalog.substring(m.tgargs, 1, pg_catalog.length(a.args)) OPERATOR(pg_catalog.=) a.args
                                AND m.tgparentid OPERATOR(pg_catalog.<>) 0::pg_catalog.oid
                                AND m.tgfoid OPERATOR(pg_catalog.=) 'pushy.watch_row()'::pg_catalog.regprocedure::pg_catalog.oid) k) g
              GROUP BY g.tgrelid) f) t
   CROSS JOIN LATERAL (
     SELECT CASE WHEN NOT h.is_home THEN 'elsewhere'
                 WHEN NOT pushy_internal.watch_is_whole(w.relation, w.triggers, w.fingerprint) THEN 'broken'
                 WHEN queue_fix IS NOT NULL THEN 'broken'
                 WHEN w.paused THEN 'paused'
                 WHEN t.disabled THEN 'disabled'
                 WHEN t.enable IS NOT NULL THEN 'replica'
                 WHEN w.channel IS NOT NULL AND (w.delivery OPERATOR(pg_catalog.=) 'relay' OR w.delivery IS NULL AND relay_can_come)
                      AND no_relay IS NOT NULL THEN 'no_relay'
                 ELSE 'active' END AS state,
            -- It cannot be resumed, because it came without some of its triggers.
            NOT h.is_home
            AND (SELECT pg_catalog.count(*) FROM pg_catalog.pg_trigger k
                  WHERE k.tgrelid OPERATOR(pg_catalog.=) r.oid
                    AND k.tgfoid OPERATOR(pg_catalog.=) ANY (ARRAY['pushy.watch_row()'::pg_catalog.regprocedure::pg_catalog.oid, 'pushy.watch_statement()'::pg_catalog.regprocedure::pg_catalog.oid])
                    AND k.tgparentid OPERATOR(pg_catalog.=) 0::pg_catalog.oid
                    AND pg_catalog.substring(k.tgargs, 1, pg_catalog.length(a.args)) OPERATOR(pg_catalog.=) a.args)
                OPERATOR(pg_catalog.<>) pg_catalog.cardinality(w.triggers) AS has_lost OFFSET 0) s;
END;
COMMENT ON FUNCTION pushy_internal.watch_state(pushy_internal.watch, text, text, text, boolean) IS
  'Internal: the table, the maker''s name, state and fix of a watch, behind the view pushy.watches; no row where its table is gone. It is called for watches that the caller may see, and costs the planner nothing, because one that adds up what each watch of everybody takes compiles (jit) what is done in milliseconds.';

-- The UNION ALL stands in a query of its own: see pushy.stats.
CREATE VIEW pushy.watches WITH (security_barrier) AS
SELECT u.relation, u.name, u.channel, u.channel_name, u.events, u.columns, u.condition, u.payload, u.payload_expr, u.level, u.delivery, u.queue,
       u.args_expr, u.merge, u.owner, u.state, u.fix, u.notices, u.jobs, u.errors, u.last_fired_at, u.last_error_at, u.topic_expr
  FROM (
  SELECT s.relation::pg_catalog.regclass AS relation,
         -- As in pushy.jobs, CASE keeps equalities behind the filter.
         CASE WHEN c.notices IS NOT NULL THEN w.name END AS name,
         CASE WHEN c.notices IS NOT NULL AND w.channel IS NOT NULL THEN pushy.channel_ident(w.channel) END AS channel,
         CASE WHEN c.notices IS NOT NULL THEN w.channel END AS channel_name,
         w.events,
         w.columns::pg_catalog.text[] AS columns,  -- Drivers know no arrays of names (node-postgres gives a text).
         CASE WHEN c.notices IS NOT NULL THEN w.condition END AS condition,
         CASE WHEN c.notices IS NOT NULL THEN w.payload END AS payload,
         CASE WHEN c.notices IS NOT NULL THEN w.payload_expr END AS payload_expr,
         CASE WHEN c.notices IS NOT NULL THEN w.level END AS level,
         CASE WHEN c.notices IS NOT NULL AND w.channel IS NOT NULL THEN COALESCE(w.delivery, 'relay') END AS delivery,
         CASE WHEN c.notices IS NOT NULL THEN w.queue END AS queue,
         CASE WHEN c.notices IS NOT NULL THEN w.args_expr END AS args_expr,
         w.merge,
         CASE WHEN c.notices IS NOT NULL THEN s.owner END AS owner,
         s.state,
         s.fix COLLATE pg_catalog."C" AS fix,
         c.notices,
         c.jobs,
         c.errors,
         c.last_fired_at,
         c.last_error_at,
         CASE WHEN c.notices IS NOT NULL THEN w.topic_expr END AS topic_expr
    FROM (
     -- Others' watches are left out before anything more is asked of them. OFFSET keeps that in this order.
     SELECT w.*, w AS declared FROM pushy_internal.watch w
      WHERE pushy_internal.watch_visible(w.watch_id, w.home_system, w.home_database, w.home_extension, w.relation, w.owner) OFFSET 0) w
   CROSS JOIN LATERAL pushy_internal.watch_counts(w.watch_id) c
   CROSS JOIN pushy_internal.relay_obstacle() o
   CROSS JOIN LATERAL pushy_internal.watch_state(w.declared, c.fix, o.reason, o.fix, o.can_come) s
   WHERE c.notices IS NOT NULL
  UNION ALL
  SELECT o.relation::pg_catalog.regclass, o.name, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'orphaned',
         pg_catalog.format('SELECT pushy.unwatch(%L, %L)', o.relation::pg_catalog.regclass, o.name),
         NULL, NULL, NULL, NULL, NULL, NULL
    FROM pushy_internal.watch_orphans() o
   WHERE pg_catalog.has_table_privilege(o.relation, 'TRIGGER')) u;
COMMENT ON VIEW pushy.watches IS
  'Watches of tables on which you have TRIGGER, and your own. state says whether a watch does what it should, and fix has the statement that makes it active. notices, jobs and errors are counted since the server started.';
COMMENT ON COLUMN pushy.watches.relation IS 'The watched table.';
COMMENT ON COLUMN pushy.watches.name IS 'The watch, unique within the table.';
COMMENT ON COLUMN pushy.watches.channel IS 'What to write after LISTEN, quoted where need be; NULL: jobs only.';
COMMENT ON COLUMN pushy.watches.channel_name IS 'The channel as it is called, never quoted; NULL: jobs only. Give it to a client whose call quotes it (asyncpg''s add_listener, sqlx''s listen), and to pg_notify; a notice carries it.';
COMMENT ON COLUMN pushy.watches.events IS 'Which changes become notices or jobs.';
COMMENT ON COLUMN pushy.watches.columns IS 'An update counts when one of these differs; NULL: any.';
COMMENT ON COLUMN pushy.watches.condition IS 'SQL over NEW and OLD, as it was written or, since a column was renamed, as the server writes it; NULL: none.';
COMMENT ON COLUMN pushy.watches.payload IS 'What a notice says: none, key, row, diff, or expression.';
COMMENT ON COLUMN pushy.watches.payload_expr IS 'The payload of notices, not of jobs, as SQL over NEW and OLD, as it was written or, since a column was renamed, as the server writes it.';
COMMENT ON COLUMN pushy.watches.level IS 'A notice per row, or per statement.';
COMMENT ON COLUMN pushy.watches.delivery IS 'How notices go: notify, or relay. A watch that says neither goes by relay, and by NOTIFY as long as no relay can come here: relay is shown for both.';
COMMENT ON COLUMN pushy.watches.queue IS 'A job per notice goes here; NULL: notices only.';
COMMENT ON COLUMN pushy.watches.args_expr IS 'The arguments of jobs as SQL over NEW and OLD, as it was written or, since a column was renamed, as the server writes it; NULL: the payload. With a payload_expr, which is for notices only, that is the payload of key.';
COMMENT ON COLUMN pushy.watches.merge IS 'Whether equal notices of several transactions may be emitted once: those with payload none or a payload_expr, because the others have the transaction in them.';
COMMENT ON COLUMN pushy.watches.owner IS 'Who declared it, and must be allowed to enqueue; NULL: that role is gone.';
COMMENT ON COLUMN pushy.watches.state IS 'Whether the watch does what it should: active, paused, elsewhere, orphaned, broken, disabled, replica or no_relay. elsewhere came by a restore; orphaned has triggers here and no watch, so nothing comes of them until it is declared again, and fix ends them; broken lost a trigger, by hand or with what it used, or somebody has replaced one, or it adds no jobs, because its queue is gone or another''s, or its maker is gone or may not enqueue. disabled and replica say what ALTER TABLE has done to some of its triggers, maybe those of a partition; with no_relay its notices wait in the event log, and no relay can come to emit them.';
COMMENT ON COLUMN pushy.watches.fix IS 'The statement that makes the watch active or, where none does by itself, what to do in words; NULL: it is active.';
COMMENT ON COLUMN pushy.watches.notices IS 'Notices since the server started. 8,192 watches of the cluster are counted, of one role (but a superuser) one for four slots that are free; those beyond stay at 0, and work all the same.';
COMMENT ON COLUMN pushy.watches.jobs IS 'Jobs since the server started.';
COMMENT ON COLUMN pushy.watches.errors IS 'Expressions and conversions that failed, and jobs that the owner may not enqueue, since the server started.';
COMMENT ON COLUMN pushy.watches.last_fired_at IS 'When the last notice or job of the watch was committed.';
COMMENT ON COLUMN pushy.watches.last_error_at IS 'When the last error was committed.';
COMMENT ON COLUMN pushy.watches.topic_expr IS 'The topic of a notice as SQL over NEW and OLD, as it was written or, since a column was renamed, as the server writes it; NULL: notices have none.';
