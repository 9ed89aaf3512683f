"""How commands end: exit statuses, the one line on standard error, what `--verbose` adds."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from natsfs import __version__, cli
from natsfs.cli.outcome import SystemFailure, describe
from natsfs.errors import (
    BucketNotFoundError,
    ConnectFailed,
    ExistsError,
    JetStreamUnavailable,
    MountFailed,
    NotFoundError,
    PermissionsError,
    UsageError,
)

ROOT = Path(__file__).parent.parent.parent


def natsfs(*args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """The program itself, with *environ* on top of a clean environment."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("NATS_")}
    return subprocess.run(
        [sys.executable, "-m", "natsfs", *args],
        cwd=ROOT,
        env={**clean, **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("exc", "mounting", "otherwise"),
    [
        (UsageError("x"), 1, 1),
        (click.UsageError("x"), 1, 1),
        (SystemFailure("x"), 2, 2),
        (OSError(28, "No space left on device"), 2, 2),
        (ValueError("x"), 2, 2),
        (MountFailed("x"), 32, 32),
        (ConnectFailed("x"), 32, 1),
        (BucketNotFoundError("x"), 32, 1),
        (PermissionsError("x"), 32, 1),
        (KeyboardInterrupt(), 130, 130),
        (click.Abort(), 130, 130),
        (SystemExit(143), 143, 143),
    ],
)
def test_statuses(exc: BaseException, mounting: int, otherwise: int) -> None:
    """Statuses are those of mount(8): 1 usage, 2 system, 32 mount failed, 130 interrupted."""
    assert describe(exc, mounting=True).status == mounting
    assert describe(exc).status == otherwise


@pytest.mark.parametrize(
    ("exc", "words"),
    [
        (ConnectFailed("no server at h"), ["no server at h", "--server", "--embedded"]),
        (BucketNotFoundError("no bucket b"), ["no bucket b", "--create", "bucket create"]),
        (JetStreamUnavailable("no JetStream"), ["no JetStream", "-js"]),
        (PermissionsError("denied"), ["denied", "--creds"]),
        (OSError(28, "No space left on device", "/x"), ["/x", "No space"]),
        (ValueError("odd"), ["unexpected ValueError", "odd", "--verbose"]),
        (MemoryError(), ["out of memory", "ulimit -v"]),
        (NotFoundError(), ["NotFoundError"]),
    ],
)
def test_texts(exc: BaseException, words: list[str]) -> None:
    """A line says what is wrong and what to do about it."""
    text = describe(exc).text
    assert [word for word in words if word not in text] == []


def test_one_line() -> None:
    """Whatever is in an exception, the text is one line without credentials."""
    text = describe(MountFailed("first\n  second nats://u:secret@h\n")).text
    assert text == "first second nats://h"


def test_groups() -> None:
    """An exception from a nursery counts as itself."""
    group = BaseExceptionGroup("x", [ExceptionGroup("y", [MountFailed("inner")])])
    assert (describe(group).status, describe(group).text) == (32, "inner")
    assert not describe(group).unexpected
    assert describe(ExceptionGroup("y", [ValueError()])).unexpected


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (["bogus"], "'bogus'; see"),
        (["unmount", "/mnt"], "perhaps you mean 'umount'; see"),
        (["bucket", "crate"], "perhaps you mean 'create'; see"),
        (["mount"], "SOURCE"),
        (["mount", "demo"], "DIRECTORY"),
        (["mount", "demo", "/mnt", "--bogus"], "--bogus"),
        (["mount", "demo", "/mnt", "-o", "bogus"], "bogus"),
        (["mount", "demo", "/mnt", "--cache-size", "much"], "much"),
        (["mount", "http://h/demo", "/mnt"], "http"),
        (["umount"], "DIRECTORY"),
        (["umount", "/no/such/mount"], "/no/such/mount"),
        (["ls", "/no/such/mount"], "/no/such/mount"),
        (["status", "/no/such/mount"], "/no/such/mount"),
        (["bucket", "bogus"], "bogus"),
        (["bucket", "create", "a.b"], "a.b"),
        (["bucket", "create", "a", "--metadata", "nonsense"], "KEY=VALUE"),
        (["bucket", "delete", "a"], "--force"),
    ],
)
def test_usage_errors(
    args: list[str], word: str, capfd: pytest.CaptureFixture[str], closed_stdin: None
) -> None:
    """Every usage error is status 1 and one line that names what is wrong."""
    assert cli.main(args) == 1
    out, err = capfd.readouterr()
    assert (out, err.count("\n"), err.startswith("natsfs: ")) == ("", 1, True)
    assert word in err


