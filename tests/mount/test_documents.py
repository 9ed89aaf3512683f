"""What the documents tell a user to type, typed."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from natsfs.cli.examples import EXAMPLES
from natsfs.server import Server, start_server
from tests.documents import DOCUMENTS, ROOT, command_lines

from .mounting import natsfs_command, run
from .system import System, new_system

pytestmark = [
    pytest.mark.mount,
    pytest.mark.server,
    pytest.mark.timeout(120),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a machine of its own"),
]

#: What is not run here, and why.
NOT_RUN = {
    r"apt install ": "it would change this machine",
    r"python3 -m venv .*pip install": "it needs the package index; test_packaging.py does it",
    r"scripts/(demo|test|bench|man)\b": "it installs what is missing, and one of them runs this",
    r"natsfs watch ": "it does not end by itself; test_watch_command.py runs it",
}

#: Where the documents have their server.
EXAMPLE = re.compile(r"nats://nats\.example(:4222)?(?=[/\s]|$)")

#: What a reader has before the first line.
PRELUDE = """
mkdir -p /mnt/models /mnt/photos ~/Pictures
echo bytes >~/Pictures/one
natsfs bucket create models
"""

#: What has happened to a reader who looks for help.
TROUBLE = """
natsfs mount models /mnt/models
kill -9 $(natsfs status --json | sed -n 's/^ *"pid": \\([0-9]*\\),/\\1/p')
while [ -d /mnt/models ]; do :; done
"""

#: What the examples of commands find on a host, once `models` can be mounted.
HOST = """
mkdir -p /mnt/prod ~/demo ~/.config/nats/context
printf '{"url": "%s"}' "$NATS_URL" >~/.config/nats/context/prod.json
natsfs bucket create releases
natsfs mount models /mnt/models
mkdir /mnt/models/llm
echo bytes | tee /mnt/models/llm/weights.bin >/mnt/models/llm-7b
"""

#: Examples that go on until somebody ends them; other tests run these commands.
ENDLESS = ("natsfs watch ", "natsfs serve", "natsfs top /mnt/models")

RUN = [name for name, path in DOCUMENTS.items() if command_lines(path)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of the document's own: several of them make buckets of the same names."""
    server = start_server(tmp_path / "server")
    yield server
    server.stop()


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[System]:
    """A machine on which nobody has installed anything but natsfs."""
    place = tmp_path / "system"
    place.mkdir()
    with new_system(place) as system:
        system.run("/bin/mount", "-t", "tmpfs", "tmpfs", "/mnt").check()
        system.run("/bin/mkdir", "-p", "/run/bin").check()
        program = f'#!/bin/sh\nexec {shlex.join(natsfs_command())} "$@"\n'
        script = 'printf %s "$1" >/run/bin/natsfs; chmod +x /run/bin/natsfs'
        system.run("/bin/sh", "-c", script, "sh", program).check()
        yield system


def is_run(line: str) -> bool:
    """Whether nothing in `NOT_RUN` keeps the line from being run."""
    return not any(re.match(pattern, line) for pattern in NOT_RUN)


def script_of(name: str, url: str) -> str:
    """The commands of the document, as a script of sh that tells each."""
    lines = [EXAMPLE.sub(url, line) for line in command_lines(DOCUMENTS[name]) if is_run(line)]
    if name == "troubleshooting.md":
        cure = next(n for n, line in enumerate(lines) if line.startswith("natsfs umount"))
        lines.insert(cure, TROUBLE)
    return "\n".join([PRELUDE, "set -x", *lines])


def mounting_examples() -> list[str]:
    """Those of `mount` and `umount`, each by itself."""
    lines = []
    for line in EXAMPLES["mount"]:
        place = next(word for word in line.split() if word.startswith(("/mnt", "~/")))
        lines += [line, f"natsfs umount {place}"]
    again = "natsfs mount models /mnt/models"
    return ["natsfs umount /mnt/models", *lines, *(f"{again}\n{one}" for one in EXAMPLES["umount"])]


