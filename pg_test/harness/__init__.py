"""Temporary PostgreSQL servers with Pushy in them, for the tests, the demo and the benchmark.

account.py       who the server runs as (root steps down)
scratch.py       a short-lived folder that cleans up after itself
installation.py  a private copy of PostgreSQL with the freshly built extension
cluster.py       one server: start, stop, crash, promote, log
database.py      one database of it: queries, waiting, listening
gate.py          stops a running handler until the test says go
waiting.py       the one place that waits
fixtures.py      what a test asks pytest for
"""
