"""What a test of faults stands on: a bucket, mounts of it by chosen servers, other clients.

A plain object instead of fixtures, so that a test says which servers it means.
"""

from __future__ import annotations

import base64
import hashlib
import os
import stat
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from tests.mount.foreign import ClientFailed, ForeignClient, go_client, py_client
from tests.mount.mounting import Mount, Result, natsfs_command, private_environment, run

T = TypeVar("T")

#: Seconds for which a foreign client is asked again.
PATIENCE = 60.0

#: By path below the top: what `look` saw there.
Tree = dict[str, str]


class Ground(ExitStack):
    """A bucket's name and what works on it; what is mounted ends, and is judged, with it."""

    def __init__(self, directory: Path, url: str) -> None:
        super().__init__()
        self.url = url
        self.bucket = f"b-{uuid.uuid4().hex[:12]}"
        self.environment = private_environment(directory / "private")
        self._directory = directory
        self._mounts = 0

    def natsfs(self, *arguments: str | Path) -> Result:
        """Run a natsfs command to its end."""
        return run(natsfs_command(*arguments), env=self.environment)

    def create(self, *options: str) -> None:
        """Make the bucket, as a user does."""
        self.natsfs("bucket", "create", f"{self.url}/{self.bucket}", *options).check()

    def mount(
        self,
        *options: str,
        url: str = "",
        life: float = 240.0,
        fresh: bool = False,
        bucket: str = "",
    ) -> Mount:
        """The bucket, or another *bucket*, mounted by the servers *url*; *fresh* with a cache of
        its own."""
        number, self._mounts = self._mounts, self._mounts + 1
        directory = self._directory / f"mnt-{number}"
        directory.mkdir()
        environment = self.environment
        if fresh:
            environment = private_environment(self._directory / f"private-{number}")
        mount = Mount(
            f"{url or self.url}/{bucket or self.bucket}",
            directory,
            *options,
            env=environment,
            log=self._directory / f"mount-{number}.log",
            life=life,
        )
        return self.enter_context(mount)

    def py(self, url: str = "") -> ForeignClient:
        """nats-py by the server *url*."""
        return py_client(url or self.url.partition(",")[0], self.environment).of(self.bucket)

    def go(self, url: str = "") -> ForeignClient:
        """nats.go by the server *url*, for what is large."""
        return go_client(url or self.url.partition(",")[0], self.environment).of(self.bucket)


def look(top: Path) -> Tree:
    """The tree below *top*: directories with their modes, files with modes and digests."""
    found: Tree = {}
    for directory, names, files in os.walk(top):
        for name in (*names, *files):
            path = Path(directory, name)
            mode = path.lstat().st_mode
            found[str(path.relative_to(top))] = fact(
                mode, None if stat.S_ISDIR(mode) else path.read_bytes()
            )
    return found


def fact(mode: int, body: bytes | None) -> str:
    """What `look` says of a directory, or of a file with *body*."""
    kind = "directory" if body is None else digest(body)
    return f"{stat.S_IMODE(mode):o} {kind}"


def digest(body: bytes) -> str:
    """The digest of *body* as ADR-20 has it."""
    return "SHA-256=" + base64.urlsafe_b64encode(hashlib.sha256(body).digest()).decode()


def files_of(tree: Tree) -> dict[str, str]:
    """The digests of the files of *tree*."""
    facts = {path: text.split()[1] for path, text in tree.items()}
    return {path: told for path, told in facts.items() if told != "directory"}


def stored(client: ForeignClient) -> dict[str, str]:
    """The digests of all objects but markers of directories, as *client* lists them."""
    return patiently(lambda: _digests(client))


def patiently(ask: Callable[[], T]) -> T:
    """What a foreign client answers.  It is asked again when it fails: of a cluster whose servers
    were frozen a moment ago, nats-py hears 503 several times in a second, or nothing for 20 s."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return ask()
        except ClientFailed:
            if time.monotonic() > deadline:
                raise


def _digests(client: ForeignClient) -> dict[str, str]:
    return {
        info["name"]: info["digest"] for info in client.infos() if not info["name"].endswith("/")
    }
