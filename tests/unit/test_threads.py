"""Work in threads on a machine that refuses them."""

from __future__ import annotations

import threading

import pytest
import trio

from natsfs.threads import NoThread, in_thread, in_thread_or_here


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
