"""What systemd, or whoever speaks its protocol, is told of a mount: sd_notify(3).

A datagram of lines NAME=VALUE to a Unix socket.  The packages for it do no more than the dozen
lines here, wait where they must not, and would be one more thing to keep up with.
"""

from __future__ import annotations

import logging
import socket

log = logging.getLogger(__name__)

#: Seconds between two messages where no watchdog asks for more.
PAUSE = 10.0


class Supervisor:
    """The one who started this process, at the socket *address*, nobody if that is empty.

    *watchdog* is the number of seconds after which it takes a process that says nothing for dead;
    None if it does not.
    """

    def __init__(self, address: str = "", watchdog: float | None = None) -> None:
        self._address = address
        self._silent = False
        #: Seconds between two messages: systemd advises half of what it waits for.
        self.pause = min(PAUSE, watchdog / 2) if watchdog else PAUSE

    @property
    def listens(self) -> bool:
        """Whether anybody wants to hear anything."""
        return bool(self._address)

    def tell(self, *lines: str) -> None:
        """Send *lines*, such as "READY=1"; never waits, and nothing comes of it if it fails."""
        if not self._address:
            return
        # An address that begins with @ is an abstract one, whose first byte is 0 (unix(7)).
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
                out.setblocking(False)
                out.sendto("\n".join(lines).encode(), address)
        except OSError as error:
            log.log(logging.DEBUG if self._silent else logging.INFO, "NOTIFY_SOCKET: %s", error)
            self._silent = True


#: For a process that nobody watches.
NOBODY = Supervisor()
