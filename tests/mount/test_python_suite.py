"""Python's own tests of its file functions, with their files on the mount and on a local disk."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import pytest

from .conftest import Mounter, required
from .mounting import run

pytestmark = [pytest.mark.mount, pytest.mark.nightly]

MODULES = (
    "test_os",
    "test_posix",
    "test_shutil",
    "test_pathlib",
    "test_tempfile",
    "test_zipfile",
    "test_tarfile",
    "test_fileio",
    "test_mailbox",
    "test_dbm",
    "test_sqlite3",
    "test_glob",
    "test_filecmp",
    "test_fcntl",
)

#: Minutes for files of 2 to 6 GiB, which objects have no holes for, and of small reads and writes.
LONG_MODULES = ("test_mmap", "test_io")

#: Seconds for one module: the slowest of `MODULES` took 30 on two busy cores.
TIMEOUT = 200.0
LONG_TIMEOUT = 1500.0


@functools.cache
def interpreters(module: str) -> tuple[str, ...]:
    """The Pythons here that bring *module*: Debian has most of them in a package of their own."""
    found = []
    for python in (sys.executable, "/usr/bin/python3"):
        code = f"from importlib.util import find_spec; assert find_spec('test.{module}')"
        done = subprocess.run([python, "-c", code], check=False, capture_output=True)
        if done.returncode == 0:
            found.append(python)
    return tuple(found)


def results(
    module: str, directory: Path, report: Path, env: Mapping[str, str], timeout: float
) -> dict[str, str]:
    """How each test of *module* ended whose files were below *directory*."""
    command: list[str | Path] = [
        *(interpreters(module)[0], "-m", "test", "--tempdir", directory, "--junit-xml", report),
        *("-u", "all,-network,-urlfetch,-largefile,-gui,-cpu", module),
    ]
    run(command, cwd=directory, env={**env, "TMPDIR": str(directory)}, timeout=timeout)
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        outcomes = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        found[case.attrib["name"]] = " ".join(outcomes) or case.attrib.get("result", "")
    return found


def _compare(
    module: str, mounter: Mounter, tmp_path: Path, env: Mapping[str, str], timeout: float
) -> None:
    if not interpreters(module):
        reason = f"no Python here has test.{module}: install libpython3.11-testsuite"
        if required("python-tests"):
            pytest.fail(reason)
        pytest.skip(reason)
    local = tmp_path / "local"
    local.mkdir()
    mounted = mounter(life=timeout + 60).directory
    expected = results(module, local, tmp_path / "local.xml", env, timeout)
    found = results(module, mounted, tmp_path / "mount.xml", env, timeout)
    assert len(expected) > 0
    differing = {
        name: (expected.get(name), found.get(name))
        for name in {*expected, *found}
        if expected.get(name) != found.get(name)
    }
    assert not differing


@pytest.mark.timeout(2 * TIMEOUT + 60)
@pytest.mark.parametrize("module", MODULES)
def test_python_suite(
    mounter: Mounter, tmp_path: Path, environment: dict[str, str], module: str
) -> None:
    """W3: every test of the module ends on the mount as it ends on a local file system."""
    _compare(module, mounter, tmp_path, environment, TIMEOUT)


@pytest.mark.nightly
@pytest.mark.timeout(2 * LONG_TIMEOUT + 60)
@pytest.mark.parametrize("module", LONG_MODULES)
def test_long_python_suite(
    mounter: Mounter, tmp_path: Path, environment: dict[str, str], module: str
) -> None:
    """W3: and so do the modules that take minutes."""
    _compare(module, mounter, tmp_path, environment, LONG_TIMEOUT)
