"""The example, run as a program."""

import signal
import subprocess
import sys
from pathlib import Path

from server import Database

EXAMPLE = Path(__file__).parents[1] / "examples" / "mails.py"


def test_mails_are_sent_and_bad_addresses_discarded(db: Database) -> None:
    db.queue("mails")
    process = subprocess.Popen([sys.executable, str(EXAMPLE), db.conninfo], stdout=subprocess.PIPE, text=True)
    try:
        good = db.enqueue({"to": "ada@example.org", "subject": "Welcome"}, "mails")
        bad = db.enqueue({"to": "ada", "subject": "Welcome"}, "mails")
        assert db.reaches(good, "completed")["result"] == {"message_id": f"<job-{good}@example.org>"}
        assert db.reaches(bad, "discarded")["last_error"] == "'ada' is no address"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert process.stdout is not None and process.stdout.read() == "would send: ada@example.org Welcome\n"
    finally:
        process.kill()
        process.wait()
