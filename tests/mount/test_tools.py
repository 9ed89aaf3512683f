"""Programs that people use, on the mount and on a local file system: the same results.

Each test is a list of commands that runs in both places; output, exit status and the resulting tree
must be the same (`Pair`).  What a program prints about time or speed is asked away.
"""

from __future__ import annotations

import base64
import shutil
import sys
from pathlib import Path

import pytest

from .mounting import Mount, run
from .trees import TREE_BYTES, TREE_FILES, Pair, assert_same, tree

pytestmark = [pytest.mark.mount, pytest.mark.timeout(400)]

#: Seconds for one command on thousands of files, on a machine with other work.
LONG = 200.0


#: What the tests that do not need the whole tree copy of it.
PART = ("odd", "sizes", "many/00", "many/01", "many/03", "many/05", "stdlib/json", "stdlib/email")


@pytest.fixture
def copied(pair: Pair, source_tree: Path) -> Pair:
    """Both sides hold a copy of a tenth of the source tree, `tree`."""
    pair.works(f"mkdir tree; cd {source_tree}; cp -a --parents {' '.join(PART)} $OLDPWD/tree")
    # The directories above those that were copied are new.
    pair.works("touch -d @1500000000 tree/many tree/stdlib tree")
    return pair


def test_source_tree_is_large(source_tree: Path) -> None:
    """The tree that is copied has at least 3,000 files and 50 MB."""
    files = [entry for entry in tree(source_tree).values() if entry.kind == "-"]
    assert len(files) >= TREE_FILES
    assert sum(entry.size for entry in files) >= TREE_BYTES


def test_copy_of_a_large_tree(pair: Pair, mount: Mount, source_tree: Path) -> None:
    """M1: `cp -a` of a real tree keeps every byte, mode, owner, time and link, as on ext4.

    W1: all of it is there after unmounting and mounting; then `rm -rf` removes all of it.
    """
    pair.works(f"cp -a {source_tree} tree", timeout=LONG)
    assert pair.works(f"diff -r --no-dereference {source_tree} tree", timeout=LONG) == ""
    pair.same_trees()
    mount.remount()
    pair.same_trees()
    assert_same(tree(source_tree), tree(pair.mounted / "tree"))
    pair.works("rm -rf tree", timeout=LONG)
    assert not any(pair.mounted.iterdir())


def test_diff_finds_differences(copied: Pair) -> None:
    """`diff -r` between two trees in the mount reports what changed and exits with 1."""
    copied.works("mkdir other; cp -a tree/many other; echo more >> other/many/03/1/file-43.txt")
    copied.works("rm other/many/00/0/file-0.txt; mkdir other/many/new")
    assert copied.same("diff -rq tree/many other/many", timeout=LONG).status == 1


def test_rsync_into_and_out_of(pair: Pair, source_tree: Path, tmp_path: Path) -> None:
    """M1: `rsync -a --checksum` copies into and out of the mount; the second run finds nothing."""
    source = tmp_path / "source"
    shutil.copytree(source_tree, source, symlinks=True, ignore=shutil.ignore_patterns("stdlib"))
    into = f"rsync -a --checksum --itemize-changes {source}/ copy/"
    assert pair.works(into, timeout=LONG, ordered=False)
    assert pair.works(into, timeout=LONG) == ""
    pair.same_trees()
    for side in (pair.reference, pair.mounted):
        out = f"rsync -a --checksum -i {side}/copy/ {tmp_path}/out-{side.name}/"
        assert run(out, timeout=LONG, env=pair.env).check()
        assert run(out, timeout=LONG, env=pair.env).check() == ""
        assert_same(tree(source), tree(tmp_path / f"out-{side.name}"))


def test_rsync_updates_only_what_changed(copied: Pair, source_tree: Path) -> None:
    """`rsync` sees by size and time, without reading, which files in the mount changed."""
    copied.works("rm -r tree/many/0[13] tree/many/05")
    copied.works("echo x >> tree/many/00/0/file-0.txt; rm tree/many/00/1/*; touch tree/many/00/2/*")
    command = f"rsync -a -i --delete {source_tree}/many/00/ tree/many/00/"
    assert len(copied.works(command, ordered=False).splitlines()) >= 30
    assert copied.works(command) == ""
    copied.same_trees("tree/many/00")


