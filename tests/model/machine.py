"""Which operations are tried: a state machine of hypothesis.

Few names and few numbers, so that operations meet: a rename finds something to replace, a file goes
while a descriptor of it is open.  What is drawn says nothing of what exists; the reference decides
what has to come of it.
"""

from __future__ import annotations

import os
import stat
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.model.actions import ROOT, SLOTS, STREAMS
from tests.model.comparison import Comparison
from tests.model.worlds import BY_SLOT_PATHS, FEW, MANY, ODD_PATHS, WORLDS
from tests.mount.syscalls import RENAME_EXCHANGE, RENAME_NOREPLACE, UTIME_OMIT

#: Which path an operation gets, resolved when it is run: what kind of entry it is to be, and which
#: of those that there are.
Pick = tuple[str, int]

_FOUND = ["file", "file", "file", "directory", "directory", "link", "entry", "entry"]
_numbers = st.integers(0, 30)
paths = st.tuples(st.sampled_from([*_FOUND, "free", "some", "odd", "slot"]), _numbers)
new_paths = st.tuples(st.sampled_from(["free", "free", "free", "some", "slot"]), _numbers)
#: A descriptor: one of those that are open or, rarely, of the others.
slots = st.integers(0, 11)
streams = st.integers(0, STREAMS - 1)
modes = st.sampled_from([0o644, 0o600, 0o755, 0o777, 0, 0o4755, 0o2755, 0o2745, 0o1777, 0o6711])
masks = st.sampled_from([0o022, 0o022, 0, 0o077, 0o777])
owners = st.sampled_from([-1, 0, 1000, 65534])
sizes = st.sampled_from([0, 1, 5, 4095, 4096, 5000, 131071, 131072, 131073, 300_000])
texts = st.sampled_from(["x", "abc", "0123456789"])
repeats = st.sampled_from([1, 1, 3, 500, 13107, 14000])
times = st.sampled_from([None, UTIME_OMIT, -(10**18) + 1, 0, 1, 10**18 + 123_456_789, 5 * 10**18])
bodies = st.none() | texts
attributes = st.sampled_from(["user.a", "user.b", "user.mode", "user.mtime", "user.ü", "trusted.a"])
values = st.sampled_from(["", "00", "ff00", "6d6f6465", "7a" * 300])
attribute_flags = st.sampled_from([0, os.XATTR_CREATE, os.XATTR_REPLACE])
targets = st.sampled_from([*MANY, "../a", "../b/a", "nowhere", "@/a", "@/b/b", "@", "."])

_ACCESS = [os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_CREAT]
_FLAGS = [os.O_CREAT, os.O_EXCL, os.O_TRUNC, os.O_APPEND, os.O_DIRECTORY, os.O_NOFOLLOW, os.O_DSYNC]
flags = st.builds(
    lambda access, more: access | sum(set(more)),
    st.sampled_from(_ACCESS),
    st.lists(st.sampled_from(_FLAGS), max_size=3),
)

KINDS = [stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFREG]
DEVICES = (stat.S_IFCHR, stat.S_IFBLK)


