"""More programs that people use, as `test_tools.py`: those that look at times, holes, attributes
and link counts, or that work together through files, locks and pipes.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from .mounting import Mount
from .trees import Pair

pytestmark = [pytest.mark.mount, pytest.mark.timeout(300)]

#: Seconds for compilers and package managers on a machine with other work.
LONG = 150.0

#: Shows all extended attributes below the working directory, in the order of names.
ATTRIBUTES = "find . | sort | xargs getfattr -hdm -"


@pytest.fixture
def special(pair: Pair) -> Pair:
    """Both sides have a directory `d` with attributes, hard links, a FIFO and a file with holes."""
    pair.works(
        "mkdir d && cd d && echo 1 > one && ln one two && mkdir sub && ln one sub/three"
        " && mkfifo fifo && ln -s one link && setfattr -n user.colour -v blue one"
        " && setfattr -n user.raw -v 0x00ff80 sub && truncate -s 3M sparse"
        " && printf start | dd of=sparse conv=notrunc status=none"
        " && printf middle | dd of=sparse bs=1 seek=1500000 conv=notrunc status=none"
        " && chmod 4751 sparse && touch -d @1500000000.123456789 one sparse fifo link -h"
        " && chown 12:34 two && touch -d @1400000000 sub ."
    )
    return pair


def test_tar_of_special_files(special: Pair) -> None:
    """M1: `tar` keeps attributes, holes, hard links, owners, set-ID bits; `-d` finds no change."""
    options = "--xattrs --xattrs-include='*' --sparse --numeric-owner --sort=name"
    special.works(f"tar -c {options} -f a.tar d && mkdir new && tar -xp {options} -f a.tar -C new")
    assert special.works(f"tar -d {options} -f a.tar -C new") == ""
    special.works(f"cd new/d && {ATTRIBUTES} && stat -c '%n %h %s %a %u %g %Y' * sub/*")
    special.works("tar -tvf a.tar")
    special.same_trees("new")


def test_rsync_of_special_files(special: Pair) -> None:
    """M1: `rsync -aHAX` copies attributes, hard links and holes; the second run finds nothing."""
    command = "rsync -aHAXS --numeric-ids -i d/ copy/"
    assert special.works(command, ordered=False)
    assert special.works(command) == ""
    special.works(f"cd copy && {ATTRIBUTES} && stat -c '%n %h %a %u %g' * sub/*")
    special.same_trees("copy")
    special.works("echo more >> d/sub/three; setfattr -n user.colour -v red d/two; rm d/fifo")
    assert special.works(f"{command} --delete", ordered=False)
    assert special.works(f"{command} --delete --checksum") == ""
    special.works("cat copy/one copy/two && getfattr -n user.colour copy/sub/three && ls copy")


def test_cp_of_special_files(special: Pair) -> None:
    """M1: `cp -a` with and without holes and clones keeps bytes, attributes and hard links."""
    for options in ("--reflink=auto --sparse=always", "--sparse=never", "--reflink=never"):
        special.works(f"cp -a {options} d copy && cmp d/sparse copy/sparse && {ATTRIBUTES}")
        special.same_trees("copy")
        special.works("stat -c '%n %h' copy/* copy/sub/*; rm -r copy")
    assert special.same("cp --reflink=always d/one clone").status == 1
    special.works("cp -al d links && stat -c '%n %h' links/* d/sub/* && rm -r d && cat links/two")


def test_zip(pair: Pair, source_tree: Path) -> None:
    """`zip` and `unzip` pack and unpack a tree in the mount, with modes, links and times."""
    pair.works(f"cp -a {source_tree}/many/01/0 {source_tree}/many/02/1 {source_tree}/stdlib/json .")
    pair.works("chmod 640 json/*.py; ln -s json/tool.py link; zip -qry a.zip 0 1 json link")
    pair.works("zip -q a.zip json/decoder.py && zip -qd a.zip '0/*' && unzip -tq a.zip")
    pair.works("mkdir out && unzip -q a.zip -d out && diff -r json out/json")
    pair.works("unzip -Z1 a.zip", ordered=False)
    # unzip gives links the time of unpacking.
    pair.works("touch -hd @1500000000 out/link")
    pair.same_trees("out")


def test_patch_and_diff(pair: Pair, source_tree: Path) -> None:
    """`diff -u`, `patch`, `patch -R` and a hunk that fails leave the same files."""
    pair.works(f"cp -a {source_tree}/stdlib/json new && cp -a new old && sed -i s/self/me/g new/*")
    assert pair.same("diff -u old new | sed '/^[-+][-+]/s/\t.*//' > p; wc p").status == 0
    pair.works("patch -p1 -d old < p && diff -r old new && patch -R -b -p1 -d old < p && ls old")
    assert pair.same("sed -i d old/decoder.py; patch -p1 -d old < p; s=$?; ls old; exit $s").status
    pair.same_trees(times=False)


def test_dd_and_truncate(pair: Pair) -> None:
    """W3: `dd conv=notrunc`, `seek=`, `oflag=append` and `truncate` change what they are to."""
    pair.works(
        "seq 100000 > f; dd if=/dev/zero of=f bs=7 seek=999 count=50 conv=notrunc status=none"
    )
    for command in (
        "printf tail | dd of=f oflag=append conv=notrunc status=none",
        "dd if=f of=g bs=4k skip=3 count=9 iflag=fullblock status=none conv=fsync",
        "dd if=f of=f bs=1k skip=1 seek=300 count=100 conv=notrunc,fdatasync status=none",
        "dd if=f of=g bs=512 oflag=direct conv=notrunc count=64 status=none",
        "dd if=f of=h bs=64k conv=sparse status=none",
        "truncate -s 123457 f",
        "truncate -s +1M g",
        "truncate -s %4096 h",
        "truncate -s '<1000' g",
        "truncate -r f new",
        "fallocate -l 300000 i 2> /dev/null || printf %300000s | tr ' ' '\\0' > i",
    ):
        pair.works(f"{command}; sha256sum *")


def test_make(pair: Pair) -> None:
    """M1: `make` rebuilds what is older than its sources, and nothing else."""
    rules = "all: app\\napp: a.o b.o\\n\\tcat a.o b.o > app\\n"
    rules += "%%.o: %%.c common.h\\n\\ttr a-z A-Z < $< > $@\\n"
    pair.works(f"printf '{rules}' > Makefile; echo one > a.c; echo two > b.c; echo > common.h")
    assert len(pair.works("make").splitlines()) == 3
    assert pair.works("make") == "make: Nothing to be done for 'all'.\n"
    assert len(pair.works("echo three > a.c; make").splitlines()) == 2
    assert len(pair.works("touch common.h; make -j4 | sort").splitlines()) == 3
    assert pair.same("make -q; echo $?").out == "0\n"
    assert len(pair.works("rm b.o; make; cat app").splitlines()) == 4
    pair.works("touch -d '1 hour ago' app; make; make -q")


def test_find_by_time(pair: Pair) -> None:
    """M1: `find -newer` and its kin, and `test -nt`, order files by times to the nanosecond."""
    pair.works("for n in 1 2 3; do touch -d @1500000000.00000000$n f$n; done; mkdir d; touch d/new")
    pair.works("find . -newer f2 | sort; find . -not -newer f2 -type f | sort")
    pair.works("find . -newermt @1500000000.0000000015 | sort; find . -mmin -5 | sort")
    pair.works("[ f3 -nt f2 ] && [ f1 -ot f2 ] && ! [ f1 -nt f1 ] && ls -t f?")
    pair.works("ln f1 hard; find . -samefile f1 | sort; find . -links 2 -type f | sort")
    pair.works("chmod 600 f1; find . -cnewer f3 -name 'f1'; find . -anewer f1 -type f | sort")


def test_compile_and_run(pair: Pair) -> None:
    """R6: `gcc` compiles, archives and links in the mount; programs and libraries run from it."""
    pair.works("printf 'int f(void) { return 42; }\\n' > lib.c")
    main = "#include <stdio.h>\\nint f(void);\\n"
    main += 'int main(void) { return printf("%%d\\\\n", f()) < 0; }\\n'
    pair.works(f"printf '{main}' > main.c")
    pair.works("gcc -g -c lib.c main.c && gcc main.o lib.o -o app && ./app", timeout=LONG)
    pair.works("ar rcs libf.a lib.o && gcc -static-libgcc main.c -L. -lf -o app && ./app")
    pair.works("gcc -shared -fPIC lib.c -o libg.so && gcc main.c ./libg.so -o app && ./app")
    pair.works("strip app && ./app && cp app other && ./other && mv other app && ./app")
    pair.works("printf '#!/bin/sh\\necho \"$0\"' > script; chmod +x script; ./script; ls")


def test_npm_install(pair: Pair, tmp_path: Path) -> None:
    """`npm install` of a local package, its command, `npm ls` and `npm uninstall` work."""
    package = tmp_path / "hello"
    package.mkdir()
    described = {"name": "hello", "version": "1.0.0", "bin": {"hello": "hello.js"}}
    (package / "package.json").write_text(json.dumps(described))
    (package / "hello.js").write_text("#!/usr/bin/env node\nconsole.log('hello')\n")
    npm = "npm --offline --no-audit --no-fund --no-update-notifier --silent"
    archive = f"{tmp_path}/hello-1.0.0.tgz"
    pair.works(f"cd {tmp_path} && {npm} pack ./hello", timeout=LONG)
    pair.works(f'echo \'{{"name": "x", "version": "1.0.0"}}\' > package.json && {npm} i {archive}')
    pair.works("node_modules/.bin/hello && node node_modules/hello/hello.js && ls -A node_modules")
    pair.works(f"{npm} ls --json && {npm} rebuild && {npm} exec -- hello", timeout=LONG)
    pair.works(f"{npm} ci && {npm} uninstall hello && ls -A", timeout=LONG)


#: Several processes at once, each in transactions of its own.
WRITER = """
import sqlite3, sys
connection = sqlite3.connect("data.db", timeout=60, isolation_level=None)
for number in range(25):
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO t VALUES (?, ?)", (int(sys.argv[1]), number))
    connection.execute("UPDATE total SET n = n + 1")
    connection.execute("COMMIT")
