"""A cluster of three nats-servers on loopback, and everything that can befall it.

Each node is a process with a store of its own.  Who leads what is asked of the nodes, and a fault
is over when they say so: nothing here waits for a time.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.request import urlopen

from natsfs.server import Server, start_server
from tests.contract.linked import freeze

T = TypeVar("T")

#: Seconds until a cluster has to have its leaders: an election takes 4 to 9.
SETTLE = 60.0

#: Seconds after which a leader who was told to step down and still leads has been elected again.
ELECTION = 10.0

_CONFIG = """
server_name: n{number}
http: "127.0.0.1:{monitor}"
cluster {{
    name: natsfs
    listen: "127.0.0.1:{port}"
    routes: [{routes}]
}}
"""


class NoAnswer(Exception):
    """The node does not answer, or nobody does."""


class Cluster:
    """Three nodes, numbered from 0."""

    def __init__(self, directory: Path, binary: Path | None = None) -> None:
        ports, self._monitors = _free_ports(3), _free_ports(3)
        routes = ", ".join(f'"nats-route://127.0.0.1:{port}"' for port in ports)
        self.nodes: list[Server] = []
        try:
            for number, port in enumerate(ports):
                extra = _CONFIG.format(
                    number=number, port=port, monitor=self._monitors[number], routes=routes
                )
                store = directory / f"n{number}"
                self.nodes.append(start_server(store, extra_config=extra, binary=binary))
            self.settled()
        except BaseException:
            self.close()
            raise

    @property
    def urls(self) -> str:
        """All nodes, as one list of servers in a SOURCE."""
        return ",".join(node.url for node in self.nodes)

    def close(self) -> None:
        """End all nodes."""
        for node in self.nodes:
            self.resume(node)
            node.kill()

    # -- looking ----------------------------------------------------------------------------------

    def api(
        self, verb: str, payload: dict[str, Any] | None = None, node: Server | None = None
    ) -> dict[str, Any]:
        """The answer to a request to `$JS.API`, by way of *node* or of one that answers.

        Errors: `NoAnswer`.
        """
        for asked in [node] if node else self.nodes:
            with suppress(NoAnswer):
                return ask(asked, f"$JS.API.{verb}", payload)
        raise NoAnswer(verb)

    def leader(self, stream: str) -> Server:
        """The node that leads *stream*, once there is one and the others follow it."""
        return self._wait(lambda: self._leader(stream), f"leader of {stream}")

    def _leader(self, stream: str) -> Server | None:
        told = self.api(f"STREAM.INFO.{stream}").get("cluster") or {}
        return self.named(told["leader"]) if told.get("leader") else None

    def named(self, name: str) -> Server:
        """The node that calls itself *name*."""
        return self.nodes[int(name.removeprefix("n"))]

    def followers(self, stream: str) -> list[Server]:
        """The nodes that do not lead *stream*."""
        leader = self.leader(stream)
        return [node for node in self.nodes if node is not leader]

    def meta_leader(self) -> Server:
        """The node that leads the cluster itself: it places streams and consumers."""
        return self._wait(self._meta_leader, "meta leader")

    def _meta_leader(self) -> Server | None:
        for monitor in self._monitors:
            with suppress(OSError), urlopen(f"http://127.0.0.1:{monitor}/jsz", timeout=2) as page:
                leader = json.load(page).get("meta_cluster", {}).get("leader")
                if leader and self.named(leader).alive():
                    return self.named(leader)
        return None

    def settled(self, stream: str = "") -> None:
        """Wait until the cluster answers, and all replicas of *stream* have the same."""

        def ready() -> bool:
            if not stream:
                return "error" not in self.api("STREAM.NAMES", {})
            told = self.api(f"STREAM.INFO.{stream}").get("cluster") or {}
            replicas = told.get("replicas") or []
            current = [r for r in replicas if r.get("current") and not r.get("offline")]
            return bool(told.get("leader")) and len(current) == len(self.nodes) - 1

        self._wait(ready, f"the cluster with {stream or 'nothing'}")

    def _wait(self, look: Callable[[], T | None], what: str) -> T:
        deadline = time.monotonic() + SETTLE
        while True:
            with suppress(NoAnswer):
                found = look()
                if found:
                    return found
            assert time.monotonic() < deadline, f"not within {SETTLE:.0f} s: {what}"
            time.sleep(0.05)

    # -- faults -----------------------------------------------------------------------------------

    def step_down(self, stream: str) -> None:
        """Have *stream* choose another leader, and wait for it.

        A leader whom nobody follows yet is elected again; it is told once more.
        """
        before = self.leader(stream)

        def led_by_another() -> bool:
            self.api(f"STREAM.LEADER.STEPDOWN.{stream}")
            changed = time.monotonic() + ELECTION
            while time.monotonic() < changed:
                with suppress(NoAnswer):
                    if self._leader(stream) not in (None, before):
                        return True
                time.sleep(0.05)
            return False

        self._wait(led_by_another, f"new leader of {stream}")

    @contextmanager
    def killed(self, *nodes: Server) -> Iterator[None]:
        """SIGKILL, and a start on the same ports and files at the end."""
        for node in nodes:
            node.kill()
        try:
            yield
        finally:
            for node in nodes:
                node.restart()

    @contextmanager
    def frozen(self, *nodes: Server) -> Iterator[None]:
        """SIGSTOP, and SIGCONT at the end: the connections stay, nothing answers."""
        for node in nodes:
            freeze(node)
        try:
            yield
        finally:
            for node in nodes:
                self.resume(node)

    def resume(self, node: Server) -> None:
        """SIGCONT, which does nothing to a node that runs or is gone."""
        with suppress(ProcessLookupError):
            os.kill(node.pid, signal.SIGCONT)


def ask(
    node: Server, subject: str, payload: dict[str, Any] | None = None, timeout: float = 2.0
) -> dict[str, Any]:
    """One request to one node on a connection of its own.  Errors: `NoAnswer`."""
    try:
        return _ask(node.port, subject, json.dumps(payload).encode() if payload else b"", timeout)
    except (OSError, ValueError) as error:
        raise NoAnswer(f"{subject}: {error}") from error


def _ask(port: int, subject: str, payload: bytes, timeout: float) -> dict[str, Any]:
    options = json.dumps(
        {"verbose": False, "pedantic": False, "headers": True, "no_responders": True}
    )
    with closing(socket.create_connection(("127.0.0.1", port), timeout=timeout)) as connection:
        connection.settimeout(timeout)
        lines = connection.makefile("rb")
        lines.readline()
        connection.sendall(
            f"CONNECT {options}\r\nSUB _INBOX.ask 1\r\n"
            f"PUB {subject} _INBOX.ask {len(payload)}\r\n".encode()
            + payload
            + b"\r\n"
        )
        while True:
            verb, *words = lines.readline().split() or [b""]
            if verb == b"PING":
                connection.sendall(b"PONG\r\n")
            elif verb == b"MSG":
                answer: dict[str, Any] = json.loads(lines.read(int(words[-1])))
                return answer
            elif verb in (b"", b"HMSG", b"-ERR"):
                raise ValueError(f"{verb!r} {words}")


def _free_ports(count: int) -> list[int]:
    """Ports that nobody uses now; routes have to be known before the nodes start."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports
