-- The live page: browsers hear each change of the roll-up, and the large amounts. They do so as role web, which needs no login.

CREATE ROLE web;
GRANT USAGE ON SCHEMA pushy TO web;

-- A notice for each change, with the row as it is then, to whom the branch concerns.
SELECT pushy.watch('branch_kpi', events => '{update}', payload => 'row', topic_expr => $$ 'branch/' || NEW.branch $$);
SELECT pushy.channel_grant('branch_kpi', 'web'), pushy.channel_grant('large_amounts', 'web');