"""


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_sqlite_with_several_processes(pair: Pair, mount: Mount, journal: str) -> None:
    """W3: processes that write one database lose nothing, in WAL mode (shared mappings) as well."""
    setup = f"PRAGMA journal_mode={journal}; CREATE TABLE t (who, n);"
    pair.works(f"sqlite3 data.db '{setup} CREATE TABLE total (n); INSERT INTO total VALUES (0)'")
    writers = " & ".join(f"{sys.executable} -c '{WRITER}' {number}" for number in range(4))
    pair.works(f"{writers} & wait", timeout=LONG)
    check = "sqlite3 data.db 'PRAGMA integrity_check; SELECT count(*) FROM t; SELECT n FROM total'"
    assert pair.works(check).split() == ["ok", "100", "100"]
    mount.remount()
    assert pair.works(check).split() == ["ok", "100", "100"]


def test_flock(pair: Pair) -> None:
    """W3: `flock` lets one process at a time into a counter that is read and written."""
    count = "n=$(cat count); echo $((n + 1)) > count"
    loop = f"for i in 1 2 3 4 5 6 7 8 9 10; do flock lock sh -c '{count}'; done"
    pair.works(f"echo 0 > count; ({loop}) & ({loop}) & ({loop}) & wait")
    assert pair.works("cat count") == "30\n"
    assert pair.works("flock lock sh -c 'flock -n lock true; echo $?'") == "1\n"
    assert pair.works("flock -s lock sh -c 'flock -ns lock true; echo $?'") == "0\n"


def test_fifo_between_processes(pair: Pair) -> None:
    """K8: what one process writes to a FIFO another reads, more than a pipe holds at once."""
    pair.works("mkfifo -m 600 p && stat -c %A p && (seq 100000 > p & sha256sum < p; wait)")
    pair.works("(cat p | sort -n | tail -1 & for i in 3 1 2; do echo $i; done > p; wait)")
    pair.works("mv p q && (echo moved > q & cat q; wait) && rm q && ls -A")


def test_log_rotation(pair: Pair) -> None:
    """W5: a program goes on writing to its renamed log until it opens the name again."""
    code = "\n".join(
        [
            "import os",
            "log = open('log', 'a', buffering=1)",
            "for number in range(300):",
            "    if number % 100 == 50:",
            "        os.path.exists('log.1') and os.replace('log.1', 'log.2')",
            "        os.replace('log', 'log.1')",
            "    if number % 100 == 60:",
            "        log = open('log', 'a', buffering=1)",
            "    print('line', number, file=log)",
        ]
    )
    pair.works(f'{sys.executable} -W ignore -c "{code}"; wc -l log*; sha256sum log*')
    # copytruncate: the writer's descriptor appends, so that no hole comes up.
    pair.works("exec 5>>t; echo 1 >&5; cp t t.1; : > t; echo 2 >&5; cat t t.1; stat -c %s t")


def test_compileall(pair: Pair, source_tree: Path) -> None:
    """`python -m compileall` compiles by time and by hash, and finds what is up to date."""
    pair.works(f"cp -a {source_tree}/stdlib/json {source_tree}/stdlib/email .")
    compile_ = f"{sys.executable} -m compileall"
    assert len(pair.works(f"{compile_} json email | sort").splitlines()) > 20
    assert "Compiling" not in pair.works(f"{compile_} json email")
    pair.works(f"{compile_} -qf -j 2 --invalidation-mode checked-hash json && ls json/__pycache__")
    code = "import sys; sys.path[:0] = ['.']; import json; print(json.__cached__, json.dumps(1))"
    pair.works(f'{sys.executable} -c "{code}"')
    pair.works("sha256sum */__pycache__/*")


MAIL = """
import dbm.dumb, mailbox, os, shelve
with dbm.dumb.open("dumb", "c") as db:
    for number in range(200):
        db[str(number)] = b"x" * number
    del db["7"]
