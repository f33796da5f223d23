-- Tells the workers, when CREATE EXTENSION commits, that this database has jobs to look after.

CREATE FUNCTION pushy_internal.extension_created()
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_extension_created_v1';
COMMENT ON FUNCTION pushy_internal.extension_created() IS
  'Internal: called once by the install script. Warns when the library is not preloaded.';

SELECT pushy_internal.extension_created();
