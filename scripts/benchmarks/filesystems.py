"""Directories to compare: natsfs, a local disk, and the mounts that people use instead.

All of them serve this machine's disk: natsfs through its nats-server, the others through what they
need for it.  A peer that is not installed or does not come up fails when it is first used.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from natsfs.cli.places import control_directory
from natsfs.control import ask, socket_path

from .bench import Bench, natsfs_command
from .interrupts import unbroken
from .mounting import Daemon, Mount, cpu, wait_until
from .race import Failed
from .scratch import empty, evict

#: Where Debian's openssh-sftp-server is.
SFTP_SERVER = Path("/usr/lib/openssh/sftp-server")

#: The bucket and the keys of the S3 server.
_S3 = "bench"
_KEY, _SECRET = "benchkey", "benchsecret"

#: Seconds that a peer has to store what it took into its cache.
_UPLOAD = 900.0


class FileSystem(ABC):
    """A directory, mounted or not.  What is stored stays from one mount to the next."""

    name: str
    #: What a reader of its figures has to know.
    note = ""
    #: Whether directories can be made in it.
    directories = True

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.directory = bench.scratch.new("mnt")
        self.cache = bench.scratch.new("cache")
        self._mount: Mount | None = None

    @abstractmethod
    def command(self) -> list[str]:
        """The argv that mounts `directory` and stays in the foreground."""

    @abstractmethod
    def chill(self) -> None:
        """Take what is stored out of all memory; only while it is not mounted."""

    def serve(self) -> None:  # noqa: B027  (most need nothing)
        """Start what the mount needs, once.  Errors: `Failed` when it is not installed."""

    def settle(self) -> None:  # noqa: B027  (most store before close returns)
        """Wait until all that was written is where the next mount finds it."""

    @property
    def pid(self) -> int:
        """The daemon's process number."""
        assert self._mount is not None
        return self._mount.pid

    def cpu(self) -> float:
        """Seconds of processor time that the daemon has had."""
        return cpu(self.pid)

    @contextmanager
    def mounted(self, *, fresh: bool, cold: bool = False) -> Iterator[Path]:
        """The directory, with the local cache emptied first if *fresh*, and with what is stored
        only on disk if *cold*.

        Errors: `Failed`.
        """
        if fresh:
            empty(self.cache)
        if cold:
            self.chill()
        try:
            self.mount()
            yield self.directory
            self.settle()
        except BaseException:
            self._leave()
            raise
        self.unmount()

    def mount(self) -> None:
        """Mount it.  Errors: `Failed`."""
        log = self.bench.scratch.root / f"{self.name.replace(' ', '-')}.log"
        with unbroken():
            self._mount = Mount(self.command(), self.directory, log, self.bench.env)
            self.bench.stack.callback(self._mount.kill)
        self._mount.wait()

    def unmount(self) -> None:
        """Unmount it.  Errors: `Failed`."""
        assert self._mount is not None
        self._mount.unmount()

    def _leave(self) -> None:
        if self._mount is not None:
            self._mount.kill()


class Natsfs(FileSystem):
    """natsfs on a bucket of its own."""

    name = "natsfs"

    def serve(self) -> None:
        self.bucket = self.bench.bucket()

    def command(self) -> list[str]:
        source = f"{self.bench.server.url}/{self.bucket}"
        cache = ("--cache-dir", str(self.cache))
        return natsfs_command("mount", source, str(self.directory), "-f", *cache)

    def chill(self) -> None:
        self.bench.server.chill()


class Writeback(Natsfs):
    """natsfs on a bucket of its own, with a `close` that waits for the local disk alone (W8)."""

    name = "natsfs writeback"
    note = "--writeback: close returns before anything is uploaded, fsync afterwards"

    def command(self) -> list[str]:
        return [*super().command(), "--writeback"]

    def settle(self) -> None:
        # What the mount has told the kernel is in its journal.
        wait_until(self._stored, f"upload by {self.name}", _UPLOAD, every=0.01)

    def _stored(self) -> bool:
        path = socket_path(control_directory(self.bench.env), self.directory)
        status = ask(path, "status")
        return not status["pending"] and not status["journal"]


class Local(FileSystem):
    """The disk itself, which nothing is mounted over."""

    name = "ext4"

    def command(self) -> list[str]:
        raise NotImplementedError("a local directory is there without a command")

    def chill(self) -> None:
        evict(self.directory)

    def cpu(self) -> float:
        return 0.0

    def mount(self) -> None:
        pass

    def unmount(self) -> None:
        pass


