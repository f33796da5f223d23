-- What is installed, and the end of the installation.

CREATE FUNCTION pushy.version(
  OUT library text,
  OUT script text,
  OUT agree boolean,
  OUT fix text)
RETURNS record LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_version_v1';
COMMENT ON FUNCTION pushy.version() IS
  'The versions of Pushy''s library, which the server has loaded, and of the script by which this database has its tables and functions. Where they do not agree, no job runs in this database and other calls are refused, with SQLSTATE 55000; fix says what to do then: ALTER EXTENSION pushy UPDATE, or restart the server, which goes on with the library that it was started with.';


-- Announces to the workers, when CREATE EXTENSION commits, that this database has jobs to look after.

CREATE FUNCTION pushy_internal.extension_created()
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pushy_extension_created_v1';
COMMENT ON FUNCTION pushy_internal.extension_created() IS
  'Internal: called once by the install script. Warns when the library is not preloaded.';

SELECT pushy_internal.extension_created();
