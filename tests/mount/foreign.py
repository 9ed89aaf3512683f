"""Other clients of the Object Store: nats-py, nats.go, nats.js.

Each is a small program in `tests/clients` with the same command line.  That of nats-py runs in the
test's own process: most tests make a bucket with it, and Python would take longer to start than it
takes to mount.  What the others need is built once and kept outside of the source tree, in the
user's cache, under a digest of what it is made from.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.clients import pyclient

from .mounting import COMMAND_TIMEOUT, Result, run, run_bytes

CLIENTS = Path(__file__).parent.parent / "clients"

#: Where Debian's golang-github-nats-io-go-nats-dev puts its sources.
GOPATH = Path("/usr/share/gocode")

#: Seconds to compile, or to fetch 8 packages.
BUILD_TIMEOUT = 300.0


class ClientFailed(Exception):
    """The client refused; the text is its own."""


@dataclass(frozen=True)
class ForeignClient:
    """One client, bound to a server and a bucket.

    Every call raises `ClientFailed` when the client's exit status is not 0.
    """

    argv: tuple[str, ...]
    url: str
    env: Mapping[str, str]
    bucket: str = ""
    #: Whether it can make links and give objects another name.
    links: bool = True

    def of(self, bucket: str) -> ForeignClient:
        """The same client on another bucket."""
        return replace(self, bucket=bucket)

    def create(self, max_bytes: int | None = None) -> None:
        """Create the bucket; only the nats-py client can limit its size."""
        self._call("create", *([] if max_bytes is None else [str(max_bytes)]))

    def create_many(self, count: int) -> None:
        """Create *count* buckets, numbered after this one's name (nats-py)."""
        self._call("create-many", str(count))

    def drop(self) -> None:
        """Delete the bucket with all that is in it (nats-py)."""
        self._call("drop")

    def account(self) -> dict[str, Any]:
        """The account's *streams* and *consumers*, counted, and the names of its *buckets*
        (nats-py)."""
        return self._info(self._call("account"))

    def put(self, name: str, body: bytes) -> dict[str, Any]:
        """Store an object and return its info, as ADR-20 spells it."""
        return self._info(self._call("put", name, stdin=body))

    def get(self, name: str) -> bytes:
        """The bytes of an object, links followed."""
        return self._call("get", name)

    def info(self, name: str) -> dict[str, Any]:
        """The info of an object."""
        return self._info(self._call("info", name))

    def infos(self) -> list[dict[str, Any]]:
        """The infos of all objects."""
        found: list[dict[str, Any]] = json.loads(self._call("list"))
        return found

    def names(self) -> list[str]:
        """What a listing shows, sorted."""
        return sorted(entry["name"] for entry in self.infos())

    def delete(self, name: str) -> None:
        """Delete an object."""
        self._call("delete", name)

    def rename(self, name: str, new_name: str, description: str = "") -> None:
        """Give an object another name and a description."""
        self._call("updatemeta", name, new_name, description)

    def describe(self, name: str, description: str) -> None:
        """Change an object's description."""
        self._call("updatemeta", name, name, description)

    def add_link(self, name: str, target: str) -> None:
        """Make *name* a link to the object *target* of the same bucket."""
        self._call("addlink", name, target)

    def add_bucket_link(self, name: str, bucket: str) -> None:
        """Make *name* a link to a bucket."""
        self._call("addbucketlink", name, bucket)

    def seal(self) -> None:
        """Make the bucket read-only."""
        self._call("seal")

    def publish(self, subject: str, payload: bytes, ttl: str = "") -> None:
        """Store any message, for good or for *ttl*, which only the nats-py client offers."""
        self._call("publish", subject, *([ttl] if ttl else []), stdin=payload)

    def api(self, verb: str, **request: object) -> dict[str, Any]:
        """Ask the JetStream API for *verb*, which the bucket's stream is the end of (nats-py)."""
        body = json.dumps(request).encode() if request else b""
        return self._info(self._call("api", f"{verb}.OBJ_{self.bucket}", stdin=body))

    def revision(self, name: str) -> int:
        """The stream sequence of an object's newest meta message (nats-py)."""
        found = self.api("STREAM.MSG.GET", last_by_subj=self.meta_subject(name))
        revision: int = found["message"]["seq"]
        return revision

    def reconfigure(self, **settings: object) -> None:
        """Change settings of the bucket's stream (nats-py)."""
        config = self.api("STREAM.INFO")["config"]
        self.api("STREAM.UPDATE", **{**config, **settings})

    def last(self, subject: str) -> bytes:
        """The newest message on *subject* (nats-py)."""
        return self._call("last", subject)

    def meta(self, name: str) -> dict[str, Any]:
        """The whole meta message of an object, with what its client has no name for (nats-py)."""
        return self._info(self.last(self.meta_subject(name)))

    def put_meta(self, name: str, **fields: object) -> None:
        """Store a meta message of these fields, as some client might have written it (nats-py)."""
        usual = {"name": name, "bucket": self.bucket, "nuid": "", "size": 0, "chunks": 0}
        self.publish(self.meta_subject(name), json.dumps({**usual, **fields}).encode())

    def meta_subject(self, name: str) -> str:
        """Where an object's meta is stored (protocol.md 1.1)."""
        return f"$O.{self.bucket}.M.{urlsafe_b64encode(name.encode()).decode()}"

    @contextmanager
    def next_change(self) -> Iterator[Callable[[], dict[str, Any]]]:
        """Watch while the block runs; the function it gets waits for the first change seen."""
        with subprocess.Popen(
            [*self.argv, self.url, self.bucket, "watch-once"],
            env=dict(self.env),
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            try:
                assert process.stdout.readline() == "ready\n"
                # The client gives up by itself after 20 s.
                yield lambda: self._info(process.communicate(timeout=30)[0].encode())
            finally:
                process.kill()

    def _call(self, *arguments: str, stdin: bytes = b"") -> bytes:
        done = run_bytes([*self.argv, self.url, self.bucket, *arguments], env=self.env, stdin=stdin)
        if done.returncode != 0:
            raise ClientFailed(done.stderr.decode(errors="replace"))
        out: bytes = done.stdout
        return out

    @staticmethod
    def _info(text: bytes) -> dict[str, Any]:
        info: dict[str, Any] = json.loads(text)
        return info


class _PyClient(ForeignClient):
    """nats-py, a process only where it watches."""

    def _call(self, *arguments: str, stdin: bytes = b"") -> bytes:
        call = pyclient.run(self.url, self.bucket, *arguments, body=stdin)
        try:
            return asyncio.run(asyncio.wait_for(call, COMMAND_TIMEOUT))
        except Exception as error:
            raise ClientFailed(f"pyclient: {error!r}") from error


def py_client(url: str, env: Mapping[str, str]) -> ForeignClient:
    """nats-py."""
    argv = (sys.executable, str(CLIENTS / "pyclient.py"))
    return _PyClient(argv, url, env, links=False)


def go_client(url: str, env: Mapping[str, str]) -> ForeignClient:
    """nats.go as Debian packages it.  Errors: `FileNotFoundError` (Go or its sources)."""
    go = _tool("go")
    if not (GOPATH / "src/github.com/nats-io/nats.go").is_dir():
        raise FileNotFoundError("golang-github-nats-io-go-nats-dev")
    built = _build("goclient", ("main.go",), lambda where: _compile(go, where))
    return ForeignClient((str(built / "goclient"),), url, env)


def js_client(url: str, env: Mapping[str, str]) -> ForeignClient:
    """nats.js from npm.  Errors: `FileNotFoundError` (node or npm)."""
    node, npm = _tool("node"), _tool("npm")
    files = ("package.json", "package-lock.json")
    built = _build("jsclient", files, lambda where: _install(npm, where))
    modules = {"NODE_PATH": str(built / "node_modules")}
    return ForeignClient((node, str(CLIENTS / "jsclient/main.js")), url, {**env, **modules})


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise FileNotFoundError(name)
    return found


def _build(name: str, files: tuple[str, ...], build: Callable[[Path], Result]) -> Path:
    """The directory in which *build* has once worked on copies of *files*.

    Parallel test processes build one after another; an interrupted build is begun again.
    """
    content = b"".join((CLIENTS / name / file).read_bytes() for file in files)
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "natsfs-tests"
    done = home / f"{name}-{hashlib.sha256(content).hexdigest()[:16]}"
    home.mkdir(parents=True, exist_ok=True)
    with open(home / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            unfinished = done.with_suffix(".part")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            for file in files:
                shutil.copy(CLIENTS / name / file, unfinished)
            build(unfinished).check()
            unfinished.rename(done)
    return done


def _compile(go: str, where: Path) -> Result:
    env = {
        **os.environ,
        "GO111MODULE": "off",
        "GOPATH": str(GOPATH),
        "GOFLAGS": "",
        "GOCACHE": str(where / "cache"),
        "CGO_ENABLED": "0",
    }
    return run([go, "build", "-o", "goclient", "."], cwd=where, env=env, timeout=BUILD_TIMEOUT)


def _install(npm: str, where: Path) -> Result:
    argv = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    return run(argv, cwd=where, env=dict(os.environ), timeout=BUILD_TIMEOUT)
