"""What is measured. A section has TITLE, measure(servers, sizes) → figures, tables(figures) → lines, bars(figures)."""

from . import (bystander, drain, drain_durable, enqueue, farm, farm_held, farm_waiting, held, idle, instructions, kept, latency, log_copy, log_latency, log_writers, many, memory, parked,
               rates, shared_table, sharing, waiting, wal, watch)

SECTIONS = {"drain": drain, "drain_durable": drain_durable, "latency": latency, "rates": rates, "enqueue": enqueue, "wal": wal,
            "shared_table": shared_table, "sharing": sharing, "waiting": waiting, "kept": kept, "held": held, "parked": parked, "memory": memory, "idle": idle, "many": many,
            "bystander": bystander, "instructions": instructions, "watch": watch, "log_writers": log_writers, "log_latency": log_latency, "log_copy": log_copy,
            "farm": farm, "farm_waiting": farm_waiting, "farm_held": farm_held}
# The rest takes millions of jobs, or minutes of waiting: peers that flush each commit make 250 jobs a second.
SHORT = ["drain", "latency", "enqueue", "wal", "parked", "bystander", "watch", "farm"]
