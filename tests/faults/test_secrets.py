"""Credentials of every kind let a mount in, and are seen nowhere: arguments, environments, memory
of the daemon, the kernel's table, what commands print, and logs at debug level."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from natsfs.server import Server
from tests.faults.secured import (
    Login,
    Way,
    make_certificates,
    mounted_by_nobody,
    natsfs,
    new_key,
    open_directory,
    operator_mode,
    serving,
)
from tests.mount.mounting import (
    mounted_device,
    private_environment,
)

pytestmark = [pytest.mark.mount, pytest.mark.server]

PASSWORD = "pa55-f0r-nobody"
USERS = f'authorization {{ user: me, password: "{PASSWORD}" }}'
TOKEN = f'authorization {{ token: "{PASSWORD}" }}'

USER_SEED = 20 << 3  # nkeys.PREFIX_BYTE_USER


def with_url(config: str, part: str) -> Way:
    """What stands in the URL."""
    return lambda _: Login(config, [PASSWORD], url_part=part)


def with_environment(config: str, **variables: str) -> Way:
    """What stands in variables."""
    return lambda _: Login(config, [PASSWORD], environment=variables)


def with_user_option(_: Path) -> Login:
    """A token given as `nats --user` takes it."""
    return Login(TOKEN, [PASSWORD], options=["--user", PASSWORD])


def with_mount_option(_: Path) -> Login:
    """A token as mount(8) would write it."""
    return Login(TOKEN, [PASSWORD], mount_options=["-o", f"noatime,user={PASSWORD},timeout=9s"])


def with_password_file(directory: Path) -> Login:
    """A password from a file."""
    (directory / "password").write_text(f"{PASSWORD}\n")
    options = ["--user", "me", "--password-file", str(directory / "password")]
    return Login(USERS, [PASSWORD], options=options)


def with_nkey(directory: Path, by_variable: bool = False) -> Login:
    """An nkey's seed in a file."""
    key = new_key(USER_SEED)
    seed = key.seed.decode()
    (directory / "seed").write_text(seed)
    config = f"authorization {{ users: [ {{ nkey: {key.public_key.decode()} }} ] }}"
    if by_variable:
        return Login(config, [seed], environment={"NATS_NKEY": str(directory / "seed")})
    return Login(config, [seed], options=["--nkey", str(directory / "seed")])


def with_nkey_variable(directory: Path) -> Login:
    """The same, named by NATS_NKEY."""
    return with_nkey(directory, by_variable=True)


def with_creds(directory: Path) -> Login:
    """A credentials file, in operator mode."""
    made = operator_mode()
    (directory / "creds").write_text(made.creds)
    return Login(
        made.config, [made.seed, made.user_jwt], options=["--creds", str(directory / "creds")]
    )


def with_creds_variable(directory: Path) -> Login:
    """The same, named by NATS_CREDS."""
    login = with_creds(directory)
    return replace(login, options=[], environment={"NATS_CREDS": login.options[1]})


def with_context(config: str, **fields: str) -> Way:
    """What a context of the `nats` command says, and the environment around it."""

    def way(directory: Path) -> Login:
        path = directory / "context.json"
        path.write_text(json.dumps(fields))
        environment = {"NATS_CONTEXT": str(path)}
        if any(value.startswith("env://") for value in fields.values()):
            environment["MY_SECRET"] = PASSWORD
        return Login(config, [PASSWORD], environment=environment)

    return way


def with_jwt(directory: Path, *, by_context: bool = False) -> Login:
    """A JWT and a seed, in variables or in a context."""
    made = operator_mode()
    login = Login(made.config, [made.seed, made.user_jwt])
    if not by_context:
        told = {"NATS_JWT": made.user_jwt, "NATS_SEED": made.seed}
        return replace(login, environment=told)
    way = with_context(made.config, user_jwt=made.user_jwt, user_seed=made.seed)
    return replace(login, environment=way(directory).environment)


def with_bearer(directory: Path) -> Login:
    """A JWT that needs no seed."""
    made = operator_mode(bearer_token=True)
    return Login(made.config, [made.user_jwt], environment={"NATS_JWT": made.user_jwt})