with shelve.open("shelf") as shelf:
    shelf.update({str(number): {"n": number} for number in range(200)})
with shelve.open("shelf") as shelf:
    print(len(shelf), shelf["77"], len(dbm.dumb.open("dumb", "r")))
box = mailbox.Maildir("mail", create=True)
keys = [box.add(f"Subject: {number}\\n\\nbody\\n" * 3) for number in range(30)]
for key in keys[::2]:
    message = box.get_message(key)
    message.set_subdir("cur")
    message.add_flag("S")
    box[key] = message
box.remove(keys[1])
box.clean()
print(sorted(message["subject"] for message in box), len(os.listdir("mail/cur")))
mbox = mailbox.mbox("mbox")
mbox.lock()
for message in box:
    mbox.add(message)
mbox.flush()
mbox.unlock()
print(len(mailbox.mbox("mbox")), sorted(os.listdir()))
"""


def test_dbm_and_mailboxes(pair: Pair, tmp_path: Path) -> None:
    """W3: dbm files, a maildir (links and renames) and an mbox with its lock hold what was put."""
    script = tmp_path / "mail.py"
    script.write_text(MAIL)
    pair.works(f"{sys.executable} -W ignore {script}")
    pair.works("rm mbox; ls -A mail/*/ | wc -l")


WATCH = """
import ctypes, os, struct, subprocess
libc = ctypes.CDLL(None)
descriptor = libc.inotify_init1(os.O_NONBLOCK)
assert libc.inotify_add_watch(descriptor, b".", 0xfff) > 0
commands = "echo 1 > a; cat a; mv a b; chmod 600 b; ln b c; rm b c; mkdir d; rmdir d"
subprocess.run(["sh", "-c", commands])
events = os.read(descriptor, 65536)
while events:
    _, mask, cookie, length = struct.unpack_from("iIII", events)
    name = events[16:16 + length].rstrip(b"\\0").decode()
    print(f"{mask:#x}", bool(cookie), name)
    events = events[16 + length:]
"""


def test_inotify(pair: Pair) -> None:
    """A1: what programs of this host do to a directory is told to who watches it by inotify."""
    assert len(pair.works(f"{sys.executable} -c '{WATCH}'").splitlines()) > 15


def test_logs_and_databases_survive_a_remount(special: Pair, mount: Mount) -> None:
    """W1: attributes, hard links, FIFOs and holes are there after unmounting and mounting again."""
    mount.remount()
    special.same_trees("d")
    special.works(f"cd d && {ATTRIBUTES} && stat -c '%n %h %a %u %g %y' * sub/* && cat two")
    assert os.stat(special.mounted / "d/one").st_ino == os.stat(special.mounted / "d/two").st_ino
