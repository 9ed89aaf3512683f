"""The scripts under scripts/examples do what they say."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from .conftest import required
from .mounting import natsfs_command, run
from .system import new_system

pytestmark = [pytest.mark.mount, pytest.mark.server, pytest.mark.timeout(120)]

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "scripts" / "examples"

#: What each needs on this host, and the last line that it prints.
SCRIPTS = {
    "share-models": ((), "done: three readers have the same model, and none may change it"),
    "build-cache": (("gcc", "ccache"), "machine 2 took 3 results from the bucket"),
    "web-root": (("nginx", "curl"), "done: pages, a replaced page, a large file and a range of it"),
}


def needs(*programs: str) -> None:
    """Skip the test where a program is missing, or fail where nothing may be skipped."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    missing = [name for name in programs if shutil.which(name, path=path) is None]
    if missing and required("mount"):
        pytest.fail(f"not installed: {', '.join(missing)}")
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


def test_every_example_is_tested() -> None:
    """No example is shipped untried."""
    scripts = {path.name for path in EXAMPLES.iterdir() if os.access(path, os.X_OK)}
    assert scripts == {*SCRIPTS, "backup"}


@pytest.mark.parametrize("name", SCRIPTS)
def test_example(name: str, environment: dict[str, str]) -> None:
    """The example runs with a server of its own, and leaves nothing mounted."""
    with TemporaryDirectory(prefix="natsfs-") as place:
        # The workers of nginx are another user, who cannot enter the directory of a test.
        os.chmod(place, 0o755)
        run_example(name, environment, Path(place))


def run_example(name: str, environment: dict[str, str], place: Path) -> None:
    programs, last = SCRIPTS[name]
    needs(*programs)
    environment |= {"NATSFS": shlex.join(natsfs_command()), "TMPDIR": str(place)}
    result = run([str(EXAMPLES / name)], env=environment, cwd=Path("/"))
    assert result.check().splitlines()[-1] == last
    assert result.err == ""
    assert str(place) not in Path("/proc/self/mountinfo").read_text()
    assert list(place.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a machine of its own")
def test_backup(nats_url: str, tmp_path: Path, environment: dict[str, str]) -> None:
    """The backup runs by the line of fstab that it adds, and copies what has changed."""
    needs("rsync")
    place = tmp_path / "system"
    place.mkdir()
    with new_system(place) as system:
        system.natsfs("install-helper").check()
        system.fstab("# nothing yet")
        path = {"PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"}
        # /mnt is in nobody's way on a machine of one's own.
        system.run("/bin/mount", "-t", "tmpfs", "tmpfs", "/mnt").check()
        text = system.run(EXAMPLES / "backup", nats_url, env=path).check()
        first, second = text.split("the second one copies what has changed:\n")
        assert set(re.findall(r"^\S+ (\S+)", first, re.MULTILINE)) >= {"file", "sub/other", "link"}
        assert re.findall(r"^>\S+ (\S+)", second, re.MULTILINE) == ["file"]
        assert re.findall(r"^\*deleting +(\S+)", second, re.MULTILINE) == ["sub/other"]
        assert text.endswith("nothing differs: yes\n")
        assert system.pids() == []
