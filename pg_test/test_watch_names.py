"""A watch that has its table's name keeps being the same when the table is renamed."""

from watching import Watching


def declared(db, *arguments: str) -> list:
    said = []
    with db.connect() as session:
        session.add_notice_handler(lambda diagnostic: said.append((diagnostic.severity, diagnostic.message_primary)))
        session.execute(f"SELECT pushy.watch({', '.join(arguments)})")
    return said


def test_a_watch_declared_under_the_new_name_of_its_table_is_the_old_one(db):
    db.sql("CREATE TABLE a (id int PRIMARY KEY); SELECT pushy.watch('a'); ALTER TABLE a RENAME TO b")
    assert declared(db, "'b'") == [("NOTICE", 'watch "a" of table public.b is called "b" now, as its channel is')]
    assert db.rows("SELECT name, channel, state FROM pushy.watches") == [("b", "b", "active")]
    assert db.value("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'b'::regclass") == 3
    heard = Watching(db, "a", "b")
    assert heard.after("INSERT INTO b VALUES (1)") == [("insert", 1)]
    assert declared(db, "'b'") == []


def test_a_watch_that_was_given_a_name_or_a_channel_is_another(db):
    db.sql("CREATE TABLE a (id int PRIMARY KEY); SELECT pushy.watch('a', channel => 'a'), pushy.watch('a', name => 'n'); ALTER TABLE a RENAME TO b")
    assert declared(db, "'b'") == []
    assert db.rows("SELECT name, channel FROM pushy.watches ORDER BY 1") == [("a", "a"), ("b", "b"), ("n", "a")]