class Drawing(RuleBasedStateMachine):
    """What all operations need: has them compared.  `comparison` is set by the test."""

    comparison: ClassVar[Comparison]

    def __init__(self) -> None:
        super().__init__()
        self.comparison.start()
        self.tree: dict[str, Any] = self.comparison.check(contents=False)
        self.opened: list[int] = []
        self.agreed = True
        self.names = WORLDS[0]
        self.paths = MANY

    @initialize(world=st.sampled_from([0, 0, 0, *range(len(WORLDS))]), few=st.booleans())
    def choose(self, world: int, few: bool) -> None:
        """Which names there are in this run, and how many paths."""
        self.names = WORLDS[world]
        self.paths = FEW if few else MANY

    def do(self, *operation: Any) -> Any:
        """Run one operation on all sides, its picks resolved."""
        resolved = [self._resolve(part) if isinstance(part, tuple) else part for part in operation]
        self.agreed = False
        result = self.comparison.do(tuple(resolved))
        self.tree = self.comparison.check(contents=False)
        self.agreed = True
        return result

    def _resolve(self, pick: Pick) -> str:
        among, number = pick
        if among in ("odd", "slot"):
            spelled = ODD_PATHS if among == "odd" else BY_SLOT_PATHS
            return self._named(spelled[number % len(spelled)])
        letters = {"file": "-", "directory": "d", "link": "l", "entry": "-dlpscb"}.get(among, "")
        found = [path[2:] for path in self.tree if self.tree[path]["mode"][0] in letters]
        if among == "free":
            found = [path for path in map(self._named, self.paths) if self._is_free(path)]
        candidates = [path for path in found if path] or [*map(self._named, self.paths)]
        return candidates[number % len(candidates)]

    def _named(self, path: str) -> str:
        """*path* in the names of this world."""
        names = dict(zip("abc", self.names, strict=True))
        return "/".join(names.get(part, part) for part in path.split("/"))

    def _is_free(self, path: str) -> bool:
        above = "/".join([".", *path.split("/")[:-1]])
        taken = self.tree.get(above)
        return f"./{path}" not in self.tree and taken is not None and taken["mode"][0] == "d"

    def slot(self, number: int) -> int:
        """An open descriptor, mostly."""
        slots = [*self.opened, *self.opened, number % SLOTS]
        return slots[number % len(slots)]

    def teardown(self) -> None:
        """Contents agree at the end; after a failure there is nothing left to compare."""
        if self.agreed:
            self.comparison.check(contents=True)

    @rule()
    def compare_contents(self) -> None:
        self.comparison.check(contents=True)


