"""The Object Store API over JetStream.

`manager` and `store` are the two protocols of `natsfs.store.base`; `api` asks, `commit` publishes
metas, `chunks` and `draft` store versions, `reader` fetches them, with `indexing` for irregular
ones, and `watch` follows the metas; the last two use `consumer`.  All of them stand on the narrow
set of calls of `natsfs.store.session` and on the pure modules beside it.
"""

from natsfs.store.jetstream.manager import JetStreamManager
from natsfs.store.jetstream.store import JetStreamStore

__all__ = ["JetStreamManager", "JetStreamStore"]