class Peer(FileSystem):
    """A mount over a directory of this machine's disk."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.store = bench.scratch.new("store")

    def chill(self) -> None:
        evict(self.store)


class Sshfs(Peer):
    """sshfs with an sftp-server on its standard input and output: no network, no encryption."""

    name = "sshfs"
    note = "no ssh in between, so no encryption; its server answers from the local disk"

    def serve(self) -> None:
        if not SFTP_SERVER.exists():
            raise Failed(f"{SFTP_SERVER} is missing: apt install openssh-sftp-server")
        self._ssh = self.bench.scratch.new("ssh") / "ssh"
        self._ssh.write_text(f"#!/bin/sh\nexec {SFTP_SERVER}\n")
        self._ssh.chmod(0o700)

    def command(self) -> list[str]:
        source = f"localhost:{self.store}"
        return [
            program("sshfs"),
            "-f",
            "-o",
            f"ssh_command={self._ssh}",
            source,
            str(self.directory),
        ]


class SshfsKeeping(Sshfs):
    """sshfs whose files the kernel keeps from one open to the next."""

    name = "sshfs, kernel_cache"
    note = "keeps pages over open, in pages of 4 KiB as all that comes by FUSE here"

    def command(self) -> list[str]:
        return [*super().command(), "-o", "kernel_cache"]


class JuiceFS(Peer):
    """JuiceFS with its metadata in SQLite and its blocks in files."""

    name = "JuiceFS"
    note = "metadata in SQLite, blocks in local files: no server and no network"

    def serve(self) -> None:
        self._meta = f"sqlite3://{self.store}/meta.db"
        blocks = ("--storage", "file", "--bucket", f"{self.store}/blocks/")
        argv = [program("juicefs"), "format", *blocks, self._meta, _S3]
        subprocess.run(argv, env=self.bench.env, check=True, capture_output=True, timeout=60)

    def command(self) -> list[str]:
        cache = ("--cache-dir", str(self.cache))
        options = ("--no-usage-report", "--no-bgjob", *cache)
        return [program("juicefs"), "mount", *options, self._meta, str(self.directory)]


class S3Peer(Peer):
    """A mount over `rclone serve s3` on a local directory."""

    def serve(self) -> None:
        (self.store / _S3).mkdir()
        self._port = free_port()
        address = ("--addr", f"127.0.0.1:{self._port}", "--auth-key", f"{_KEY},{_SECRET}")
        argv = [program("rclone"), "serve", "s3", *address, str(self.store)]
        with unbroken():
            daemon = Daemon(argv, self.bench.scratch.root / "rclone-serve.log", self.bench.env)
            self.bench.stack.callback(daemon.end)
        wait_until(lambda: daemon.running() and listens(self._port), "rclone serve s3", 30)


class S3fs(S3Peer):
    """s3fs."""

    name = "s3fs"
    note = (
        "over rclone serve s3 on a local directory, which refuses the objects that s3fs makes for "
        "directories: files are in the root, and no directory is moved"
    )
    directories = False

    def serve(self) -> None:
        super().serve()
        self._password = self.bench.scratch.new("s3fs") / "passwd"
        self._password.write_text(f"{_KEY}:{_SECRET}\n")
        self._password.chmod(0o600)

    def command(self) -> list[str]:
        options = (
            f"url=http://127.0.0.1:{self._port},use_path_request_style,sigv4,"
            f"passwd_file={self._password},use_cache={self.cache}"
        )
        return [program("s3fs"), _S3, str(self.directory), "-f", "-o", options]


class Rclone(S3Peer):
    """`rclone mount` of the S3 server."""

    mode: str

    def command(self) -> list[str]:
        self._control = free_port()
        s3 = f":s3,provider=Rclone,access_key_id={_KEY},secret_access_key={_SECRET},"
        remote = f"{s3}endpoint='http://127.0.0.1:{self._port}':{_S3}"
        cache = ("--cache-dir", str(self.cache), "--vfs-cache-mode", self.mode)
        control = ("--rc", "--rc-no-auth", "--rc-addr", f"127.0.0.1:{self._control}")
        return [program("rclone"), "mount", remote, str(self.directory), *cache, *control]

    def settle(self) -> None:
        # The kernel tells rclone of a close after close has returned, so an idle rclone may have
        # something to do yet: only the store itself shows that all is there.
        what = f"upload by {self.name}"
        wait_until(lambda: self._idle() and self._stored(), what, _UPLOAD, every=0.1)

    def _idle(self) -> bool:
        url = f"http://127.0.0.1:{self._control}/vfs/stats"
        request = urllib.request.Request(url, data=b"", method="POST")
        with urllib.request.urlopen(request, timeout=60) as answer:
            disk = json.load(answer)["diskCache"]
        return not disk["uploadsInProgress"] and not disk["uploadsQueued"]

    def _stored(self) -> bool:
        """Whether the store has every file of the mount in its present size."""
        return all(
            _size(self.store / _S3 / path.relative_to(self.directory)) == _size(path)
            for path in self.directory.rglob("*")
            if path.is_file()
        )


class RcloneFull(Rclone):
    """With --vfs-cache-mode full."""

    name = "rclone full"
    mode = "full"
    note = (
        "--vfs-cache-mode full over rclone serve s3 on a local directory; close and fsync return "
        "before anything is uploaded"
    )


class RcloneWrites(Rclone):
    """With --vfs-cache-mode writes."""

    name = "rclone writes"
    mode = "writes"
    note = "as rclone full, with --vfs-cache-mode writes"


#: The peers in the order of the table.
PEERS: tuple[type[Peer], ...] = (RcloneFull, RcloneWrites, S3fs, JuiceFS, Sshfs)


def program(name: str) -> str:
    """The path of a program, beside this Python or on PATH.  Errors: `Failed`."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which(name)
    if found is None:
        raise Failed(f"{name} is not installed")
    return found


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _size(path: Path) -> int:
    """The size of a file, -1 if there is none."""
    return path.stat().st_size if path.exists() else -1


def listens(port: int) -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
