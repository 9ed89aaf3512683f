"""Directory streams of the C library: opendir(3), telldir(3), seekdir(3), which Python lacks."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator

_libc = ctypes.CDLL(None, use_errno=True)
_libc.opendir.restype = ctypes.c_void_p
_libc.readdir.restype = ctypes.c_void_p
_libc.telldir.restype = ctypes.c_long


class _Dirent(ctypes.Structure):
    """struct dirent of Linux on 64 bits."""

    _fields_ = (
        ("ino", ctypes.c_uint64),
        ("off", ctypes.c_int64),
        ("reclen", ctypes.c_uint16),
        ("type", ctypes.c_uint8),
        ("name", ctypes.c_char * 256),
    )


class DirectoryStream:
    """One open directory; `close` it."""

    def __init__(self, path: str) -> None:
        self._stream = _libc.opendir(os.fsencode(path))
        if not self._stream:
            self._fail()

    def close(self) -> None:
        """End the stream."""
        _libc.closedir(ctypes.c_void_p(self._stream))

    def tell(self) -> int:
        """The place of the next entry."""
        place: int = _libc.telldir(ctypes.c_void_p(self._stream))
        return place

    def seek(self, place: int) -> None:
        """Go on at a place that `tell` told."""
        _libc.seekdir(ctypes.c_void_p(self._stream), ctypes.c_long(place))

    def rewind(self) -> None:
        """Go on at the beginning, with the directory as it is now."""
        _libc.rewinddir(ctypes.c_void_p(self._stream))

    def __iter__(self) -> Iterator[str]:
        """The names from here on, without `.` and `..`."""
        while True:
            ctypes.set_errno(0)
            address = _libc.readdir(ctypes.c_void_p(self._stream))
            if not address:
                if ctypes.get_errno():
                    self._fail()
                return
            # Only as much as there is: the record may end before the longest name would.
            name = os.fsdecode(ctypes.string_at(address + _Dirent.name.offset))
            if name not in (".", ".."):
                yield name

    def _fail(self) -> None:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
