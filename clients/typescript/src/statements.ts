/** Every statement that a worker sends. Each is one transaction and leaves nothing in the session, so that any pooler will do.
 *
 * unnest of several arrays is syntax, which the server knows by the bare name only. */

/** Times are microseconds, because how a session writes any other (DateStyle, extra_float_digits) is a role's to say. */
export const CLAIM = `
SELECT job_id, token, args, attempt, max_attempts,
  pg_catalog.int8(pg_catalog.date_part('epoch', enqueued_at) OPERATOR(pg_catalog.*) 1e6::float8), unique_key, last_error,
  CASE WHEN pg_catalog.isfinite(lease_until) THEN pg_catalog.int8(pg_catalog.date_part('epoch',
    lease_until OPERATOR(pg_catalog.-) pg_catalog.clock_timestamp()) OPERATOR(pg_catalog.*) 1e6::float8) END
FROM pushy.job_claim($1::text, $2::int, pg_catalog.make_interval(secs => $3::float8), $4::text)`

export const WAIT = 'CALL pushy.job_claim_wait($1::text, pg_catalog.make_interval(secs => $2::float8), NULL)'

// Who has locked a job's row, to cancel it for example, may keep it locked for long: then 55P03, and those that are locked are looked for
// at a glance, because there may be many. The limit is that of the transaction, so it leaves nothing in the session.
export const PATIENCE = '500ms'
export const HASTE = '20ms'
export const GLANCE = '2ms'

export const SETTLE = "SELECT pushy.jobs_settle($1::jsonb) FROM pg_catalog.set_config('lock_timeout', $2, true)"

// A sort comes before the functions of a SELECT list that are volatile: so rows are locked in one order by every worker.
export const EXTEND = `
SELECT e.job_id, pushy.job_extend(e.job_id, e.token, pg_catalog.make_interval(secs => e.lease), e.fraction, e.message)
FROM unnest($1::bigint[], $2::uuid[], $3::float8[], $4::float8[], $5::text[]) AS e (job_id, token, lease, fraction, message),
  pg_catalog.set_config('lock_timeout', $6, true)
ORDER BY e.job_id`

export const LOG = `
SELECT pushy.job_log(l.message, l.level, l.job_id, l.token)
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::uuid[]) WITH ORDINALITY AS l (message, level, job_id, token, n),
  pg_catalog.set_config('lock_timeout', $5, true)
ORDER BY l.n`

export const COMPLETE = 'SELECT pushy.job_complete($1::bigint, $2::uuid, $3::jsonb) AS completed'

// Lines first, because none is taken after the completion; as JSON in ASCII, because it is the handler's connection, of any encoding.
export const LOG_AND_COMPLETE = `
SELECT pushy.job_complete($1::bigint, $2::uuid, $3::jsonb) AS completed
FROM (SELECT pg_catalog.count(pushy.job_log(
      l.line OPERATOR(pg_catalog.->>) 0, l.line OPERATOR(pg_catalog.->>) 1, $1::bigint, $2::uuid))
    FROM pg_catalog.jsonb_array_elements($4::jsonb) AS l (line)) AS logged (n)
WHERE logged.n OPERATOR(pg_catalog.>=) 0`
