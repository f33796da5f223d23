"""The harness itself: what it promises to the other suites."""

import re
from collections import Counter

import psycopg
import pytest

from harness.installation import REPOSITORY
from stage.versions import OWN


def test_a_database_has_the_extension(db):
    assert db.value("SELECT extversion FROM pg_extension WHERE extname = 'pushy'") == OWN


def test_two_databases_of_a_server_do_not_meet(db, shared_cluster):
    other = shared_cluster.database()
    other.sql("CREATE TABLE here (a int)")
    assert db.value("SELECT to_regclass('here') IS NULL")
    other.drop()


def test_a_role_can_connect_and_is_nobody_special(db, role):
    name = role()
    with db.connect(user=name) as connection:
        assert connection.execute("SELECT current_user, rolsuper FROM pg_roles WHERE rolname = current_user").fetchone() \
            == (name, False)


def test_a_killed_backend_crashes_the_server_which_comes_back(cluster):
    db = cluster.database()
    cluster.crash(db.value("SELECT pg_backend_pid()"))
    assert db.value("SELECT 1") == 1


@pytest.mark.parametrize("mode", ["fast", "smart", "immediate"])
def test_a_server_stops_and_starts_in_each_mode(cluster, mode):
    cluster.restart(mode)
    assert cluster.running


def test_a_standby_follows_and_is_promoted(cluster):
    db = cluster.database()
    standby = cluster.standby()
    db.sql("CREATE TABLE t AS SELECT 42 AS answer")
    copy = db.of(standby)
    copy.wait_until("SELECT to_regclass('t') IS NOT NULL")
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        copy.sql("DELETE FROM t")
    standby.promote()
    copy.sql("DELETE FROM t")


def test_settings_reach_a_server_of_its_own(make_cluster):
    cluster = make_cluster({"work_mem": "5MB"})
    cluster.configure(work_mem="6MB", pushy__anything=None).reload()
    cluster.database(extension=False).wait_until("SHOW work_mem", "6MB")


def test_a_fresh_server_has_its_own_system_identifier(make_cluster):
    identifiers = set()
    for fresh in (False, True):
        with make_cluster(fresh=fresh).connect() as connection:
            identifiers.add(connection.execute("SELECT system_identifier FROM pg_control_system()").fetchone())
    assert len(identifiers) == 2


def test_a_wait_that_fails_says_what_it_saw(db):
    with pytest.raises(AssertionError, match="(?s)waited .*last seen: 1.*server's log"):
        db.wait_until("SELECT 1", 2, deadline=0.1)


def test_a_listener_hears_what_it_waits_for(db):
    listener = db.listen("news")
    db.sql("SELECT pg_notify('news', '{\"a\": 1}'), pg_notify('news', '{\"a\": 2}')")
    assert listener.wait_for_json(a=2) == {"a": 2}


def test_a_file_of_tests_has_a_name_of_its_own_an_area_and_nothing_that_another_needs():
    """Pages and pytest know a file by its name alone, and a helper of several files is in stage/, where it is looked for."""
    files = list((REPOSITORY / "pg_test").glob("*/test_*.py"))
    assert len(files) > 100 and not list((REPOSITORY / "pg_test").glob("test_*.py")), "every test is in the folder of its area"
    assert {name: count for name, count in Counter(file.name for file in files).items() if count > 1} == {}
    assert [file.name for file in files if re.search(r"^(?:from|import) test_", file.read_text(), re.M)] == []
