"""Servers that do not let everybody in, ways to log in there, and natsfs commands that use them."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pwd
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import nkeys  # type: ignore[import-untyped]

from natsfs.server import Server, start_server
from tests.mount.mounting import (
    Result,
    natsfs_command,
    private_environment,
    run,
    wait_until,
)

NOBODY = pwd.getpwnam("nobody")


@dataclass
class Login:
    """How one logs in: what the server's configuration says, what a command is told, and what
    nobody may see of it."""

    config: str
    secrets: list[str]
    #: In front of the host in the URL.
    url_part: str = ""
    scheme: str = "nats"
    host: str = "127.0.0.1"
    options: list[str] = field(default_factory=list)
    #: What `natsfs mount` alone takes.
    mount_options: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)

    def url(self, server: Server) -> str:
        """The server's URL, as this login has it."""
        return f"{self.scheme}://{self.url_part}{self.host}:{server.port}"


@contextmanager
def serving(directory: Path, config: str) -> Iterator[Server]:
    """A server with *config*, for as long as the block runs."""
    server = start_server(directory, extra_config=config)
    try:
        yield server
    finally:
        server.kill()


def natsfs(environment: Mapping[str, str], *arguments: str | os.PathLike[str]) -> Result:
    """Run one natsfs command."""
    return run(natsfs_command(*arguments), env=environment, cwd=Path("/"), timeout=60)


@contextmanager
def open_directory() -> Iterator[Path]:
    """A directory that everybody may enter: pytest's own are closed to others."""
    with tempfile.TemporaryDirectory(prefix="security-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


NOBODY_ALONE = ("setpriv", f"--reuid={NOBODY.pw_uid}", f"--regid={NOBODY.pw_gid}", "--clear-groups")


@dataclass(frozen=True)
class Private:
    """A mount of the user nobody: where it is, its environment and its process, whose view of the
    file system is its own, because only there everybody may mount."""

    top: Path
    environment: dict[str, str]
    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """The daemon."""
        return self.process.pid

    def inside(self, *command: str | Path, nobody: bool = True) -> Result:
        """Run *command* where the mount is seen, as nobody or as root."""
        user = NOBODY_ALONE if nobody else ()
        return run(["nsenter", f"--mount=/proc/{self.pid}/ns/mnt", *user, *map(str, command)])

    def mounted(self) -> bool:
        """Whether the mount is there."""
        assert self.process.poll() is None, "the daemon has ended"
        return f" {self.top} " in Path(f"/proc/{self.pid}/mountinfo").read_text()


@contextmanager
def mounted_by_nobody(
    directory: Path, source: str, *options: str, without: str = ""
) -> Iterator[Private]:
    """A mount of the user nobody in the foreground, without limits for core files, in an
    environment *without* one variable."""
    directory.chmod(0o755)
    top, private = directory / "mnt", directory / "private"
    top.mkdir()
    environment = private_environment(private)
    environment.pop(without, None)
    for path in (top, private, *private.iterdir()):
        os.chown(path, NOBODY.pw_uid, NOBODY.pw_gid)
    device = directory / "fuse"
    os.mknod(device, 0o20666, os.makedev(10, 229))
    device.chmod(0o666)
    # The right to read is lent, for a Python under /root.
    lent = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    command = [*NOBODY_ALONE, *lent, *natsfs_command("mount", "-f", source, top, *options)]
    line = f"mount --bind {device} /dev/fuse && ulimit -c unlimited && exec {shlex.join(command)}"
    process = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", line],
        env=environment,
        cwd=private,
    )
    mounted = Private(top, environment, process)
    try:
        wait_until(mounted.mounted, "the mount")
        yield mounted
    finally:
        process.kill()
        process.wait()


# -- keys and certificates ------------------------------------------------------------------------


def new_key(prefix: int) -> nkeys.KeyPair:
    """A new key pair of the kind that *prefix* stands for."""
    return nkeys.from_seed(bytearray(nkeys.encode_seed(os.urandom(32), prefix)))


def jwt(signer: nkeys.KeyPair, subject: nkeys.KeyPair, kind: str, **claims: object) -> str:
    """A NATS JWT in which *signer* says that *subject* is a *kind*."""

    def encode(part: bytes) -> str:
        return base64.urlsafe_b64encode(part).rstrip(b"=").decode()

    body = {
        "jti": hashlib.sha256(subject.public_key).hexdigest(),
        "iat": int(time.time()) - 60,
        "iss": signer.public_key.decode(),
        "sub": subject.public_key.decode(),
        "nats": {"type": kind, "version": 2, **claims},
    }
    head = {"typ": "JWT", "alg": "ed25519-nkey"}
    signed = ".".join(encode(json.dumps(part).encode()) for part in (head, body))
    return f"{signed}.{encode(signer.sign(signed.encode()))}"


@dataclass(frozen=True)
class Operator:
    """A server's *config* in operator mode, and a user who may use JetStream there."""

    config: str
    creds: str
    seed: str
    user_jwt: str


def operator_mode(**claims: object) -> Operator:
    """An operator with one account that may store what it likes, and a user of it with *claims*."""
    operator = new_key(nkeys.PREFIX_BYTE_OPERATOR)
    account, system = (new_key(nkeys.PREFIX_BYTE_ACCOUNT) for _ in range(2))
    user = new_key(nkeys.PREFIX_BYTE_USER)
    limits = {"subs": -1, "conn": -1, "leaf": -1, "data": -1, "payload": -1, "wildcards": True}
    storage = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}
    preload = {
        account.public_key.decode(): jwt(operator, account, "account", limits=limits | storage),
        system.public_key.decode(): jwt(operator, system, "account", limits=limits),
    }
    accounts = ", ".join(f"{key}: {token}" for key, token in preload.items())
    user_jwt = jwt(account, user, "user", subs=-1, data=-1, payload=-1, **claims)
    seed = user.seed.decode()
    return Operator(
        f"operator: {jwt(operator, operator, 'operator')}\nresolver: MEMORY\n"
        f"resolver_preload: {{ {accounts} }}\nsystem_account: {system.public_key.decode()}",
        f"-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n",
        seed,
        user_jwt,
    )


@dataclass(frozen=True)
class Certificates:
    """PEM files: an authority, and what it has signed for the server and for a client."""

    authority: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path


def make_certificates(directory: Path) -> Certificates:
    """Certificates of localhost and of a client called `mounter`."""
    made = Certificates(
        *(directory / f"{name}.pem" for name in ("ca", "server", "server-key", "client", "key"))
    )
    authority_key = directory / "ca-key.pem"
    _openssl("-subj", "/CN=ca", "-keyout", authority_key, "-out", made.authority)
    signed = ("-CA", made.authority, "-CAkey", authority_key)
    _openssl(
        *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
        *("-addext", "basicConstraints=critical,CA:FALSE"),
        *(*signed, "-keyout", made.server_key, "-out", made.server),
    )
    _openssl(
        *("-subj", "/CN=mounter", "-addext", "subjectAltName=DNS:mounter"),
        *("-addext", "basicConstraints=critical,CA:FALSE"),
        *(*signed, "-keyout", made.client_key, "-out", made.client),
    )
    return made


def _openssl(*arguments: str | Path) -> None:
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    command = ["openssl", "req", "-x509", *key, *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)


Way = Callable[[Path], Login]
