"""PgQ's own consumer (Debian's python3-pgq): `work OPTIONS`. Events in batches, as the ticks made them."""

import json
import os
import sys
import tempfile

import pgq

from protocol import Count, say

CONFIG = """
[bench]
job_name = bench
db = dbname={database} host={host} port={port} user={user}
queue_name = bench
pgq_lazy_fetch = {fetch}
loop_delay = 0.01
logfile =
pidfile =
use_skylog = 0
"""


class Consumer(pgq.Consumer):
    def __init__(self, config: str, jobs: int, handler: str):
        super().__init__("bench", "db", ["-q", config])
        self.jobs_count, self.handler = Count(jobs), handler

    def process_batch(self, db, batch_id, event_list) -> None:
        count, cursor = self.jobs_count, db.cursor()
        for event in event_list:
            count.begin()
            if self.handler == "one_row":
                cursor.execute("INSERT INTO written (n) VALUES (%s)", [int(event.ev_data)])
            count.handled += 1

    def work(self) -> int:
        more = super().work()
        if self.jobs_count.handled == self.jobs_count.jobs:
            say("handled")
            sys.stdin.readline()
            sys.exit(0)
        return more


def main() -> None:
    options = json.loads(sys.argv[2])
    with tempfile.NamedTemporaryFile("w", suffix=".ini") as config:
        config.write(CONFIG.format(database=os.environ["PGDATABASE"], host=os.environ["PGHOST"],
                                   port=os.environ["PGPORT"], user=os.environ["PGUSER"], fetch=options["fetch"]))
        config.flush()
        consumer = Consumer(config.name, options["jobs"], options["handler"])
        say("ready")
        sys.stdin.readline()
        say("running")
        consumer.start()


main()
