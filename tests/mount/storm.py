"""Foreign changes at full speed, by nats-py, which replaces, purges and deletes without asking.

python -m tests.mount.storm URL BUCKET SECONDS
"""

from __future__ import annotations

import asyncio
import random
import sys
import time

import nats
from nats.js.object_store import ObjectStore

from tests.mount.load import names

#: Changes that are under way at a time.
AT_ONCE = 4


async def change(store: ObjectStore) -> None:
    """One change of something that the mounts work on."""
    name = names()
    if random.random() < 0.7:
        await store.put(name, random.randbytes(random.choice((0, 10, 5000, 150_000))))
    else:
        await store.delete(name)


async def keep_changing(store: ObjectStore, ends: float) -> None:
    """Change until *ends*, whatever others do meanwhile."""
    while time.monotonic() < ends:
        try:
            await change(store)
        except nats.errors.Error:
            # Somebody else was faster, which is the purpose.
            await asyncio.sleep(0)


async def run(url: str, bucket: str, seconds: float) -> None:
    """Storm for this long."""
    connection = await nats.connect(url)
    try:
        store = await connection.jetstream(timeout=20).object_store(bucket)
        ends = time.monotonic() + seconds
        await asyncio.gather(*(keep_changing(store, ends) for _ in range(AT_ONCE)))
    finally:
        await connection.close()


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], sys.argv[2], float(sys.argv[3])))
