"""Object name and path, text and bytes: the only module that knows the replacement characters.

An object name is any Unicode text.  The kernel wants components that are bytes without slash and
NUL and that are none of ``""``, ``"."``, ``".."``.  Three layers, each a bijection of its own, lead
from one to the other (semantics.md N1, N2; the characters are those that rclone's users know):

1. whole components: ``""``, ``"."``, ``".."`` are shown as ``／``, ``．``, ``．．``; one of these
   that is meant literally gets one more ``‛`` in front;
2. NUL is shown as ``␀``; the ``‛`` in front of either are doubled, and a literal ``␀`` gets one
   more;
3. a byte that is not UTF-8 is spelled ``‛XX`` in the object name, with 80 to FF in upper-case hex;
   the ``‛`` in front of either are doubled, so that an odd number of them means a byte.

Layer 3 alone carries symlink targets and xattr values (`text_of`, `bytes_of`).  It cannot reach
some object names that a foreign client may choose: ``‛C3‛A9`` spells the bytes of ``é``, whose name
is ``é``.  Those are not *canonical*; they, like components that are taken or too long, are shown
under one of their `decorations`.

Names are never folded or normalised (N6).  The text given here holds no lone surrogates:
`store.wire` has replaced them.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b32encode
from collections.abc import Iterator
from itertools import count

#: Bytes; NAME_MAX of Linux, which the VFS enforces before FUSE sees a name.
MAX_COMPONENT = 255

#: rclone's quoting character, U+201B.
QUOTE = "‛"

#: 60 bits of the hash: two names of one directory meet by chance once in some 10**9 entries.
HASH_CHARACTERS = 12

_SHOWN_WHOLE = {"": "／", ".": "．", "..": "．．"}
_HIDDEN_WHOLE = {shown: hidden for hidden, shown in _SHOWN_WHOLE.items()}
_LITERAL_WHOLE = re.compile("‛*(?:／|．．?)")

# Each pattern ends in a bare run of quotes, so that a run is looked at once: without it a search
# would start again at every quote, and hostile names of quotes alone would cost quadratic time.
_NUL = re.compile("(‛*)([\0␀])|‛+")
_NUL_SHOWN = re.compile("(‛*)(␀)|‛+")
_BYTE = re.compile("(‛*)([\udc80-\udcff])|(‛+)([89A-F][0-9A-F])|‛+")
_BYTE_SPELLED = re.compile("(‛+)([89A-F][0-9A-F])|‛+")


def encode_component(text: str) -> bytes:
    """One component of an object name, which may be empty, as the kernel is to see it.

    The result is of any length, see `MAX_COMPONENT`.  It belongs to *text* alone only if *text*
    `is_canonical`.
    """
    if text.isascii() and "\0" not in text and text not in _SHOWN_WHOLE:
        # Nothing to replace: what is replaced and what replaces it is not ASCII.
        return text.encode()
    return bytes_of(_NUL.sub(_show_nul, _show_whole(text)))


def decode_component(name: bytes) -> str:
    """The component of an object name that is shown as *name*.

    Defined, and different, for every *name* that a program may create: not empty, not ``.`` or
    ``..``, without slash and NUL.  `encode_component` brings back each of them.
    """
    if name.isascii():
        return name.decode()
    return _hide_whole(_NUL_SHOWN.sub(_hide_nul, text_of(name)))


def is_canonical(text: str) -> bool:
    """Whether a program that creates what *text* is shown as would mean *text*."""
    return decode_component(encode_component(text)) == text


def split_name(name: str) -> tuple[list[str], str]:
    """The directories and the leaf of an object name; joined by slashes they are *name* again.

    An empty leaf says that *name* is the marker of its last directory (N5).
    """
    *directories, leaf = name.split("/")
    return directories, leaf


def decorations(component: bytes, key: str) -> Iterator[bytes]:
    """Other names for an entry that cannot be shown as *component*: taken, too long, not canonical.

    Endless, and the same for the same *component* and *key* (N3, N4).  First *component* with more
    and more quotes behind it, while they fit into `MAX_COMPONENT`; then a shortened *component*
    with a hash of *key*, which therefore is unique to the entry, such as its meta subject.
    """
    quote = QUOTE.encode()
    for shown in range(len(component) + len(quote), MAX_COMPONENT + 1, len(quote)):
        yield component + quote * ((shown - len(component)) // len(quote))
    yield from hashed(component, key)


def hashed(component: bytes, key: str) -> Iterator[bytes]:
    """*component*, shortened, with hashes of *key*.  Endless, and the same for the same *key*."""
    quote = QUOTE.encode()
    prefix = _shortened(component, MAX_COMPONENT - len(quote) - HASH_CHARACTERS)
    for attempt in count():
        digest = hashlib.sha256(f"{key}\0{attempt}".encode() if attempt else key.encode()).digest()
        yield prefix + quote + b32encode(digest)[:HASH_CHARACTERS].lower()


def text_of(raw: bytes) -> str:
    """Any bytes as text that JSON can carry.  UTF-8 without a literal ``‛XX`` stays as it is."""
    return _BYTE.sub(_spell_byte, raw.decode("utf-8", "surrogateescape"))


def bytes_of(text: str) -> bytes:
    """The bytes that `text_of` made *text* from; other texts have some bytes, too."""
    return _BYTE_SPELLED.sub(_read_byte, text).encode("utf-8", "surrogateescape")


def _show_whole(text: str) -> str:
    if text in _SHOWN_WHOLE:
        return _SHOWN_WHOLE[text]
    return QUOTE + text if _LITERAL_WHOLE.fullmatch(text) else text


def _hide_whole(shown: str) -> str:
    if shown in _HIDDEN_WHOLE:
        return _HIDDEN_WHOLE[shown]
    return shown[1:] if _LITERAL_WHOLE.fullmatch(shown) else shown


def _show_nul(match: re.Match[str]) -> str:
    quotes, token = match.groups()
    if token is None:
        return match[0]
    return quotes * 2 + ("␀" if token == "\0" else "‛␀")


def _hide_nul(match: re.Match[str]) -> str:
    quotes, token = match.groups()
    if token is None:
        return match[0]
    return quotes[: len(quotes) // 2] + ("␀" if len(quotes) % 2 else "\0")


def _spell_byte(match: re.Match[str]) -> str:
    before, byte, quotes, digits = match.groups()
    if byte is not None:
        return before * 2 + f"‛{ord(byte) - 0xDC00:02X}"
    return quotes * 2 + digits if quotes else match[0]


def _read_byte(match: re.Match[str]) -> str:
    quotes, digits = match.groups()
    if quotes is None:
        return match[0]
    half = quotes[: len(quotes) // 2]
    return half + (chr(0xDC00 + int(digits, 16)) if len(quotes) % 2 else digits)


def _shortened(component: bytes, limit: int) -> bytes:
    """At most *limit* bytes of *component*, not ending inside a character."""
    end = min(limit, len(component))
    while 0 < end < len(component) and component[end] & 0xC0 == 0x80 and limit - end < 3:
        end -= 1
    return component[:end]
