"""What the polling thread tells the event loop: if that breaks, the group ends and does not stand still."""

from __future__ import annotations

import asyncio

import pytest

from consumers.dispatcher import Dispatcher
from engine.core.model import Answer
from engine.runtime.context import Context
from tests.pipeline.world import a_world


class BrokenError(Exception):
    """What nobody expected."""


def _break() -> None:
    raise BrokenError("nobody expected this")


async def _ended(context: Context) -> None:
    dispatcher = Dispatcher(context)
    dispatcher._post(_break)
    await asyncio.sleep(0)
    try:
        await asyncio.wait_for(dispatcher._lanes.failed, 5)
    finally:
        await dispatcher._sender.close()
        dispatcher._intake.close()


def test_what_breaks_in_the_loop_ends_the_group() -> None:
    """The error itself comes out of what `run` waits for."""
    with a_world(lambda path, seen: Answer(200)) as world, pytest.raises(BrokenError):
        asyncio.run(_ended(world.context()))
