"""The benchmark runs from its command to its table; how fast anything is, is not tested."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .mounting import PACKAGE_ROOT, private_environment, run, wait_until

pytestmark = [pytest.mark.mount, pytest.mark.server]


def _command(directory: Path, *arguments: str) -> list[str]:
    own = ("--dir", str(directory), "--quick", "--runs", "1", "--peers", "")
    return [sys.executable, "-m", "benchmarks", *own, *arguments]


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """An environment in which the benchmark is found as `scripts/bench` runs it."""
    paths = os.pathsep.join(map(str, (PACKAGE_ROOT, PACKAGE_ROOT / "scripts")))
    return {**private_environment(tmp_path / "private"), "PYTHONPATH": paths}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where the benchmark keeps its files; nothing may be left there."""
    made = tmp_path / "files"
    made.mkdir()
    return made


def test_measures_each_contestant_and_leaves_nothing(
    directory: Path, env: dict[str, str], tmp_path: Path
) -> None:
    """Two small workloads end in a table and in JSON with a value for each side."""
    found = tmp_path / "found.json"
    command = _command(directory, "--only", "small,stat", "--json", str(found))
    table = run(command, env=env).check()
    for text in ("small: create", "stat: stat", "natsfs", "ext4", "≥ 0.9"):
        assert text in table
    rows = {(row["workload"], row["figure"]): row for row in json.loads(found.read_text())["rows"]}
    names = ("create", "stat", "read", "rename", "unlink")
    spent = {f"{name}, processor time" for name in names}
    stored = rows["small", "create, until stored"]["contestants"]
    assert {each["name"] for each in stored} == {"natsfs", "natsfs writeback"}
    others = {"mv of the directory", "create, until stored"}
    assert {name for _, name in rows} == {*names, *spent, *others}
    for name in names:
        found_by = {each["name"]: each for each in rows["small", name]["contestants"]}
        plain = set() if name == "stat" else {"plain socket"}
        assert set(found_by) == {"natsfs", "natsfs writeback", "ext4"} | plain
        assert all(len(each["values"]) == 1 and each["median"] > 0 for each in found_by.values())
    known = rows["stat", "stat"]
    assert [each["name"] for each in known["contestants"]] == ["natsfs", "ext4"]
    assert known["targets"][0]["bound"] == "≥ 0.9"
    assert list(directory.iterdir()) == []


def test_an_interrupted_run_unmounts_and_removes_everything(
    directory: Path, env: dict[str, str]
) -> None:
    """SIGINT while a file system is mounted: it is gone, and so are the files."""

    def mounted() -> bool:
        return str(directory) in Path("/proc/self/mountinfo").read_text()

    with subprocess.Popen(
        _command(directory, "--only", "small", "--runs", "1000"),
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            wait_until(mounted, "the benchmark has mounted something")
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 1
    assert "interrupted" in errors
    assert not mounted()
    assert list(directory.iterdir()) == []
