"""What the workloads of one run share: sizes, files, and a nats-server for each of them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import natsfs
from natsfs.server import Server, start_server

from .interrupts import unbroken
from .scratch import Scratch, evict

#: By how much --quick divides sizes and numbers.
QUICK = 16

#: Where the packages are that child processes import.
ROOT = Path(natsfs.__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for.  *peers* None means all."""

    runs: int = 3
    quick: bool = False
    large: bool = False
    keep_going: bool = False
    peers: frozenset[str] | None = None


class NatsServer:
    """A nats-server with a store of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._server: Server = start_server(directory)

    @property
    def url(self) -> str:
        """Where clients connect; the same after `chill`."""
        return self._server.url

    @property
    def port(self) -> int:
        """The port of `url` on 127.0.0.1."""
        return self._server.port

    def chill(self) -> None:
        """Start it anew with nothing of its store in memory, neither its own nor the kernel's."""
        with unbroken():
            self._server.stop()
            evict(self._directory)
            self._server.restart()

    def stop(self) -> None:
        """End the process."""
        self._server.stop()


@dataclass(slots=True)
class Bench:
    """One workload's surroundings; all that `stack` holds ends with the workload."""

    options: Options
    scratch: Scratch
    stack: ExitStack
    server: NatsServer
    env: dict[str, str] = field(default_factory=dict)
    _buckets: int = 0

    def scaled(self, number: int, least: int = 1) -> int:
        """*number* bytes or things, fewer with --quick but not under *least*."""
        return max(number // QUICK, least) if self.options.quick else number

    def bucket(self) -> str:
        """The name of a new bucket, made as natsfs makes them.  Errors: `CalledProcessError`."""
        self._buckets += 1
        name = f"bench{self._buckets}"
        argv = natsfs_command("bucket", "create", name, "--server", self.server.url)
        subprocess.run(argv, env=self.env, check=True, capture_output=True, timeout=60)
        return name


@contextmanager
def surroundings(options: Options, scratch: Scratch) -> Iterator[Bench]:
    """A `Bench` with a server of its own, and the end of everything that was started with it."""
    stack = ExitStack()
    try:
        with unbroken():
            server = NatsServer(scratch.new("server"))
            stack.callback(server.stop)
        yield Bench(options, scratch, stack, server, _environment(scratch.new("home")))
    finally:
        with unbroken():
            stack.close()


def natsfs_command(*arguments: str) -> list[str]:
    """The argv of a natsfs command, from the tree that this file is in."""
    return [sys.executable, "-m", "natsfs", *arguments]


def _environment(home: Path) -> dict[str, str]:
    """One in which natsfs and the peers keep their files under *home*."""
    runtime = home / "runtime"
    runtime.mkdir(mode=0o700)
    # An installed natsfs is compiled.  Where this is set, each mount would compile all of its
    # source: 0.13 s of 0.36, and the more the longer the source is.
    uncompiled = "PYTHONDONTWRITEBYTECODE"
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("NATS") and key != uncompiled
    }
    xdg = {f"XDG_{kind}_HOME": str(home / kind) for kind in ("CACHE", "CONFIG", "DATA", "STATE")}
    private = {"HOME": str(home), "XDG_RUNTIME_DIR": str(runtime), "PYTHONPATH": str(ROOT)}
    return {**kept, **xdg, **private, "LC_ALL": "C.UTF-8"}
