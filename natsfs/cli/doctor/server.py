"""What the server has and lacks, and what these credentials may do with a bucket."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import trio

from natsfs.cli.doctor.findings import Finding, State, ok, problem, warning
from natsfs.cli.quantities import shown_duration, shown_size
from natsfs.errors import (
    BucketNotFoundError,
    JetStreamUnavailable,
    NatsfsError,
    NotFoundError,
)
from natsfs.store.advisories import API_REQUESTS
from natsfs.store.base import ObjectStore, ObjectStoreManager
from natsfs.store.jetstream.api import Api
from natsfs.store.model import BucketStatus
from natsfs.store.session import Session
from natsfs.store.streams import clock_ahead
from natsfs.store.wire import new_nuid

#: The first server that natsfs is tested with, and those that brought what it can make use of.
OLDEST = (2, 9, 10)
FEATURES = (
    ((2, 10, 0), "compression"),
    ((2, 11, 0), "batched direct get, so that large files are read with a request for each chunk"),
    ((2, 11, 0), "message TTLs, so that records of deleted objects stay until `natsfs gc`"),
    ((2, 12, 0), "atomic batches, so that renames are not all-or-nothing"),
)

#: Seconds by which clocks may differ before people wonder about times.
CLOCK = 2.0

#: The share of a limit from which it is told.
NEARLY = 0.9

#: Seconds that the server has to refuse a subscription: it does so at once, or never.
REFUSAL = 0.3


async def server_findings(
    session: Session, manager: ObjectStoreManager, bucket: str
) -> list[Finding]:
    """Everything about the server that *session* is connected to, and about *bucket*, if one is
    named."""
    found = [await _reached(session), version_finding(session.server_version or (0, 0, 0))]
    jetstream = await _jetstream(manager)
    found.append(jetstream)
    if jetstream.state is State.PROBLEM:
        return found
    if not bucket:
        return [*found, await _clock(lambda: _any_status(manager))]
    try:
        store = await manager.bind(bucket)
    except BucketNotFoundError:
        advice = f"`natsfs bucket create {bucket}`, or --create when mounting, makes it"
        return [*found, problem("bucket", f"there is no bucket {bucket!r}", advice)]
    except NatsfsError as exc:
        return [*found, _denied("bucket", exc)]
    found.append(await _clock(store.status))
    found += [finding async for finding in _bucket(session, store)]
    return found


async def _reached(session: Session) -> Finding:
    access = session.access
    tls = " by TLS" if access is not None and access.tls is not None else ""
    return ok("server", f"{session.url} answers{tls}")


def version_finding(version: tuple[int, int, int]) -> Finding:
    """What a server of this *version* lacks."""
    check = "server version"
    shown = ".".join(map(str, version))
    lacking = [text for since, text in FEATURES if version < since]
    if version < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        return problem(
            check, f"{shown} is older than natsfs is tested with", f"run {oldest} or later"
        )
    if lacking:
        return warning(
            check, f"{shown} lacks {'; '.join(lacking)}", "run 2.12 or later for all of it"
        )
    return ok(check, shown)


async def _jetstream(manager: ObjectStoreManager) -> Finding:
    check = "JetStream"
    try:
        limits = await manager.account()
    except JetStreamUnavailable:
        return problem(
            check,
            "is not enabled",
            "start nats-server with -js, or enable JetStream for this account",
        )
    except NatsfsError as exc:
        return problem(check, str(exc), "see the server's log")
    used = shown_size(limits.storage_used)
    if limits.storage_limit <= 0:
        # So it is also for credentials that may not ask.
        known = f"stores {used}" if limits.storage_used else "has nothing, or does not tell"
        return ok(check, f"the account {known}, and no limit is known")
    text = f"the account stores {used} of {shown_size(limits.storage_limit)}"
    if limits.storage_used > NEARLY * limits.storage_limit:
        return warning(check, text, "raise its limit, or delete something")
    return ok(check, text)


async def _clock(ask: Callable[[], Awaitable[BucketStatus | None]]) -> Finding:
    check, begin = "clock", time.time_ns()
    try:
        status = await ask()
    except NatsfsError as exc:
        return warning(check, "the server's is not known", str(exc))
    if status is None or not status.asked_ns:
        return ok(check, "the server's is not known without a bucket")
    ahead = clock_ahead(status.asked_ns, begin, time.time_ns()) / 1e9
    if abs(ahead) < CLOCK:
        return ok(check, "this host and the server agree")
    slow = "behind" if ahead > 0 else "ahead of"
    return warning(
        check,
        f"this host is {shown_duration(abs(ahead))} {slow} the server",
        "let chrony or systemd-timesyncd set both: files show the times of both hosts",
    )


async def _any_status(manager: ObjectStoreManager) -> BucketStatus | None:
    found = await manager.list()
    return await (await manager.bind(found[0].bucket)).status() if found else None


# -- one bucket -----------------------------------------------------------------------------------


async def _bucket(session: Session, store: ObjectStore) -> AsyncIterator[Finding]:
    status = await store.status()
    yield _fullness(status)
    yield await _settings(store, status)
    yield await _allowed("reading", lambda: _read(store))
    yield await _allowed("following", lambda: _follow(store))
    yield await _writing(store, status)
    yield await _hearing(session)


def _fullness(status: BucketStatus) -> Finding:
    check = f"bucket {status.bucket}"
    text = f"{shown_size(status.size)} in {status.messages} messages"
    if status.max_bytes > 0 and status.size > NEARLY * status.max_bytes:
        limit = shown_size(status.max_bytes)
        return warning(check, f"{text}, nearly all of {limit}", "`natsfs gc` may free some of it")
    return ok(check, text)


async def _settings(store: ObjectStore, status: BucketStatus) -> Finding:
    check = "settings"
    try:
        lacking = (await store.upgrade(dry_run=True)).changed
    except NatsfsError as exc:
        return ok(check, f"what could be switched on is not known: {exc}")
    if lacking:
        return warning(
            check,
            f"{', '.join(lacking)} could be on",
            f"`natsfs bucket upgrade {status.bucket}`, for atomic renames and less to clean up",
        )
    return ok(check, "all that the server has is on")


async def _read(store: ObjectStore) -> None:
    with suppress(NotFoundError):
        await store.get_info(f"natsfs-doctor-{new_nuid()}")


async def _follow(store: ObjectStore) -> None:
    async with store.watch() as events:
        await anext(events)


async def _allowed(check: str, work: Callable[[], Awaitable[None]]) -> Finding:
    try:
        await work()
    except NatsfsError as exc:
        return _denied(check, exc)
    except BaseExceptionGroup as group:
        errors = [exc for exc in group.exceptions if isinstance(exc, NatsfsError)]
        if len(errors) != len(group.exceptions):
            raise
        return _denied(check, errors[0])
    return ok(check, "works")


async def _writing(store: ObjectStore, status: BucketStatus) -> Finding:
    check, advice = "writing", "mounts of it are read-only"
    if status.sealed:
        return warning(check, "the bucket is sealed", advice)
    if status.mirror is not None:
        return warning(check, f"the bucket is a mirror of {status.mirror}", advice)
    refusal = await store.refusal()
    if refusal is not None:
        return warning(check, refusal, f"{advice} until that is allowed")
    return ok(check, "is allowed")


async def _hearing(session: Session) -> Finding:
    """Whether purges are told at once.  The server says nothing where it allows that."""
    check = "advisories"
    try:
        async with session.subscribe(Api(session).event(API_REQUESTS)) as subscription:
            with trio.move_on_after(REFUSAL):
                await subscription.receive()
    except NatsfsError as exc:
        return warning(check, "what others purge shows up to a minute late", _allow(exc))
    return ok(check, "what others purge shows at once")


def _denied(check: str, exc: NatsfsError) -> Finding:
    text, _, advice = str(exc).partition("; ")
    return problem(check, text, advice or "check the server, and its log")


def _allow(exc: NatsfsError) -> str:
    """What has to be allowed, by the message of a denial."""
    return str(exc).rpartition("; ")[2]
