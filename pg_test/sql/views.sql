-- The views: their columns are an interface.
SELECT c.relname AS view, a.attname AS column, format_type(a.atttypid, a.atttypmod) AS type
  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
 WHERE c.relnamespace = 'pushy'::regnamespace AND c.relkind = 'v' AND a.attnum > 0 AND NOT a.attisdropped
 ORDER BY c.relname, a.attnum;

-- So are the functions.
SELECT p.oid::regprocedure AS function, pg_get_function_result(p.oid) AS result
  FROM pg_proc p WHERE p.pronamespace = 'pushy'::regnamespace ORDER BY p.oid::regprocedure::text COLLATE "C";

-- And what everybody may set.
SELECT name, setting, unit, context FROM pg_settings WHERE name LIKE 'pushy.%' AND name <> 'pushy.max_executors' ORDER BY name;
