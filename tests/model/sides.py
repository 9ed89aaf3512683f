"""Where operations run: a child process for each directory."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.mount.mounting import PACKAGE_ROOT

#: One operation: its name and its arguments, see `actions`.
Operation = tuple[Any, ...]

#: Seconds that one operation may take before it counts as a hang.
DEADLINE = 30.0

#: CLOCK_REALTIME_COARSE, by which Linux stamps files and which `time` has no name for.
_COARSE_CLOCK = 5


class Difference(AssertionError):
    """The mount and the reference do not agree after *operations*."""

    def __init__(self, text: str, operations: Sequence[Operation] = ()) -> None:
        super().__init__(text)
        self.operations = list(operations)


class Side:
    """A child process that acts in one directory."""

    def __init__(self, directory: Path, on_hang: Callable[[], None]) -> None:
        self.directory = directory
        self._on_hang = on_hang
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.model.runner", directory],
            cwd=PACKAGE_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def send(self, operation: Operation, since_ns: int) -> None:
        """Begin *operation*.  What the clock set from *since_ns* on has moved since a look."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([since_ns, operation]).encode() + b"\n")
        self._process.stdin.flush()

    def receive(self, operation: Operation) -> Any:
        """The result of *operation*, which was sent.  Errors: `Difference` when none comes."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], DEADLINE)[0]:
            self._on_hang()
            raise Difference(f"{operation} hangs in {self.directory}")
        line = self._process.stdout.readline()
        if not line:
            raise Difference(f"{operation} ends the process in {self.directory}")
        return json.loads(line)

    def act(self, operation: Operation, since_ns: int) -> Any:
        """Both of it."""
        self.send(operation, since_ns)
        return self.receive(operation)

    def close(self) -> None:
        """End the process, which closes what it has open."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self._on_hang()
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def next_tick_ns() -> int:
    """Wait until the clock goes on by which files are stamped: what was stamped before is older
    than the time that is returned, and what is stamped from now on is not.

    The server stamps by the finer clock, behind which this one is by more than a tick where a host
    delays interrupts.
    """
    now = time.time_ns()
    while (tick := time.clock_gettime_ns(_COARSE_CLOCK)) <= now:
        time.sleep(0.0005)
    return tick
