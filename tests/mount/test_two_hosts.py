"""Two hosts with a mount each and a server between them; a cable is pulled."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from natsfs.server import start_server

from .coherence import Drive, Lookout, MountMaker
from .conftest import Mounter, required
from .facts import Facts, look
from .hosts import Host, new_host
from .mounting import Mount
from .random_changes import RandomChanges

pytestmark = [pytest.mark.mount, pytest.mark.timeout(180)]

#: Changes without a cut.
CHANGES = 150

#: Changes during each cut.
CUT_CHANGES = 6

#: Seconds of the cuts: one over which the connection lives on, and one after which the watch is
#: given up and made again.
CUTS = (1.5, 7.0)

#: Seconds in which everything that a mount has seen is served without a server.
AT_ONCE = 5.0


@dataclass(frozen=True)
class Scene:
    """The mounts of both hosts, the host of the second, and what drives the first."""

    far: Host
    second: Mount
    drive: Drive


@pytest.fixture
def scene(mounter: Mounter, tmp_path: Path, environment: dict[str, str]) -> Iterator[Scene]:
    """Two hosts and a server that both of them reach."""
    if reason := unfit():
        if required("hosts"):
            pytest.fail(reason)
        pytest.skip(reason)
    chance = random.Random(time.time_ns())
    reference = tmp_path / "reference"
    reference.mkdir()
    with ExitStack() as stack:
        near, far = (stack.enter_context(new_host()) for _ in range(2))
        server = start_server(tmp_path / "server", extra_config='listen: "0.0.0.0:-1"')
        stack.callback(server.stop)
        first, second = (
            stack.enter_context(
                unmounted_first(
                    mounter(
                        "--create",
                        source=f"nats://{host.here}:{server.port}/shared",
                        inside=host.inside,
                    )
                )
            )
            for host in (near, far)
        )
        lookout = stack.enter_context(Lookout(second.directory, environment))
        changes = RandomChanges(reference, chance)
        yield Scene(
            far, second, Drive(changes, MountMaker(first.directory, chance), lookout, chance)
        )


@contextmanager
def unmounted_first(mount: Mount) -> Iterator[Mount]:
    """*mount*, which ends before its server does."""
    yield mount
    mount.stop()


def unfit() -> str:
    """Why there can be no hosts here; empty if there can."""
    if any(shutil.which(program) is None for program in ("ip", "nsenter")):
        return "ip or nsenter is missing: install iproute2 and util-linux"
    try:
        with new_host():
            return ""
    except Exception as error:
        return f"no network namespaces: {error}"


def test_no_stale_answer_between_hosts(
    scene: Scene, record_property: Callable[[str, object], None]
) -> None:
    """A1: changes on one host; the other one is not stale at any barrier.

    A5: names, attributes and cached bytes are served while the cable is out; once it is in again,
    nothing is stale at the barrier, without a remount, and the tree goes on being right.
    """
    scene.second.expect_trouble("lost the connection")
    latencies = scene.drive.run(lambda done: done < CHANGES)
    record_property("visible after ms", latencies)
    print("visible after ms", latencies)
    for seconds in CUTS:
        scene.drive.round(CUT_CHANGES, cut(scene, seconds, scene.drive.facts()))
        scene.drive.run(lambda done: done < CUT_CHANGES * 5)


@contextmanager
def cut(scene: Scene, seconds: float, before: Facts) -> Iterator[None]:
    """The cable is out for this long, and the second mount goes on to serve *before*."""
    ends = time.monotonic() + seconds
    with scene.far.cut_off():
        yield
        serves(scene.second.directory, before)
        time.sleep(max(0.0, ends - time.monotonic()))  # how long the cut is, is what is tried


def serves(directory: Path, facts: Facts) -> None:
    """All *facts* are told at once."""
    began = time.monotonic()
    told = {path: look(directory, path) for path in facts}
    assert told == facts
    os.statvfs(directory)
    assert time.monotonic() - began < AT_ONCE
