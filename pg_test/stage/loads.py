"""Dumps in one file each, of which tables are loaded one by one beside what is there."""

JOBS = ["live_job", "finished_job", *(f"finished_job_{n:02}" for n in range(16))]
# What hangs on a job.
BESIDE = ["failure", "lease", "job_log", "checkpoint", "promised_cancel"]


def where(db) -> list:
    return ["-h", db.cluster.folder, "-p", db.cluster.port, "-U", "postgres"]


def dump(db):
    """The database in a file of its own for each call."""
    number = len(list(db.cluster.folder.glob(f"{db.name}.*.dump")))
    file = db.cluster.folder / f"{db.name}.{number}.dump"
    db.cluster.run("pg_dump", *where(db), "-Fc", "-f", file, db.name)
    return file


def load(db, file, tables=None, jobs: int = 1) -> str:
    """The rows of these tables of Pushy's, or of all; answers what pg_restore has said."""
    chosen = [option for table in tables or [] for option in ("-t", table)]
    parallel = ["-j", jobs] if jobs > 1 else []
    return db.cluster.run("pg_restore", *where(db), "-d", db.name, "--data-only", "-n", "pushy_internal", *parallel, *chosen, file, check=False).stderr or ""


def promise(db, job: int) -> None:
    """A promised cancel as the library writes it: a row that is inserted by SQL is taken for that of a dump."""
    db.sql("INSERT INTO pushy_internal.promised_cancel (job_id, queue_id) VALUES (%s, 1)", job)
    db.sql("UPDATE pushy_internal.promised_cancel SET job_id = j.id, queue_id = j.queue_id, enqueued_at = j.enqueued_at FROM pushy_internal.live_job j "
           "WHERE j.id = %s AND abs(promised_cancel.job_id) & (2 ^ 41 - 1)::bigint = j.id", job)
