"""Where natsfs keeps its files on this host (XDG base directories)."""

from __future__ import annotations

import hashlib
import os
import pwd
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from pathlib import Path

import platformdirs

from natsfs.errors import UsageError

#: Where programs are where nobody says: fusermount3, umount and nats-server may be called.
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def complete(environ: MutableMapping[str, str]) -> None:
    """Add what every login has to *environ*: mount(8) at boot has neither HOME nor PATH."""
    environ.setdefault("PATH", _PATH)
    if not environ.get("HOME"):
        with suppress(KeyError):  # a user that no file knows
            environ["HOME"] = pwd.getpwuid(os.geteuid()).pw_dir


def home_directory(environ: Mapping[str, str]) -> Path:
    """This user's: services that systemd starts for root have no HOME.

    Errors: `UsageError` (neither HOME nor the list of users has one).
    """
    if home := environ.get("HOME"):
        return Path(home)
    try:
        return Path(pwd.getpwuid(os.geteuid()).pw_dir)
    except KeyError:
        raise UsageError("this user has no home directory; set HOME, or XDG_CONFIG_HOME") from None


def control_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """Where mounts of this user put their control sockets.

    `/run/natsfs` serves root even where XDG_RUNTIME_DIR is set, which sudo and su may hand down
    from another user.
    """
    if os.geteuid() == 0 and not _is_own(environ.get("XDG_RUNTIME_DIR")):
        return Path("/run/natsfs")
    if runtime := environ.get("XDG_RUNTIME_DIR"):
        return Path(runtime) / "natsfs"
    return state_directory() / "run"


def _is_own(directory: str | None) -> bool:
    try:
        return bool(directory) and os.stat(directory or "").st_uid == os.geteuid()
    except OSError:
        return False


def state_directory() -> Path:
    """Where logs go."""
    return Path(platformdirs.user_state_dir("natsfs"))


def cache_directory() -> Path:
    """Where blocks are cached unless `--cache-dir` says otherwise."""
    return Path(platformdirs.user_cache_dir("natsfs"))


def server_directory() -> Path:
    """The store of the embedded server unless `--embedded=STORE_DIR` says otherwise."""
    return Path(platformdirs.user_data_dir("natsfs")) / "server"


def log_file(bucket: str, mount_point: Path) -> Path:
    """The log of a background mount: one for each mount point, kept over remounts.

    Errors: `UsageError` (its directory cannot be made).
    """
    directory = state_directory() / "log"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise UsageError(
            f"cannot make {directory}: {exc.strerror}; choose another place with --log-file"
        ) from exc
    digest = hashlib.sha256(os.fsencode(mount_point)).hexdigest()
    return directory / f"{bucket}-{digest[:8]}.log"
