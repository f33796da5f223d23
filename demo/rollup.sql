-- The main job: pgbench's tellers write, and a live roll-up per branch follows, without the tellers waiting for it.

CREATE TABLE branch_kpi (
    branch       int PRIMARY KEY,
    transactions bigint NOT NULL DEFAULT 0,
    turnover     bigint NOT NULL DEFAULT 0,
    net          bigint NOT NULL DEFAULT 0
);
INSERT INTO branch_kpi (branch) SELECT bid FROM pgbench_branches;

-- The handler does the work of one job. Its effects and the job's completion commit together.
CREATE FUNCTION update_branch_kpi(change jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE branch_kpi
       SET transactions = transactions + 1,
           turnover = turnover + abs((change->>'delta')::bigint),
           net = net + (change->>'delta')::bigint
     WHERE branch = (change->>'branch')::int;
END
$$;

-- One at a time, as all jobs update the same few rows.
SELECT pushy.queue_register('branch_kpi', 'update_branch_kpi(jsonb)', concurrency => 1);

-- Each row of the history owes the roll-up one job, from the writer's own commit on. (The transaction is noted
-- only so that the demo can tell at the end how soon after its commit the job started.)
SELECT pushy.watch('pgbench_history', events => '{insert}', queue => 'branch_kpi',
                   args_expr => $$ jsonb_build_object('branch', NEW.bid, 'delta', NEW.delta,
                                             'written_by', pg_current_xact_id()::text) $$);

-- And whoever LISTENs hears of large amounts.
SELECT pushy.watch('pgbench_history', events => '{insert}', channel => 'large_amounts',
                   condition => 'abs(NEW.delta) > 4990',
                   payload_expr => $$ format('teller %s of branch %s booked %s',
                                             NEW.tid, NEW.bid, NEW.delta) $$);
