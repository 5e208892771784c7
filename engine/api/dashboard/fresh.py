"""Answers that several viewers share: however many look, the history is asked once in a while."""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from engine.ports import Clock

T = TypeVar("T")
_KEPT_MAX = 256


@dataclass(frozen=True, slots=True)
class _Known(Generic[T]):
    """An answer, and when it was asked for."""

    value: T
    at: float


@dataclass(slots=True)
class _Question(Generic[T]):
    """A question under way or answered, and the answer before it."""

    asked_at: float
    asking: asyncio.Task[T]
    before: _Known[T] | None

    @property
    def known(self) -> _Known[T] | None:
        """The newest answer; that before while this is under way or after it has failed."""
        task = self.asking
        if task.done() and not task.cancelled() and task.exception() is None:
            return _Known(task.result(), self.asked_at)
        return self.before


class Shared(Generic[T]):
    """Keeps each answer for `lasts_s`; of several who ask at once, one asks. Bounded. For one loop.

    An answer that is older, up to `stale_s`, is given at once, and asked for anew behind it.
    """

    def __init__(self, clock: Clock, lasts_s: float, stale_s: float = 0) -> None:
        self._clock = clock
        self._lasts_s = lasts_s
        self._stale_s = max(lasts_s, stale_s)
        self._kept: OrderedDict[str, _Question[T]] = OrderedDict()

    async def get(self, key: str, ask: Callable[[], Awaitable[T]]) -> T:
        """Return an answer that is fresh enough, or what `ask` returns; an error is not kept."""
        now, question = self._clock.monotonic(), self._kept.get(key)
        known = None if question is None else question.known
        age = math.inf if known is None else now - known.at
        if known is not None and age <= self._lasts_s:
            return known.value
        if question is None or question.asking.done():
            question = self._ask(key, ask, now, known)
        if known is not None and age <= self._stale_s:
            return known.value
        return await asyncio.shield(question.asking)  # one viewer who goes must not end the others' question

    def _ask(
        self, key: str, ask: Callable[[], Awaitable[T]], now: float, before: _Known[T] | None
    ) -> _Question[T]:
        asking = asyncio.ensure_future(_awaited(ask))
        asking.add_done_callback(_seen)
        self._kept[key] = question = _Question(now, asking, before)
        self._kept.move_to_end(key)
        if len(self._kept) > _KEPT_MAX:
            self._kept.popitem(last=False)
        return question


def _seen(task: asyncio.Task[T]) -> None:
    """Look at an error that nobody may be waiting for; who asks next asks anew."""
    if not task.cancelled():
        task.exception()


async def _awaited(ask: Callable[[], Awaitable[T]]) -> T:
    return await ask()
