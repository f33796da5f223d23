-- Workers believe what the tables say: who owns a queue, as whom it runs. A predefined role, pg_write_all_data, may write
-- every table of a database, so privileges alone keep nobody out; a trigger does, at each statement. Row security would
-- too, and would end the dumps of a role that has pg_read_all_data. A worker that applies a subscription fires no trigger
-- of a statement, so another is for each row; its condition lets it cost next to nothing elsewhere.

CREATE FUNCTION pushy_internal.is_apply_worker()
RETURNS boolean LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_is_apply_worker_v1';
COMMENT ON FUNCTION pushy_internal.is_apply_worker() IS
  'Internal: whether the process that asks is a worker of logical replication, which writes what another server sends.';

CREATE FUNCTION pushy_internal.refuse_write()
RETURNS trigger LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_refuse_write_v1';
COMMENT ON FUNCTION pushy_internal.refuse_write() IS
  'Internal: what the triggers on each of Pushy''s tables call. Refuses every statement that would write it but those of a role with the rights of the table''s owner, and every row of a subscription whose owner has them not.';

CREATE FUNCTION pushy_internal.pass_over_row()
RETURNS trigger LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_pass_over_row_v1';
COMMENT ON FUNCTION pushy_internal.pass_over_row() IS
  'Internal: what a row trigger on the tables of a dump calls. Lets rows of the table''s owner in, as what waits for pushy.resume_after_restore, and passes over those of the database''s owner, with a warning.';

-- On every table that there is; ALWAYS, because session_replication_role can be granted. The tables of a dump have a second one:
-- the database's owner, who may dump them, loads the dump without an error and these tables without a row.
DO $$
DECLARE
  name pg_catalog.text;
  is_dumped pg_catalog.bool;
BEGIN
  FOR name, is_dumped IN
    SELECT pg_catalog.format('%I.%I', n.nspname, c.relname),
           c.oid OPERATOR(pg_catalog.=) ANY ((SELECT e.extconfig FROM pg_catalog.pg_extension e WHERE e.extname OPERATOR(pg_catalog.=) 'pushy')::pg_catalog.oid[])
      FROM pg_catalog.pg_depend d
      JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) d.objid
      JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
     WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass::pg_catalog.oid
       AND d.refobjid OPERATOR(pg_catalog.=) (SELECT e.oid FROM pg_catalog.pg_extension e
                                               WHERE e.extname OPERATOR(pg_catalog.=) 'pushy')
       AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid
       AND d.deptype OPERATOR(pg_catalog.=) 'e'::pg_catalog."char"
       AND c.relkind OPERATOR(pg_catalog.=) 'r'::pg_catalog."char"
  LOOP
    IF is_dumped THEN
      EXECUTE pg_catalog.format(
        'CREATE TRIGGER refuse_write BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %1$s '
        'FOR EACH STATEMENT EXECUTE FUNCTION pushy_internal.refuse_write(''dumped''); '
        'CREATE TRIGGER pass_over_row BEFORE INSERT ON %1$s FOR EACH ROW EXECUTE FUNCTION pushy_internal.pass_over_row(); '
        'ALTER TABLE %1$s ENABLE ALWAYS TRIGGER pass_over_row; '
        'COMMENT ON TRIGGER pass_over_row ON %1$s IS ''Takes the rows of a dump in as what waits, and passes over those that the database''''s owner loads, because refuse_write lets the statement begin.''',
        name);
    ELSE
      EXECUTE pg_catalog.format(
        'CREATE TRIGGER refuse_write BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %1$s '
        'FOR EACH STATEMENT EXECUTE FUNCTION pushy_internal.refuse_write()', name);
    END IF;
    EXECUTE pg_catalog.format(
      'ALTER TABLE %1$s ENABLE ALWAYS TRIGGER refuse_write; '
      'COMMENT ON TRIGGER refuse_write ON %1$s IS ''Keeps out everybody but the owner, whatever privileges they have.''; '
      'CREATE TRIGGER refuse_applied AFTER INSERT OR UPDATE OR DELETE ON %1$s '
      'FOR EACH ROW WHEN (pushy_internal.is_apply_worker()) EXECUTE FUNCTION pushy_internal.refuse_write(); '
      'ALTER TABLE %1$s ENABLE ALWAYS TRIGGER refuse_applied; '
      'COMMENT ON TRIGGER refuse_applied ON %1$s IS ''Keeps out rows that logical replication brings by a subscription of anybody but the owner.''', name);
  END LOOP;
END
$$;
