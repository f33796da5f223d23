"""Who drains a queue: Pushy, its peers, and the limits."""

from .graphile_worker import GraphileWorker
from .graphile_worker_rs import GraphileWorkerRs
from .hand_loop import HandLoop
from .pg_boss import PgBoss
from .pgq import PgQ
from .pgqueuer import PgQueuer
from .procrastinate import Procrastinate
from .prototype import Prototype
from .pushy import Pushy

PEERS = [GraphileWorker(local_queue=True), GraphileWorker(local_queue=False), GraphileWorkerRs(), PgBoss(), PgQueuer(),
         Procrastinate(), PgQ(), HandLoop(batch=50), HandLoop(batch=1)]
LIMITS = [Prototype(batch=50), Prototype(batch=1)]
OURS = [Pushy(batch=True), Pushy(batch=True, kept=False), Pushy(batch=False)]
ALL = [*OURS, *PEERS, *LIMITS]
