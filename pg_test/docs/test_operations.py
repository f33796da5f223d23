"""docs/operations.md: its queries, asked by the role that the page makes, where something is wrong."""

import re

import pytest
from harness.installation import REPOSITORY

PAGE = (REPOSITORY / "docs" / "operations.md").read_text()

TROUBLE = """
    CREATE FUNCTION fine() RETURNS void LANGUAGE sql AS '';
    CREATE FUNCTION goes() RETURNS void LANGUAGE sql AS '';
    CREATE FUNCTION fails() RETURNS void LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'no mail today'; END$$;
    SELECT pushy.queue_register('paused', 'fine()'), pushy.queue_register('parked', 'goes()'),
           pushy.queue_register('failing', 'fails()', max_attempts => 1), pushy.queue_register('well', 'fine()');
    SELECT pushy.queue_pause('paused'), pushy.enqueue('paused'), pushy.enqueue('failing'), pushy.enqueue('well');
    DROP FUNCTION goes();
    SELECT pushy.enqueue('parked');
    CREATE TABLE quiet (id int PRIMARY KEY);
    SELECT pushy.watch('quiet'), pushy.subscription_create('reader', '{quiet}');
    ALTER TABLE quiet DISABLE TRIGGER ALL;
"""


def statements(section: str) -> list[str]:
    text = PAGE.split(f"\n## {section}\n", 1)[1].split("\n## ", 1)[0]
    return [statement.strip() for block in re.findall(r"^```sql\n(.*?)^```$", text, re.M | re.S)
            for statement in re.findall(r"[^;]+;", block)]


@pytest.fixture
def answers(make_cluster):
    """What each query on monitoring answers to the role of the page."""
    db = make_cluster().database(usage="")
    db.sql(TROUBLE)
    db.wait_until("SELECT count(*) FROM pushy.queues WHERE parked IS NOT NULL", 1)
    db.jobs_wait("failing")
    db.jobs_wait("well")
    made = statements("Monitoring")
    *makes, first = made[:4]
    assert "pushy.stats" in first
    for statement in makes:
        db.sql(statement)
    db.sql("GRANT TRIGGER ON quiet TO watchman")
    with db.connect("watchman") as watchman:
        yield {query: watchman.execute(query).fetchall() for query in made[3:] + statements("When a queue is parked")}


def of(answers: dict[str, list[tuple]], words: str) -> list[tuple]:
    [rows] = [rows for query, rows in answers.items() if words in query]
    return rows


def test_the_queries_on_monitoring_find_what_is_wrong(answers):
    assert {(row[0], row[6], row[7], row[8]) for row in of(answers, "pushy.stats")} == {
        ("paused", 0, 0, 0), ("parked", 0, 0, 0), ("failing", 0, 1, 1), ("well", 1, 0, 0)}
    assert ("paused", "the queue is paused", "SELECT pushy.queue_resume('paused')") in of(answers, "q.paused OR q.parked")
    assert ("parked", "the queue is parked: handler public.goes() does not exist") in [row[:2] for row in of(answers, "q.paused OR q.parked")]
    assert of(answers, "NOT q.paused AND") == [], "none that could run waits for a minute"
    assert [row[:3] for row in of(answers, "pushy.watches")] == [("quiet", "quiet", "disabled")]
    assert of(answers, "pushy.subscriptions") == []
    assert [full for _, full, _ in of(answers, "pushy.log")] == [False]
    assert [row[:4] for row in of(answers, "pushy.failures")] == [("failing", "P0001", "no mail today", 1)]
    assert {queue for queue, seconds in of(answers, "oldest_ready") if seconds > 0} == {"paused", "parked"}
    assert {"launcher", "executor"} <= {row[0] for row in of(answers, "pushy.workers")}
    assert of(answers, "SELECT queue, parked") == [("parked", "handler public.goes() does not exist")]


def test_the_query_on_room_counts_the_tables(db):
    [query] = statements("Making room")
    assert db.value(query).split()[1] in ("kB", "MB")
