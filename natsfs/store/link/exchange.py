"""Requests that were sent together on one link, and which of them an answer belongs to.

Concurrency: `receive` and `fail` are called by the link's reader between two awaits; `settled` is
the only one that waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import trio

from natsfs.errors import NatsfsError, RequestTimeout
from natsfs.store.buffers import Arena
from natsfs.store.protocol import NO_RESPONDERS
from natsfs.store.session import Answer, Message, NoResponders, Request


class Exchange:
    """Some requests and their answers.

    *streamed* answers are many messages, the last of which is the first with a status.  Their
    payloads go into *arena* where there is one.
    """

    def __init__(self, requests: Sequence[Request], *, streamed: bool) -> None:
        self.requests = requests
        self.abandoned = False
        self.arena: Arena | None = None
        self._streamed = streamed
        self._parts: list[list[Message]] = [[] for _ in requests]
        self._answers: list[Answer | None] = [None if r.answered else [] for r in requests]
        self._open = self._answers.count(None)
        self._progress = trio.current_time()
        self._complete = trio.Event()

    def advance(self) -> None:
        """Note that something of this was just sent or received."""
        self._progress = trio.current_time()

    def receive(self, index: int, message: Message) -> None:
        """Take one message for request *index*."""
        self.advance()
        part = self._parts[index]
        part.append(message)
        if message.status == NO_RESPONDERS and len(part) == 1:
            self.fail(index, NoResponders(f"nobody answers {self.requests[index].subject}"))
        elif message.status or not self._streamed:
            self._end(index, part)

    def fail(self, index: int, error: NatsfsError) -> None:
        """End request *index* with *error*, unless it has ended."""
        if self.requests[index].answered:
            self._end(index, error)
        else:
            self._answers[index] = error

    async def settled(self, timeout: float) -> None:
        """Wait until each request has its answer, or nothing has come for *timeout* seconds: a
        deadline belongs to progress, not to size."""
        while self._open:
            if self._progress + timeout <= trio.current_time():
                return
            with trio.CancelScope(deadline=self._progress + timeout):
                await self._complete.wait()

    def answers(self, timeout: float) -> list[Answer]:
        """One answer for each request; those that are still open have timed out."""
        return [
            RequestTimeout(f"no answer from {request.subject} within {timeout:.3g} s")
            if answer is None
            else answer
            for request, answer in zip(self.requests, self._answers, strict=True)
        ]

    def _end(self, index: int, answer: Answer) -> None:
        if self._answers[index] is None:
            self._answers[index] = answer
            self._open -= 1
            if not self._open:
                self._complete.set()


class Pending:
    """The requests of a link that wait for an answer, by the last token of their reply subject."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[Exchange, int]] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def expect(self, exchange: Exchange, index: int) -> str:
        """A new token for the answer to request *index* of *exchange*."""
        self._last += 1
        token = str(self._last)
        self._waiting[token] = (exchange, index)
        return token

    def forget(self, tokens: Iterable[str]) -> None:
        """Nobody waits for these any more."""
        for token in tokens:
            self._waiting.pop(token, None)

    def arena(self, subject: str) -> Arena | None:
        """Where payloads of a message on *subject* belong, if somebody has said so."""
        exchange, _ = self._waiting.get(subject.rpartition(".")[2], (None, 0))
        return exchange.arena if exchange is not None else None

    def answer(self, message: Message) -> None:
        """Give *message* to whoever waits for it."""
        exchange, index = self._waiting.get(message.subject.rpartition(".")[2], (None, 0))
        if exchange is not None:
            exchange.receive(index, message)

    def fail(self, make: Callable[[str], NatsfsError], subject: str | None = None) -> None:
        """End every request, or those to *subject*, with the error that *make* gives for its
        subject."""
        for exchange, index in list(self._waiting.values()):
            wanted = exchange.requests[index].subject
            if subject in (None, wanted):
                exchange.fail(index, make(wanted))
