"""JetStream's API as request and answer, patient with a server that is away for a moment.

Concurrency: an `Api` has no state of its own; any number of tasks may use it.  Calls within an
attempt of another call, in the same task, end with that one.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import trio

from natsfs.errors import (
    ConnectionLost,
    JetStreamUnavailable,
    NatsfsError,
    RequestTimeout,
    ServerRefused,
)
from natsfs.store.link import Links
from natsfs.store.protocol import (
    IN_PROCESS,
    StoredMessage,
    get_last,
    parse_stored,
    raise_refusal,
)
from natsfs.store.session import NoResponders, Request, Session

log = logging.getLogger(__name__)

T = TypeVar("T")

#: What carries requests: the session by itself, or links beside one.
Plane = Session | Links

#: Where the API of a domain is.
_OF_DOMAIN = re.compile(r"\$JS\.([^.]+)\.API")

#: Answers that say "not now": no leader (10008), the message is on its way to the replicas, ingest
#: queue full (10167), too many open batches (10210).  protocol.md 2.5, 2.7 and 2.9.
TRANSIENT = frozenset({10008, IN_PROCESS, 10167, 10210})

#: Seconds between two attempts, doubling.  Go waits 250 ms and tries twice (ADR-22); a new stream
#: leader took 4.6 s in a test (faults.md), so these attempts go on until the time-out.
RETRY_FIRST = 0.05
RETRY_MOST = 1.0

#: Seconds that one attempt may take, and never more than half of what is left of the time-out: a
#: lost answer is then noticed while there is time to find out what became of the request.
ATTEMPT_TIMEOUT = 10.0

#: Seconds that the API may have no listener before the server counts as one without JetStream.
#: After a start the listeners are there before the first client, so this is for elections.
SILENCE = 0.5

#: When the time is up for what the present task is doing.
_END: ContextVar[float] = ContextVar("_END", default=math.inf)


class Api:
    """The requests to `$JS.API`, or to where a domain or an account import has it."""

    def __init__(self, session: Plane) -> None:
        self.session = session
        config = session.config
        if config.domain:
            self._prefix = f"$JS.{config.domain}.API"
        else:
            self._prefix = (config.api_prefix or "$JS.API").rstrip(".")
        found = _OF_DOMAIN.fullmatch(self._prefix)
        #: The domain that is asked; None for the server's own, or where that is not known.
        self.domain = found[1] if found else None

    @property
    def control(self) -> Api:
        """The same API by the session's own connection, where a request comes after the
        subscriptions that were made before it."""
        return Api(self.session.session) if isinstance(self.session, Links) else self

    @property
    def timeout(self) -> float:
        """Seconds for one call, reconnecting included."""
        return self.session.config.timeout

    def event(self, subject: str) -> str:
        """Where this account has *subject*, which begins with `$JS.EVENT`."""
        prefix = self.session.config.event_prefix
        return prefix + subject.removeprefix("$JS.EVENT") if prefix else subject

    def request(
        self, verb: str, payload: Mapping[str, Any] | bytes = b"", answer_bytes: int = 0
    ) -> Request:
        """The request *verb*, for instance `STREAM.INFO.OBJ_b`; *answer_bytes* as in `Request`."""
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        return Request(f"{self._prefix}.{verb}", data, answer_bytes=answer_bytes)

    async def ask(
        self, what: str, verb: str, payload: Mapping[str, Any] | bytes = b""
    ) -> dict[str, Any]:
        """The decoded answer to an API request that may be repeated when its answer is lost.

        Errors: `JetStreamUnavailable`, those of `protocol.refusal` and of the session.
        """
        request = self.request(verb, payload)

        async def attempt(timeout: float) -> dict[str, Any]:
            message = await self.session.request(request, timeout=timeout)
            return decode(what, message.data)

        return await self.persist(attempt, silence=SILENCE)

    async def last_on(self, stream: str, subject: str) -> StoredMessage:
        """The newest message on *subject*, from the leader.

        Errors: `NotFoundError`, those of `ask`.
        """
        verb = f"STREAM.MSG.GET.{stream}"
        return parse_stored(subject, await self.ask(subject, verb, get_last(subject)))

    async def persist(
        self,
        attempt: Callable[[float], Awaitable[T]],
        *,
        silence: float | None = None,
    ) -> T:
        """Call *attempt* with the seconds that it may take until it succeeds, for as long as the
        session's time-out, or for ever while the session is patient.  Within `one_timeout`, or
        within an attempt of another call, the time is up when it is for that.

        Lost answers, lost connections, missing listeners and transient refusals are worth another
        attempt.  With *silence*, missing listeners are so for that many seconds only.

        Errors: `JetStreamUnavailable` (after *silence*), the last error when time is up, and at
        once every other error of *attempt*.
        """
        with self.one_timeout() as end:
            return await self._persist(attempt, silence, end)

    @contextmanager
    def one_timeout(self) -> Iterator[float]:
        """Have all calls of the block make do with one time-out; gives the moment of its end."""
        end = min(trio.current_time() + self.timeout, _END.get())
        token = _END.set(end)
        try:
            yield end
        finally:
            _END.reset(token)

    async def _persist(
        self, attempt: Callable[[float], Awaitable[T]], silence: float | None, end: float
    ) -> T:
        begin = trio.current_time()
        delay = RETRY_FIRST
        while True:
            left = self.timeout if self.session.patient else end - trio.current_time()
            try:
                return await attempt(attempt_timeout(left))
            except NatsfsError as error:
                now = trio.current_time()
                if not is_transient(error):
                    raise
                if not self.session.patient:
                    self._check_silence(error, silence and now > begin + silence)
                    if now + delay >= end:
                        raise
                log.debug("trying again: %s", error)
            await trio.sleep(delay)
            delay = min(2 * delay, RETRY_MOST)

    def _check_silence(self, error: NatsfsError, passed: object) -> None:
        """Errors: `JetStreamUnavailable` when nobody listens although *passed* says that the time
        for that is over."""
        if passed and isinstance(error, NoResponders):
            server = self.session.url or "the server"
            raise JetStreamUnavailable(f"{server} has no JetStream: {error}") from error


def attempt_timeout(left: float) -> float:
    """Seconds for one attempt when *left* are left for all."""
    return max(min(left / 2, ATTEMPT_TIMEOUT), RETRY_FIRST)


def is_transient(error: NatsfsError) -> bool:
    """Whether the same request may succeed soon.  A lost answer is among the reasons, so whoever
    asks again must be able to."""
    if isinstance(error, ServerRefused):
        return error.err_code in TRANSIENT
    return isinstance(error, ConnectionLost | RequestTimeout | NoResponders)


def decode(what: str, data: bytes | bytearray | memoryview) -> dict[str, Any]:
    """The JSON answer *data* about *what*.  Errors: those of `protocol.refusal`, `ServerRefused`
    when it is no JSON object."""
    try:
        answer = json.loads(bytes(data))
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise ServerRefused(what, 0, f"unreadable answer {data[:40]!r}")
    raise_refusal(what, answer)
    return answer
