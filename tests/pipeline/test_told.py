"""What the polling thread tells the event loop: if that breaks, the group ends and does not stand still."""

from __future__ import annotations

import asyncio
from threading import Event

import pytest

from consumers.dispatcher import Dispatcher
from engine.core.model import Answer
from engine.runtime.clock import SystemClock
from engine.runtime.context import Context
from engine.runtime.memory import MemoryLog
from engine.runtime.settings import Settings
from tests.pipeline.world import CODEC, PARTITIONS, PROFILES, VAULT, a_world


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


async def _has_stopped(context: Context) -> bool:
    """Whether the thread that polls was told to stop when `run` raised."""
    dispatcher, stop = Dispatcher(context), Event()
    vars(dispatcher._lanes)["pump"] = _break
    try:
        await asyncio.wait_for(dispatcher.run(stop, lambda: None), 30)
    except BrokenError:
        return stop.is_set()
    finally:
        stop.set()
    return False


def test_what_breaks_in_a_turn_ends_the_thread_that_polls_too() -> None:
    """Nothing arrives: lanes are looked at now and then, and that breaks."""
    log = MemoryLog(PARTITIONS, SystemClock())
    settings = Settings(partitions=PARTITIONS)
    context = Context(settings, log, SystemClock(), CODEC, PROFILES, VAULT, "test")
    assert asyncio.run(_has_stopped(context))


def test_what_breaks_in_the_loop_ends_the_group() -> None:
    """The error itself comes out of what `run` waits for."""
    with a_world(lambda path, seen: Answer(200)) as world, pytest.raises(BrokenError):
        asyncio.run(_ended(world.context()))
