"""The records of a journal: what they say, and how they lie in a segment.

A segment is a file that begins with `head` and goes on with records, whose sequence numbers have no
gaps.  Segments are used again, so behind the last record there may be older ones; their numbers
tell.  Each record has two checksums: a damaged body costs that record, a damaged header all that
follows in the segment.

Pure.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum

import msgspec
from xxhash import xxh3_64_intdigest

from natsfs.store.primitives import Data

_MAGIC = b"natsfs log 1\n\0\0\0"
_HEAD = struct.Struct("<16sQQ")

# checksum of the rest, checksum of the body, sequence, offset, time, entry, count, length, kind
_RECORD = struct.Struct("<QQQQQIIIB3x")
_CHECKED = struct.Struct("<QQQQIIIB3x")

HEAD_BYTES = _HEAD.size
RECORD_BYTES = _RECORD.size


class Kind(IntEnum):
    """What a record says of its entry."""

    #: All of it anew: a `State`; what was said before does not count any more.
    BEGIN = 1
    #: A `State` again, of which the content is the one that it began with.
    STATE = 2
    #: These bytes were written at this offset.
    WRITE = 3
    #: The bytes of the spool's file from this offset on, as many as the body says, hold.
    HOLD = 4
    #: The size is this offset now.
    CUT = 5
    #: Nothing of it has to be saved any more.
    END = 6
    #: Of all entries up to the offset, those in the body still have to be saved.
    LIVE = 7


#: The kinds that change the content, and are counted.
CHANGES = frozenset({Kind.WRITE, Kind.HOLD, Kind.CUT})


class Below(msgspec.Struct, frozen=True, array_like=True):
    """A version that bytes which were never written are those of; without a *name* one that was
    still being stored."""

    name: str
    subject: str
    nuid: str
    size: int
    chunks: int
    max_chunk_size: int
    digest: str = ""


class State(msgspec.Struct, frozen=True, array_like=True):
    """A file that is not saved.

    The content it begins with: *size* bytes, the first *base_size* of them those of *below* where
    no *held* interval covers them; what is held lies in the file *spool*, if that is named.  The
    first *sent* bytes are stored already, as those of *below*, of which there is more then than
    when the entry began.

    *began* is the sequence of the record that it began with, 0 in that itself.  Changes before it
    do not count, nor do the first *forgotten* behind it, whose bytes are stored.

    *identity* tells it from all others.  *nuids* are those under which it, as it is, may have been
    stored; *own* are all that its process made of it, so that none of them is anybody else's.
    *supplants* says that *replaces* was another file, of which it has the name and nothing else.
    *after* is the identity of what stays in the journal until this is safe.  *yields* is a version
    that a rename may have given its name to, and that it must not replace.
    *closed* says that its last program is done with it, if no change follows, *trouble* why it
    cannot be stored as it is.  *attributes* are numbers that the layer above knows the meaning of.
    """

    identity: str
    name: str
    size: int
    base_size: int = 0
    held: tuple[tuple[int, int], ...] = ()
    spool: str = ""
    below: Below | None = None
    sent: int = 0
    replaces: str = ""
    appended_from: int | None = None
    attributes: tuple[int, ...] = ()
    nuids: tuple[str, ...] = ()
    closed: bool = False
    trouble: str = ""
    began: int = 0
    forgotten: int = 0
    own: tuple[str, ...] = ()
    supplants: bool = False
    after: str = ""
    yields: str = ""

    def but(self, **changes: object) -> State:
        """The same with other fields."""
        return msgspec.structs.replace(self, **changes)


@dataclass(frozen=True, slots=True)
class Record:
    """One record; its body, *length* bytes, is at *position* in its segment.  *count* is how many
    changes of its entry there were, itself included; *sound* says whether the body is undamaged."""

    kind: Kind
    sequence: int
    entry: int
    count: int
    offset: int
    time_ns: int
    position: int
    length: int
    sound: bool


def head(sequence: int) -> bytes:
    """What a segment begins with whose first record has this *sequence*."""
    return _HEAD.pack(_MAGIC, sequence, xxh3_64_intdigest(_MAGIC + sequence.to_bytes(8, "little")))


def header(
    kind: Kind, sequence: int, entry: int, count: int, offset: int, time_ns: int, body: Data
) -> bytes:
    """What stands before *body*."""
    rest = _CHECKED.pack(
        xxh3_64_intdigest(body), sequence, offset, time_ns, entry, count, len(body), kind
    )
    return xxh3_64_intdigest(rest).to_bytes(8, "little") + rest


def altered(state: State) -> State:
    """*state* after a change that it does not know of: neither is its program done with that, nor
    was it stored."""
    return state.but(closed=False, nuids=())


def render_state(state: State) -> bytes:
    return _encoder.encode(state)


def render_live(entries: Iterable[int]) -> bytes:
    """The body of a `LIVE` record."""
    return array("I", entries).tobytes()


def parse_live(body: bytes) -> set[int]:
    return set(array("I", body)) if len(body) % 4 == 0 else set()


def parse_state(data: bytes) -> State | None:
    """None for what is no state."""
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError:
        return None


def first_sequence(segment: bytes | memoryview) -> int | None:
    """The sequence of the first record of *segment*; None if it holds none."""
    if len(segment) < HEAD_BYTES:
        return None
    magic, sequence, _ = _HEAD.unpack_from(segment)
    sound = magic == _MAGIC and bytes(segment[:HEAD_BYTES]) == head(sequence)
    return sequence if sound else None


def records(segment: memoryview) -> Iterator[Record]:
    """The records of *segment*, to the first that is not one of them."""
    expected = first_sequence(segment)
    position = HEAD_BYTES
    while expected is not None and (record := _record(segment, position, expected)) is not None:
        yield record
        position = record.position + record.length
        expected += 1


def _record(segment: memoryview, start: int, expected: int) -> Record | None:
    position = start + RECORD_BYTES
    if position > len(segment):
        return None
    checksum, body_sum, sequence, offset, time_ns, entry, count, length, kind = _RECORD.unpack_from(
        segment, start
    )
    sound = checksum == xxh3_64_intdigest(segment[start + 8 : position])
    if not sound or sequence != expected or position + length > len(segment) or kind not in _KINDS:
        return None
    body = segment[position : position + length]
    whole = xxh3_64_intdigest(body) == body_sum
    return Record(
        Kind(kind), sequence, entry, count, offset, time_ns, position, length, sound=whole
    )


_KINDS = frozenset(Kind)
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(State)
