"""What is published works where nothing else of this project is: the sdist, the wheel from it, an
empty environment.  Needs the package index."""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from .mounting import run

pytestmark = [
    pytest.mark.mount,
    pytest.mark.server,
    pytest.mark.slow,
    pytest.mark.nightly,
    pytest.mark.timeout(900),
]

ROOT = Path(__file__).parent.parent.parent


def tracked() -> set[str]:
    """The files that git has."""
    listed = run(["git", "-C", str(ROOT), "ls-files", "-z"]).check()
    return {name for name in listed.split("\0") if name and not name.startswith(".ci/")}


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the sdist of this tree and the wheel that was built from the sdist."""
    place = tmp_path_factory.mktemp("dist")
    clone, builder = place / "clone", place / "builder"
    # A clone: building leaves things in the tree.
    run(["git", "clone", "-q", str(ROOT), str(clone)]).check()
    for name in tracked():
        if (ROOT / name).exists():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, clone / name)
    run([sys.executable, "-m", "venv", str(builder)], timeout=300).check()
    python = str(builder / "bin" / "python")
    run([python, "-m", "pip", "install", "-q", "build"], timeout=300).check()
    run([python, "-m", "build", "-o", str(place), str(clone)], timeout=600).check()
    return place


def test_sdist(artefacts: Path) -> None:
    """The sdist has every file of the repository."""
    (path,) = artefacts.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {member.name.partition("/")[2] for member in archive if not member.isdir()}
        executable = {
            member.name.partition("/")[2] for member in archive.getmembers() if member.mode & 0o100
        }
    assert tracked() - names == set()
    assert {"scripts/demo", "scripts/test", "scripts/examples/backup"} <= executable


def test_wheel(artefacts: Path) -> None:
    """The wheel says for which Pythons it is, has type information, the examples and the manual,
    and nothing but the package."""
    (path,) = artefacts.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        (metadata,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        about = Parser().parsestr(archive.read(metadata).decode())
    assert {"natsfs/py.typed", "natsfs/examples/fstab", "natsfs/examples/natsfs@.service"} <= set(
        names
    )
    about_it = metadata.partition("/")[0]
    data = about_it.replace(".dist-info", ".data")
    assert {name.partition("/")[0] for name in names} == {"natsfs", about_it, data}
    assert {"natsfs/manual/semantics.md", f"{data}/data/share/man/man1/natsfs.1"} <= set(names)
    assert about["Requires-Python"] == ">=3.11"
    pythons = {f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)}
    assert pythons <= set(about.get_all("Classifier") or [])
    assert set(about.get_all("Provides-Extra") or []) >= {"server", "test"}


def test_install(artefacts: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    """`pip install natsfs[server]` into an empty environment is all that a mount needs."""
    (wheel,) = artefacts.glob("*.whl")
    venv, directory = tmp_path / "venv", tmp_path / "mnt"
    run([sys.executable, "-m", "venv", str(venv)], timeout=300).check()
    pip = [str(venv / "bin" / "pip"), "install", "-q"]
    run([*pip, f"{wheel}[server]", "mypy"], timeout=600).check()
    # Nothing of this tree is found.
    environment = {name: value for name, value in environment.items() if name != "PYTHONPATH"}
    natsfs = str(venv / "bin" / "natsfs")
    directory.mkdir()

    def call(*command: str | Path) -> str:
        return run([str(word) for word in command], env=environment, cwd=tmp_path).check()

    call(natsfs, "mount", "demo", directory, "--create", "--embedded")
    try:
        (directory / "file").write_bytes(b"bytes")
        assert "file" in call(natsfs, "ls", directory)
    finally:
        call(natsfs, "umount", directory)
    (tmp_path / "user.py").write_text(
        "import natsfs.config\nreveal_type(natsfs.config.DEFAULT_SERVER)\n"
    )
    assert '"str"' in call(venv / "bin" / "mypy", "--strict", "user.py")
    assert "# What a mount promises" in call(natsfs, "help", "semantics")
    assert (venv / "share" / "man" / "man8" / "mount.natsfs.8").is_file()
    call(natsfs, "install-helper", "--prefix", tmp_path)
    assert str(venv / "bin" / "python") in (tmp_path / "mount.natsfs").read_text()
    assert "sys.path" not in (tmp_path / "mount.natsfs").read_text()
    assert os.access(venv / "bin" / "mount.natsfs", os.X_OK)
