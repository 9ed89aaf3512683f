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

#: Commands that read standard input.
WITH_BODY = ("put", "publish", "api")


def shown(info: ObjectInfo) -> bytes:
    return json.dumps(info.as_dict()).encode() + b"\n"


async def put(store: ObjectStore, body: bytes, name: str) -> bytes:
    """Store *body*."""
    return shown(await store.put(name, body))


async def get(store: ObjectStore, _body: bytes, name: str) -> bytes:
    """What the object holds, its links followed and its digest checked."""
    result = await store.get(name)
    return result.data or b""


async def info(store: ObjectStore, _body: bytes, name: str) -> bytes:
    """Show one object."""
    return shown(await store.get_info(name))


async def list_all(store: ObjectStore, _body: bytes) -> bytes:
    """Show every object."""
    try:
        found = await store.list(ignore_deletes=True)
    except NotFoundError:
        found = []
    return json.dumps([entry.as_dict() for entry in found]).encode()


async def delete(store: ObjectStore, _body: bytes, name: str) -> bytes:
    """Delete an object."""
    await store.delete(name)
    return b""


async def update_meta(
    store: ObjectStore, _body: bytes, name: str, new_name: str, description: str
) -> bytes:
    """Set the description; nats-py refuses every new name."""
    await store.update_meta(name, ObjectMeta(name=new_name, description=description))
    return b""


async def watch_once(store: ObjectStore, _body: bytes) -> bytes:
    """Print "ready" when it watches; the first change."""
    watcher = await store.watch()
    while await watcher.updates(TIMEOUT) is not None:  # type: ignore[no-untyped-call]
        pass
    print("ready", flush=True)
    change = await watcher.updates(TIMEOUT)  # type: ignore[no-untyped-call]
    await watcher.stop()  # type: ignore[no-untyped-call]
    return b"" if change is None else shown(change)


async def seal(store: ObjectStore, _body: bytes) -> bytes:
    """Make the bucket read-only."""
    await store.seal()  # type: ignore[no-untyped-call]
    return b""


COMMANDS: dict[str, Callable[..., Awaitable[bytes]]] = {
    "put": put,
    "get": get,
    "info": info,
    "list": list_all,
    "delete": delete,
    "updatemeta": update_meta,
    "watch-once": watch_once,
    "seal": seal,
}


async def create(stream: JetStreamContext, bucket: str, max_bytes: str = "") -> bytes:
    """Create a bucket, of any size or of *max_bytes* bytes."""
    limit = int(max_bytes) if max_bytes else None
    await stream.create_object_store(bucket, ObjectStoreConfig(max_bytes=limit))
    return b""


async def drop(stream: JetStreamContext, bucket: str) -> bytes:
    """Delete a bucket with all that is in it."""
    await stream.delete_object_store(bucket)
    return b""


async def account(stream: JetStreamContext) -> bytes:
    """Show how many streams and consumers there are, and which buckets."""
    info = await stream.account_info()
    names = [one.config.name or "" for one in await stream.streams_info()]
    found = {
        "streams": info.streams,
        "consumers": info.consumers,
        "buckets": sorted(name.removeprefix("OBJ_") for name in names),
    }
    return json.dumps(found).encode()


async def create_many(stream: JetStreamContext, prefix: str, count: str) -> bytes:
    """Create *count* buckets, numbered after *prefix*."""
    for number in range(int(count)):
        await create(stream, f"{prefix}{number}")
    return b""


async def publish(stream: JetStreamContext, body: bytes, subject: str, ttl: str = "") -> bytes:
    """Store *body* as a message on *subject*, for good or for *ttl*."""
    headers = {"Nats-TTL": ttl} if ttl else None
    await stream.publish(subject, body, timeout=TIMEOUT, headers=headers)
    return b""


async def api(connection: Client, body: bytes, verb: str) -> bytes:
    """JetStream's answer to *verb*; its error is ours."""
    answer = await connection.request(f"$JS.API.{verb}", body, timeout=TIMEOUT)
    error = json.loads(answer.data).get("error")
    if error:
        raise RuntimeError(error)
    return answer.data


async def last(stream: JetStreamContext, bucket: str, subject: str) -> bytes:
    """The last message on *subject*."""
    message = await stream.get_last_msg(f"OBJ_{bucket}", subject)
    return message.data or b""


async def silent(_error: Exception) -> None:
    """What goes wrong is raised where somebody waits for it."""


async def run(url: str, bucket: str, command: str, *arguments: str, body: bytes = b"") -> bytes:
    """Connect, do one command with *body*, close; what it has to say."""
    connection = await nats.connect(
        url, allow_reconnect=False, connect_timeout=TIMEOUT, error_cb=silent
    )
    try:
        stream: JetStreamContext = connection.jetstream(timeout=TIMEOUT)
        match command:
            case "create":
                return await create(stream, bucket, *arguments)
            case "drop":
                return await drop(stream, bucket)
            case "create-many":
                return await create_many(stream, bucket, *arguments)
            case "account":
                return await account(stream)
            case "api":
                return await api(connection, body, *arguments)
            case "publish":
                return await publish(stream, body, *arguments)
            case "last":
                return await last(stream, bucket, *arguments)
        store = await stream.object_store(bucket)
        return await COMMANDS[command](store, body, *arguments)
    finally:
        await connection.close()
        # Its socket is closed by what the loop does next, and the loop ends here.
        await asyncio.sleep(0)


def main() -> int:
    """Exit status 0, or 1 after a line on standard error."""
    try:
        body = sys.stdin.buffer.read() if sys.argv[3] in WITH_BODY else b""
        sys.stdout.buffer.write(asyncio.run(run(*sys.argv[1:], body=body)))
    except Exception as error:
        print(f"pyclient: {error!r}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
