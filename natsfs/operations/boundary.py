"""The error boundary: what a handler raises becomes an errno, whatever it is, and is counted.

pyfuse3 ends the mount on any exception but `FUSEError`, so every handler stands behind `answers`.
Cancellation passes: it means that the mount ends.
"""

from __future__ import annotations

import errno
import functools
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from pyfuse3 import FUSEError

from natsfs.errors import NatsfsError
from natsfs.metrics import Metrics

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


class Measured(Protocol):
    """What has handlers."""

    metrics: Metrics


S = TypeVar("S", bound=Measured)


def answers(
    handler: Callable[Concatenate[S, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
    """*handler*, raising nothing but `FUSEError` and cancellation."""
    name = handler.__name__

    @functools.wraps(handler)
    async def bounded(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        metrics = self.metrics
        begin = time.perf_counter()
        try:
            return await handler(self, *args, **kwargs)
        except FUSEError:
            raise
        except NatsfsError as error:
            log.log(error.level, "%s: %s", name, error)
            metrics.failed(name, error.errno, trouble=error.level >= logging.WARNING)
            raise FUSEError(error.errno) from error
        except RecursionError as error:
            log.exception("%s needs too deep a recursion", name)
            metrics.failed(name, errno.ELOOP, trouble=True)
            raise FUSEError(errno.ELOOP) from error
        except MemoryError:
            # Not logged with its place: that takes memory, and says nothing of the cause.
            metrics.failed(name, errno.ENOMEM, trouble=True)
            raise FUSEError(errno.ENOMEM) from None
        except Exception as error:
            log.exception("%s failed in a way that natsfs does not know", name)
            metrics.failed(name, errno.EIO, trouble=True)
            raise FUSEError(errno.EIO) from error
        finally:
            metrics.took(name, time.perf_counter() - begin)

    return bounded