class OpenFiles(Drawing):
    """Operations on descriptors."""

    @rule(slot=slots, path=paths, flags=flags, mode=modes)
    def open(self, slot: int, path: Pick, flags: int, mode: int) -> None:
        self._open(slot, path, flags, mode)

    @rule(slot=slots, path=new_paths)
    def make(self, slot: int, path: Pick) -> None:
        self._open(slot, path, os.O_RDWR | os.O_CREAT, 0o644)

    @rule(slot=slots, path=paths)
    def reopen(self, slot: int, path: Pick) -> None:
        self._open(slot, path, os.O_RDWR, 0)

    def _open(self, number: int, path: Pick, flags: int, mode: int) -> None:
        slot = number % SLOTS
        result = self.do("open", slot, path, flags, mode)
        self.opened = [other for other in self.opened if other != slot]
        if result == "open":
            self.opened.append(slot)

    @rule(slot=slots, other=slots, flags=flags)
    def open_again(self, slot: int, other: int, flags: int) -> None:
        slot, other = slot % SLOTS, self.slot(other)
        result = self.do("open_again", slot, other, flags & ~(os.O_CREAT | os.O_EXCL))
        if result != "not open":
            self.opened = [number for number in self.opened if number != slot]
        if result == "open":
            self.opened.append(slot)

    @rule(slot=slots)
    def close(self, slot: int) -> None:
        slot = self.slot(slot)
        self.do("close", slot)
        self.opened = [other for other in self.opened if other != slot]

    @rule(slot=slots, offset=sizes, size=sizes)
    def pread(self, slot: int, offset: int, size: int) -> None:
        self.do("pread", self.slot(slot), offset, size)

    @rule(slot=slots, size=sizes)
    def read(self, slot: int, size: int) -> None:
        self.do("read", self.slot(slot), size)

    @rule(slot=slots, offset=sizes, text=texts, times=repeats)
    def pwrite(self, slot: int, offset: int, text: str, times: int) -> None:
        self.do("pwrite", self.slot(slot), offset, text, times)

    @rule(slot=slots, text=texts, times=repeats)
    def write(self, slot: int, text: str, times: int) -> None:
        self.do("write", self.slot(slot), text, times)

    @rule(slot=slots, offset=sizes, whence=st.sampled_from([os.SEEK_SET, os.SEEK_CUR, os.SEEK_END]))
    def seek(self, slot: int, offset: int, whence: int) -> None:
        self.do("seek", self.slot(slot), offset, whence)

    @rule(slot=slots, size=sizes)
    def ftruncate(self, slot: int, size: int) -> None:
        self.do("ftruncate", self.slot(slot), size)

    @rule(slot=slots)
    def fsync(self, slot: int) -> None:
        self.do("fsync", self.slot(slot))

    @rule(slot=slots)
    def fstat(self, slot: int) -> None:
        self.do("fstat", self.slot(slot))

    @rule(slot=slots, mode=modes)
    def fchmod(self, slot: int, mode: int) -> None:
        self.do("fchmod", self.slot(slot), mode)

    @rule(slot=slots, uid=owners, gid=owners)
    def fchown(self, slot: int, uid: int, gid: int) -> None:
        self.do("fchown", self.slot(slot), uid, gid)

    @rule(slot=slots, atime=times, mtime=times)
    def futimens(self, slot: int, atime: int | None, mtime: int | None) -> None:
        self.do("futimens", self.slot(slot), atime, mtime)

    @rule(slot=slots, name=attributes, value=values, flags=attribute_flags)
    def fsetxattr(self, slot: int, name: str, value: str, flags: int) -> None:
        self.do("fsetxattr", self.slot(slot), name, value, flags)

    @rule(slot=slots, name=attributes, remove=st.booleans())
    def fxattr(self, slot: int, name: str, remove: bool) -> None:
        self.do("fremovexattr" if remove else "fgetxattr", self.slot(slot), name)

    @rule(slot=slots, path=new_paths)
    def flink(self, slot: int, path: Pick) -> None:
        self.do("flink", self.slot(slot), path)

    @rule(slot=slots, offset=sizes, size=sizes)
    def allocate(self, slot: int, offset: int, size: int) -> None:
        self.do("allocate", self.slot(slot), offset, size)

    @rule(slot=slots, offset=sizes)
    def seek_hole(self, slot: int, offset: int) -> None:
        self.do("seek_hole", self.slot(slot), offset)

    @rule(
        slot=slots,
        offset=sizes,
        text=texts,
        how=st.sampled_from(["map_write", "map_private", "map_beside"]),
    )
    def map(self, slot: int, offset: int, text: str, how: str) -> None:
        self.do(how, self.slot(slot), offset, text)

    @rule(slot=slots, offset=sizes, text=texts)
    def map_late(self, slot: int, offset: int, text: str) -> None:
        slot = self.slot(slot)
        if isinstance(self.do("map_late", slot, offset, text), int):
            self.opened = [other for other in self.opened if other != slot]

    @rule(slot=slots, private=st.booleans())
    def map_read(self, slot: int, private: bool) -> None:
        self.do("map_read", self.slot(slot), private)

    @rule(slot=slots, into=slots, size=sizes, start=sizes, to=sizes)
    def copy_range(self, slot: int, into: int, size: int, start: int, to: int) -> None:
        self.do("copy_range", self.slot(slot), self.slot(into), size, start, to)

    @rule(slot=slots, into=slots, size=sizes, start=sizes)
    def sendfile(self, slot: int, into: int, size: int, start: int) -> None:
        self.do("sendfile", self.slot(slot), self.slot(into), size, start)


