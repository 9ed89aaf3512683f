"""What every test has: async test functions, a private nats-server, and a guard on the log."""

from __future__ import annotations

import inspect
import logging
import re
import signal
import subprocess
from collections.abc import Generator, Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from natsfs.server import Server, start_server
from tests.in_trio import run

# How long an example takes on a shared machine says nothing about the code under test.
settings.register_profile(
    "natsfs",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("natsfs")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Any test against any server."""
    parser.addoption(
        "--server", type=Path, metavar="PATH", help="the nats-server program to test with"
    )


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts its background jobs, which the tests may be, with SIGINT ignored, and so would
    # be all programs that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line(
        "markers",
        "expects_log(pattern): the test must log a warning or worse that the pattern is found in",
    )
    config.addinivalue_line(
        "markers", "since(version): needs a feature of a server of this version, (2, 11) for 2.11"
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    """What a server chosen with --server is too old for is skipped, knowingly."""
    binary = item.config.getoption("--server")
    wanted = [mark.args[0] for mark in item.iter_markers("since")]
    # The tests of the in-memory store have no server.
    if binary and wanted and "memory" not in item.name and version_of(binary) < max(wanted):
        pytest.skip(f"{binary} is older than {max(wanted)}")


@cache
def version_of(binary: Path) -> tuple[int, ...]:
    """The version that a nats-server program says it is."""
    told = subprocess.run([binary, "--version"], check=True, capture_output=True, text=True).stdout
    return tuple(map(int, told.rpartition("v")[2].split(".")[:2]))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Async test functions run in trio."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    wanted = inspect.signature(pyfuncitem.obj).parameters
    run(pyfuncitem.obj, {name: pyfuncitem.funcargs[name] for name in wanted})
    return True


class _Collector(logging.Handler):
    """Keeps the messages of warnings and worse."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(f"{record.levelname} {record.name}: {record.getMessage()}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """A test fails when it logs a warning that it does not expect, or not one that it does."""
    collector = _Collector()
    logging.getLogger().addHandler(collector)
    try:
        result = yield
    finally:
        logging.getLogger().removeHandler(collector)
    patterns = [mark.args[0] for mark in item.iter_markers("expects_log")]
    surprising = [
        message
        for message in collector.messages
        if not any(re.search(pattern, message) for pattern in patterns)
    ]
    absent = [
        pattern
        for pattern in patterns
        if not any(re.search(pattern, message) for message in collector.messages)
    ]
    if surprising or absent:
        pytest.fail(f"logged unexpectedly: {surprising}; expected in vain: {absent}", pytrace=False)
    return result


@pytest.fixture(scope="session")
def nats_server(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[Server]:
    """A nats-server with JetStream for this worker process alone: tests share it, not their
    buckets."""
    binary = pytestconfig.getoption("--server")
    server = start_server(tmp_path_factory.mktemp("nats"), binary=binary)
    yield server
    server.stop()
