"""Accounts for notices under faults: what was committed, and what a subscription's reader took in."""

import threading
from collections import defaultdict

import psycopg

from harness.database import Database
from harness.waiting import wait_for


class Flow:
    """Rows whose every change is told by relay with the row's new number, and subscription `s` whose reader keeps
    them in `effects` in the transaction in which it acknowledges them. Each row's numbers must arrive once each and
    in order, whatever happens: what was committed is what the rows say."""

    def __init__(self, db: Database, rows: int = 20):
        self.db = db
        db.sql(f"""
            CREATE TABLE counter (id int PRIMARY KEY, v int NOT NULL DEFAULT 0) WITH (fillfactor = 10);
            INSERT INTO counter SELECT generate_series(1, {rows});
            CREATE TABLE effects (seq bigserial, id int, v int, resync boolean);
            CREATE FUNCTION bump(which int, padding text DEFAULT '') RETURNS int LANGUAGE plpgsql AS $$
            DECLARE
              new_v int;
            BEGIN
              UPDATE public.counter SET v = v + 1 WHERE id = which RETURNING v INTO new_v;
              PERFORM pushy.notify('row', which || ':' || new_v || ':' || padding, delivery => 'relay');
              RETURN new_v;
            END $$;
            CREATE FUNCTION consume() RETURNS int LANGUAGE plpgsql AS $$
            DECLARE
              found record;
              taken int := 0;
            BEGIN
              FOR found IN SELECT * FROM pushy.subscription_read('s', 500) LOOP
                INSERT INTO public.effects (id, v, resync)
                VALUES (split_part(found.payload, ':', 1)::int, split_part(found.payload, ':', 2)::int, found.resync);
                taken := taken + 1;
              END LOOP;
              IF taken > 0 THEN
                PERFORM pushy.subscription_ack('s', found.cursor);
              END IF;
              RETURN taken;
            END $$;
            SELECT pushy.subscription_create('s', '{{row}}')""")

    def consume_all(self) -> int:
        taken = 0
        while more := self.db.value("SELECT consume()"):
            taken += more
        return taken

    def reader(self) -> "Reader":
        return Reader(self)

    def resyncs(self) -> int:
        return self.db.value("SELECT count(*) FROM effects WHERE resync")

    def assert_balanced(self, deadline: float = 60, resyncs: int = 0) -> None:
        """Every committed change was read exactly once, those of a row in order, with so many resyncs."""
        def missing() -> int:
            self.consume_all()
            return self.db.value("SELECT (SELECT sum(v) FROM counter) - (SELECT count(*) FROM effects WHERE NOT resync)")
        wait_for("nothing to be left", missing, lambda left: left <= 0, deadline, evidence=self.db.cluster.log.tail)
        self.assert_in_order(resyncs)
        assert missing() == 0

    def assert_in_order(self, resyncs: int = 0) -> None:
        assert self.resyncs() == resyncs
        found = defaultdict(list)
        for row, v in self.db.rows("SELECT id, v FROM effects WHERE NOT resync ORDER BY seq"):
            found[row].append(v)
        wrong = {row: numbers for row, numbers in found.items() if numbers != list(range(1, len(numbers) + 1))}
        assert not wrong, f"not once each and in order: {({row: numbers[:50] for row, numbers in wrong.items()})}"


class Reader:
    """Consumes in a session of its own until it is left; a server that is gone is waited for."""

    def __init__(self, flow: Flow):
        self.flow, self.stopping, self.error = flow, threading.Event(), None

    def __enter__(self) -> "Reader":
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.stopping.set()
        self.thread.join(60)
        if self.error:
            raise self.error

    def _run(self) -> None:
        while not self.stopping.is_set():
            try:
                with self.flow.db.cluster.connect(self.flow.db.name) as session:
                    while not self.stopping.is_set():
                        session.execute("CALL pushy.subscription_wait('s', '200 ms')")
                        session.execute("SELECT consume()")
            except psycopg.OperationalError:
                self.stopping.wait(0.05)
            except Exception as error:  # shown to the test
                self.error = error
                return