def test_tar_extract_and_create(copied: Pair, tmp_path: Path) -> None:
    """M1: `tar -x` restores an archive in the mount; `tar -c` gives the same archive again."""
    archive = tmp_path / "tree.tar"
    options = "--sort=name --format=posix --pax-option=delete=atime,delete=ctime"
    run(f"tar -c {options} -f {archive} -C {copied.reference}/tree .").check()
    copied.works(f"mkdir new && tar -xp -f {archive} -C new")
    copied.same_trees("new")
    copied.works(f"tar -c {options} -f again.tar -C new . && cmp again.tar {archive}")
    copied.works("tar -cz -f - tree/many | tar -tz | sort | sha256sum")
    assert copied.works(f"tar -d -f {archive} -C new") == ""


def test_sha256sum(copied: Pair) -> None:
    """`sha256sum -c` confirms every file of a tree in the mount and notices a changed one."""
    sums = "find . -type f -print0 | sort -z | xargs -0 sha256sum"
    copied.works(f"(cd {copied.reference}/tree && {sums}) > sums", timeout=LONG)
    assert copied.works("cd tree && sha256sum -c ../sums", timeout=LONG).count(": OK") > 300
    copied.works("printf X | dd of=tree/sizes/131073.bin bs=1 seek=131072 conv=notrunc status=none")
    assert copied.same("cd tree && sha256sum --quiet -c ../sums", timeout=LONG).status == 1


def test_find(copied: Pair) -> None:
    """`find` selects by type, name, size, mode and time as on ext4."""
    for expression in (
        "-not -type d -printf '%P %y %#m %s %T@ %l\\n'",
        "-type d -printf '%P %#m %T@\\n'",
        "-type l",
        "-name '*.txt' -size +2k",
        "-empty",
        "-perm 0440",
        "-newermt 2020-01-01",
        "-path '*/many/*' -regex '.*-1[0-9]*.txt'",
    ):
        assert copied.works(f"find tree -mindepth 1 {expression}", timeout=LONG, ordered=False)
    copied.works("find tree -name 'file-1*' -delete && find tree | wc -l", timeout=LONG)


def test_listing(copied: Pair) -> None:
    """`ls -l` shows the same lines for files, links and special names."""
    copied.works("ls -lA --full-time tree/odd tree/sizes | grep -v ^d | grep -v ^total")
    copied.works(
        "stat -c '%n %s %f %u %g %h %y %o' tree/odd/* | sed 's/ [0-9]*$//' | grep -v ' 4[0-9]'"
    )


def test_mv(copied: Pair, source_tree: Path, tmp_path: Path) -> None:
    """A2: `mv` renames files and whole directories, replaces, and moves in and out of the mount."""
    copied.works("mv tree renamed && mv renamed/many moved && mv moved renamed/odd/")
    copied.works("mv renamed/sizes/1.bin renamed/sizes/4096.bin && mv -n renamed/sizes/*96.bin .")
    assert copied.same("mv renamed renamed/odd/inside").status == 1
    assert copied.same("mv no-such-file x").status == 1
    copied.works("mkdir full && touch full/x && mkdir empty && mv -T empty renamed/odd/private")
    assert copied.same("mv -T renamed/odd full").status == 1
    copied.same_trees(times=False)
    for side in (copied.reference, copied.mounted):
        run(
            f"mv {side}/renamed/stdlib {tmp_path}/out && mv {tmp_path}/out {side}/", timeout=LONG
        ).check()
    copied.same_trees(times=False)
    assert_same(tree(source_tree / "stdlib/json"), tree(copied.mounted / "out/json"))


def test_rm(copied: Pair) -> None:
    """`rm -rf` removes a real tree; `rm` and `rmdir` refuse what they refuse on ext4."""
    assert copied.same("rm tree").status == 1
    assert copied.same("rmdir tree").status == 1
    assert copied.same("rm no-such-file").status == 1
    copied.works("rm -r tree/many/00 && find tree/many | sort | sha256sum")
    copied.works("rm -rf tree && ls -A", timeout=LONG)
    assert not any(copied.mounted.iterdir())


