"""A worker outside, as a program that may be killed: python worker_outside.py DSN. It claims one job of `mails` after the other until none is
left, and in the transaction that completes a job it enters the job and its token into table `ledger`. Environment: DIES_AT, one of
its points, at which it kills itself at the job of number DIES_AFTER; LEASE; STOPS, where it prints a line and waits for one."""

import os
import signal
import sys
import uuid

import psycopg

POINTS = ("before the claim's answer", "after the claim's answer", "in the middle", "before the completion's answer")


def main() -> None:
    dsn = sys.argv[1]
    dies_at, dies_after = os.environ.get("DIES_AT"), int(os.environ.get("DIES_AFTER", "0"))
    lease, stops = os.environ.get("LEASE", "1 s"), os.environ.get("STOPS")
    done = 0
    with psycopg.connect(dsn, autocommit=True) as session:
        def send(statement: str, *params, last: bool):
            """Its answer, unless the worker dies before that comes."""
            if last:
                session.pgconn.send_query(psycopg.ClientCursor(session).mogrify(statement, params).encode())
                while session.pgconn.flush():
                    pass
                die()
            return session.execute(statement, params).fetchall()

        while True:
            dies = done == dies_after
            found = send("SELECT job_id, token FROM pushy.job_claim('mails', 1, %s, %s)", lease, str(uuid.uuid4()), last=dies and dies_at == POINTS[0])
            if not found:
                return
            [(job, token)] = found
            if dies and dies_at == POINTS[1]:
                die()
            session.execute("BEGIN")
            session.execute("INSERT INTO ledger VALUES (%s, %s)", (job, token))
            if dies and dies_at == POINTS[2]:
                die()
            if stops:
                session.execute("ROLLBACK")
                print("claimed", job, flush=True)
                sys.stdin.readline()
                session.execute("BEGIN")
                session.execute("INSERT INTO ledger VALUES (%s, %s)", (job, token))
            [(held,)] = session.execute("SELECT pushy.job_complete(%s, %s)", (job, token)).fetchall()
            if held and dies and dies_at == POINTS[3]:
                session.pgconn.send_query(b"COMMIT")
                while session.pgconn.flush():
                    pass
                die()
            session.execute("COMMIT" if held else "ROLLBACK")
            if stops:
                print("completed" if held else "refused", flush=True)
                return
            done += 1


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
