"""The error boundary: what a handler raises becomes an errno, whatever it is.

pyfuse3 ends the mount on any exception but `FUSEError`, so every handler stands behind `answers`.
Cancellation passes: it means that the mount ends.
"""

from __future__ import annotations

import errno
import functools
import logging
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from pyfuse3 import FUSEError

from natsfs.errors import NatsfsError

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


def answers(
    handler: Callable[P, Coroutine[Any, Any, R]],
) -> Callable[P, Coroutine[Any, Any, R]]:
    """*handler*, raising nothing but `FUSEError` and cancellation."""
    name = handler.__name__

    @functools.wraps(handler)
    async def bounded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await handler(*args, **kwargs)
        except FUSEError:
            raise
        except NatsfsError as error:
            log.log(error.level, "%s: %s", name, error)
            raise FUSEError(error.errno) from error
        except RecursionError as error:
            log.exception("%s needs too deep a recursion", name)
            raise FUSEError(errno.ELOOP) from error
        except Exception as error:
            log.exception("%s failed in a way that natsfs does not know", name)
            raise FUSEError(errno.EIO) from error

    return bounded
