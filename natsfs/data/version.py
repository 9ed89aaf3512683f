"""A version as the data layer sees it: so many immutable bytes, cut into blocks.  Pure.

A block is what the cache keeps and checks as one: whole chunks where these are neither tiny nor
huge, so that a block is fetched without bytes of its neighbours (R2).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

from natsfs.store.model import DEFAULT_CHUNK_SIZE, ObjectInfo

#: Bytes of a block.  Smaller chunks are taken several at a time, since each block costs a line in
#: the cache and a look; of larger ones a block is a part, since a read waits for whole blocks.
SMALLEST_BLOCK = 64 * 1024
LARGEST_BLOCK = 4 * 1024 * 1024


@dataclass(frozen=True)
class Version:
    """The *size* bytes of the version *nuid*, cut into blocks of *block_size* bytes."""

    bucket_identity: str
    nuid: str
    size: int
    block_size: int

    @property
    def count(self) -> int:
        """How many blocks there are."""
        return -(-self.size // self.block_size)

    def start(self, index: int) -> int:
        """The offset of the first byte of block *index*; the size for the block after the last."""
        return min(index * self.block_size, self.size)

    def blocks(self, start: int, stop: int) -> range:
        """The blocks that the bytes [*start*, *stop*) touch."""
        return range(start // self.block_size, -(-stop // self.block_size))

    @cached_property
    def hash(self) -> bytes:
        """32 bytes that stand for the version, however it is cut."""
        return version_hash(self.bucket_identity, self.nuid)


def version_hash(bucket_identity: str, nuid: str) -> bytes:
    """`Version.hash`.  The length keeps the two parts from running into each other."""
    text = f"{len(bucket_identity)}:{bucket_identity}{nuid}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def block_size_of(info: ObjectInfo) -> int:
    """How many bytes of the version *info* make a block: whole chunks unless these are huge."""
    chunk = info.max_chunk_size if info.max_chunk_size > 0 else DEFAULT_CHUNK_SIZE
    return min(-(-SMALLEST_BLOCK // chunk) * chunk, LARGEST_BLOCK)