@pytest.fixture
def closed_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    """No terminal to ask at."""
    monkeypatch.setattr(sys, "stdin", io.StringIO())


def test_interrupt(capfd: pytest.CaptureFixture[str], command: Callable[..., None]) -> None:
    """^C ends a command with 130."""
    command(KeyboardInterrupt())
    assert cli.main(["failing"]) == 130
    assert capfd.readouterr().err.strip() == "natsfs: interrupted"


def test_unexpected(capfd: pytest.CaptureFixture[str], command: Callable[..., None]) -> None:
    """A bug is one line with a hint; --verbose shows the traceback, without credentials."""
    command(ValueError("nats://u:secret@h"))
    assert cli.main(["failing"]) == 2
    assert capfd.readouterr().err.count("\n") == 1
    assert cli.main(["failing", "--verbose"]) == 2
    err = capfd.readouterr().err
    assert "Traceback" in err
    assert "secret" not in err


def test_verbose_and_expected(
    capfd: pytest.CaptureFixture[str], command: Callable[..., None]
) -> None:
    """What natsfs reports on purpose stays one line even with --verbose."""
    command(ExistsError("taken"))
    assert cli.main(["failing", "--verbose"]) == 1
    assert capfd.readouterr().err == "natsfs: taken\n"


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes the command `natsfs failing`, which raises what it is given."""

    def make(exc: BaseException) -> None:
        def failing() -> None:
            raise exc

        made = cli.commands.Command("failing", callback=failing)
        monkeypatch.setattr(cli.natsfs, "get_command", lambda ctx, name: made)

    return make


def test_the_program() -> None:
    """`python -m natsfs` is the command, and hands on its status."""
    assert natsfs("--version").stdout == f"natsfs {__version__}\n"
    helped = natsfs("--help")
    assert helped.returncode == 0
    for name in ("mount", "umount", "ls", "status", "bucket"):
        assert f"\n  {name} " in helped.stdout
    assert natsfs("mount").returncode == 1
    assert natsfs().returncode == 1


@pytest.mark.parametrize("name", cli.natsfs.list_commands(click.Context(cli.natsfs)))
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help(name: str, flag: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Every command explains itself."""
    assert cli.main([name, flag]) == 0
    assert f"Usage: natsfs {name}" in capfd.readouterr().out


def test_list_of_commands(capfd: pytest.CaptureFixture[str]) -> None:
    """The list of commands cuts no sentence short."""
    assert cli.main(["-h"]) == 0
    _, heading, commands = capfd.readouterr().out.partition("Commands:")
    assert heading
    assert "..." not in commands


def test_no_server() -> None:
    """Without a server: one line that names it, and no trace of the password anywhere."""
    result = natsfs("ls", "demo", NATS_URL="nats://u:secret@127.0.0.1:1")
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert "127.0.0.1:1" in result.stderr
    assert "secret" not in result.stderr


def test_credentials_leave_the_process_list() -> None:
    """After its start the program's command line shows no credentials."""
    code = """
import sys
from natsfs.cli.secrecy import conceal_credentials
conceal_credentials()
print(open("/proc/self/cmdline", "rb").read().split(b"\\0")[-3:], sys.argv[1:])
"""
    url = "nats://user:secret@host:1/demo"
    done = subprocess.run(
        [sys.executable, "-c", code, "before", url],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    hidden = b"nats://" + b"x" * len("user:secret") + b"@host:1/demo"
    assert done.stdout == f"{[b'before', hidden, b'']} {['before', url]}\n"
