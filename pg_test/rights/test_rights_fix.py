"""What `fix` says is pasted by whoever reads it: never does it give a stranger's code the reader's rights."""

import psycopg
import pytest

GRABS = ("RETURNS {returns} {immutable} LANGUAGE plpgsql AS $$BEGIN IF current_setting('is_superuser') = 'on' THEN "
         "EXECUTE format('ALTER ROLE %I SUPERUSER', '{mallory}'); END IF; {end} END$$")


@pytest.fixture
def mallory(db, role):
    name = role()
    db.sql(f"GRANT USAGE ON SCHEMA pushy TO {name}; CREATE SCHEMA {name} AUTHORIZATION {name}; GRANT USAGE ON SCHEMA {name} TO PUBLIC;"
           f"CREATE TABLE t (id int PRIMARY KEY); GRANT TRIGGER ON t TO {name}")
    db.mallory = name
    with db.connect(user=name) as session:
        session.execute(f"CREATE FUNCTION {name}.grab() {GRABS.format(returns='void', immutable='', mallory=name, end='')}")
        yield session


def paste(db, query: str) -> str:
    """A superuser runs what is said there."""
    fix = db.value(query)
    try:
        db.sql(fix)
    except psycopg.errors.SyntaxError:
        pass  # Words.
    return fix


def is_superuser(db) -> bool:
    return db.value("SELECT rolsuper FROM pg_roles WHERE rolname = %s", db.mallory)


@pytest.mark.parametrize("words", ["condition => '{f}(1)'", "payload_expr => '{f}(1)::text'", "queue => 'q', args_expr => 'to_jsonb({f}(1))'", "topic_expr => '{f}(1)::text'"])
def test_who_declares_a_strangers_watch_again_is_not_told_the_strangers_words(db, mallory, words):
    f = f"{db.mallory}.ok"
    mallory.execute(f"CREATE FUNCTION {f}(int) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT true';"
                    f"CREATE FUNCTION {db.mallory}.h(jsonb) RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_register('q', '{db.mallory}.h(jsonb)')")
    mallory.execute("SELECT pushy.watch('t', channel => 't', " + words.format(f=f).replace("%", "%%") + ")")
    mallory.execute(f"DROP FUNCTION {f} CASCADE")
    grabs = GRABS.format(returns="bool", immutable="IMMUTABLE", mallory=db.mallory, end=f"PERFORM {db.mallory}.grab(); RETURN true;")
    mallory.execute(f"CREATE FUNCTION {f}(int) {grabs}")
    assert db.value("SELECT state FROM pushy.watches") == "broken"
    assert db.mallory in paste(db, "SELECT fix FROM pushy.watches")
    assert not is_superuser(db)
    # Its maker is told the statement.
    fix = mallory.execute("SELECT fix FROM pushy.watches").fetchone()[0]
    mallory.execute(fix)
    assert mallory.execute("SELECT state, fix FROM pushy.watches").fetchall() == [("active", None)]


def test_a_handler_that_somebody_else_has_put_in_its_place_is_not_handed_over_by_a_statement(db, mallory):
    name = db.mallory
    db.sql(f"CREATE FUNCTION {name}.nightly(jsonb) RETURNS text LANGUAGE sql AS 'SELECT ''mine'''; SELECT pushy.queue_register('nightly', '{name}.nightly(jsonb)')")
    mallory.execute(f"DROP FUNCTION {name}.nightly(jsonb)")
    mallory.execute(f"CREATE FUNCTION {name}.nightly(jsonb) {GRABS.format(returns='text', immutable='', mallory=name, end='RETURN 1;')}")
    job = db.value("SELECT pushy.enqueue('nightly')")
    db.wait_until("SELECT parked IS NOT NULL FROM pushy.queues")
    fix = paste(db, "SELECT fix FROM pushy.queue_explain('nightly') WHERE fix IS NOT NULL")
    assert fix.startswith(f"Pass run_as => '{name}'") and f"read {name}.nightly(jsonb) first" in fix
    assert db.value("SELECT attempt FROM pushy.jobs WHERE id = %s", job) == 0
    assert not is_superuser(db)
