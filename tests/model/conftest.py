"""Fixtures of the model: those of the mount tests, and the two sides."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
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

#: Seconds until a mount is aborted: 20,000 operations took 25 minutes on two busy cores.
LIFE = 3600.0


@pytest.fixture
def bucket() -> str:
    """A bucket that the mount is to create, because only those exchange names (A2)."""
    return f"b-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def mount(mounter: Mounter, nats_url: str, bucket: str) -> Mount:  # noqa: F811
    """The test's bucket, mounted for as long as the longest run takes."""
    mount = mounter("--create", source=f"{nats_url}/{bucket}", life=LIFE)
    mount.expect_trouble("version .* was purged")
    return mount


@pytest.fixture
def comparison(
    mount: Mount,
    nats_url: str,  # noqa: F811
    bucket: str,
    tmp_path: Path,
) -> Iterator[Comparison]:
    """A local directory and the mount, with nats-py as the foreign client."""
    reference = tmp_path / "reference"
    reference.mkdir()
    with (
        NatsPy(nats_url, bucket) as foreign,
        comparing(reference, mount.directory, foreign, mount.abort) as sides,
    ):
        yield sides
