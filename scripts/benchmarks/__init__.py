"""How fast natsfs is, each figure beside the yardstick that it is to be judged by.

    __main__                      argv → which workloads, how large, how often; the table and JSON
    catalogue                     the workloads by name
    bulk small trees buckets      the workloads: what is done, who competes, what is to be reached
    competitors stored            who competes: all file systems; a large object without one
    filesystems clients plain     the contestants: mounts of all kinds, NATS clients, a bare socket
    race report figures           rounds; table and JSON; medians, ratios and targets (pure)
    bench mounting scratch timing one run's server and sizes; a mount's process; files; seconds
    interrupts                    Ctrl-C ends everything that was started

`scripts/bench` installs what this needs and runs it.  Nothing here is a test: a target that is
missed is shown as missed.

Concurrency: one thread runs one measurement at a time; only `bulk` reads with several threads, and
only within one measurement.
"""
