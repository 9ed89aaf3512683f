"""natsfs mounts a NATS JetStream Object Store bucket, or all of them, as a directory.

General layout, from the kernel down to the server.  A module imports only what stands below it;
`tests/test_layering.py` keeps it so.

    cli ─ mount                 argv and environment → config values; who is built and ended when
    operations                  the kernel's requests: decode, one call, encode, the error boundary
    buckets                     all buckets of an account as one directory
    filesystem                  how a bucket looks and behaves as a directory
    tree/     data/             names and inodes in memory (pure) │ bytes: cache, reader, writer
    upkeep                      garbage and damage in a bucket, mounted or not
    store/                      the Object Store API for trio, over JetStream and in memory
    control  daemon  server     a mount's control socket, its life in the background, nats-server
    config  errors  metrics     frozen values; one class for each thing that can go wrong; counters
    threads  headroom           what a process may not get: a thread, memory
    progress                    how far something is that takes long

Reading order: manual/semantics.md for what is promised; `filesystem` for the promises in code;
`store/base` for what they need from NATS; `tree/namespace`; `data/reader`, `data/outflow`;
`operations` late, because it holds no ideas; `mount` last.
"""

from __future__ import annotations

__version__ = "0.1.0"
