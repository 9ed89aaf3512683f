"""What is said of a compare-and-set that was lost until its time was up."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from natsfs.errors import RequestTimeout, WrongRevision
from natsfs.store.contention import Contention


@dataclass
class Store:
    """Gives no time at all, once it is not *patient*."""

    timeout: float = 0.0
    patient: bool = True


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ([(1, None), (1, None)], "is not taken by the server"),
        ([(1, 2), (2, 3)], "was changed by others"),
        ([(1, 2), (1, 2)], "was changed by others"),
        ([(1, None)], "was changed by others"),
    ],
)
async def test_why(losses: list[tuple[int, int | None]], said: str) -> None:
    """E: who changes nothing is not blamed for what the server refuses again and again."""
    store = Store()
    contention = Contention(store)
    *before, last = (WrongRevision("f", *loss) for loss in losses)
    for error in before:
        await contention.lost(error)
    store.patient = False
    with pytest.raises(RequestTimeout, match=said):
        await contention.lost(last)
