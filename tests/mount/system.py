"""A machine of its own as far as mount(8) sees: /sbin, /etc, /run and the home of root are private.

A mount namespace, held by a process that sleeps, with overlays on the directories that
administration writes into.  What is installed or mounted there is seen by nobody else, and goes
with the last process in it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from .mounting import Result, natsfs_command, run, wait_until

#: What other tests have mounted at that moment: a copy of it here would keep it alive.
_FOREIGN = ",".join(f"fuse.{kind}" for kind in ("natsfs", "rclone", "s3fs", "sshfs", "juicefs"))

#: $1 is an empty directory, $2 types of mounts to be rid of.  An overlay takes no directory of
#: another overlay for its upper one, so they lie on a tmpfs.
_SETUP = """
set -e
umount --all --lazy --internal-only --types "$2" || true
mount -t tmpfs tmpfs "$1"
for place in /usr/sbin /usr/local/share /etc /root; do
    mkdir -p "$1/up$place" "$1/work$place"
    mount -t overlay overlay -o "lowerdir=$place,upperdir=$1/up$place,workdir=$1/work$place" $place
done
mount -t tmpfs tmpfs /run
echo ready
exec sleep infinity
"""


class System:
    """Runs commands on the private machine, without any environment, as at boot."""

    def __init__(self, holder: int) -> None:
        self._holder = holder

    def inside(self, *command: str | Path, env: Mapping[str, str] | None = None) -> list[str]:
        """The argv that runs *command* there with *env* alone."""
        given = [f"{name}={value}" for name, value in (env or {}).items()]
        enter = ["nsenter", f"--mount=/proc/{self._holder}/ns/mnt"]
        return [*enter, "/usr/bin/env", "-i", *given, *map(str, command)]

    def run(self, *command: str | Path, env: Mapping[str, str] | None = None) -> Result:
        """Run *command* there to its end, from the root directory."""
        return run(self.inside(*command, env=env), cwd=Path("/"), timeout=60)

    def natsfs(self, *arguments: str | Path) -> Result:
        """Run a natsfs command there, that of this tree."""
        root = str(Path(__file__).parent.parent.parent)
        return self.run(*natsfs_command(*arguments), env={"PYTHONPATH": root})

    def fstab(self, *lines: str) -> None:
        """Make these lines its /etc/fstab."""
        text = "\n".join([*lines, ""])
        self.run("/bin/sh", "-c", 'printf %s "$1" >/etc/fstab', "sh", text).check()

    def mounted(self, directory: Path) -> list[str]:
        """Source, type and options of what is mounted on *directory* there; empty if nothing is."""
        shown = str(directory).replace(" ", "\\040")
        lines = Path(f"/proc/{self._holder}/mounts").read_text().splitlines()
        found = [line.split(" ") for line in lines if line.split(" ")[1] == shown]
        return [found[-1][0], found[-1][2], found[-1][3]] if found else []

    def pids(self) -> list[int]:
        """The daemons of its mounts."""
        answer = self.natsfs("status", "--json")
        return [one["pid"] for one in json.loads(answer.out or "[]") if "pid" in one]

    def log_text(self) -> str:
        """What all its mounts have logged."""
        return self.run("/bin/sh", "-c", "cat /root/.local/state/natsfs/log/*.log").out


@contextmanager
def new_system(place: Path) -> Iterator[System]:
    """A machine that ends with the block; *place* is an empty directory.

    Errors: `PermissionError`.
    """
    if os.geteuid() != 0:
        raise PermissionError("only root can make mount namespaces with overlays")
    command = ["unshare", "--mount", "--propagation", "private"]
    with subprocess.Popen(
        [*command, "sh", "-c", _SETUP, "sh", str(place), _FOREIGN],
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        try:
            assert holder.stdout.readline() == "ready\n"
            system = System(holder.pid)
            try:
                yield system
            finally:
                for pid in system.pids():
                    _end(pid)
        finally:
            holder.kill()


def _end(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not runs(pid), f"process {pid} ends")


def runs(pid: int) -> bool:
    """Whether *pid* runs and is not only waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False
