"""Everything at once, from a seed, for so many minutes: clients with all their habits, every fault, a standby that is promoted now and
then, and ledgers that must balance in the end. `make torture SEED=7 MINUTES=10`."""