def with_key_of_context(directory: Path) -> Login:
    """An nkey's seed that a context names by a variable."""
    login = with_nkey(directory)
    (seed,) = login.secrets
    way = with_context(login.config, nkey="env://MY_SECRET")
    told = {**way(directory).environment, "MY_SECRET": seed}
    return replace(login, options=[], environment=told)


def with_certificate(directory: Path, *, first: bool = False, named: bool = False) -> Login:
    """A client's certificate, which the server takes for a login."""
    made = make_certificates(directory)
    # The server waits so long for a client that begins with TLS before it greets in clear text.
    handshake = 'handshake_first: "500ms"' if first else ""
    config = (
        f'tls {{ cert_file: "{made.server}", key_file: "{made.server_key}"\n'
        f'ca_file: "{made.authority}", verify_and_map: true\n{handshake} }}\n'
        "authorization { users: [ { user: mounter } ] }"
    )
    files = (made.authority, made.client, made.client_key)
    key = made.client_key.read_text().splitlines()[1]
    login = Login(config, [key], scheme="tls", host="localhost")
    if named:
        names = ("NATS_CA", "NATS_CERT", "NATS_KEY")
        return replace(login, environment=dict(zip(names, map(str, files), strict=True)))
    flags = ("--tlsca", "--tlscert", "--tlskey")
    pairs = [word for pair in zip(flags, map(str, files), strict=True) for word in pair]
    return replace(login, options=[*pairs, *(["--tlsfirst"] if first else [])])


WAYS: dict[str, Way] = {
    "user in the URL": with_url(USERS, f"me:{PASSWORD}@"),
    "token in the URL": with_url(TOKEN, f"{PASSWORD}@"),
    "several hosts": with_url(USERS, f"me:{PASSWORD}@127.0.0.1:1,me:{PASSWORD}@"),
    "NATS_USER": with_environment(USERS, NATS_USER="me", NATS_PASSWORD=PASSWORD),
    "NATS_USER, a token": with_environment(TOKEN, NATS_USER=PASSWORD),
    "NATS_TOKEN": with_environment(TOKEN, NATS_TOKEN=PASSWORD),
    "--user": with_user_option,
    "-o user": with_mount_option,
    "--password-file": with_password_file,
    "--nkey": with_nkey,
    "NATS_NKEY": with_nkey_variable,
    "--creds": with_creds,
    "NATS_CREDS": with_creds_variable,
    "a context": with_context(USERS, user="me", password=PASSWORD),
    "a URL in a context": with_context(USERS, url=f"nats://me:{PASSWORD}@127.0.0.1:1"),
    "a variable in a context": with_context(USERS, user="me", password="env://MY_SECRET"),
    "an nkey in a context": with_key_of_context,
    "NATS_JWT and NATS_SEED": with_jwt,
    "NATS_JWT": with_bearer,
    "a JWT in a context": lambda directory: with_jwt(directory, by_context=True),
    "--tlscert": with_certificate,
    "--tlsfirst": lambda directory: with_certificate(directory, first=True),
    "NATS_CERT": lambda directory: with_certificate(directory, named=True),
}


@contextmanager
def background(
    environment: dict[str, str], directory: Path, *arguments: str
) -> Iterator[tuple[int, str]]:
    """A mount in the background: its process, and what the command said."""
    directory.mkdir()
    done = natsfs(environment, "mount", *arguments, directory)
    done.check()
    try:
        (found,) = json.loads(natsfs(environment, "status", "--json", directory).check())
        yield found["pid"], done.out + done.err
    finally:
        natsfs(environment, "umount", directory).check()
    assert mounted_device(directory) is None


def shown(pid: int, environment: dict[str, str], directory: Path) -> dict[str, str]:
    """All that others can see of the mount on *directory*."""
    process = Path("/proc") / str(pid)
    logs = Path(environment["XDG_STATE_HOME"]).rglob("*.log")
    return {
        "arguments": (process / "cmdline").read_text(),
        "environment": (process / "environ").read_text(),
        "mounts": Path("/proc/mounts").read_text(),
        "status": natsfs(environment, "status", directory).check(),
        "status --json": natsfs(environment, "status", "--json", directory).check(),
        "logs": "\n".join(path.read_text() for path in logs),
    }


