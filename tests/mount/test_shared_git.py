"""git on two mounts: working copies on both push to and pull from one repository in the bucket."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .conftest import Mounter
from .mounting import Result, run

pytestmark = [pytest.mark.mount, pytest.mark.timeout(240)]

#: Rounds of commit, pull and push on each side.
ROUNDS = 3
NIGHTLY_ROUNDS = 40

#: How often a push is tried that another one has overtaken: each of the other's pushes may do that
#: once, and be in its way once more.  Two that take equally long can fall into step, so that one of
#: them is done before the other begins.
TRIES = 2 * NIGHTLY_ROUNDS + 1

#: Seconds for one command of git.
LONG = 90.0


class Copy:
    """A working copy on one mount."""

    def __init__(self, top: Path, name: str, environment: dict[str, str]) -> None:
        self.name = name
        self.directory = top / name
        self._top = top
        self._env = {
            **environment,
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_AUTHOR_NAME": name,
            "GIT_AUTHOR_EMAIL": f"{name}@example.org",
            "GIT_COMMITTER_NAME": name,
            "GIT_COMMITTER_EMAIL": f"{name}@example.org",
            "GIT_TERMINAL_PROMPT": "0",
        }

    def clone(self) -> None:
        """Clone what lies beside it on this mount."""
        assert self._git("clone", "-q", "shared.git", self.name, cwd=self._top).status == 0

    def git(self, *arguments: str) -> str:
        """The output of a git command that has to succeed."""
        return self._git(*arguments).check()

    def work(self, chance: random.Random, rounds: int) -> None:
        """Commit a file of its own in each round and push it, after pulling what others did."""
        for number in range(rounds):
            path = self.directory / self.name / f"{number}.txt"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(chance.randbytes(chance.randrange(20_000)))
            self.git("add", "-A")
            self.git("commit", "-q", "-m", f"{self.name} {number}")
            self._publish()

    def _publish(self) -> None:
        complaints = []
        for _ in range(TRIES):
            self.git("pull", "-q", "--rebase", "origin", "main")
            pushed = self._git("push", "-q", "origin", "HEAD:main")
            if pushed.status == 0:
                return
            # Somebody else pushed between our pull and our push, or is just doing it.
            assert overtaken(pushed.err), pushed.err
            complaints.append(pushed.err)
        pytest.fail(f"{TRIES} pushes were overtaken: {complaints}")

    def _git(self, *arguments: str, cwd: Path | None = None) -> Result:
        return run(["git", *arguments], cwd=cwd or self.directory, env=self._env, timeout=LONG)


def overtaken(complaint: str) -> bool:
    """Whether a push was refused because of another one."""
    reasons = ("fetch first", "non-fast-forward", "cannot lock ref", "incorrect old value")
    return any(reason in complaint for reason in reasons)


@pytest.mark.parametrize(
    "rounds",
    [
        ROUNDS,
        pytest.param(NIGHTLY_ROUNDS, marks=(pytest.mark.nightly, pytest.mark.timeout(1500))),
    ],
)
def test_two_copies_push_and_pull(
    mounter: Mounter,
    environment: dict[str, str],
    record_property: Callable[[str, object], None],
    rounds: int,
) -> None:
    """A1, A3: two working copies on two mounts push and pull at the same time, many times: no
    commit is lost, no object is missing, both ends agree."""
    one, two = (mounter(life=1500.0).directory for _ in range(2))
    first, second = Copy(one, "first", environment), Copy(two, "second", environment)
    run(["git", "init", "-q", "--bare", "-b", "main", "shared.git"], cwd=one).check()
    seed = random.randrange(1 << 32)
    record_property("seed", seed)
    first.clone()
    (first.directory / "README").write_text("shared\n")
    first.git("add", "-A")
    first.git("commit", "-q", "-m", "begin")
    first.git("push", "-q", "origin", "HEAD:main")
    second.clone()
    with ThreadPoolExecutor(2) as pool:
        ends = [
            pool.submit(copy.work, random.Random(seed + number), rounds)
            for number, copy in enumerate((first, second))
        ]
        for end in ends:
            end.result()
    wanted = {f"{name} {number}" for name in ("first", "second") for number in range(rounds)}
    for copy in (first, second):
        copy.git("pull", "-q", "--rebase", "origin", "main")
        assert copy.git("fsck", "--full", "--strict", "--no-dangling") == ""
        assert copy.git("-C", "../shared.git", "fsck", "--full", "--no-dangling") == ""
        subjects = copy.git("log", "--format=%s", "main").splitlines()
        assert sorted(subjects) == sorted(wanted | {"begin"})
        assert copy.git("status", "--porcelain") == ""
    assert first.git("rev-parse", "main") == second.git("rev-parse", "main")