def other_examples() -> list[str]:
    """Those of all other commands, which have a mount."""
    return [
        line
        for words, examples in EXAMPLES.items()
        for line in examples
        if words not in ("mount", "umount") and not line.startswith(ENDLESS)
    ]


@pytest.mark.parametrize("part", [0, 1, 2])
def test_examples_of_help(part: int, server: Server, reader: System) -> None:
    """Every example in the help of a command works."""
    others = other_examples()
    middle = next(n for n, line in enumerate(others) if line.startswith("natsfs gc"))
    parts = [mounting_examples(), others[:middle], others[middle:]]
    lines = [PRELUDE, HOST, "set -x", *parts[part]]
    run_script(reader, server, "\n".join(EXAMPLE.sub(server.url, line) for line in lines))


@pytest.mark.parametrize("name", RUN)
def test_document(name: str, server: Server, reader: System) -> None:
    """Every command of the document works, one after the other, as a reader would type them."""
    typed = run_script(reader, server, script_of(name, server.url))
    assert typed >= sum(
        is_run(line) and line.startswith("natsfs ") for line in command_lines(DOCUMENTS[name])
    )


def run_script(reader: System, server: Server, script: str) -> int:
    """Run it; how many commands of natsfs it had.  None may fail or complain."""
    environment = {
        "PATH": f"/run/bin:{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONPATH": str(ROOT),
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
        "NATS_URL": server.url,
    }
    try:
        result = reader.run("/bin/bash", "-euc", script, env=environment)
        assert result.status == 0, f"{result.out}\n{result.err}"
        assert re.findall(r"^natsfs: .*", result.err, re.MULTILINE) == []
        return len(re.findall(r"^\+ natsfs ", result.err, re.MULTILINE))
    finally:
        # An embedded server ends with the last mount that uses it, not with one that is killed.
        for mount in json.loads(reader.natsfs("status", "--json").out or "[]"):
            reader.natsfs("umount", "--force", mount["directory"])


def test_what_others_say(reader: System) -> None:
    """What troubleshooting.md quotes of mount(8) and umount(8) is what they say."""
    unknown = reader.run("/bin/mount", "-t", "natsfs", "nats://host/bucket", "/mnt")
    assert "unknown filesystem type 'natsfs'" in unknown.err
    busy = reader.run("/bin/sh", "-c", "cd /mnt && LC_ALL=C umount /mnt")
    assert "target is busy" in busy.err


def test_nothing_is_left_out_in_vain() -> None:
    """Each exception is one that a document has."""
    lines = [line for path in DOCUMENTS.values() for line in command_lines(path)]
    for pattern in NOT_RUN:
        assert any(re.match(pattern, line) for line in lines), pattern
    assert sum(map(is_run, lines)) > 25


@pytest.mark.parametrize("name", ["natsfs.1", "mount.natsfs.8", "umount.natsfs.8"])
def test_man(name: str, tmp_path: Path, environment: dict[str, str]) -> None:
    """man(1) finds what `natsfs install-helper` puts into its place, and --uninstall takes it."""
    pages, programs = tmp_path / "share" / "man", tmp_path / "sbin"
    programs.mkdir()
    where = ["--prefix", str(programs), "--man-dir", str(pages)]
    run(natsfs_command("install-helper", *where), env=environment).check()
    page, _, section = name.rpartition(".")
    told = {"MANPATH": str(pages), "MANWIDTH": "80", "MANPAGER": "cat"}
    shown = run(["man", section, page], env={**environment, **told}).check()
    assert "natsfs" in shown
    assert "MOUNT OPTIONS" in shown or name == "natsfs.1"
    assert (pages / f"man{section}" / name).stat().st_mode & 0o777 == 0o644
    assert (pages / f"man{section}").stat().st_mode & 0o777 == 0o755
    run(natsfs_command("install-helper", "--uninstall", *where), env=environment).check()
    assert [path for path in tmp_path.glob("s*/**/*") if path.is_file()] == []
