"""What LISTEN really makes of a text, for thousands of texts at once, beside what Pushy says of it.

Texts and names are bytes here: an SQL_ASCII database keeps what is no character at all. Sessions use the
database's encoding, so that nothing is converted on the way.
"""

from contextlib import contextmanager
from dataclasses import dataclass
from typing import Iterable, Iterator

from psycopg import Connection
from psycopg.pq import DiagnosticField
from psycopg.pq.abc import PGresult

from harness.cluster import Cluster
from harness.database import Database

ENCODINGS = {"UTF8": "utf-8", "LATIN1": "latin-1", "SQL_ASCII": "utf-8"}
LIMIT = 63
NAME_TOO_LONG = "42622"
SYNTAX_ERROR = "42601"

SCHEMA = """
CREATE TABLE tried (
    id int PRIMARY KEY,
    input text,
    heard text,          -- the one channel of the session after LISTEN input
    refused text,        -- or the SQLSTATE of LISTEN
    uncut_length int,    -- bytes of the name that LISTEN has cut, by its NOTICE
    name text,           -- pushy.channel_name(input)
    sqlstate text,       -- or its SQLSTATE
    detail text);

CREATE FUNCTION bytes(text) RETURNS bytea LANGUAGE sql AS 'SELECT convert_to($1, getdatabaseencoding())';

CREATE FUNCTION text_of(bytea) RETURNS text LANGUAGE sql AS 'SELECT convert_from($1, getdatabaseencoding())';

CREATE PROCEDURE try_all() LANGUAGE plpgsql AS $$
DECLARE
    text_tried record;
    refusal text;
    channel text;
    pushy_name text;
    pushy_refusal text;
    pushy_detail text;
BEGIN
    FOR text_tried IN SELECT id, input FROM tried ORDER BY id LOOP
        refusal := NULL;
        BEGIN
            EXECUTE 'LISTEN ' || text_tried.input;
        EXCEPTION WHEN OTHERS THEN
            refusal := SQLSTATE;
        END;
        RAISE NOTICE '%', text_tried.id;  -- a NOTICE before this one is about this text
        COMMIT;                           -- the session listens from here
        channel := (SELECT c FROM pg_listening_channels() AS c);
        UNLISTEN *;

        pushy_name := NULL;
        pushy_refusal := NULL;
        pushy_detail := NULL;
        BEGIN
            pushy_name := pushy.channel_name(text_tried.input);
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS pushy_refusal = RETURNED_SQLSTATE, pushy_detail = PG_EXCEPTION_DETAIL;
        END;
        UPDATE tried SET heard = channel, refused = refusal, name = pushy_name, sqlstate = pushy_refusal,
                         detail = pushy_detail WHERE id = text_tried.id;
    END LOOP;
END $$;
"""

DISAGREEMENTS = """
SELECT bytes(input) AS text, bytes(heard) AS heard, refused, uncut_length,
       bytes(name) AS name, sqlstate, bytes(detail) AS detail, bytes(i::text) AS inspected
  FROM tried, pushy.channel_inspect(input) AS i (input_, channel, byte_length, folded, truncated, quoted,
                                                 listen_sql, notify_sql, error)
 WHERE input_ IS DISTINCT FROM input
    OR CASE
       WHEN refused IS NOT NULL THEN
            sqlstate IS DISTINCT FROM refused OR error IS NULL
            OR num_nonnulls(channel, byte_length, folded, truncated, quoted, listen_sql, notify_sql) > 0
       WHEN uncut_length IS NOT NULL THEN
            (sqlstate, channel, truncated, byte_length) IS DISTINCT FROM ('42622', heard, true, uncut_length)
            OR detail IS NULL OR strpos(detail, format('(%s bytes)', octet_length(heard))) = 0
            OR error IS NULL
       ELSE
            (name, channel, truncated, byte_length, error)
            IS DISTINCT FROM (heard, heard, false, octet_length(heard), NULL)
            OR sqlstate IS NOT NULL
       END
"""


@dataclass
class Tried:
    """What LISTEN made of a text: a channel, cut or not, or a refusal."""
    text: bytes
    heard: bytes | None
    refused: str | None
    uncut_length: int | None


class Names:
    """A database in which texts are tried, and how Python writes its encoding."""

    def __init__(self, database: Database, encoding: str):
        self.database, self.encoding, self.codec = database, encoding, ENCODINGS[encoding]
        database.sql(SCHEMA)

    def try_all(self, texts: Iterable[bytes]) -> list[Tried]:
        """LISTENs to each text and asks pushy.channel_name for it; the answers stay in table `tried`."""
        self.database.sql("TRUNCATE tried")
        with self.database.main.cursor().copy("COPY tried (id, input) FROM STDIN") as copy:
            for number, text in enumerate(texts):
                copy.write(b"%d\t%s\n" % (number, escaped(text)))
        with notices(self.database.main) as said:
            self.database.sql("CALL try_all()")
        uncut_lengths = list(uncut(said))
        with self.database.main.cursor() as cursor:
            cursor.executemany("UPDATE tried SET uncut_length = %s WHERE id = %s", uncut_lengths)
        return [Tried(text, heard, refused and refused.decode(), length)
                for text, heard, refused, length in self.database.rows(
                    "SELECT bytes(input), bytes(heard), bytes(refused), uncut_length FROM tried ORDER BY id")]

    def disagreements(self) -> list[tuple]:
        """Texts of which Pushy says something else than LISTEN has done."""
        return self.database.rows(DISAGREEMENTS)


@contextmanager
def names_in(cluster: Cluster, encoding: str) -> Iterator[Names]:
    """A database of that encoding; only locale C goes with every one."""
    database = cluster.database(options=f"TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'")
    try:
        yield Names(database, encoding)
    finally:
        database.drop()


def uncut(said: list[tuple[str, bytes]]) -> Iterator[tuple[int, int]]:
    """From the notices of `try_all`: bytes of each name that was cut, and the number of its text."""
    length = None
    for sqlstate, message in said:
        if sqlstate == NAME_TOO_LONG:
            # identifier "aaa…" will be truncated to "aa…"
            length = message.rindex(b'" will be truncated to "') - len(b'identifier "')
        elif message.isdigit():
            if length is not None:
                yield length, int(message)
            length = None


@contextmanager
def notices(session: Connection) -> Iterator[list[tuple[str, bytes]]]:
    """SQLSTATE and message of each NOTICE and WARNING that the session gets inside."""
    said: list[tuple[str, bytes]] = []

    def hear(result: PGresult) -> None:
        said.append((result.error_field(DiagnosticField.SQLSTATE).decode(),
                     result.error_field(DiagnosticField.MESSAGE_PRIMARY)))
    before, session.pgconn.notice_handler = session.pgconn.notice_handler, hear
    try:
        yield said
    finally:
        session.pgconn.notice_handler = before


def escaped(text: bytes) -> bytes:
    """A value for COPY's text format."""
    for plain, written in (b"\\", b"\\\\"), (b"\n", b"\\n"), (b"\r", b"\\r"), (b"\t", b"\\t"):
        text = text.replace(plain, written)
    return text
