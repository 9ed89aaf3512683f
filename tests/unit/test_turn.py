"""Whose turn it is to wait for the device, among workers that come and go."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
import trio.testing

from natsfs.operations.device import Turn


class Workers:
    """Tasks that wait for their turn, for a request, and for whatever that takes."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.turn = Turn()
        self.nursery = nursery
        self.waiting: list[str] = []  # whose turn it is, or was
        self.steps: list[str] = []
        self.request, self.put_request = trio.testing.memory_stream_one_way_pair()[::-1]

    async def ready(self, name: str) -> bytes:
        async with self.turn:
            self.waiting.append(name)
            return bytes(await self.request.receive_some(1))

    async def serve(self, name: str) -> None:
        """A request that is `b"w"` takes for ever, after one that is `b"e"` the worker ends."""
        while True:
            what = await self.ready(name)
            if what == b"w":
                await trio.sleep_forever()
            if what == b"e":
                return

    async def ask(self, what: bytes) -> None:
        await self.put_request.send_all(what)
        await trio.testing.wait_all_tasks_blocked()


class Steps(trio.abc.Instrument):
    """Counts the steps of each task."""

    def __init__(self) -> None:
        self.of: dict[str, int] = {}

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.of[task.name] = self.of.get(task.name, 0) + 1


@asynccontextmanager
async def workers(*names: str) -> AsyncIterator[Workers]:
    async with trio.open_nursery() as nursery:
        these = Workers(nursery)
        with these.turn.watched():
            for name in names:
                nursery.start_soon(these.serve, name, name=name)
                await trio.testing.wait_all_tasks_blocked()
            yield these
            nursery.cancel_scope.cancel()


async def test_who_is_done_at_once_goes_on() -> None:
    """A5: requests that wait for nothing are served by one worker, and wake no other."""
    steps = Steps()
    async with workers("one", "two") as these:
        trio.lowlevel.add_instrument(steps)
        for _ in range(5):
            await these.ask(b"x")
        trio.lowlevel.remove_instrument(steps)
        assert these.waiting == ["one"] * 6
    assert "two" not in steps.of


async def test_who_waits_is_relieved() -> None:
    """A5: while one request waits for the server, the next ones are read."""
    async with workers("one", "two", "three") as these:
        for what in (b"w", b"x", b"w", b"x"):
            await these.ask(what)
        assert these.waiting == ["one", "two", "two", "three", "three"]


async def test_who_ends_is_relieved() -> None:
    """A5: a worker that ends leaves its turn to another."""
    async with workers("one", "two") as these:
        await these.ask(b"e")
        await these.ask(b"x")
        assert these.waiting == ["one", "two", "two"]


async def test_a_late_worker_finds_its_turn_free() -> None:
    """A5: where nobody was waiting, whoever comes next has the turn."""
    async with workers("one") as these:
        await these.ask(b"w")
        these.nursery.start_soon(these.serve, "two")
        await these.ask(b"x")
        assert these.waiting == ["one", "two", "two"]


async def test_who_is_cancelled_while_waiting_is_passed_over() -> None:
    """A5: a worker that was cancelled before its turn came does not get it."""
    async with workers("one") as these:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as inner:
                inner.start_soon(these.serve, "gone")
                await trio.testing.wait_all_tasks_blocked()
                these.nursery.start_soon(these.serve, "two")
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        await these.ask(b"w")
        await these.ask(b"x")
        assert these.waiting == ["one", "two", "two"]


async def test_who_is_cancelled_leaves_its_turn() -> None:
    """A5: a worker that is cancelled while it waits for a request leaves its turn to another."""
    holding = trio.CancelScope()
    async with workers() as these:

        async def hold() -> None:
            with holding:
                await these.serve("gone")

        these.nursery.start_soon(hold)
        await trio.testing.wait_all_tasks_blocked()
        these.nursery.start_soon(these.serve, "next")
        await trio.testing.wait_all_tasks_blocked()
        holding.cancel()
        await these.ask(b"x")
        assert these.waiting == ["gone", "next", "next"]