def assert_hidden(texts: dict[str, str], login: Login) -> None:
    """None of the *texts* has anything of the secrets."""
    for where, text in texts.items():
        for secret in login.secrets:
            assert secret not in text, f"{where}: {text}"


@pytest.mark.parametrize("way", WAYS)
def test_no_secret_is_seen(way: str, tmp_path: Path) -> None:
    """E, A5: whatever a mount logs in with, it works, over a restart of the server too, and what
    it logged in with is in no place that others, or its own log, show."""
    login = WAYS[way](tmp_path)
    environment = private_environment(tmp_path / "private")
    told = {**environment, **login.environment}
    with serving(tmp_path / "server", login.config) as server:
        source = f"{login.url(server)}/b"
        arguments = ("-v", "--create", *login.options, *login.mount_options, source)
        top = tmp_path / "mnt"
        with background(told, top, *arguments) as (pid, said):
            (top / "file").write_bytes(b"content")
            server.restart()
            (top / "other").write_bytes(b"content")
            texts = shown(pid, environment, top)
            assert "b" in texts["status"]
            assert "DEBUG" in texts["logs"]
            assert "lost the connection" in texts["logs"]
            assert_hidden({**texts, "said": said}, login)
        assert_hidden(refusals(server, login, environment, tmp_path), login)


def refusals(
    server: Server, login: Login, environment: dict[str, str], tmp_path: Path
) -> dict[str, str]:
    """What commands say that find nothing there, or nobody."""
    told = {**environment, **login.environment}
    listing = ("ls", "-v", *login.options, f"{login.url(server)}/missing")
    missing = natsfs(told, *listing)
    server.kill()
    gone = natsfs(told, *listing)
    assert (missing.status, gone.status) == (1, 1), f"{missing}\n{gone}"
    return {"missing": missing.out + missing.err, "gone": gone.out + gone.err}


def test_a_server_without_a_scheme(tmp_path: Path) -> None:
    """E: also a login in a URL that leaves the scheme out is in no list of processes."""
    environment = private_environment(tmp_path / "private")
    with serving(tmp_path / "server", USERS) as server:
        address = f"me:{PASSWORD}@127.0.0.1:{server.port}"
        for number, option in enumerate((f"--server={address}", f"-oserver={address}")):
            top = tmp_path / f"mnt{number}"
            with background(environment, top, option, "--create", "b") as (pid, _):
                assert_hidden(shown(pid, environment, top), Login(USERS, [PASSWORD]))


def test_started_programs_get_no_secret(tmp_path: Path) -> None:
    """E: the private server that a mount starts has nothing of the credentials around it."""
    environment = private_environment(tmp_path / "private")
    told = {**environment, "NATS_TOKEN": PASSWORD, "NATS_URL": f"nats://me:{PASSWORD}@other"}
    top, store = tmp_path / "mnt", tmp_path / "store"
    with background(told, top, "b", "--create", f"--embedded={store}"):
        server = json.loads((store / "server.json").read_text())["pid"]
        environ = Path(f"/proc/{server}/environ").read_text()
        assert "NATS_TOKEN" in environ
        assert PASSWORD not in environ


@pytest.fixture
def open_tmp() -> Iterator[Path]:
    """A directory that everybody may enter."""
    with open_directory() as directory:
        yield directory


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for other users")


@needs_root
def test_memory_is_the_process_own(open_tmp: Path, nats_server: Server) -> None:
    """E: neither another program of the same user nor a core file gets at a mount's memory."""
    environment = private_environment(open_tmp / "admin")
    natsfs(environment, "bucket", "create", f"--server={nats_server.url}", "core").check()
    with mounted_by_nobody(open_tmp, f"{nats_server.url}/core") as mounted:
        for name in ("environ", "mem", "maps"):
            peek = mounted.inside("head", "-c1", f"/proc/{mounted.pid}/{name}")
            assert "Permission denied" in peek.err
        os.kill(mounted.pid, signal.SIGABRT)
        _, status = os.waitpid(mounted.pid, 0)
        assert os.WTERMSIG(status) == signal.SIGABRT
        assert not os.WCOREDUMP(status)
