-- Workers believe what the tables say: who owns a queue, as whom it runs. A predefined role, pg_write_all_data, may write
-- every table of a database, so privileges alone keep nobody out; a trigger does, at each statement. Row security would
-- too, and would end the dumps of a role that has pg_read_all_data.

CREATE FUNCTION pushy.refuse_write()
RETURNS trigger LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_refuse_write';
COMMENT ON FUNCTION pushy.refuse_write() IS
  'Internal: what a trigger on each of Pushy''s tables calls. Refuses every statement that would write it but those of a role with the rights of the table''s owner.';

-- On every table that there is; ALWAYS, because session_replication_role can be granted.
DO $$
DECLARE
  name pg_catalog.text;
BEGIN
  FOR name IN
    SELECT pg_catalog.format('%I.%I', n.nspname, c.relname)
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
    EXECUTE pg_catalog.format(
      'CREATE TRIGGER refuse_write BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %1$s '
      'FOR EACH STATEMENT EXECUTE FUNCTION pushy.refuse_write(); '
      'ALTER TABLE %1$s ENABLE ALWAYS TRIGGER refuse_write; '
      'COMMENT ON TRIGGER refuse_write ON %1$s IS ''Keeps out everybody but the owner, whatever privileges they have.''', name);
  END LOOP;
END
$$;
