"""What the doctor says of hosts that no test can have."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from natsfs.cli import mountpoint
from natsfs.cli.doctor import host
from natsfs.cli.doctor.findings import Finding, State
from natsfs.cli.doctor.server import version_finding


def of(check: str, cache: Path) -> Finding:
    found = host.host_findings(cache, cache / "run")
    return next(finding for finding in found if finding.check == check)


def test_no_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """E: without FUSE nothing can be mounted; the advice is for hosts and containers."""
    monkeypatch.setattr(mountpoint, "FUSE_DEVICE", tmp_path / "fuse")
    found = of(str(tmp_path / "fuse"), tmp_path)
    assert found.state is State.PROBLEM
    assert "cannot be opened" in found.text
    assert "modprobe fuse" in found.advice


@pytest.mark.parametrize(
    ("user", "settings", "state"),
    [(0, "", State.OK), (1000, "user_allow_other\n", State.OK), (1000, "#", State.WARNING)],
)
def test_allow_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: int, settings: str, state: State
) -> None:
    """E: users need a line in fuse.conf to let others in, root does not."""
    (tmp_path / "fuse.conf").write_text(settings)
    monkeypatch.setattr(mountpoint, "FUSE_CONF", tmp_path / "fuse.conf")
    monkeypatch.setattr(os, "geteuid", lambda: user)
    found = host._allow_other()
    assert found.state is state
    if state is State.WARNING:
        assert str(tmp_path / "fuse.conf") in found.advice


@pytest.mark.parametrize(("user", "state"), [(0, State.OK), (1000, State.PROBLEM)])
def test_fusermount(monkeypatch: pytest.MonkeyPatch, user: int, state: State) -> None:
    """E: users cannot mount without fusermount3, root can."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert host._fusermount().state is state


@pytest.mark.parametrize(
    ("free", "state"), [(20, State.OK), (8, State.WARNING), (4, State.PROBLEM)]
)
def test_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, state: State) -> None:
    """R4: the cache leaves 5 % of its disk free, and the doctor says when that is near."""
    usage = type("Usage", (), {"total": 100, "free": free})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert host._space(tmp_path / "not" / "there").state is state


@pytest.mark.parametrize(
    ("version", "state", "lacks"),
    [
        ((2, 12, 0), State.OK, []),
        ((2, 11, 4), State.WARNING, ["atomic batches"]),
        ((2, 10, 29), State.WARNING, ["atomic batches", "batched direct get", "message TTLs"]),
        ((2, 9, 10), State.WARNING, ["compression"]),
        ((2, 9, 9), State.PROBLEM, []),
    ],
)
def test_versions(version: tuple[int, int, int], state: State, lacks: list[str]) -> None:
    """E: what each server lacks."""
    found = version_finding(version)
    assert found.state is state
    assert ".".join(map(str, version)) in found.text
    for word in lacks:
        assert word in found.text
