"""What only some of the supported versions of PostgreSQL have."""

import psycopg
import pytest

from harness.installation import REPOSITORY
from harness.versions import LOADED_MODULES, MEMBERSHIPS_HAVE_OPTIONS, TRANSACTION_TIMEOUT, VIRTUAL_COLUMNS, skip_before
from stage.watching import Watching


def test_the_server_shows_the_librarys_name_and_version(db):
    skip_before(db, LOADED_MODULES)
    version = db.value("SELECT extversion FROM pg_extension WHERE extname = 'pushy'")
    assert db.rows("SELECT module_name, version FROM pg_get_loaded_modules() WHERE file_name LIKE 'pushy%%'") == [("pushy", version)]


def test_no_other_file_asks_for_the_major():
    """What differs is in one file."""
    asking = [path.relative_to(REPOSITORY) for path in (REPOSITORY / "src").rglob("*.rs") if 'feature = "pg1' in path.read_text()]
    assert [str(path) for path in asking] == ["src/pg/major.rs"]


def test_the_hint_for_a_membership_with_set_false_helps(db, role):
    skip_before(db, MEMBERSHIPS_HAVE_OPTIONS)
    owner, worker = role(), role()
    db.sql(f"GRANT {worker} TO {owner} WITH SET FALSE; GRANT CREATE ON SCHEMA public TO {owner};"
           "CREATE FUNCTION work(jsonb) RETURNS void LANGUAGE sql AS ''")
    session = db.connect(user=owner)
    register = f"SELECT pushy.queue_register('q', 'work(jsonb)', run_as => '{worker}')"
    with pytest.raises(Exception) as refused:
        session.execute(register)
    assert f"may not become role {worker}" in refused.value.diag.message_primary
    grant = f"GRANT {worker} TO {owner} WITH SET TRUE"
    assert grant in refused.value.diag.message_hint
    db.sql(grant)
    session.execute(register)


# -- transaction_timeout ---------------------------------------------------------------------------------------------

def test_what_a_transaction_did_that_timed_out_never_was(db):
    skip_before(db, TRANSACTION_TIMEOUT)
    db.sql("CREATE FUNCTION work() RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_register('q', 'work()')")
    heard = db.listen("news")
    client = db.connect(autocommit=False)
    client.execute("SET LOCAL transaction_timeout = '200 ms'")
    client.execute("SELECT pushy.enqueue('q'), pushy.notify('news', 'lost')")
    with pytest.raises(psycopg.errors.TransactionTimeout):
        client.execute("SELECT pg_sleep(60)")
    db.sql("SELECT pushy.notify('news', 'told')")
    assert heard.wait_for().payload == "told"
    assert db.value("SELECT count(*) FROM pushy.jobs") == 0


def test_a_handler_that_ends_its_own_transaction_is_charged_and_its_neighbours_are_not(db):
    """The server ends the session, so the executor goes; another one comes, and what shared the batch runs again."""
    skip_before(db, TRANSACTION_TIMEOUT)
    db.sql("""
        CREATE FUNCTION work(args jsonb) RETURNS int LANGUAGE plpgsql AS $$
        BEGIN
            IF args = '0' THEN
                SET LOCAL transaction_timeout = '50 ms';
                PERFORM pg_sleep(60);
            END IF;
            RETURN current_setting('transaction_timeout')::int;
        END$$;
        SELECT pushy.queue_register('q', 'work(jsonb)', max_attempts => 2, retry_delay => '0')""")
    jobs = [job for job, in db.rows("SELECT pushy.enqueue('q', to_jsonb(n)) FROM generate_series(0, 20) n")]
    db.jobs_wait("q")
    ended = [db.job(job) for job in jobs]
    assert [(job["state"], job["attempt"]) for job in ended] == [("discarded", 2)] + [("completed", 1)] * 20
    assert {job["result"] for job in ended[1:]} == {0}, "what one job sets does not bind the next"


# -- virtual generated columns ---------------------------------------------------------------------------------------

