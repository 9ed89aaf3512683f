"""Answers to releases that come when the mount is over.

The kernel waits for no answer to a release: umount(2) returns while one is being worked on, be it
because memory or the disk is short, and the connection goes with it.  Then the answer has nobody to
go to, which pyfuse3 logs as an error.  What was released is taken care of by then (`Unsaved`), so
nobody needs to hear of it.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)

#: Who says it, and how.
_LOGGER = logging.getLogger("pyfuse3")
_RELEASES = ("fuse_release(): fuse_reply", "fuse_releasedir(): fuse_reply")
_NOBODY = os.strerror(errno.ENOENT)


@contextmanager
def releases_may_be_late() -> Iterator[None]:
    """Have no error logged for an answer to a release that nobody waits for."""

    def matters(record: logging.LogRecord) -> bool:
        said = record.getMessage()
        if not (said.startswith(_RELEASES) and said.endswith(_NOBODY)):
            return True
        log.debug("a release ended when the mount was over")
        return False

    _LOGGER.addFilter(matters)
    try:
        yield
    finally:
        _LOGGER.removeFilter(matters)
