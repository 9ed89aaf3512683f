"""What others could learn of this process from the operating system: its arguments, its
environment, its memory, its files.

`ps` shows every user the arguments of every process, and a mount lives for months.  What stood
there before `conceal_credentials` ran, a moment after the start, nobody can take back: a password
is best kept in a file.
"""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path

#: In front of an option's name in `-oNAME=…`, `-o …,NAME=…`.
_O = rb"(?:\0-o|[,\0])"

#: The login of URLs, several hosts of which may have one each, and the user, who may be a token.
_IN_ARGUMENTS = re.compile(
    rb"(?:://|\0--server[=\0]|" + _O + rb"(?:nats_)?server=)([^\s\0]+)@"
    rb"|\0--user[=\0]([^\0]+)|" + _O + rb"(?:nats_)?user=([^,\0]+)"
    rb"|\0--socks-proxy[=\0]([^\s\0]+)@|" + _O + rb"(?:nats_)?socks_proxy=([^\s,\0]+)@"
)
_IN_ENVIRONMENT = re.compile(
    rb"\0NATS_(?:URL|SOCKS_PROXY)=([^\0]+)@|\0NATS_(?:USER|TOKEN|PASSWORD|JWT|SEED)=([^\0]+)"
)

#: From prctl(2).
_PR_SET_DUMPABLE = 4


def conceal_credentials() -> None:
    """Overwrite the credentials in the memory that /proc/PID/cmdline and /proc/PID/environ show,
    and which programs that are started get as their environment.

    The bounds are fields 48 to 51 of /proc/self/stat (proc(5)); the kernel gives 0 where it does
    not tell.  `sys.argv` and `os.environ` are copies and stay as they are.
    """
    arguments, end, environment, last = _bounds()
    _overwrite(_IN_ARGUMENTS, arguments, end)
    _overwrite(_IN_ENVIRONMENT, environment, last)


def conceal_variable(name: str) -> None:
    """Do the same with the environment variable *name*, whose value is a secret."""
    _, _, environment, last = _bounds()
    _overwrite(re.compile(rb"\0" + re.escape(os.fsencode(name)) + rb"=([^\0]+)"), environment, last)


def _bounds() -> tuple[int, ...]:
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return tuple(int(field) for field in fields[48 - 3 : 52 - 3])


def _overwrite(secrets: re.Pattern[bytes], start: int, stop: int) -> None:
    """Overwrite the groups that *secrets* finds between the addresses *start* and *stop*."""
    # With a zero in front, where the first string has none of its own.
    shown = b"\0" + ctypes.string_at(start, stop - start)
    for found in secrets.finditer(shown):
        first, end = found.span(found.lastindex or 0)
        ctypes.memset(start + first - 1, ord("x"), end - first)


def keep_files_private() -> None:
    """Let nobody else at the files that this process makes, whatever the umask of its caller.

    What programs make in a mount has modes of its own: the kernel takes their own umask off.
    """
    os.umask(0o077)


def forbid_dumps() -> None:
    """Keep this process's memory out of core files and from other programs of the same user.

    ssh-agent does so for the same reason: the memory holds keys, and what files say.  The price is
    that only root can attach a debugger.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
