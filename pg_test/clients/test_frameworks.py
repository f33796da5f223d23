"""Django, SQLAlchemy with Alembic, and asyncpg, each with its own package: what their users do to a watched table, and to a test."""

import asyncio
import os
import subprocess
import sys

import asyncpg
import pytest
import sqlalchemy
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from harness.installation import REPOSITORY
from stage.watching import Watching

# -- Django ------------------------------------------------------------------------------------------------------


def django(db, *arguments: str) -> str:
    """Runs a command of Django's in the project django_client; answers what it wrote."""
    environment = os.environ | {"PGHOST": str(db.cluster.folder), "PGPORT": str(db.cluster.port), "PGDATABASE": db.name,
                                "DJANGO_SETTINGS_MODULE": "settings", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-m", "django", *arguments], cwd=REPOSITORY / "pg_test" / "django_client", env=environment,
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("processes", ["1", "2"])
def test_django_tests_run_what_watches_owe(cluster, processes):
    """In one process, and in several on copies that Django makes of its test database."""
    db = cluster.database()
    said = django(db, "test", "--parallel", processes, "--noinput")
    assert "Ran 6 tests" in said and "OK" in said, said


def test_django_migrates_a_watched_table(db):
    """RenameModel, RenameField, AlterField and RemoveField, which drops with CASCADE."""
    django(db, "migrate", "shop", "0001")
    heard = Watching(db, "orders", "vips")
    insert = "INSERT INTO {} ({}, vip, note) VALUES (500, true, '')"
    assert len(heard.after(insert.format("shop_order", "amount"))) == 2
    django(db, "migrate", "shop", "0002")
    assert db.rows("SELECT DISTINCT relation::text, state FROM pushy.watches") == [("shop_sale", "active")]
    assert len(heard.after(insert.format("shop_sale", "total"))) == 2
    django(db, "migrate", "shop", "0003")
    assert db.rows("SELECT name, state, fix IS NOT NULL FROM pushy.watches ORDER BY name") == [
        ("mails", "active", False), ("orders", "active", False), ("vips", "broken", True)]
    assert heard.after("INSERT INTO shop_sale (total, note) VALUES (500, '')", "DELETE FROM shop_sale") == [("insert", 3)], "the broken one is silent"
    django(db, "migrate", "shop", "0004")
    assert heard.after("INSERT INTO shop_sale (total, note) VALUES (5000000000, '')") == [("insert", 4)]
    assert set(db.rows("SELECT name, state FROM pushy.watches")) == {("mails", "active"), ("orders", "active")}
    db.jobs_wait("mails")
    assert db.rows("SELECT count(*), count(*) FILTER (WHERE state <> 'completed') FROM pushy.jobs") == [(7, 0)]


# -- SQLAlchemy and Alembic --------------------------------------------------------------------------------------

class Base(DeclarativeBase):
    pass


class Post(Base):
    __tablename__ = "post"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    hidden: Mapped[bool] = mapped_column(default=False)


@pytest.fixture
def engine(db):
    engine = sqlalchemy.create_engine("postgresql+psycopg://", connect_args={
        "host": str(db.cluster.folder), "port": db.cluster.port, "dbname": db.name, "user": "postgres"})
    Base.metadata.create_all(engine)
    db.sql("""CREATE TABLE seen (args jsonb); CREATE FUNCTION see(args jsonb) RETURNS void LANGUAGE sql AS 'INSERT INTO public.seen VALUES (args)';
              SELECT pushy.queue_register('q', 'see(jsonb)'), pushy.watch('post', queue => 'q', condition => 'NOT NEW.hidden'),
                     pushy.watch('post', channel => '"Posts"', columns => '{title}', events => '{update}')""")
    yield engine
    engine.dispose()


def test_sqlalchemy_sessions_in_a_transaction_that_a_test_rolls_back(db, engine):
    """The recipe of its documentation: the session's commits are savepoints."""
    db.sql("SELECT pushy.queue_pause('q')")
    with engine.connect() as connection:
        outer = connection.begin()
        session = Session(bind=connection, join_transaction_mode="create_savepoint")
        session.add_all([Post(title="a"), Post(title="b", hidden=True)])
        session.commit()
        session.add(Post(title="c"))
        session.rollback()
        session.add(Post(title="d"))
        session.commit()
        run = sqlalchemy.text("SELECT pushy.queue_run('q')")
        assert session.scalar(run) == 2
        session.commit()
        assert session.scalar(run) == 0
        assert session.scalar(sqlalchemy.text("SELECT count(*) FROM seen")) == 2
        outer.rollback()
    assert db.value("SELECT count(*) FROM pushy.jobs") == db.value("SELECT count(*) FROM seen") == 0


def test_alembic_alters_a_watched_table(db, engine):
    heard = Watching(db, '"Posts"')
    with engine.begin() as connection:
        alter = Operations(MigrationContext.configure(connection))
        alter.alter_column("post", "hidden", new_column_name="secret")
        alter.add_column("post", sqlalchemy.Column("likes", sqlalchemy.Integer(), server_default="0"))
        alter.rename_table("post", "article")
        alter.create_index("article_title", "article", ["title"])
    db.sql("INSERT INTO article (title, secret) VALUES ('x', false), ('y', true); UPDATE article SET likes = 1; UPDATE article SET title = 'z' WHERE title = 'x'")
    assert heard.after() == [("update", 1)]
    db.jobs_wait("q")
    assert db.value("SELECT count(*) FROM seen") == 3
    with engine.begin() as connection, pytest.raises(sqlalchemy.exc.DBAPIError, match=r"SELECT pushy\.unwatch"):
        Operations(MigrationContext.configure(connection)).drop_column("article", "secret")
    assert db.rows("SELECT DISTINCT relation::text, state FROM pushy.watches") == [("article", "active")]


# -- asyncpg -----------------------------------------------------------------------------------------------------

NAMES = ["plain", '"Quoted"', '"a b"', '"a""b"', '"1x"', '"public.t"', '"user"', '"*"']


def test_asyncpg_listens_to_a_watch_by_its_exact_name(db):
    """Its add_listener quotes what it is given: channel_name, and not channel, which is for a statement."""
    db.sql("CREATE TABLE t (id int PRIMARY KEY)")
    for number, name in enumerate(NAMES):
        db.value("SELECT pushy.watch('t', channel => %s, name => %s)", name, f"w{number}")
    names = db.rows("SELECT channel, channel_name FROM pushy.watches ORDER BY name")
    assert [written for written, _ in names] == NAMES

    async def scenario() -> list[str]:
        session = await asyncpg.connect(host=str(db.cluster.folder), port=db.cluster.port, database=db.name, user="postgres")
        heard: asyncio.Queue = asyncio.Queue()
        for _, exact in names:
            await session.add_listener(exact, lambda _session, _pid, channel, payload: heard.put_nowait(channel))
        await session.execute("INSERT INTO t VALUES (1)")
        found = [await asyncio.wait_for(heard.get(), 60) for _ in names]
        await session.close()
        return found
    assert asyncio.run(scenario()) == [exact for _, exact in names]
