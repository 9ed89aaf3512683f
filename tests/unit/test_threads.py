"""Work in threads on a machine that refuses them."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
import trio

from natsfs.threads import NoThread, in_thread, in_thread_or_here, start_thread

#: A process that may have no more memory, and what it says when it wants a thread.
_WITHOUT_MEMORY = """
import resource, trio
from natsfs.threads import NoThread, in_thread, in_thread_or_here, start_thread
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 10 * 1024 * 1024,) * 2)
try:
    start_thread(print, "refused")
except NoThread as error:
    print(error.strerror)
try:
    trio.run(in_thread, print)
except NoThread as error:
    print(error.strerror)
trio.run(in_thread_or_here, lambda: print("done"))
"""


def fails() -> None:
    raise RuntimeError("a bug")


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine has no thread to give, as trio hands that on."""

    async def run_sync(*arguments: object, **options: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)


async def test_work_is_done_in_a_thread() -> None:
    """E: what the work gives or raises comes back, a `RuntimeError` of its own as it is."""
    assert await in_thread(threading.get_ident) != threading.get_ident()
    assert await in_thread_or_here(threading.get_ident) != threading.get_ident()
    for way in (in_thread, in_thread_or_here):
        with pytest.raises(RuntimeError, match="a bug"):
            await way(fails)


@pytest.mark.usefixtures("refused")
async def test_there_is_no_thread() -> None:
    """E: a refused thread is an error of the machine; what has to be done is done all the same."""
    with pytest.raises(NoThread, match="can't start new thread"):
        await in_thread(threading.get_ident)
    assert await in_thread_or_here(threading.get_ident) == threading.get_ident()


def test_there_is_no_memory_for_a_thread() -> None:
    """E: a thread that could not take its first steps is not begun: who starts it would wait for
    ever."""
    ended = subprocess.run(
        [sys.executable, "-c", _WITHOUT_MEMORY], capture_output=True, text=True, timeout=60
    )
    refusal = "no thread can be started; allow the process more memory (ulimit -v, LimitAS=)"
    assert (ended.stdout.splitlines(), ended.stderr) == ([refusal, refusal, "done"], "")


def test_thread_of_ones_own() -> None:
    """E: it has its name, and does not keep the process."""
    names: list[tuple[str, bool]] = []
    thread = start_thread(
        lambda: names.append((threading.current_thread().name, threading.current_thread().daemon)),
        "worker",
    )
    thread.join(10)
    assert names == [("worker", True)]


async def test_refused_thread_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """E: where the machine has no thread, that is said as of any other."""

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(NoThread, match="can't start new thread"):
        start_thread(fails, "worker")
