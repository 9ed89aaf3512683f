"""A command line around the Object Store of nats-py, for the tests across clients.

    python pyclient.py URL BUCKET COMMAND [ARGUMENT...]

Bodies of objects travel on standard input and output, infos as ADR-20 JSON on standard output,
errors on standard error with exit status 1.  nats-py can neither rename nor make links.  `publish`
and `last` are for metas that no Object Store client writes or shows whole: they store standard
input on any subject, and write the last message of a subject.  `api` sends standard input to a verb
of the JetStream API, as an administrator may.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable

import nats
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import ObjectInfo, ObjectMeta, ObjectStoreConfig
from nats.js.errors import NotFoundError
from nats.js.object_store import ObjectStore

#: Seconds: the longest wait for one answer of the server.
TIMEOUT = 20.0


def show(info: ObjectInfo) -> None:
    print(json.dumps(info.as_dict()), flush=True)


async def put(store: ObjectStore, name: str) -> None:
    """Store standard input."""
    show(await store.put(name, sys.stdin.buffer.read()))


async def get(store: ObjectStore, name: str) -> None:
    """Write the object to standard output, its links followed and its digest checked."""
    result = await store.get(name)
    sys.stdout.buffer.write(result.data or b"")


async def info(store: ObjectStore, name: str) -> None:
    """Show one object."""
    show(await store.get_info(name))


async def list_all(store: ObjectStore) -> None:
    """Show every object."""
    try:
        found = await store.list(ignore_deletes=True)
    except NotFoundError:
        found = []
    print(json.dumps([entry.as_dict() for entry in found]))


async def delete(store: ObjectStore, name: str) -> None:
    """Delete an object."""
    await store.delete(name)


async def update_meta(store: ObjectStore, name: str, new_name: str, description: str) -> None:
    """Set the description; nats-py refuses every new name."""
    await store.update_meta(name, ObjectMeta(name=new_name, description=description))


async def watch_once(store: ObjectStore) -> None:
    """Print "ready" when it watches, then the first change."""
    watcher = await store.watch()
    while await watcher.updates(TIMEOUT) is not None:  # type: ignore[no-untyped-call]
        pass
    print("ready", flush=True)
    change = await watcher.updates(TIMEOUT)  # type: ignore[no-untyped-call]
    if change is not None:
        show(change)
    await watcher.stop()  # type: ignore[no-untyped-call]


async def seal(store: ObjectStore) -> None:
    """Make the bucket read-only."""
    await store.seal()  # type: ignore[no-untyped-call]


COMMANDS: dict[str, Callable[..., Awaitable[None]]] = {
    "put": put,
    "get": get,
    "info": info,
    "list": list_all,
    "delete": delete,
    "updatemeta": update_meta,
    "watch-once": watch_once,
    "seal": seal,
}


async def create(stream: JetStreamContext, bucket: str, max_bytes: str = "") -> None:
    """Create a bucket, of any size or of *max_bytes* bytes."""
    limit = int(max_bytes) if max_bytes else None
    await stream.create_object_store(bucket, ObjectStoreConfig(max_bytes=limit))


async def drop(stream: JetStreamContext, bucket: str) -> None:
    """Delete a bucket with all that is in it."""
    await stream.delete_object_store(bucket)


async def account(stream: JetStreamContext) -> None:
    """Show how many streams and consumers there are, and which buckets."""
    info = await stream.account_info()
    names = [one.config.name or "" for one in await stream.streams_info()]
    print(
        json.dumps(
            {
                "streams": info.streams,
                "consumers": info.consumers,
                "buckets": sorted(name.removeprefix("OBJ_") for name in names),
            }
        )
    )


async def create_many(stream: JetStreamContext, prefix: str, count: str) -> None:
    """Create *count* buckets, numbered after *prefix*."""
    for number in range(int(count)):
        await create(stream, f"{prefix}{number}")


async def publish(stream: JetStreamContext, subject: str, ttl: str = "") -> None:
    """Store standard input as a message on *subject*, for good or for *ttl*."""
    headers = {"Nats-TTL": ttl} if ttl else None
    await stream.publish(subject, sys.stdin.buffer.read(), timeout=TIMEOUT, headers=headers)


async def api(connection: Client, verb: str) -> None:
    """Write JetStream's answer to *verb* to standard output; its error is ours."""
    answer = await connection.request(f"$JS.API.{verb}", sys.stdin.buffer.read(), timeout=TIMEOUT)
    sys.stdout.buffer.write(answer.data)
    error = json.loads(answer.data).get("error")
    if error:
        raise RuntimeError(error)


async def last(stream: JetStreamContext, bucket: str, subject: str) -> None:
    """Write the last message on *subject* to standard output."""
    message = await stream.get_last_msg(f"OBJ_{bucket}", subject)
    sys.stdout.buffer.write(message.data or b"")


async def run(url: str, bucket: str, command: str, *arguments: str) -> None:
    """Connect, do one command, close."""
    connection = await nats.connect(url, allow_reconnect=False, connect_timeout=TIMEOUT)
    try:
        stream: JetStreamContext = connection.jetstream(timeout=TIMEOUT)
        if command == "create":
            await create(stream, bucket, *arguments)
        elif command == "drop":
            await drop(stream, bucket)
        elif command == "create-many":
            await create_many(stream, bucket, *arguments)
        elif command == "account":
            await account(stream)
        elif command == "api":
            await api(connection, *arguments)
        elif command == "publish":
            await publish(stream, *arguments)
        elif command == "last":
            await last(stream, bucket, *arguments)
        else:
            store = await stream.object_store(bucket)
            await COMMANDS[command](store, *arguments)
    finally:
        await connection.close()


def main() -> int:
    """Exit status 0, or 1 after a line on standard error."""
    try:
        asyncio.run(run(*sys.argv[1:]))
    except Exception as error:
        print(f"pyclient: {error!r}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
