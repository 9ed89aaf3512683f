"""A client of NATS that stores whatever it is told to, as fast as the server takes it.

It knows nothing of object stores but what the test gives it, and nothing of natsfs.
"""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

#: Messages under way at once.
WINDOW = 500


class Stranger:
    """A connection to the server at *url*, on the bucket *bucket*; a context manager."""

    def __init__(self, url: str, bucket: str) -> None:
        at = urlsplit(url)
        self.bucket = bucket
        self._socket = socket.create_connection((at.hostname or "", at.port or 4222), timeout=60)
        self._stream = self._socket.makefile("rb")
        self._number = 0
        hello = {"verbose": False, "pedantic": False, "headers": True, "no_responders": True}
        self._socket.sendall(b"CONNECT " + json.dumps(hello).encode() + b"\r\nSUB _I.* 1\r\n")

    def subject(self, name: str) -> str:
        """Where the meta of *name* belongs."""
        return f"$O.{self.bucket}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"

    def store(self, messages: Sequence[tuple[str, bytes]]) -> list[int]:
        """Store every message, (subject, payload), and return their sequences."""
        found: list[int] = []
        for start in range(0, len(messages), WINDOW):
            window = messages[start : start + WINDOW]
            frames = bytearray()
            for subject, payload in window:
                # Metas take the place of what was there, as those of all clients do.
                fields = b"Nats-Rollup: sub\r\n" if ".M." in subject else b""
                head = b"NATS/1.0\r\n" + fields + b"\r\n"
                sizes = f"{len(head)} {len(head) + len(payload)}"
                frames += f"HPUB {subject} _I.x {sizes}\r\n".encode() + head + payload + b"\r\n"
            self._socket.sendall(frames)
            for _ in window:
                answer = json.loads(self._message())
                assert "error" not in answer, answer
                found.append(answer["seq"])
        return found

    def store_meta(self, name: str, fields: Mapping[str, Any], *, subject: str = "") -> int:
        """Store a meta of these *fields* beside the usual ones."""
        usual = {"name": name, "bucket": self.bucket, "nuid": "", "size": 0, "chunks": 0}
        payload = json.dumps({**usual, **fields}).encode()
        return self.store([(subject or self.subject(name), payload)])[0]

    def api(self, verb: str, **request: Any) -> dict[str, Any]:
        """Ask the JetStream API for *verb* of the bucket's stream; a refusal fails the test."""
        body = json.dumps(request).encode()
        subject = f"$JS.API.{verb}.OBJ_{self.bucket}"
        self._socket.sendall(f"PUB {subject} _I.x {len(body)}\r\n".encode() + body + b"\r\n")
        answer: dict[str, Any] = json.loads(self._message())
        assert "error" not in answer, answer
        return answer

    def chunks(self, nuid: str) -> list[int]:
        """The sequences of the chunks of *nuid*, in order."""
        subject = f"$O.{self.bucket}.C.{nuid}"
        found, after = [], 1
        count = self.api("STREAM.INFO", subjects_filter=subject)["state"].get("subjects", {})
        for _ in range(count.get(subject, 0)):
            message = self.api("STREAM.MSG.GET", seq=after, next_by_subj=subject)["message"]
            found.append(message["seq"])
            after = message["seq"] + 1
        return found

    def remove(self, sequence: int) -> None:
        """Take one message out of the stream, as an administrator or a bad disk does."""
        self.api("STREAM.MSG.DELETE", seq=sequence)

    def meta(self, name: str) -> dict[str, Any]:
        """The fields of the meta of *name*."""
        found = self.api("STREAM.MSG.GET", last_by_subj=self.subject(name))
        fields: dict[str, Any] = json.loads(base64.b64decode(found["message"]["data"]))
        return fields

    def _message(self) -> bytes:
        while True:
            verb, *fields = self._stream.readline().split()
            if verb == b"MSG":
                payload = self._stream.read(int(fields[-1]) + 2)
                return payload[:-2]
            if verb == b"PING":
                self._socket.sendall(b"PONG\r\n")
            assert verb != b"-ERR", fields

    def __enter__(self) -> Stranger:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.close()
        self._socket.close()
