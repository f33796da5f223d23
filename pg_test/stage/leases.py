"""Queue `mails`, as workers outside see it."""

import json
import uuid


def enqueue(db, count: int = 1, **named) -> list[int]:
    said = "".join(f", {name} => %s" for name in named)
    return [db.value(f"SELECT pushy.enqueue('mails', %s{said})", json.dumps({"n": n}), *named.values()) for n in range(count)]


def claim(db, count: int = 1, lease: str | None = None, worker: str | None = None) -> list[tuple[int, uuid.UUID]]:
    return db.rows("SELECT job_id, token FROM pushy.job_claim('mails', %s, %s, %s)", count, lease, worker)


def state(db, job: int) -> str:
    return db.value("SELECT state FROM pushy.jobs WHERE id = %s", job)
