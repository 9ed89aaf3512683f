"""git, Python environments and sqlite on the mount and on a local file system: the same results.

Written as `test_tools.py`; here each program keeps a structure of its own in many files or one.
"""

from __future__ import annotations

import base64
import hashlib
import sys
import zipfile
from pathlib import Path

import pytest

from .mounting import Mount, run
from .trees import Pair

pytestmark = [pytest.mark.mount, pytest.mark.timeout(400)]

#: Seconds for one command on thousands of files, on a machine with other work.
LONG = 200.0

#: What git must not take from the machine, nor do in the background.
GIT_CONFIG = """\
[user]
    name = Tester
    email = tester@example.org
[init]
    defaultBranch = main
[gc]
    auto = 0
[advice]
    detachedHead = false
[safe]
    directory = *
"""

#: Commits of the repository that is cloned.
COMMITS = 300


@pytest.fixture
def git(pair: Pair, environment: dict[str, str]) -> Pair:
    """Git has its configuration."""
    Path(environment["HOME"], ".gitconfig").write_text(GIT_CONFIG)
    environment["GIT_COMMITTER_DATE"] = environment["GIT_AUTHOR_DATE"] = "1700000000 +0000"
    return pair


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bare repository of `COMMITS` commits, branches, a tag and some hundred files."""
    bare = tmp_path_factory.mktemp("git") / "origin.git"
    run(["git", "init", "--quiet", "--bare", "-b", "main", bare]).check()
    run(["git", "fast-import", "--quiet"], cwd=bare, stdin=_history().encode()).check()
    return bare


def _history() -> str:
    lines: list[str] = []
    for number in range(1, COMMITS + 1):
        message = f"commit {number}"
        branch = "side" if number % 10 == 0 else "main"
        lines += [
            f"commit refs/heads/{branch}",
            f"committer Tester <tester@example.org> {1_600_000_000 + number * 60} +0000",
            f"data {len(message)}\n{message}",
        ]
        if number == 10:
            lines.append("from refs/heads/main")
        for path, body in (
            (f"src/module{number % 40}/file{number}.txt", f"{number}\n" * (number % 97 + 1)),
            ("log.txt", "".join(f"line {line}\n" for line in range(number))),
            (f"data/{number % 9}.csv", f"{number * 7919}," * 400),
        ):
            lines += [f"M 100644 inline {path}", f"data {len(body)}\n{body}"]
        if number % 25 == 0:
            lines += ["M 120000 inline current", "data 7\nlog.txt"]
            lines += ["M 100755 inline run.sh", f"data 12\necho {number:06}\n"]
    return "\n".join([*lines, "reset refs/tags/v1", "from refs/heads/main", "", "done", ""])


def test_git_clone_and_work(git: Pair, repository: Path) -> None:
    """`git clone`, `status`, `fsck`, `commit`, `merge`, `gc` work in the mount as on ext4."""
    git.works(f"git clone --quiet {repository} work && git -C work status", timeout=LONG)
    git.works(
        "cd work && git fsck --full --strict && git log --oneline --all | wc -l", timeout=LONG
    )
    git.works(
        "cd work && git checkout --quiet side && git ls-files | wc -l && git checkout --quiet v1"
    )
    git.works(
        "cd work && git checkout --quiet main && ls -R | sha256sum && git diff --stat v1 side"
    )
    git.works(
        "cd work && echo new > new.txt && echo more >> log.txt && git rm -q run.sh && git add -A"
        " && git commit -q -m change && git rev-parse HEAD && git status --porcelain"
    )
    git.works(
        "cd work && git merge -q -m merge origin/side -X ours; git rev-parse HEAD", timeout=LONG
    )
    git.works(
        "cd work && git gc --quiet --prune=now && git count-objects -v | grep -v size-pack",
        timeout=LONG,
    )
    git.works(
        "cd work && git fsck --full && git status --porcelain && git stash list", timeout=LONG
    )
    git.same_trees("work/src", times=False)
    git.same_trees("work/data", times=False)


def test_git_repository_survives_a_remount(git: Pair, repository: Path, mount: Mount) -> None:
    """W1: a repository in the mount is clean and whole after unmounting and mounting again."""
    git.works(f"git clone --quiet --no-local {repository} work", timeout=LONG)
    git.works("cd work && echo x >> log.txt && git commit -qam x && git tag -a -m t t")
    mount.remount()
    git.works(
        "cd work && git status --porcelain && git fsck --full && git rev-parse HEAD t", timeout=LONG
    )


def test_git_init_push_and_pull(git: Pair, repository: Path) -> None:
    """A bare repository in the mount can be pushed to and pulled from."""
    git.works("git init -q --bare shared.git")
    git.works(f"git -C {repository} push -q --all $PWD/shared.git", timeout=LONG)
    git.works("git clone -q shared.git one && git clone -q shared.git two", timeout=LONG)
    git.works("cd one && echo 1 > one && git add one && git commit -qm one && git push -q")
    git.works(
        "cd two && git pull -q && cat one && git log -1 --format=%H && git worktree add -q ../three"
    )
    git.works("git -C shared.git fsck --full && git -C three status", timeout=LONG)


def test_venv_and_pip(pair: Pair, tmp_path: Path) -> None:
    """`python3 -m venv` and `pip install` make an environment in the mount that runs."""
    wheel = _wheel(tmp_path)
    pip = "env/bin/python -m pip --disable-pip-version-check --no-cache-dir --no-input"
    pair.works(f"{sys.executable} -m venv env", timeout=LONG)
    pair.works(f"{pip} install --no-index --no-deps {wheel}", timeout=LONG)
    assert pair.works("env/bin/hello; env/bin/python -m hello").split() == ["hello"] * 2
    pair.works(
        f"{pip} list --format=json; {pip} check; {pip} show -f hello | grep -v ^Location",
        timeout=LONG,
    )
    pair.works(f"{pip} install --no-index --no-deps --force-reinstall {wheel}", timeout=LONG)
    pair.works(
        f"{pip} uninstall -y -q hello && env/bin/python -c 'import sys; print(sys.path[-1])'",
        timeout=LONG,
    )
    pair.works("find env -not -name '*.pyc' | sort | sha256sum")


def _wheel(directory: Path) -> Path:
    """A package with a module, data and a command, as pip wants it."""
    files = {
        "hello/__init__.py": "def main() -> None:\n    print('hello')\n",
        "hello/__main__.py": "from hello import main\n\nmain()\n",
        "hello/data.txt": "data\n" * 1000,
        "hello-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: hello\nVersion: 1.0\n",
        "hello-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n",
        "hello-1.0.dist-info/entry_points.txt": "[console_scripts]\nhello = hello:main\n",
    }
    record = []
    path = directory / "hello-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
            record.append(f"{name},sha256={digest.decode()},{len(text)}")
            archive.writestr(name, text)
        record.append("hello-1.0.dist-info/RECORD,,")
        archive.writestr("hello-1.0.dist-info/RECORD", "\n".join(record) + "\n")
    return path


@pytest.mark.parametrize("journal", ["delete", "truncate", "persist", "wal"])
def test_sqlite(pair: Pair, journal: str) -> None:
    """`sqlite3` creates, fills, updates, vacuums and checks a database in the mount."""
    script = f"""
        PRAGMA journal_mode={journal};
        CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, body BLOB);
        CREATE INDEX by_name ON t (name);
        BEGIN;
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
            INSERT INTO t SELECT i, 'name ' || (i * 7919 % 5000), zeroblob(i % 700) FROM n;
        COMMIT;
        UPDATE t SET name = name || '!' WHERE id % 3 = 0;
        DELETE FROM t WHERE id % 5 = 0;
        BEGIN; DELETE FROM t; ROLLBACK;
        VACUUM;
        PRAGMA integrity_check;
        SELECT count(*), sum(length(body)), min(name), max(name) FROM t;
    """
    statements = " ".join(script.split())
    pair.works(f'sqlite3 data.db "{statements}"')
    pair.works(
        "sqlite3 data.db 'PRAGMA integrity_check; SELECT count(*) FROM t; .dump' | sha256sum"
    )
    pair.works(
        "sqlite3 data.db '.backup copy.db' && sqlite3 copy.db 'SELECT sum(id) FROM t' && rm copy.db"
    )
    pair.works("ls -A; stat -c '%n %s' data.db")


def test_sqlite_survives_a_remount(pair: Pair, mount: Mount) -> None:
    """W1: committed rows are there after unmounting and mounting again."""
    pair.works("sqlite3 data.db 'CREATE TABLE t (x); INSERT INTO t VALUES (1), (2)'")
    mount.remount()
    pair.works(
        "sqlite3 data.db 'INSERT INTO t VALUES (3); SELECT * FROM t; PRAGMA integrity_check'"
    )