@pytest.fixture
def orders(db):
    skip_before(db, VIRTUAL_COLUMNS)
    db.sql("""CREATE TABLE orders (id int PRIMARY KEY, n int, price int, note text, total int GENERATED ALWAYS AS (n * price) VIRTUAL,
                                   label text GENERATED ALWAYS AS (upper(note) || '!') VIRTUAL, share int GENERATED ALWAYS AS (100 / n) VIRTUAL)""")
    return db


def test_rows_have_the_values_of_virtual_columns(orders):
    orders.sql("SELECT pushy.watch('orders', payload => 'row')")
    heard = Watching(orders, "orders")
    orders.sql("INSERT INTO orders VALUES (1, 2, 30, 'a')")
    assert [payload["new"] for payload in heard.payloads()] == [
        {"id": 1, "n": 2, "price": 30, "note": "a", "total": 60, "label": "A!", "share": 50}]
    orders.sql("UPDATE orders SET n = 4, note = NULL")
    [told] = heard.payloads()
    assert told["new"] == {"id": 1, "n": 4, "price": 30, "note": None, "total": 120, "label": None, "share": 25}
    assert told["old"] == {"id": 1, "n": 2, "price": 30, "note": "a", "total": 60, "label": "A!", "share": 50}
    orders.sql("DELETE FROM orders")
    assert [payload["old"]["total"] for payload in heard.payloads()] == [120]


def test_a_diff_has_virtual_columns_that_changed(orders):
    orders.sql("SELECT pushy.watch('orders', payload => 'diff')")
    heard = Watching(orders, "orders")
    orders.sql("INSERT INTO orders VALUES (1, 2, 30, 'a')")
    assert len(heard.payloads()) == 1
    orders.sql("UPDATE orders SET n = 3, price = 20")
    [told] = heard.payloads()
    assert told["new"] == {"n": 3, "price": 20, "share": 33} and told["old"] == {"n": 2, "price": 30, "share": 50}, "the total is the same"


def test_conditions_and_expressions_see_virtual_columns(orders):
    orders.sql("""SELECT pushy.watch('orders', columns => '{total}', condition => 'coalesce(NEW.total, OLD.total) < 100', channel => 'total',
                                     payload_expr => $$NEW.label || NEW.total || (to_jsonb(NEW) ->> 'share')$$)""")
    heard = orders.listen("total")
    orders.sql("INSERT INTO orders VALUES (1, 2, 30, 'a')")
    assert heard.wait_for().payload == "A!6050"
    # The first leaves the total as it is, the second makes it too large.
    orders.sql("UPDATE orders SET n = 3, price = 20; UPDATE orders SET n = 30; UPDATE orders SET n = 1, note = 'b'")
    assert heard.wait_for().payload == "B!20100"


def test_a_virtual_column_that_fails_is_told_and_the_write_goes_on(orders):
    orders.sql("SELECT pushy.watch('orders', payload => 'row')")
    heard = Watching(orders, "orders")
    assert heard.after("INSERT INTO orders VALUES (1, 0, 1, 'a')") == [("insert", 1, "22012")]
    assert heard.after("UPDATE orders SET n = 1") == [("update", 1, "22012")], "the old row's fails"
    assert heard.after("UPDATE orders SET n = 5") == [("update", 1)]
    assert orders.value("SELECT n FROM orders") == 5


def test_rows_of_partitions_have_virtual_columns(orders):
    orders.sql("""CREATE TABLE p (a int, id int PRIMARY KEY, twice int GENERATED ALWAYS AS (a * 2) VIRTUAL) PARTITION BY RANGE (id);
                  CREATE TABLE p1 (id int NOT NULL, twice int GENERATED ALWAYS AS (a * 2) VIRTUAL, a int);
                  ALTER TABLE p ATTACH PARTITION p1 FOR VALUES FROM (0) TO (10); CREATE TABLE p2 PARTITION OF p DEFAULT;
                  SELECT pushy.watch('p', payload => 'row', condition => 'coalesce(NEW.twice, OLD.twice) > 0')""")
    heard = Watching(orders, "p")
    orders.sql("INSERT INTO p (a, id) VALUES (7, 1), (-7, 2); UPDATE p SET id = 20 WHERE id = 1")
    assert [payload["new"] for payload in heard.payloads()] == [{"a": 7, "id": 1, "twice": 14}, {"a": 7, "id": 20, "twice": 14}]
