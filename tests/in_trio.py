"""Things that exist only inside the `trio.run` of one test.

A fixture returns a `Resource`; the test that names the fixture gets what it opens, and it is
closed when the test function has ended.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, Generic, TypeVar

import trio

T = TypeVar("T")

#: Seconds for one test function: far above the slowest, far below pytest's own time-out, which ends
#: the process without closing anything.
TEST_TIMEOUT = 60.0


class Resource(Generic[T]):
    """*enter* opens the thing and leaves on the stack what closes it.

    Resources may open others; each is opened once in a test however many ask for it.
    """

    def __init__(self, enter: Callable[[AsyncExitStack], Awaitable[T]]) -> None:
        self._enter = enter
        self._opened: list[T] = []

    async def open(self, stack: AsyncExitStack) -> T:
        """The thing itself."""
        if not self._opened:
            self._opened.append(await self._enter(stack))
        return self._opened[0]


def run(test: Callable[..., Awaitable[object]], arguments: dict[str, Any]) -> None:
    """Run an async test function with its resources opened."""

    async def main() -> None:
        with trio.fail_after(TEST_TIMEOUT):
            async with AsyncExitStack() as stack:
                opened = {
                    name: await value.open(stack) if isinstance(value, Resource) else value
                    for name, value in arguments.items()
                }
                await test(**opened)

    trio.run(main)
