"""A drain beside 100,000 jobs of a paused queue, and beside 100,000 that are not due for a day."""

from .ugly import EMPTY, bar, contests, pushy_in, table

TITLE = "Jobs that cannot run"


def measure(servers, sizes) -> dict:
    many = sizes.jobs(100_000)
    paused, later = f"{many:,} behind a paused queue", f"{many:,} not due for a day"
    with servers.server() as cluster:
        states = {EMPTY: pushy_in(cluster, "empty"), paused: pushy_in(cluster, "paused"), later: pushy_in(cluster, "later")}
        db = states[paused].db
        db.sql("SELECT pushy.queue_register('parked', 'noop(jsonb)', priority => 0)")
        db.sql("SELECT pushy.queue_pause('parked')")
        db.value("SELECT count(*) FROM pushy.enqueue_many('parked', array_fill('{}'::jsonb, ARRAY[%s]))", many)
        states[later].db.value("SELECT count(*) FROM pushy.enqueue_many('noop_batched', array_fill('{}'::jsonb, ARRAY[%s]), "
                               "delay => '1 day', priority => 0)", many)
        rates = contests(cluster, states, sizes.jobs(200_000), sizes.rounds)
    return {"rounds": sizes.rounds, "rates": rates}


def tables(data: dict) -> list[str]:
    return table(data["rates"], data["rounds"])


def bars(data: dict) -> list:
    return [bar(name, data["rates"], name, 0.95) for name in data["rates"] if name != EMPTY]
