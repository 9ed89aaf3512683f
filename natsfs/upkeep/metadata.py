"""Changing what a meta says of an object besides its bytes.

Whatever another client changes in between is kept, and so are fields that nobody here knows.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from natsfs.errors import WrongRevision
from natsfs.filesystem.attributes import with_times
from natsfs.filesystem.lifetimes import lease
from natsfs.store.base import ObjectStore
from natsfs.store.contention import Contention
from natsfs.store.model import MetaWrite, ObjectInfo

_NS = 10**9

Change = Callable[[ObjectInfo], ObjectInfo]


async def change_meta(
    store: ObjectStore,
    read: Callable[[], Awaitable[ObjectInfo]],
    change: Change,
    *,
    expected: int | None = None,
) -> ObjectInfo:
    """Store what *change* makes of the object that *read* gets, decided again on what others
    stored meanwhile; with *expected* only on that revision.

    Times stay as a mount shows them, and where the bucket has a TTL, the meta gets no new lease.

    Errors: `WrongRevision` (*expected* is not the newest), `RequestTimeout` (others were faster
    for as long as that), those of *read*, *change* and `ObjectStore.commit`.
    """
    status = await store.status()
    contention = Contention(store)
    while True:
        old = await read()
        if expected is not None and old.revision != expected:
            raise WrongRevision(old.name, expected, old.revision)
        new = change(with_times(old))
        life = lease(new, round((status.ttl or 0) * _NS), status.asked_ns or time.time_ns())
        try:
            return (await store.commit([MetaWrite(new, old.revision, ttl=life)]))[0]
        except WrongRevision as error:
            if expected is not None:
                raise
            await contention.lost(error)
