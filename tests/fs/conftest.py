"""A mounted bucket for each test."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.fs.lives import Host
from tests.fs.world import World, mounted
from tests.in_trio import Resource


@pytest.fixture
def world(tmp_path: Path) -> Resource[World]:
    """An empty bucket, mounted."""

    async def enter(stack: AsyncExitStack) -> World:
        return await stack.enter_async_context(mounted(tmp_path))

    return Resource(enter)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)
