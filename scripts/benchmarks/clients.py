"""Clients of the Object Store that copy whole objects: nats-py and the Go client.

Both run as processes of their own on a file of this machine; the time is that of the copy alone for
nats-py, and includes 10 ms of start and login for the Go client.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import nats
from nats.js.object_store import ObjectStore

from .bench import ROOT
from .filesystems import program
from .race import Failed

#: Where Debian's golang-github-nats-io-go-nats-dev puts its sources.
GOPATH = Path("/usr/share/gocode")

#: The program that the tests use, too.
_SOURCE = ROOT / "tests" / "clients" / "goclient" / "main.go"

#: Seconds to compile, or to copy one object.
_TIMEOUT = 1800.0


def py_put(url: str, bucket: str, name: str, source: Path) -> float:
    """Seconds that nats-py takes to store a file."""
    with open(source, "rb") as file:
        return _timed(url, bucket, lambda store: store.put(name, file))


def py_get(url: str, bucket: str, name: str, target: Path) -> float:
    """Seconds that nats-py takes to get an object into a file."""
    with open(target, "wb") as file:
        return _timed(url, bucket, lambda store: store.get(name, writeinto=file))


class GoClient:
    """The Go client of the tests, built once for each state of its source."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._program: Path | None = None

    def build(self) -> None:
        """Compile it, if that was not done before.  Errors: `Failed`, `CalledProcessError`."""
        go = program("go")
        if not (GOPATH / "src/github.com/nats-io/nats.go").is_dir():
            raise Failed("golang-github-nats-io-go-nats-dev is not installed")
        digest = hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:16]
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "natsfs-bench"
        self._program = home / f"goclient-{digest}"
        if not self._program.exists():
            home.mkdir(parents=True, exist_ok=True)
            _compile(go, self._program)

    def put(self, bucket: str, name: str, source: Path) -> float:
        """Seconds to store a file."""
        with open(source, "rb") as stdin, open(os.devnull, "wb") as stdout:
            return self._run(bucket, "put", name, stdin.fileno(), stdout.fileno())

    def get(self, bucket: str, name: str) -> float:
        """Seconds to get an object into /dev/null."""
        with open(os.devnull, "r+b") as null:
            return self._run(bucket, "get", name, null.fileno(), null.fileno())

    def _run(self, bucket: str, command: str, name: str, stdin: int, stdout: int) -> float:
        assert self._program is not None
        argv = [str(self._program), self._url, bucket, command, name]
        began = time.perf_counter()
        subprocess.run(
            argv, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, check=True, timeout=_TIMEOUT
        )
        return time.perf_counter() - began


def _compile(go: str, target: Path) -> None:
    where = target.with_suffix(".src")
    shutil.rmtree(where, ignore_errors=True)
    where.mkdir()
    shutil.copy(_SOURCE, where)
    env = {
        **os.environ,
        "GO111MODULE": "off",
        "GOPATH": str(GOPATH),
        "GOFLAGS": "",
        "GOCACHE": str(where / "cache"),
        "CGO_ENABLED": "0",
    }
    argv = [go, "build", "-o", str(where / "goclient"), "."]
    subprocess.run(argv, cwd=where, env=env, check=True, capture_output=True, timeout=_TIMEOUT)
    (where / "goclient").rename(target)
    shutil.rmtree(where)


def _timed(url: str, bucket: str, work: Callable[[ObjectStore], Awaitable[object]]) -> float:
    async def run() -> float:
        client = await nats.connect(url)
        try:
            store = await client.jetstream(timeout=60).object_store(bucket)
            began = time.perf_counter()
            await work(store)
            return time.perf_counter() - began
        finally:
            await client.close()

    return asyncio.run(run())
