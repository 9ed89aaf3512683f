"""What the server does not allow, in words that say what to allow.

Each kind of denial is logged once for a session, because a program that tries again and again would
fill the log with the same line.

Concurrency: called in the session's thread and in trio's; a line said twice is the worst that comes
of it.
"""

from __future__ import annotations

import logging
import re

from natsfs.errors import PermissionsError

log = logging.getLogger(__name__)

#: What a server says of it; nats-py puts that into lower case.
DENIED = re.compile(r"permissions violation for (publish|subscription) to \"([^\"]*)\"", re.I)

#: Subjects with names in them, each with what permits all of their kind (protocol.md 2.10).
_KINDS = (
    (re.compile(r"(\$O\.[^.]+\.[CM])\..+"), r"\1.*"),
    (re.compile(r"(.+\.CONSUMER\.CREATE\.OBJ_[^.]+)\.[^.]+\.(\$O\.[^.]+\.C)\..+"), r"\1.*.\2.*"),
    (re.compile(r"(.+\.CONSUMER\.CREATE\.OBJ_[^.]+)\.[^.]+\.(.+)"), r"\1.*.\2"),
    (re.compile(r"(.+\.CONSUMER\.DELETE\.OBJ_[^.]+)\..+"), r"\1.*"),
    (re.compile(r"(\$JS\.FC\.OBJ_[^.]+)\..+"), r"\1.>"),
)


class Denials:
    """Those of one session."""

    def __init__(self) -> None:
        self._logged: set[str] = set()

    def error(self, server: object, kind: str, subject: str) -> PermissionsError:
        """The error for a request to *subject*, or a subscription; see `words`."""
        return PermissionsError(self.words(server, kind, subject))

    def words(self, server: object, kind: str, subject: str) -> str:
        """What to say of *subject*; *kind* is the server's word for a request or a subscription.
        Many requests may have one subject, so these are found once for all of them."""
        verb = "subscribe" if kind == "subscription" else "publish"
        what = f"{verb} to {subject}"
        cure = f"{verb} to {permission_for(subject)}"
        words = f"{server} does not let these credentials {what}; allow {cure}"
        if cure not in self._logged:
            self._logged.add(cure)
            log.info("%s", words)
        return words


def permission_for(subject: str) -> str:
    """The subject with wildcards that a user needs, who is to use all subjects like *subject*."""
    for kind, permission in _KINDS:
        if kind.fullmatch(subject):
            return kind.sub(permission, subject)
    return subject
