"""What an executor's session was given when it connected goes when its role would not be given it any more: each is changed
while an executor is there, and the next job runs in another."""

import json

import pytest

SPY = """
    CREATE FUNCTION spy(jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
    DECLARE became text := 'refused';
    BEGIN
        BEGIN
            SET SESSION AUTHORIZATION postgres;
            RESET SESSION AUTHORIZATION;
            became := 'became';
        EXCEPTION WHEN insufficient_privilege THEN NULL;
        END;
        RETURN jsonb_build_object('pid', pg_backend_pid(), 'became', became, 'path', current_setting('search_path'));
    END $$;"""


@pytest.fixture
def shop(make_cluster):
    """With one executor: another process is another session of the role."""
    db = make_cluster({"pushy.max_executors": 1}).database()
    db.sql("CREATE ROLE tenant LOGIN; CREATE SCHEMA s AUTHORIZATION tenant")
    return db


def register(db) -> None:
    with db.connect(user="tenant") as session:
        session.execute(SPY.replace("spy", "s.spy"))
        session.execute("SELECT pushy.queue_register('q', 's.spy(jsonb)')")


def run(db) -> dict:
    job = db.job_wait(db.value("SELECT pushy.enqueue('q')"))
    assert job["state"] == "completed", job
    return job["result"] if isinstance(job["result"], dict) else json.loads(job["result"])


def test_a_role_that_was_a_superuser_is_none_in_its_next_job_and_the_other_way_round(shop):
    """Up to 16 a session may become anybody if its role was a superuser when it began."""
    register(shop)
    before = run(shop)
    assert before["became"] == "refused"
    for word, became in (("SUPERUSER", "became"), ("NOSUPERUSER", "refused"), ("SUPERUSER", "became"), ("NOSUPERUSER", "refused")):
        shop.sql(f"ALTER ROLE tenant {word}")
        now = run(shop)
        assert now["became"] == became and now["pid"] != before["pid"], (word, before, now)
        assert run(shop)["pid"] == now["pid"]
        before = now


def test_a_database_owner_who_may_not_become_the_role_any_more_has_chosen_no_code_for_its_next_job(shop):
    shop.sql(f"CREATE ROLE landlord LOGIN; GRANT tenant TO landlord; ALTER DATABASE {shop.name} OWNER TO landlord")
    with shop.connect(user="landlord") as session:
        session.execute(f"ALTER DATABASE {shop.name} SET search_path = planted, public")
    register(shop)
    before = run(shop)
    assert before["path"] == "planted, public"
    shop.sql("REVOKE tenant FROM landlord")
    now = run(shop)
    assert "planted" not in now["path"] and now["pid"] != before["pid"]


def test_what_was_changed_and_changed_back_ends_no_session(shop):
    register(shop)
    before = run(shop)
    shop.sql("BEGIN; ALTER ROLE tenant SUPERUSER; ALTER ROLE tenant NOSUPERUSER; COMMIT; ALTER ROLE tenant CREATEDB")
    assert run(shop)["pid"] == before["pid"]
