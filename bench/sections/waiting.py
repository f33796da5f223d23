"""A drain of 1,000,000 waiting jobs, against one of 100,000."""

from ..rounds import interleave
from .ugly import EMPTY, bar, pushy_in, table

TITLE = "A long backlog"


def measure(servers, sizes) -> dict:
    many = sizes.millions(1_000_000)
    with servers.server() as cluster:
        pushy = pushy_in(cluster, "waiting")
        pushy.drain("noop", max(many // 100, 10))
        rates = interleave({EMPTY: lambda: pushy.drain("noop", max(many // 10, 10)),
                            f"{many:,} jobs waiting": lambda: pushy.drain("noop", many)}, sizes.rounds)
    return {"rounds": sizes.rounds, "rates": rates}


def tables(data: dict) -> list[str]:
    return table(data["rates"], data["rounds"])


def bars(data: dict) -> list:
    return [bar(name, data["rates"], name, 0.9) for name in data["rates"] if name != EMPTY]
