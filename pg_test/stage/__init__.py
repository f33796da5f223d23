"""What tests of several areas play on: data, roles and readers that are there before the test begins.

ledger.py             accounts for jobs under faults: what was enqueued, and how often each took effect
flow.py               accounts for notices under faults: what was committed, and what a subscription took in
life.py               databases that are busy, and workers seen from outside
batches.py            jobs that run many to a transaction
windows.py            windows of finished jobs, filled, and ended before their time
watching.py           a watched table, who writes it and who listens
dumps.py              a database dumped, and loaded into another
versions.py           versions of Pushy beside the one that was built
machine.py            a machine whose clock jumps and whose disk fills (machine.c, preloaded)
strangers.py          two tenants, one of whom holds what the other might need
planted.py            what a role can plant in a schema of its own, before pg_catalog
channel_generator.py  texts that might stand after LISTEN
channel_names.py      what LISTEN really makes of them, and what Pushy says
rust.py               builds the programs of rust_client/
gateway.py            a gateway beside a server, its ways in, and who reads them
browser.py            Chromium, by its own protocol
"""
