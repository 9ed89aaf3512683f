"""A program that touches everything in a mount and says what came of it.

    python -m tests.faults.visit DIRECTORY

It goes through the whole tree as a backup does (names, attributes, texts of links, extended
attributes, bytes), without following links, and prints a JSON object: for each path, in
percent-encoding, what it is and the SHA-256 of its bytes, or the name of the errno.  It is a
process of its own, so that a mount that hangs can be taken away from it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import sys
from urllib.parse import quote_from_bytes

#: Bytes read of one file.
MOST = 4 * 1024 * 1024


def visit(path: bytes) -> str:
    """What is at *path*, and how reading it ends."""
    try:
        found = os.lstat(path)
        for name in os.listxattr(path, follow_symlinks=False):
            os.getxattr(path, name, follow_symlinks=False)
        if stat.S_ISLNK(found.st_mode):
            return f"link {quote_from_bytes(os.readlink(path))}"
        if stat.S_ISDIR(found.st_mode):
            return "directory"
        if not stat.S_ISREG(found.st_mode):
            return f"special {stat.S_IFMT(found.st_mode):o}"
        with open(path, "rb") as file:
            return f"file {found.st_size} {hashlib.sha256(file.read(MOST)).hexdigest()}"
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def main() -> None:
    """Visit everything below the directory given."""
    top = os.fsencode(sys.argv[1])
    shown: dict[str, str] = {}
    pending = [b""]
    while pending:
        directory = pending.pop()
        # By descriptor: a path of some directories more is longer than the kernel takes.
        os.chdir(top)
        for part in directory.split(b"/"):
            os.chdir(part or b".")
        for name in sorted(os.listdir(b".")):
            below = directory + b"/" + name if directory else name
            shown[quote_from_bytes(below)] = what = visit(name)
            if what == "directory":
                pending.append(below)
    json.dump(shown, sys.stdout)


if __name__ == "__main__":
    main()
