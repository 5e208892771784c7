"""Requests under way on the event loop, and the test sends that no lane holds up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

from engine.core.delivery import Verdict, skip_reason
from engine.core.endpoint import Endpoint
from engine.core.model import Outcome
from engine.runtime.delivering.attempt import Attempts, Waiting

NO_REQUEST = Outcome("none")
LOCKED = Outcome("none", error_class="expired", error="the endpoint's secret cannot be opened here")
"""Of a test send: no request can be signed until somebody sees to the keys."""


class Requests:
    """Those that have begun; `failed` ends with whatever broke one: an endpoint's misbehaviour never does."""

    def __init__(self) -> None:
        """Make it on the loop."""
        self._loop = asyncio.get_running_loop()
        self.under_way: set[asyncio.Task[None]] = set()
        self.in_flight = 0
        """Requests that have no answer yet; whoever made one counts it out."""
        self.failed: asyncio.Future[None] = self._loop.create_future()

    def begin(self, attempt: Coroutine[None, None, None]) -> None:
        """Make one attempt, side by side with the others."""
        self.in_flight += 1
        request = self._loop.create_task(attempt)
        self.under_way.add(request)
        request.add_done_callback(self.ended)

    def ended(self, request: asyncio.Task[None]) -> None:
        """Look how one ended."""
        self.under_way.discard(request)
        error = None if request.cancelled() else request.exception()
        if error is not None and not self.failed.done():
            self.failed.set_exception(error)


class Sends:
    """Test sends: only the lease and the view hold them up. What they meet, their lane does not learn."""

    def __init__(self, requests: Requests, attempts: Attempts, left: Callable[[Waiting], None]) -> None:
        self._requests = requests
        self._attempts = attempts
        self._left = left
        self._waiting: list[Waiting] = []

    def add(self, waiting: Waiting) -> None:
        """Take one in."""
        self._waiting.append(waiting)

    def pump(self) -> None:
        """Begin or end those that can be signed."""
        self._waiting = [waiting for waiting in self._waiting if not self._begin(waiting)]

    def _begin(self, waiting: Waiting) -> bool:
        """Begin or end one; whether it has left."""
        over = waiting.taken.done or waiting.taken.owner.stopping
        endpoint = self._attempts.endpoint(waiting.delivery)
        is_locked = False
        if not over and not self._attempts.can_sign(waiting.delivery):
            is_locked = endpoint is not None and self._attempts.is_locked(endpoint)
            if not is_locked:
                return False
        self._left(waiting)
        if over or not waiting.taken.begin():
            return True
        if is_locked:  # whoever sent it waits for an answer, and no view to come has one
            self._attempts.conclude(waiting, LOCKED, Verdict("failed", LOCKED.error_class))
            return True
        reason = skip_reason(waiting.delivery, endpoint)
        if reason or endpoint is None:
            self._attempts.conclude(waiting, NO_REQUEST, Verdict("skipped", reason))
        else:
            self._requests.begin(self._attempt(waiting, endpoint))
        return True

    async def _attempt(self, waiting: Waiting, endpoint: Endpoint) -> None:
        outcome, verdict = await self._attempts.make(waiting, endpoint)
        self._requests.in_flight -= 1
        self._attempts.conclude(waiting, outcome, verdict)
