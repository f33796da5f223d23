"""Workers for the job queues of Pushy, the PostgreSQL extension.

    worker = pushy.Worker("postgresql:///app")

    @worker.handler("mails", concurrency=20)
    async def send(job: pushy.Job) -> None:
        ...

    worker.run()
"""

from .job import Job
from .metrics import Event, Metrics
from .words import AttemptEnded, Cancelled, Discarded, LeaseLost, RetriedLater, Snoozed
from .worker import Worker

__all__ = [
    "AttemptEnded",
    "Cancelled",
    "Discarded",
    "Event",
    "Job",
    "LeaseLost",
    "Metrics",
    "RetriedLater",
    "Snoozed",
    "Worker",
]
