"""Fixtures of the mount tests: a server, buckets, mounts, and a local directory beside them.

Everything that a test starts ends with it, and each test has its own bucket, cache and home.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from natsfs.server import Server

from .differential import Worlds
from .foreign import ForeignClient, go_client, js_client, py_client
from .mounting import LIFE, SETTLE, Mount, private_environment
from .trees import Pair, make_tree

#: Makes a mount of a bucket or a SOURCE, with options for the command line.
Mounter = Callable[..., Mount]


def pytest_configure(config: pytest.Config) -> None:
    """Name the markers of this directory."""
    config.addinivalue_line("markers", "mount: needs /dev/fuse and the right to mount")
    config.addinivalue_line("markers", "clients: needs Go or JavaScript clients of NATS")
    config.addinivalue_line("markers", "slow: takes more than half a minute")


def required(what: str) -> bool:
    """Whether NATSFS_REQUIRE forbids to skip tests for the want of *what*."""
    return what in os.environ.get("NATSFS_REQUIRE", "").split(",")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests of mounts where nothing can be mounted, or fail where that must not be."""
    if item.get_closest_marker("mount") is None or Path("/dev/fuse").exists():
        return
    reason = "/dev/fuse is missing: load the fuse module, or give the container the device"
    if required("mount"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def nats_url(nats_server: Server) -> str:
    """Where clients connect."""
    return nats_server.url


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of every natsfs process and every tool of the test."""
    return private_environment(tmp_path / "private")


@pytest.fixture
def bucket(nats_url: str, environment: dict[str, str]) -> str:
    """The name of an empty bucket of the test's own."""
    name = f"b-{uuid.uuid4().hex[:12]}"
    py_client(nats_url, environment).of(name).create()
    return name


@pytest.fixture
def mounter(
    nats_url: str, bucket: str, tmp_path: Path, environment: dict[str, str]
) -> Iterator[Mounter]:
    """A function that mounts: the test's bucket, or *source*, at *directory* or one of its own.

    What is still mounted when the test ends is unmounted and judged.
    """
    with ExitStack() as mounts:

        def start(
            *options: str,
            source: str = "",
            directory: Path | None = None,
            life: float = LIFE,
            patience: float = SETTLE,
            inside: Sequence[str] = (),
        ) -> Mount:
            number = len(list(tmp_path.glob("mount-*.log")))
            if directory is None:
                directory = tmp_path / f"mnt-{number}"
                directory.mkdir()
            mount = Mount(
                source or f"{nats_url}/{bucket}",
                directory,
                *options,
                env=environment,
                log=tmp_path / f"mount-{number}.log",
                life=life,
                patience=patience,
                inside=inside,
            )
            return mounts.enter_context(mount)

        yield start


def life_of(request: pytest.FixtureRequest) -> float:
    """Seconds that the mount of a test may last."""
    return 3500.0 if request.node.get_closest_marker("nightly") else LIFE


@pytest.fixture
def mount(mounter: Mounter, request: pytest.FixtureRequest) -> Mount:
    """The test's bucket, mounted."""
    return mounter(life=life_of(request))


@pytest.fixture
def mountpoint(mount: Mount) -> Path:
    """The directory of `mount`."""
    return mount.directory


@pytest.fixture
def pair(mount: Mount, tmp_path: Path, environment: dict[str, str]) -> Pair:
    """A local directory and the mount."""
    reference = tmp_path / "reference"
    reference.mkdir()
    return Pair(reference, mount.directory, environment)


@pytest.fixture(params=["local", "mount"])
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An empty directory: on a local file system as the control, and a mount's root."""
    if request.param == "mount":
        if not Path("/dev/fuse").exists() and not required("mount"):
            pytest.skip("/dev/fuse is missing")
        mounted: Path = request.getfixturevalue("mountpoint")
        return mounted
    local = tmp_path / "local"
    local.mkdir()
    return local


@pytest.fixture(scope="session")
def source_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree that the tools copy.  Nobody changes it."""
    directory = tmp_path_factory.mktemp("source") / "tree"
    directory.mkdir()
    make_tree(directory)
    return directory


@pytest.fixture
def py(nats_url: str, bucket: str, environment: dict[str, str]) -> ForeignClient:
    """nats-py on the test's bucket."""
    return py_client(nats_url, environment).of(bucket)


@pytest.fixture(params=["nats-py", "nats.go", "nats.js"])
def foreign(
    request: pytest.FixtureRequest, nats_url: str, bucket: str, environment: dict[str, str]
) -> ForeignClient:
    """Each of the other clients on the test's bucket."""
    makers = {"nats-py": py_client, "nats.go": go_client, "nats.js": js_client}
    try:
        return makers[request.param](nats_url, environment).of(bucket)
    except FileNotFoundError as missing:
        reason = f"{missing}: install it, or NATSFS_REQUIRE says that it is not needed"
        if required("clients"):
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture
def worlds(
    request: pytest.FixtureRequest, mounter: Mounter, nats_url: str, tmp_path: Path
) -> Worlds:
    """A local directory and a mount for everybody, of a bucket that natsfs made: only those have
    atomic batches (A2)."""
    life = life_of(request)
    local = tmp_path / "local"
    local.mkdir()
    source = f"{nats_url}/b-{uuid.uuid4().hex[:12]}"
    mount = mounter("--create", "--allow-other", source=source, life=life)
    return Worlds(local, mount.directory)
