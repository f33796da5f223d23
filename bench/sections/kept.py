"""A drain beside 5,000,000 completed jobs that are still kept."""

from ..progress import progress
from .ugly import EMPTY, bar, contests, pushy_in, table

TITLE = "Completed jobs kept"
STEPS = 10


def measure(servers, sizes) -> dict:
    many = sizes.millions(5_000_000)
    with servers.server() as cluster:
        empty, full = pushy_in(cluster, "empty"), pushy_in(cluster, "kept")
        for number in range(STEPS):
            progress(f"  {many * number // STEPS:,} of {many:,} jobs done")
            full.drain("noop", many // STEPS)
        full.db.sql("VACUUM ANALYZE")
        rates = contests(cluster, {EMPTY: empty, f"{many:,} completed and kept": full}, sizes.jobs(200_000), sizes.rounds)
    return {"rounds": sizes.rounds, "rates": rates}


def tables(data: dict) -> list[str]:
    return table(data["rates"], data["rounds"])


def bars(data: dict) -> list:
    return [bar(name, data["rates"], name, 0.9) for name in data["rates"] if name != EMPTY]
