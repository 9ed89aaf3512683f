"""Fixtures of the tests with faults: those of the mounts, and a proxy in front of the server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from natsfs.server import Server, start_server
from tests.faults.proxy import Proxy
from tests.mount.conftest import (  # noqa: F401  (fixtures)
    Mounter,
    bucket,
    environment,
    mounter,
    nats_url,
    py,
    pytest_configure,
    pytest_runtest_setup,
)
from tests.mount.mounting import LIFE, Mount

#: Mounts the test's bucket through the proxy, with options for the command line.
ThroughProxy = Callable[..., Mount]


@pytest.fixture
def proxy(nats_server: Server) -> Iterator[Proxy]:
    """Between the mounts of `proxied` and the server."""
    with closing(Proxy(nats_server.port)) as proxy:
        yield proxy


@pytest.fixture
def proxied(proxy: Proxy, mounter: Mounter, bucket: str) -> Iterator[ThroughProxy]:  # noqa: F811
    """A function that mounts the test's bucket through the proxy, which hands everything on again
    when the test ends."""
    with ExitStack() as stack:
        stack.callback(proxy.go_on)
        yield lambda *options, life=LIFE: mounter(
            *options, source=f"{proxy.url}/{bucket}", life=life
        )


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A server that the test may kill."""
    server = start_server(tmp_path / "own-server")
    yield server
    server.stop()