def test_ln(pair: Pair) -> None:
    """K6: `ln -s` makes links of every kind; `readlink`, `cat`, `ls` follow them as on ext4."""
    pair.works("mkdir -p d/e; echo 1 > d/f; echo 2 > g")
    for target in (
        "g",
        "d/f",
        "d",
        "d/../g",
        "./g",
        "nowhere",
        "/etc/hostname",
        "../outside",
        "a//b/",
    ):
        name = base64.b32encode(target.encode()).decode().strip("=")
        pair.works(f"ln -s {target} l-{name} && readlink l-{name}")
    pair.works('for l in l-*; do cat "$l/." "$l" >&2; echo "$? $(readlink "$l")"; done 2>&1')
    pair.works(
        "ln -s f d/near; ln -s ../g d/up; cat d/near d/up; ln -sf up d/near; readlink d/near"
    )
    assert pair.same("ln -s g d/near").status == 1
    pair.works("rm d/near && cat d/f; cp -a d copy && readlink copy/up; find . -type l | sort")
    pair.same_trees(times=False)


def test_sed_in_place(copied: Pair) -> None:
    """`sed -i` edits files in the mount, with and without a backup, and keeps their mode."""
    copied.works(
        "grep -rl import tree/stdlib/json | sort | xargs sed -i.orig -e 's/import/IMPORT/g'"
    )
    copied.works(
        "cd tree/many/05; sed -i '1i first' */*.txt; chmod 751 0/*; sed -i '$d' 0/*; ls 0 | wc -l"
    )
    copied.same_trees(times=False)


def test_vim(pair: Pair) -> None:
    """`vim -es` edits a file in the mount, with swap file, backup and undo file."""
    pair.works("seq 1 5000 > numbers; chmod 640 numbers")
    pair.works("vim -Nu NONE -es -c '%s/7/seven/g | wq' numbers; echo $?; sha256sum numbers")
    settings = "set backup undofile backupcopy"
    for copy in ("yes", "no"):
        pair.works(
            f"vim -Nu NONE -es -c '{settings}={copy}' -c '1d | x' numbers; sha256sum numbers"
        )
    pair.works(
        "vim -Nu NONE -es -c 'w! new | e new | normal Gdd' -c 'wqa' numbers; wc -l new numbers"
    )
    pair.works("ls -A; stat -c '%a %n' *")


def test_vim_gives_up(pair: Pair) -> None:
    """vim that gives up a changed file leaves it as it was, and a swap file to recover from."""
    pair.works(
        "seq 1 100 > f; vim -Nu NONE -es -c 'normal ggdG' -c 'preserve' -c 'cq' f; wc -l < f"
    )
    pair.works("ls -A | grep -v '^[.]f[.]sw'")


WRITE_AND_READ = """
import hashlib, os, sys
block = bytearray(os.urandom(1 << 20))
digest = hashlib.sha256()
with open("large", "wb", buffering=0) as file:
    for number in range(int(sys.argv[1]) >> 20):
        block[:8] = number.to_bytes(8, "big")
        digest.update(block)
        file.write(block)
    os.fsync(file.fileno())
written = digest.hexdigest()
with open("large", "rb", buffering=0) as file:
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    assert hashlib.file_digest(file, "sha256").hexdigest() == written
print(written, os.stat("large").st_size)
"""

#: Bytes of resident memory that a daemon may use for any file: less than half of the smallest here.
MEMORY_LIMIT = 256 * 1024 * 1024


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "size",
    [
        pytest.param(5 * 2**27, id="640 MiB"),
        pytest.param(2**31, id="2 GiB", marks=pytest.mark.nightly),
    ],
)
def test_a_large_file(size: int, mounter: object, environment: dict[str, str]) -> None:
    """W4: a large file is written, read back and kept over a remount in bounded memory."""
    assert callable(mounter)
    mount: Mount = mounter(life=800.0)
    command = [sys.executable, "-c", WRITE_AND_READ, str(size)]
    written, found = run(command, cwd=mount.directory, env=environment, timeout=600).check().split()
    assert int(found) == size
    assert mount.peak_memory() < MEMORY_LIMIT
    mount.remount()
    shown = run("sha256sum < large", cwd=mount.directory, timeout=300).check().split()[0]
    assert shown == written
    assert mount.peak_memory() < MEMORY_LIMIT
