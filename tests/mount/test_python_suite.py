"""Python's own tests of its file functions, with their files on the mount and on a local disk.

A test may be skipped in both places for a reason that has nothing to do with them.  So the control
has to pass, the reasons of what is skipped are compared too, both directories have short names (a
socket's path has at most 107 bytes), and everything runs again as an ordinary user, because root
is refused nothing.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
    "test_dbm_dumb",
    "test_shelve",
    "test_sqlite3",
    "test_glob",
    "test_filecmp",
    "test_fcntl",
    "test_file",
    "test_fileinput",
    "test_genericpath",
    "test_posixpath",
    "test_stat",
    "test_unicode_file",
    "test_unicode_file_functions",
    "test_gzip",
    "test_bz2",
    "test_lzma",
    "test_zipapp",
    "test_zipimport",
    "test_py_compile",
    "test_compileall",
    "test_import",
    "test_runpy",
    "test_linecache",
)

#: Minutes for files of 2 to 6 GiB, which objects have no holes for, and of small reads and writes.
LONG_MODULES = ("test_mmap", "test_io", "test_largefile")

#: Seconds for one module: the slowest of `MODULES` took 60 on two busy cores.
TIMEOUT = 300.0
LONG_TIMEOUT = 1500.0

#: User and group of Debian's `nobody`: its name is looked up by some tests.
NOBODY = 65534

#: What fits into an ordinary test, and what it must not use: the network, a display, hours.
RESOURCES = "all,-network,-urlfetch,-gui,-cpu"

#: The part of the name of a test's file that is the number of its process, and so differs.
PID = re.compile(r"(?<=@test_)\d+")

#: Ends of names of tests that fail on the mount, with the promise that makes them.
DECIDED: Mapping[str, str] = {
    ".test_filetime": "M3: ctime is when the server stored what was written, which is after mtime"
}


@dataclass(frozen=True)
class Person:
    """Who runs the tests: *prefix* starts a command as that user."""

    uid: int
    prefix: tuple[str, ...] = ()


@functools.cache
def interpreter(module: str, prefix: tuple[str, ...]) -> str | None:
    """A Python that brings *module* and that *prefix* may run: on Debian the tests are a package
    of their own, and a Python in root's home is nobody's."""
    for python in (sys.executable, "/usr/bin/python3"):
        code = f"from importlib.util import find_spec; assert find_spec('test.{module}')"
        done = subprocess.run([*prefix, python, "-c", code], check=False, capture_output=True)
        if done.returncode == 0:
            return python
    return None


@pytest.fixture(params=["self", "nobody"])
def person(request: pytest.FixtureRequest) -> Person:
    """The user who runs pytest and, if that is root, an ordinary one too."""
    if request.param == "self":
        return Person(os.geteuid())
    if os.geteuid() != 0:
        pytest.skip("who runs this is an ordinary user already")
    ids = (f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    # setpriv itself still finds a program with root's rights; env does not.
    return Person(NOBODY, ("setpriv", *ids, "env"))


@pytest.fixture
def place(person: Person) -> Iterator[Path]:
    """A directory with a short name that *person* can reach and write.

    Ask for it before `mounter`, which then unmounts before it goes.
    """
    with tempfile.TemporaryDirectory(prefix="py-", dir="/tmp") as name:
        os.chown(name, person.uid, -1)
        yield Path(name)


def results(
    python: str,
    module: str,
    directory: Path,
    report: Path,
    person: Person,
    env: Mapping[str, str],
    timeout: float,
) -> dict[str, str]:
    """How each test of *module* ended whose files were below *directory*."""
    # PYTHONPATH leads to natsfs, which may be closed to *person*.
    env = {key: value for key, value in env.items() if key != "PYTHONPATH"}
    env |= {"HOME": str(report.parent), "TMPDIR": str(directory)}
    command: list[str | Path] = [*person.prefix, python, "-m", "test", "-u", RESOURCES]
    command += ["--tempdir", directory, "--junit-xml", report, module]
    done = run(command, cwd=directory, env=env, timeout=timeout)
    assert report.exists(), f"no test of {module} was run\n{done.out}\n{done.err}"
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        outcomes = [
            f"{child.tag}: {PID.sub('', child.text or '')}" if child.tag == "skipped" else child.tag
            for child in case
            if child.tag in ("failure", "error", "skipped")
        ]
        found[case.attrib["name"]] = " ".join(outcomes) or case.attrib.get("result", "")
    return found


def _compare(
    module: str,
    mounter: Mounter,
    place: Path,
    person: Person,
    env: Mapping[str, str],
    timeout: float,
) -> None:
    python = interpreter(module, person.prefix)
    if python is None:
        reason = f"no Python here has test.{module}: install libpython3.11-testsuite"
        if required("python-tests"):
            pytest.fail(reason)
        pytest.skip(reason)
    local, mounted = place / "a", place / "b"
    for directory in (local, mounted):
        directory.mkdir()
        os.chown(directory, person.uid, -1)
    owner = ("-o", f"uid={person.uid}", "--allow-other")
    mounter(*owner, directory=mounted, life=timeout + 60)
    found = {
        directory: results(
            python, module, directory, place / f"{directory.name}.xml", person, env, timeout
        )
        for directory in (local, mounted)
    }
    assert _differing(found[local], found[mounted]) == {}
    assert "completed" in found[local].values()
    assert not {name for name, end in found[local].items() if end in ("failure", "error")}
    assert os.listdir(mounted) == os.listdir(local)


def _differing(
    expected: Mapping[str, str], found: Mapping[str, str]
) -> dict[str, tuple[str | None, str | None]]:
    return {
        name: (expected.get(name), found.get(name))
        for name in {*expected, *found}
        if expected.get(name) != found.get(name) and not name.endswith(tuple(DECIDED))
    }


@pytest.mark.timeout(2 * TIMEOUT + 60)
@pytest.mark.parametrize("module", MODULES)
def test_python_suite(
    place: Path, mounter: Mounter, person: Person, environment: dict[str, str], module: str
) -> None:
    """W3: every test of the module ends on the mount as it ends on a local file system."""
    _compare(module, mounter, place, person, environment, TIMEOUT)


@pytest.mark.timeout(2 * LONG_TIMEOUT + 60)
@pytest.mark.parametrize("module", LONG_MODULES)
def test_long_python_suite(
    place: Path, mounter: Mounter, person: Person, environment: dict[str, str], module: str
) -> None:
    """W3: and so do the modules that take minutes."""
    _compare(module, mounter, place, person, environment, LONG_TIMEOUT)
