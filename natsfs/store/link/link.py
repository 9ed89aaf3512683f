"""One link: a connection of its own that carries requests and brings their answers.

A link lives until something breaks it; then every request under way fails at once with
`AnswerLost`, and what was not sent, a half-sent message included, goes down with it.  It is never
repaired: `natsfs.store.link` opens another.

Concurrency: sending is synchronous, so a frame is queued as a whole or not at all, and a cancelled
caller leaves no half of one.  Answers are given out by the reader between two awaits.  After
each await a sender looks again whether the link is over.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

import trio

from natsfs.errors import InvalidArgument, PermissionsError
from natsfs.store.buffers import Shelf
from natsfs.store.link.budget import Budget
from natsfs.store.link.exchange import Exchange, Pending
from natsfs.store.link.handshake import Opened, max_payload_of, open_transport, parse_info
from natsfs.store.link.outbox import Outbox, encode
from natsfs.store.link.receiver import LARGE_BYTES, Control, ProtocolError
from natsfs.store.link.transport import BROKEN
from natsfs.store.session import DENIED, Access, Answer, AnswerLost, Message, Request
from natsfs.store.wire import new_nuid

log = logging.getLogger(__name__)

#: Seconds between two pings, and after how many silent intervals in a row the link counts as dead:
#: the session's own measures (`natsfs.store.session.line`), so that both notice a hung server
#: about when the other does.
LIVENESS_INTERVAL = 3.0
LIVENESS_LIMIT = 2

#: Bytes that wait to be sent before their senders have to: one write, so that the next is ready
#: when the socket is, and a link that stands still holds no more.
OUTBOX_BYTES = 512 * 1024

#: Bytes of answers that may be on their way at once.  There is no flow control for them: the server
#: hangs up when 64 MiB wait for a reader (protocol.md 2.2).
ANSWER_BYTES = 48 * 1024 * 1024

#: What an answer counts for: a batch of unknown size as the largest that the reader asks for
#: (`natsfs.store.jetstream.reader`), another call as one chunk and its headers in Base64.
STREAM_BYTES = 16 * 1024 * 1024
CALL_BYTES = 192 * 1024

#: The largest answer that is received into one buffer: as much as a stream that is read asks for at
#: once.
ARENA_BYTES = 4 * 1024 * 1024


class Link:
    """An open link.  Made by `open_link`; `run` must run as long as it is used."""

    def __init__(self, access: Access, opened: Opened, inbox: str, shelf: Shelf) -> None:
        self.access = access
        self.over = False
        #: Called when it ends, before its requests fail.
        self.on_end: Callable[[], None] = lambda: None
        self._transport = opened.transport
        self._receiver = opened.receiver
        self._receiver.lend = self._lend
        self._shelf = shelf
        self._max_payload = opened.max_payload
        self._inbox = inbox
        self._retired = False
        self._heard = 0
        self._pending = Pending()
        self._budget = Budget(ANSWER_BYTES)
        self._outbox = Outbox()
        self._unsent = trio.Event()
        self._room = trio.Event()
        self._scope = trio.CancelScope()

    @property
    def load(self) -> int:
        """How many requests are under way or wait to be."""
        return len(self._pending) + self._budget.waiting

    # -- requests ---------------------------------------------------------------------------------

    async def send(
        self, requests: Sequence[Request], *, streamed: bool, timeout: float
    ) -> list[Answer]:
        """Send all *requests*, in order, and wait for their answers, *timeout* seconds from one to
        the next.  Requests still open then have `RequestTimeout` as their answer.

        Cancelling leaves the link usable; what was not sent by then is not sent any more.

        Errors: `MemoryError` (nothing was sent).
        """
        expected = sum(request.answer_bytes for request in requests)
        cost = expected or (STREAM_BYTES if streamed else CALL_BYTES)
        if not await self._budget.take(cost, timeout):
            return Exchange(requests, streamed=streamed).answers(timeout)
        try:
            exchange = Exchange(requests, streamed=streamed)
            if (0 if streamed else LARGE_BYTES) < expected <= ARENA_BYTES:
                # Now, because without memory for it this request fails, and nothing else: when the
                # answer is there the link would be lost with all that is under way.
                exchange.arena = self._shelf.take(expected)
            await self._carry_out(exchange, timeout)
        finally:
            self._budget.give_back(cost)
        return exchange.answers(timeout)

    async def _carry_out(self, exchange: Exchange, timeout: float) -> None:
        tokens: list[str] = []
        try:
            for index, request in enumerate(exchange.requests):
                reply = ""
                if request.answered:
                    tokens.append(self._pending.expect(exchange, index))
                    reply = f"{self._inbox}.{tokens[-1]}"
                self._submit(exchange, index, reply)
                if self._outbox.size >= OUTBOX_BYTES:
                    await self._make_room(exchange, timeout)
            self._flush_soon(among_others=self.load > len(tokens))
            await exchange.settled(timeout)
        finally:
            exchange.abandoned = True
            self._pending.forget(tokens)
            self._end_if_retired()

    def _submit(self, exchange: Exchange, index: int, reply: str) -> None:
        """Queue one request, to be answered on *reply*, if at all."""
        request = exchange.requests[index]
        if self.over:
            exchange.fail(index, _lost(request.subject))
            return
        try:
            buffers = encode(request, reply, self._max_payload)
        except InvalidArgument as error:
            exchange.fail(index, error)
            return
        self._outbox.add(buffers, lambda: not exchange.abandoned)

    async def _make_room(self, exchange: Exchange, timeout: float) -> None:
        """Send what has been queued, and let others run meanwhile.

        A link that takes nothing for *timeout* seconds is given up with all that it carries.
        """
        self._flush()
        await trio.lowlevel.checkpoint()
        while self._outbox.size >= OUTBOX_BYTES and not self.over:
            left = self._outbox.size
            with trio.move_on_after(timeout):
                await self._room.wait()
            if self._outbox.size == left:
                self.end(f"nothing could be sent for {timeout:.3g} s")
        exchange.advance()

    def _flush_soon(self, *, among_others: bool) -> None:
        """Send at once what is alone, for its latency.  Among others, leave it to the writer, who
        sends what all tasks that are running now have to send in one write."""
        if among_others:
            self._unsent.set()
        else:
            self._flush()

    def _flush(self) -> None:
        """Send what can be sent at once and leave the rest to the writer."""
        if self.over:
            return
        try:
            self._transport.flush(self._outbox)
        except OSError as error:
            self.end(str(error))
        if self._outbox.size:
            self._unsent.set()

    # -- tasks ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve the link until it is over."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._guard, self._read)
                    nursery.start_soon(self._guard, self._write)
                    nursery.start_soon(self._guard, self._keep_alive)
        finally:
            self.end("the link was closed")
            self._outbox.clear()
            self._transport.close()

    async def _guard(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except (*BROKEN, ProtocolError, MemoryError) as error:
            self.end(str(error) or type(error).__name__)

    async def _read(self) -> None:
        while True:
            events = await self._transport.receive(self._receiver)
            self._heard += 1
            for event in events:
                if isinstance(event, Message):
                    self._pending.answer(event)
                else:
                    self._react(event)

    async def _write(self) -> None:
        while True:
            await self._unsent.wait()
            self._unsent = trio.Event()
            await self._transport.drain(self._outbox)
            room, self._room = self._room, trio.Event()
            room.set()

    async def _keep_alive(self) -> None:
        silent = 0
        while silent < LIVENESS_LIMIT:
            heard = self._heard
            self._say(b"PING\r\n")
            await trio.sleep(LIVENESS_INTERVAL)
            silent = 0 if self._heard != heard else silent + 1
        self.end(f"silent for {LIVENESS_LIMIT * LIVENESS_INTERVAL:.3g} s")

    def _say(self, line: bytes) -> None:
        self._outbox.add([line])
        self._flush()

    # -- what comes in ----------------------------------------------------------------------------

    def _lend(self, subject: str, size: int) -> memoryview | None:
        """Where a payload goes: into the arena of its exchange, or of its own if it is large."""
        arena = self._pending.arena(subject)
        room = arena.claim(size) if arena is not None else None
        if room is None and size >= LARGE_BYTES:
            room = self._shelf.take(size).claim(size)
        return room

    def _react(self, control: Control) -> None:
        match control.verb:
            case b"PING":
                self._say(b"PONG\r\n")
            case b"INFO":
                self._max_payload = max_payload_of(parse_info(control.text))
            case b"-ERR":
                self._complain(control.text.decode("utf-8", "replace").strip("'"))

    def _complain(self, text: str) -> None:
        """Fail what a permissions violation is about: the server sends no other answer (protocol.md
        2.10).  After most other errors it hangs up, so that nothing is left to do."""
        log.debug("%s: %s", self.access.address, text)
        denied = DENIED.search(text)
        if denied is None:
            return
        kind, subject = denied[1].lower(), denied[2]
        if kind == "subscription":
            self.end("its inbox is not allowed any more")
        what = self.access.denials.words(self.access.address, kind, subject)
        self._pending.fail(lambda _: PermissionsError(what), subject)

    # -- the end ----------------------------------------------------------------------------------

    def retire(self) -> None:
        """End the link as soon as nothing is under way."""
        self._retired = True
        self._end_if_retired()

    def _end_if_retired(self) -> None:
        if self._retired and not self.load:
            self.end("it was replaced")

    def end(self, reason: str) -> None:
        """Fail everything under way.  Ending twice does nothing."""
        if self.over:
            return
        self.over = True
        self.on_end()
        log.debug("the link to %s is over: %s", self.access.address, reason)
        self._pending.fail(_lost)
        self._room.set()
        self._scope.cancel()


def _lost(subject: str) -> AnswerLost:
    return AnswerLost(f"connection lost, no answer from {subject}")


async def open_link(access: Access, shelf: Shelf, timeout: float) -> Link:
    """Connect within *timeout* seconds.  Errors: `ConnectFailed`."""
    inbox = f"{access.inbox_prefix}.{new_nuid()}"
    return Link(access, await open_transport(access, f"{inbox}.*", timeout), inbox, shelf)
