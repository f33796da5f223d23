"""The server's log tells of what has been done, so a line about it waits for the commit."""

import pytest

# Stands in for whatever makes a commit fail.
REFUSE = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not yet'; END $$;
    CREATE CONSTRAINT TRIGGER refuse AFTER {event} ON pushy_internal.{table} DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
      EXECUTE FUNCTION refuse()"""
LET = "DROP TRIGGER refuse ON pushy_internal.{table}"


def queue(db) -> None:
    db.sql("CREATE FUNCTION nothing() RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_register('q', 'nothing()')")


def orphan(db) -> str:
    db.sql("SELECT pushy.queue_pause('q')")
    gid = f"{db.name}_p"
    db.sql(f"BEGIN; SELECT pushy.enqueue('q'); PREPARE TRANSACTION '{gid}'")
    db.sql("SELECT pushy.queue_drop('q')")
    return f"COMMIT PREPARED '{gid}'"


def unfit(db) -> str:
    db.sql("DROP FUNCTION nothing()")
    return "SELECT pushy.enqueue('q')"


@pytest.mark.parametrize("prepare, event, table, line, failed", [
    (orphan, "DELETE", "live_job", "jobs were discarded because their queue was dropped: 1", "the scheduler waits: not yet"),
    (unfit, "UPDATE", "queue", 'queue "q" is parked', "not yet"),
], ids=["orphans", "parked"])
def test_a_line_about_what_is_rolled_back_is_not_written(db, prepare, event, table, line, failed):
    queue(db)
    # Before anybody holds the table in a prepared transaction.
    db.sql(REFUSE.format(event=event, table=table))
    do = prepare(db)
    log, since = db.cluster.log, db.cluster.log.position()
    db.sql(do)
    log.wait_for(failed, since)
    assert line not in log.since(since)
    db.sql(LET.format(table=table))
    log.wait_for(line, since)
