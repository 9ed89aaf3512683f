"""The budget of a link: never more than its total, in order, and nothing lost on the way."""

from __future__ import annotations

import trio
import trio.testing

from natsfs.store.link.budget import Budget


async def test_what_is_free_is_taken_at_once() -> None:
    """Taking what is free is not even a checkpoint."""
    budget = Budget(10)
    with trio.testing.assert_no_checkpoints():
        assert await budget.take(4, 1.0)
        assert await budget.take(6, 1.0)


async def test_in_order_and_bounded() -> None:
    """Whoever waits is served in turn, also a large one ahead of small ones."""
    budget, served = Budget(10), list[int]()
    await budget.take(9, 1.0)

    async def take(amount: int) -> None:
        assert await budget.take(amount, 60.0)
        served.append(amount)

    async with trio.open_nursery() as nursery:
        for amount in (99, 9, 2):
            nursery.start_soon(take, amount)
            await trio.testing.wait_all_tasks_blocked()
        assert budget.waiting == 3
        budget.give_back(9)
        await trio.testing.wait_all_tasks_blocked()
        assert served == [99]
        budget.give_back(99)
        await trio.testing.wait_all_tasks_blocked()
        assert served == [99, 9]
        budget.give_back(9)
    assert served == [99, 9, 2]


async def test_time_out() -> None:
    """A wait that ends in vain leaves its place to the next."""
    budget = Budget(10)
    await budget.take(9, 1.0)
    async with trio.open_nursery() as nursery:

        async def give_up() -> None:
            assert not await budget.take(5, 0.01)

        async def succeed() -> None:
            assert await budget.take(1, 60.0)

        nursery.start_soon(give_up)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(succeed)
    assert budget.waiting == 0


async def test_cancelled_with_the_grant() -> None:
    """What was granted to a task that is cancelled in the same moment is there for others."""
    budget = Budget(1)
    await budget.take(1, 1.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(budget.take, 1, 60.0)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        budget.give_back(1)
    assert await budget.take(1, 0.01)
