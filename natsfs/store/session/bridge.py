"""The only bridge between trio and asyncio: an asyncio loop in a thread of its own.

nats-py runs there, in the environment that it is tested in.  One `Bridge.call` costs 0.3 to 0.6 ms
on the 2-core machine of design.md, because two threads take turns at the interpreter lock twice;
so whatever handles many messages does so on one side and crosses over once.

Concurrency: the trio thread touches the loop through `call_soon_threadsafe` only, the asyncio
thread touches trio through `run_sync_soon` only.  Both are queues in order, so what is posted
first happens first.  A cancelled call ends when its coroutine has ended, never before.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

import outcome
import trio

from natsfs.errors import NatsfsError
from natsfs.threads import start_thread

log = logging.getLogger(__name__)

T = TypeVar("T")


class SessionClosed(NatsfsError):
    """The session has ended, by its owner's will: no later attempt will do better."""


class Bridge:
    """A running asyncio loop, seen from trio."""

    def __init__(self, loop: asyncio.AbstractEventLoop, token: trio.lowlevel.TrioToken) -> None:
        self._loop = loop
        self._token = token

    async def call(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run the coroutine that *make* returns in the asyncio thread and give back its result.

        Cancellation cancels the coroutine and waits for its end; a result that it then still
        returns is not lost.

        Errors: those of the coroutine; `SessionClosed`.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        crossing = _Crossing(self._token, make)
        try:
            self._loop.call_soon_threadsafe(crossing.start)
        except RuntimeError as error:
            raise SessionClosed("the session is closed") from error

        def abort(raise_cancel: Callable[[], Any]) -> trio.lowlevel.Abort:
            crossing.raise_cancel = raise_cancel
            self._loop.call_soon_threadsafe(crossing.cancel)
            return trio.lowlevel.Abort.FAILED

        return cast(T, await trio.lowlevel.wait_task_rescheduled(abort))

    def post(self, callback: Callable[[], object]) -> None:
        """Run *callback* soon in the trio thread.  Called in the asyncio thread."""
        try:
            self._token.run_sync_soon(callback)
        except trio.RunFinishedError:
            log.debug("trio has ended: %r is not run", callback)


class _Crossing:
    """One call on its way.  `start`, `cancel` and `finish` run in the asyncio thread."""

    def __init__(
        self, token: trio.lowlevel.TrioToken, make: Callable[[], Coroutine[Any, Any, Any]]
    ) -> None:
        self._token = token
        self._make = make
        self._caller = trio.lowlevel.current_task()
        self._task: asyncio.Task[Any] | None = None
        self.raise_cancel: Callable[[], Any] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._make())
        self._task.add_done_callback(self._finish)

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _finish(self, task: asyncio.Task[Any]) -> None:
        self._token.run_sync_soon(self._deliver, outcome.capture(task.result))

    def _deliver(self, result: outcome.Outcome[Any]) -> None:
        """In the trio thread: an asyncio cancellation never reaches trio as such."""
        if isinstance(result, outcome.Error) and isinstance(result.error, asyncio.CancelledError):
            result = outcome.capture(self.raise_cancel or _closed)
        trio.lowlevel.reschedule(self._caller, result)


def _closed() -> None:
    raise SessionClosed("the session was closed")


@asynccontextmanager
async def open_bridge() -> AsyncIterator[Bridge]:
    """A loop in a thread that ends with the context; what still runs there is then cancelled."""
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(_report)
    token, ended = trio.lowlevel.current_trio_token(), trio.Event()

    def serve() -> None:
        try:
            _serve(loop)
        finally:
            token.run_sync_soon(ended.set)

    thread = start_thread(serve, "natsfs-nats")
    try:
        yield Bridge(loop, token)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        with trio.CancelScope(shield=True):
            # Not by a thread that joins it: it might not be had.
            await ended.wait()
        thread.join()


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


def _report(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Tasks of nats-py end with errors that nobody awaits when a connection breaks; the connection
    itself is watched elsewhere, so these are for the curious."""
    log.debug("nats-py: %s", context.get("message"), exc_info=context.get("exception"))
