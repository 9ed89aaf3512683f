"""Hosts of their own on one machine: network namespaces, each with a cable that can be pulled.

Only root can make them.  A program runs on a host by being started with `Host.inside` before its
argv, which changes nothing but its network: mounts and files are shared by all.
"""

from __future__ import annotations

import os
import random
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass


@dataclass(frozen=True)
class Host:
    """A namespace *name*, and the cable to it: the end here and the addresses of both ends."""

    name: str
    cable: str
    here: str
    there: str

    @property
    def inside(self) -> tuple[str, ...]:
        """What starts a program there.  `ip netns exec` would give it mounts of its own."""
        return ("nsenter", f"--net=/run/netns/{self.name}")

    def pull(self) -> None:
        """Nothing gets through any more, and nobody is told."""
        _ip("link", "set", self.cable, "down")

    def plug(self) -> None:
        """Everything gets through again."""
        _ip("link", "set", self.cable, "up")

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        """The cable is pulled while the block runs."""
        self.pull()
        try:
            yield
        finally:
            self.plug()


@contextmanager
def new_host() -> Iterator[Host]:
    """A host that ends with the block.

    Errors: `PermissionError`, `FileNotFoundError` (no `ip`), `subprocess.CalledProcessError`.
    """
    if os.geteuid() != 0:
        raise PermissionError("only root can make network namespaces")
    name = f"nf{uuid.uuid4().hex[:8]}"
    net = f"10.{random.randrange(100, 250)}.{random.randrange(256)}"
    host = Host(name, f"{name}c", f"{net}.1", f"{net}.2")
    _ip("netns", "add", name)
    try:
        _ip("link", "add", host.cable, "type", "veth", "peer", "name", "up0", "netns", name)
        _ip("addr", "add", f"{host.here}/30", "dev", host.cable)
        _ip("link", "set", host.cable, "up")
        _ip("-n", name, "addr", "add", f"{host.there}/30", "dev", "up0")
        for device in ("up0", "lo"):
            _ip("-n", name, "link", "set", device, "up")
        yield host
    finally:
        with suppress(subprocess.CalledProcessError):
            _ip("link", "del", host.cable)
        _ip("netns", "del", name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=20)
