"""Every statement that a worker sends. Each is one transaction and leaves nothing in the session, so that any pooler will do.

unnest of several arrays is syntax, which the server knows by the bare name only.
"""

# Times are microseconds, because how a session writes any other (DateStyle, extra_float_digits) is a role's to say.
CLAIM = """
SELECT job_id, token::text, args::text, attempt, max_attempts,
  pg_catalog.int8(pg_catalog.date_part('epoch', enqueued_at) OPERATOR(pg_catalog.*) 1e6::float8), unique_key, last_error,
  CASE WHEN pg_catalog.isfinite(lease_until) THEN pg_catalog.int8(pg_catalog.date_part('epoch',
    lease_until OPERATOR(pg_catalog.-) pg_catalog.clock_timestamp()) OPERATOR(pg_catalog.*) 1e6::float8) END
FROM pushy.job_claim(%s::text, %s::int, pg_catalog.make_interval(secs => %s::float8), %s::text)
"""

WAIT = "CALL pushy.job_claim_wait(%s::text, pg_catalog.make_interval(secs => %s::float8), NULL)"

# Who has locked a job's row, to cancel it for example, may keep it locked for long: then 55P03, and those that are locked are looked for
# at a glance, because there may be many. The limit is that of the transaction, so it leaves nothing in the session.
PATIENCE = "500ms"
HASTE = "20ms"
GLANCE = "2ms"

SETTLE = "SELECT pushy.jobs_settle(%s::jsonb) FROM pg_catalog.set_config('lock_timeout', %s, true)"

# A sort comes before the functions of a SELECT list that are volatile: so rows are locked in one order by every worker.
EXTEND = """
SELECT e.job_id, pushy.job_extend(e.job_id, e.token, pg_catalog.make_interval(secs => e.lease), e.fraction, e.message)
FROM unnest(%s::bigint[], %s::uuid[], %s::float8[], %s::float8[], %s::text[]) AS e (job_id, token, lease, fraction, message),
  pg_catalog.set_config('lock_timeout', %s, true)
ORDER BY e.job_id
"""

LOG = """
SELECT pushy.job_log(l.message, l.level, l.job_id, l.token)
FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::uuid[]) WITH ORDINALITY AS l (message, level, job_id, token, n),
  pg_catalog.set_config('lock_timeout', %s, true)
ORDER BY l.n
"""

COMPLETE = "SELECT pushy.job_complete(%s::bigint, %s::uuid, %s::jsonb)"

# Lines first, because none is taken after the completion; as JSON in ASCII, because it is the handler's connection, of any encoding.
LOG_AND_COMPLETE = """
SELECT pushy.job_complete(c.job_id, c.token, c.result)
FROM (SELECT %s::bigint, %s::uuid, %s::jsonb) AS c (job_id, token, result),
  LATERAL (SELECT pg_catalog.count(pushy.job_log(
      l.line OPERATOR(pg_catalog.->>) 0, l.line OPERATOR(pg_catalog.->>) 1, c.job_id, c.token))
    FROM pg_catalog.jsonb_array_elements(%s::jsonb) AS l (line)) AS logged (n)
WHERE logged.n OPERATOR(pg_catalog.>=) 0
"""
