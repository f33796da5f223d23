"""Statements that must fail, and how."""

import psycopg
import pytest


def refused(session: psycopg.Connection, statement: str, sqlstate: str, *says: str) -> None:
    """The statement fails with this SQLSTATE; message, detail or hint has each of these words."""
    with pytest.raises(psycopg.Error) as error:
        session.execute(statement)
    diag = error.value.diag
    seen = f"{diag.sqlstate} {diag.message_primary}\nDETAIL: {diag.message_detail}\nHINT: {diag.message_hint}"
    assert diag.sqlstate == sqlstate, seen
    for word in says:
        assert word in seen, seen
