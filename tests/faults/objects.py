"""Objects as any client stores them, a look at all that a mount shows, and at its log."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from natsfs.store.wire import new_nuid, render_digest
from tests.mount.mounting import Mount, run

from .stranger import Stranger


def put(stranger: Stranger, name: str, body: bytes, chunk: int = 0, **fields: Any) -> str:
    """Store an object in chunks of *chunk* bytes; gives its nuid."""
    nuid = new_nuid()
    size = chunk or max(len(body), 1)
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    stranger.store([(f"$O.{stranger.bucket}.C.{nuid}", part) for part in chunks])
    digest = render_digest(hashlib.sha256(body).digest())
    usual = {"nuid": nuid, "size": len(body), "chunks": len(chunks), "digest": digest}
    options = {"max_chunk_size": size}
    stranger.store_meta(name, {**usual, "options": options, **fields})
    return nuid


def visit(directory: Path) -> dict[str, str]:
    """What `tests.faults.visit` finds."""
    command = [sys.executable, "-m", "tests.faults.visit", str(directory)]
    found: dict[str, str] = json.loads(run(command, cwd=Path.cwd(), timeout=100).check())
    return found


def told(body: bytes) -> str:
    """What `visit` says of a file with these bytes."""
    return f"file {len(body)} {hashlib.sha256(body).hexdigest()}"


def lines_with(mount: Mount, text: str) -> list[str]:
    """The lines of the log that have *text*."""
    return [line for line in mount.log_text().splitlines() if text in line]
