"""Fixtures of the model: those of the mount tests, and the two sides."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.model.comparison import Comparison, comparing
from tests.model.foreign import NatsPy
from tests.mount.conftest import (  # noqa: F401  (fixtures are found by their names)
    Mounter,
    environment,
    mounter,
    nats_url,
)
from tests.mount.mounting import Mount

#: Seconds until a mount is aborted: 20,000 operations took 4 minutes on two busy cores, with two
#: mounts in turn 6, and may take longer on busier ones.
LIFE = 3600.0


@pytest.fixture
def bucket() -> str:
    """A bucket that the mount is to create, because only those exchange names (A2)."""
    return f"b-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def options() -> tuple[str, ...]:
    """Further options of the mounts."""
    return ()


@pytest.fixture
def model_mounter(
    mounter: Mounter,  # noqa: F811
    nats_url: str,  # noqa: F811
    bucket: str,
    options: tuple[str, ...],
) -> Callable[[], Mount]:
    """A function that mounts the test's bucket for as long as the longest run takes."""

    def start() -> Mount:
        mount = mounter("--create", *options, source=f"{nats_url}/{bucket}", life=LIFE)
        mount.expect_trouble("version .* was purged")
        return mount

    return start


@pytest.fixture
def mount(model_mounter: Callable[[], Mount]) -> Mount:
    """The test's bucket, mounted."""
    return model_mounter()


@pytest.fixture
def second_mount(mount: Mount, model_mounter: Callable[[], Mount]) -> Mount:
    """The same bucket on another directory, by a daemon of its own."""
    return model_mounter()


@pytest.fixture
def foreign(nats_url: str, bucket: str, mount: Mount) -> Iterator[NatsPy]:  # noqa: F811
    """nats-py as another client of the bucket."""
    with NatsPy(nats_url, bucket) as client:
        yield client


@pytest.fixture
def comparison(mount: Mount, foreign: NatsPy, tmp_path: Path) -> Iterator[Comparison]:
    """A local directory and the mount."""
    with comparing(_reference(tmp_path), [mount], foreign) as sides:
        yield sides


@pytest.fixture
def wide_comparison(
    mount: Mount, second_mount: Mount, foreign: NatsPy, tmp_path: Path
) -> Iterator[Comparison]:
    """A local directory and two mounts."""
    with comparing(_reference(tmp_path), [mount, second_mount], foreign) as sides:
        yield sides


def _reference(tmp_path: Path) -> Path:
    reference = tmp_path / "reference"
    reference.mkdir()
    return reference
