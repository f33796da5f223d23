-- What the tests of clients need in each database.
CREATE EXTENSION pushy;
GRANT USAGE ON SCHEMA pushy TO PUBLIC;
-- A job, with what they ask of it.
CREATE VIEW seen AS
SELECT j.id, j.state, j.attempt, j.result, j.last_error, f.sqlstate AS last_sqlstate, f.detail AS last_detail, j.progress AS fraction,
       j.progress_message AS message, l.worker
  FROM pushy.jobs j LEFT JOIN pushy.leases l ON l.job_id = j.id
  LEFT JOIN LATERAL (SELECT * FROM pushy.failures f WHERE f.job_id = j.id ORDER BY f.attempt DESC LIMIT 1) f ON true;
