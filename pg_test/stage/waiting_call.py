"""A statement that waits for a lock while the test goes on."""

import threading

import psycopg


class WaitingCall:
    """A statement in a session of its own that waits for a lock."""

    def __init__(self, db, statement: str, *params, user: str = "postgres"):
        self.session = db.connect(user)
        self.rows, self.error = None, None

        def run() -> None:
            try:
                cursor = self.session.execute(statement, params)
                self.rows = cursor.fetchall() if cursor.description else []
            except psycopg.Error as error:
                self.error = error

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()
        db.wait_until("SELECT wait_event_type FROM pg_stat_activity WHERE pid = %s", "Lock", params=(self.session.info.backend_pid,))

    def ended(self) -> list[tuple]:
        self.thread.join(60)
        if self.error:
            raise self.error
        assert self.rows is not None
        return self.rows
