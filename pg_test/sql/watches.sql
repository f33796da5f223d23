-- Watches: what one declares, what the table gets, what is refused.

CREATE TABLE orders (id int PRIMARY KEY, status text NOT NULL DEFAULT 'new', amount numeric, "Note" json);

SELECT pushy.watch('orders');
SELECT pushy.watch('orders', channel => '"Orders"', events => '{truncate,update}', columns => '{status,Note}',
                   condition => 'NEW.amount > 100', payload => 'diff');
SELECT pushy.watch('orders', channel => 'totals', level => 'statement', payload => 'none', name => 'Per statement');
SELECT tgname, regexp_replace(pg_get_triggerdef(oid), '[0-9a-f-]{36}', 'token') AS pg_get_triggerdef FROM pg_trigger WHERE tgrelid = 'orders'::regclass ORDER BY tgname COLLATE "C";
SELECT relation, name, channel, events, columns, condition, payload, level, queue, owner = current_user AS mine, state
  FROM pushy.watches ORDER BY name COLLATE "C";

-- Declared again as it is: nothing happens. Otherwise: it is another.
SELECT pushy.watch('orders');
SELECT pushy.watch('orders', payload => 'row');
SELECT name, payload FROM pushy.watches ORDER BY name COLLATE "C";
SELECT pushy.watch_pause('orders'), pushy.watch_resume('orders', 'totals');
SELECT pushy.watch_resume('orders', 'orders'), pushy.watch_resume('orders', 'Per statement');
SELECT name, state FROM pushy.watches ORDER BY name COLLATE "C";

-- What is refused.
SELECT pushy.watch(NULL);
SELECT pushy.watch('nowhere');
SELECT pushy.watch(0);
CREATE VIEW seen AS SELECT * FROM orders;
SELECT pushy.watch('seen');
CREATE MATERIALIZED VIEW kept AS SELECT * FROM orders;
SELECT pushy.watch('kept');
CREATE TEMP TABLE mine (x int);
SELECT pushy.watch('mine');
SELECT pushy.watch('pg_class');
SELECT pushy.watch('pushy_internal.queue');
SELECT pushy.watch('orders', channel => 'a-b');
SELECT pushy.watch('orders', channel => repeat('x', 64));
SELECT pushy.watch('orders', events => '{}');
SELECT pushy.watch('orders', events => '{inserted}');
SELECT pushy.watch('orders', events => '{insert,NULL}');
SELECT pushy.watch('orders', columns => '{}');
SELECT pushy.watch('orders', columns => '{state}');
SELECT pushy.watch('orders', events => '{insert}', columns => '{status}');
SELECT pushy.watch('orders', condition => '');
SELECT pushy.watch('orders', condition => 'NEW.amount >');
SELECT pushy.watch('orders', condition => 'true) EXECUTE FUNCTION f() --');
SELECT pushy.watch('orders', condition => 'true, false');
SELECT pushy.watch('orders', condition => 'NEW.total > 1');
SELECT pushy.watch('orders', condition => 'NEW.amount');
SELECT pushy.watch('orders', condition => 'EXISTS (SELECT 1)');
SELECT pushy.watch('orders', payload => 'all');
SELECT pushy.watch('orders', payload => 'expression');
SELECT pushy.watch('orders', payload => 'row', payload_expr => 'NEW.id');
SELECT pushy.watch('orders', level => 'table');
SELECT pushy.watch('orders', level => 'statement', payload => 'row');
SELECT pushy.watch('orders', level => 'statement', payload_expr => 'NEW.id');
SELECT pushy.watch('orders', delivery => 'mail');
SELECT pushy.watch('orders', delivery => 'notify', merge => true);
SELECT pushy.watch('orders', queue => 'nobody');
SELECT pushy.watch('orders', args_expr => 'NEW.id');
SELECT pushy.watch('orders', name => '');
SELECT pushy.watch('orders', name => repeat('x', 64));
SELECT pushy.unwatch('orders', 'nope');
SELECT pushy.watch_pause('orders', 'nope');
SELECT pushy.notice(NULL);
SELECT pushy.notice(1);
SELECT pushy.watch_row();
CREATE TRIGGER by_hand AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION pushy.watch_row('1');
INSERT INTO orders VALUES (1);
DROP TRIGGER by_hand ON orders;

-- And the end of it.
SELECT pushy.unwatch('orders', 'totals');
SELECT pushy.unwatch('orders', 'Per statement');
SELECT pushy.unwatch('orders');
SELECT pushy.unwatch('orders');
SELECT count(*) FROM pg_trigger WHERE tgrelid = 'orders'::regclass;
SELECT count(*) FROM pushy.watches;
