"""The fork: what the parent learns, what the child keeps, what is left after a failure.

A process with threads must not fork, and pytest-xdist has threads: each test runs a program of its
own, which prints what came of it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

#: Seconds for anything here; the machine may be busy.
PATIENCE = 30.0

PROGRAM = """
import json, os, signal, sys, time
from pathlib import Path
from natsfs.daemon import ChildDied, Failure, run_in_background
from natsfs.errors import MountFailed

directory = Path(sys.argv[1])

def note(name, what=""):
    (directory / (name + ".new")).write_text(str(what))
    (directory / (name + ".new")).rename(directory / name)

def describe(exc):
    return Failure(7, f"described {type(exc).__name__}", isinstance(exc, ZeroDivisionError))

fork = os.fork

def fork_and_meet(number):
    child = fork()
    if child:
        note("forked", child)
        os.kill(os.getpid(), number)
    return child

def work(ready):
    note("pid", os.getpid())
WORK

if len(sys.argv) > 2:
    os.fork = lambda: fork_and_meet(int(sys.argv[2]))

try:
    outcome = run_in_background(
        work,
        log_file=directory / "log",
        describe=describe,
        progress=lambda done, total: note(f"told-{done}-{total}"),
    )
except ChildDied as exc:
    outcome = str(exc)
print(json.dumps(repr(outcome)))
"""


@dataclass
class Program:
    """A program that runs *work* in the background."""

    directory: Path

    def start(self, work: str, *arguments: str) -> subprocess.Popen[str]:
        text = PROGRAM.replace("WORK", textwrap.indent(textwrap.dedent(work), "    "))
        return subprocess.Popen(
            [sys.executable, "-c", text, str(self.directory), *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, work: str) -> str:
        """What `run_in_background` returned or raised, as text."""
        with self.start(work) as process:
            out, err = process.communicate(timeout=PATIENCE)
        assert (process.returncode, err) == (0, "")
        result: str = json.loads(out)
        return result

    @property
    def child(self) -> int:
        return int((self.directory / "pid").read_text())

    def noted(self, name: str) -> str:
        """What the child noted under *name*, once it has."""
        wait_until((self.directory / name).exists)
        return (self.directory / name).read_text()

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    program = Program(tmp_path)
    yield program
    if (tmp_path / "pid").exists() and is_running(program.child):
        os.kill(program.child, signal.SIGKILL)


def is_running(pid: int) -> bool:
    """Whether *pid* runs; one that only waits to be reaped, by whoever is init here, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def test_ready(program: Program) -> None:
    """The parent returns as soon as the child is ready, which then goes on by itself."""
    result = program.run("""
        ready()
        while not (directory / "go").exists():
            time.sleep(0.01)
        note("done")
    """)
    assert result == "None"
    assert is_running(program.child)
    (program.directory / "go").touch()
    program.noted("done")
    wait_until(lambda: not is_running(program.child))


def test_progress(program: Program) -> None:
    """E: the parent hears how far the child is before it is ready; a parent that does not listen,
    or is gone, keeps no child waiting."""
    result = program.run("""
        ready.progress(1, 3)
        ready.progress(2, 3)
        ready()
    """)
    assert result == "None"
    assert sorted(path.name for path in program.directory.glob("told-*")) == [
        "told-1-3",
        "told-2-3",
    ]
    with program.start("""
        os.kill(os.getppid(), signal.SIGSTOP)
        for done in range(20_000):
            ready.progress(done, 20_000)
        note("through")
        os.kill(int((directory / "parent").read_text()), signal.SIGKILL)
        ready.progress(1, 1)
        note("alone")
    """) as process:
        (program.directory / "parent").write_text(str(process.pid))
        program.noted("through")
        program.noted("alone")