class PosixMachine(OpenFiles):
    """These, and operations by path."""

    @rule(path=paths)
    def unlink(self, path: Pick) -> None:
        self.do("unlink", path)

    @rule(path=paths)
    def rmdir(self, path: Pick) -> None:
        self.do("rmdir", path)

    @rule(path=paths | new_paths, mode=modes)
    def mkdir(self, path: Pick, mode: int) -> None:
        self.do("mkdir", path, mode)

    @rule(path=new_paths)
    def mkdir_new(self, path: Pick) -> None:
        self.do("mkdir", path, 0o755)

    @rule(old=paths, new=paths | new_paths)
    def rename(self, old: Pick, new: Pick) -> None:
        self.do("rename", old, new, 0)

    @rule(old=paths, new=paths, flags=st.sampled_from([RENAME_EXCHANGE, RENAME_NOREPLACE, 3]))
    def rename_how(self, old: Pick, new: Pick, flags: int) -> None:
        self.do("rename", old, new, flags)

    @rule(old=paths, new=paths | new_paths, follow=st.booleans())
    def link(self, old: Pick, new: Pick, follow: bool) -> None:
        self.do("link", old, new, follow)

    @rule(text=targets, path=paths | new_paths)
    def symlink(self, text: str, path: Pick) -> None:
        self.do("symlink", text, path)

    @rule(path=paths)
    def readlink(self, path: Pick) -> None:
        self.do("readlink", path)

    @rule(path=new_paths, kind=st.sampled_from(KINDS), mode=modes, minor=st.sampled_from([3, 5]))
    def mknod(self, path: Pick, kind: int, mode: int, minor: int) -> None:
        self.do("mknod", path, kind | mode, minor if kind == stat.S_IFCHR else 0)

    @rule(path=paths)
    def listing(self, path: Pick) -> None:
        self.do("list", path)

    @rule(path=paths)
    def scan(self, path: Pick) -> None:
        self.do("scan", path)

    @rule(number=streams, path=paths)
    def opendir(self, number: int, path: Pick) -> None:
        self.do("opendir", number, path)

    @rule(number=streams, again=st.booleans())
    def readdir(self, number: int, again: bool) -> None:
        self.do("readdir", number, again)

    @rule(number=streams)
    def closedir(self, number: int) -> None:
        self.do("closedir", number)

    @rule(mask=masks)
    def umask(self, mask: int) -> None:
        self.do("umask", mask)

    @rule(path=paths, mode=st.integers(0, 7))
    def access(self, path: Pick, mode: int) -> None:
        self.do("access", path, mode)

    # -- attributes -------------------------------------------------------------------------------

    @rule(path=paths, follow=st.booleans())
    def stat(self, path: Pick, follow: bool) -> None:
        self.do("stat", path, follow)

    @rule(path=paths, size=sizes)
    def truncate(self, path: Pick, size: int) -> None:
        self.do("truncate", path, size)

    @rule(path=paths, mode=modes)
    def chmod(self, path: Pick, mode: int) -> None:
        self.do("chmod", path, mode)

    @rule(path=paths, uid=owners, gid=owners, follow=st.booleans())
    def chown(self, path: Pick, uid: int, gid: int, follow: bool) -> None:
        self.do("chown", path, uid, gid, follow)

    @rule(path=paths, atime=times, mtime=times, follow=st.booleans())
    def utimens(self, path: Pick, atime: int | None, mtime: int | None, follow: bool) -> None:
        self.do("utimens", path, atime, mtime, follow)

    @rule(path=paths, name=attributes, value=values, flags=attribute_flags)
    def setxattr(self, path: Pick, name: str, value: str, flags: int) -> None:
        self.do("setxattr", path, name, value, flags)

    @rule(path=paths, name=attributes)
    def getxattr(self, path: Pick, name: str) -> None:
        self.do("getxattr", path, name)

    @rule(path=paths, name=attributes)
    def removexattr(self, path: Pick, name: str) -> None:
        self.do("removexattr", path, name)

    # -- another client ---------------------------------------------------------------------------

    @rule(path=st.tuples(st.sampled_from(["file", "file", "free", "some"]), _numbers), body=bodies)
    def foreign(self, path: Pick, body: str | None) -> None:
        self.do("foreign", path, body)


class TurningMachine(PosixMachine):
    """The same on several mounts in turn: each operation by path is for the next one."""

    def do(self, *operation: Any) -> Any:
        if operation[0] == "symlink" and operation[1].startswith(ROOT):
            return None  # it leads into the directory of one of the mounts, and of no other
        self.comparison.do(("turn",))
        return super().do(*operation)

    @rule()
    def turn(self) -> None:
        """The mount that did the last operation does the next one as well."""
        self.comparison.do(("turn",))