def test_what_the_child_keeps(program: Program) -> None:
    """The child has no terminal, no directory and no descriptor of the caller's."""
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    with program.start("""
        print("said")
        files = {int(fd): os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
                 if os.path.exists(f"/proc/self/fd/{fd}")}
        note("kept", json.dumps([os.getcwd(), os.getsid(0) == os.getpid(), files]))
        ready()
    """) as process:
        process.communicate(timeout=PATIENCE)
    os.close(reading)
    os.close(writing)
    directory, leads_session, files = json.loads(program.noted("kept"))
    assert (directory, leads_session) == ("/", True)
    log = str(program.directory / "log")
    pipe = {number: target for number, target in files.items() if int(number) > 2}
    assert [files[str(number)] for number in range(3)] == ["/dev/null", log, log]
    assert [target.split(":")[0] for target in pipe.values()] == ["pipe"]
    wait_until(lambda: program.log == "said\n")


def test_error_before_ready(program: Program) -> None:
    """What ends the child before it is ready is handed to the parent, and the child is gone."""
    result = program.run('raise MountFailed("no")')
    assert result == "Failure(status=7, text='described MountFailed', unexpected=False)"
    assert not is_running(program.child)
    assert "described MountFailed" in program.log
    assert "Traceback" not in program.log


def test_unexpected_error(program: Program) -> None:
    """An error that nobody foresaw is in the log with its traceback."""
    assert "described ZeroDivisionError" in program.run("1 / 0")
    assert "Traceback" in program.log


def test_error_after_ready(program: Program) -> None:
    """What happens after the parent has gone is in the log."""
    assert program.run('ready(); raise MountFailed("late")') == "None"
    wait_until(lambda: not is_running(program.child))
    assert "described MountFailed" in program.log


@pytest.mark.parametrize(
    ("work", "manner"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL"),
        ("os._exit(5)", "ended with status 5"),
    ],
)
def test_child_dies(program: Program, work: str, manner: str) -> None:
    """A child that dies without a word is reported with the end of its log, not of an older one."""
    (program.directory / "log").write_text("of an earlier run\n")
    result = program.run(f'print("its last word", flush=True)\n{work}')
    assert manner in result
    assert "ends with: its last word" in result
    assert "earlier" not in result


def test_child_dies_in_silence(program: Program) -> None:
    """Without last words the earlier log is not passed off as such."""
    (program.directory / "log").write_text("of an earlier run\n")
    assert "has nothing about it" in program.run("os._exit(5)")


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)]
)
def test_parent_is_ended(program: Program, number: signal.Signals, status: int) -> None:
    """A parent that is ended while it waits ends the child first, which can clean up."""
    with program.start("""
        try:
            note("begun")
            time.sleep(60)
        finally:
            note("cleaned")
    """) as process:
        program.noted("begun")
        process.send_signal(number)
        process.wait(PATIENCE)
    assert process.returncode == status
    assert program.noted("cleaned") == ""
    assert not is_running(program.child)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_parent_is_ended_as_it_forks(program: Program, number: signal.Signals) -> None:
    """A parent that is ended at the very moment of the fork leaves no child."""
    with program.start("time.sleep(60)", str(int(number))) as process:
        child = int(program.noted("forked"))
        process.wait(PATIENCE)
    assert not is_running(child)


def test_parent_is_killed(program: Program) -> None:
    """A child that is ready when nobody waits any more gives up."""
    with program.start(
        """
        note("begun")
        while os.getppid() == PARENT:
            time.sleep(0.01)
        try:
            ready()
        except MountFailed as exc:
            note("told", exc)
            raise
    """.replace("PARENT", "int((directory / 'parent').read_text())")
    ) as process:
        (program.directory / "parent").write_text(str(process.pid))
        program.noted("begun")
        process.kill()
    assert "is gone" in program.noted("told")
    wait_until(lambda: not is_running(program.child))


def test_sigterm_to_the_child(program: Program) -> None:
    """SIGTERM interrupts the child at once, so that it can clean up."""
    assert (
        program.run("""
        ready()
        try:
            note("begun")
            time.sleep(60)
        finally:
            note("cleaned")
    """)
        == "None"
    )
    program.noted("begun")
    os.kill(program.child, signal.SIGTERM)
    assert program.noted("cleaned") == ""


def test_log_is_private(program: Program) -> None:
    """The log is for its user alone."""
    assert program.run("ready()") == "None"
    assert (program.directory / "log").stat().st_mode & 0o077 == 0
