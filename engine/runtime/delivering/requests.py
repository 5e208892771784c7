"""Requests under way on the event loop, and the test sends that no lane holds up."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field

from engine.core.delivery import Verdict, skip_reason
from engine.core.endpoint import Endpoint
from engine.core.model import Outcome
from engine.runtime import telemetry
from engine.runtime.delivering.attempt import Attempts, Waiting
from engine.runtime.settings import Settings

NO_REQUEST = Outcome("none")
OVERDUE = Outcome("none", error_class="expired")
LOCKED = Outcome("none", error_class="expired", error="the endpoint's secret cannot be opened here")
"""Of a test send: no request can be signed until somebody sees to the keys."""
TESTS_SHARE = 8
"""Test sends may be an eighth of what lanes may be: in flight, and of all that waits."""
TESTS_AT_ONCE = 2
"""Test sends of one endpoint in flight."""
TESTS_WAITING = 32
"""Test sends that may wait for one endpoint."""
TEST_WAITS_US = 65_000_000
"""After so long, the longest timeout and a little, whoever asked for a test send waits no more."""


class Requests:
    """Those that have begun; `failed` ends with whatever broke one: an endpoint's misbehaviour never does."""

    def __init__(self) -> None:
        """Make it on the loop."""
        self._loop = asyncio.get_running_loop()
        self.under_way: set[asyncio.Task[None]] = set()
        self.in_flight = 0
        """Requests of lanes that have no answer yet; whoever makes one counts it in and out."""
        self.failed: asyncio.Future[None] = self._loop.create_future()

    def begin(self, attempt: Coroutine[None, None, None]) -> None:
        """Make one attempt, side by side with the others."""
        request = self._loop.create_task(attempt)
        self.under_way.add(request)
        request.add_done_callback(self.ended)

    def ended(self, request: asyncio.Task[None]) -> None:
        """Look how one ended."""
        self.under_way.discard(request)
        error = None if request.cancelled() else request.exception()
        if error is not None and not self.failed.done():
            self.failed.set_exception(error)


@dataclass(slots=True)
class _Queue:
    """Test sends of one endpoint, in order."""

    endpoint_id: str
    waiting: deque[Waiting] = field(default_factory=deque)
    in_flight: int = 0
    is_queued: bool = False
    """Whether it stands in the line of those that could begin one."""


class Sends:
    """Test sends: the lease, the view and each other hold them up. What they meet, their lane does not learn.

    They have places of their own and take none of the lanes': anybody may ask for as many as he likes,
    and none of them is ever parked.
    """

    def __init__(
        self, requests: Requests, attempts: Attempts, left: Callable[[Waiting], None], settings: Settings
    ) -> None:
        self._requests = requests
        self._attempts = attempts
        self._left = left
        self._places = max(1, settings.in_flight // TESTS_SHARE)
        self._most = max(1, settings.waiting // TESTS_SHARE)
        self._queues: dict[str, _Queue] = {}
        self._line: deque[_Queue] = deque()
        self._overdue: deque[Waiting] = deque()
        """Those that others came after, more than there is room for."""
        self._waiting = 0
        self.in_flight = 0

    def add(self, waiting: Waiting) -> None:
        """Take one in; where too many wait, the one that has waited longest makes room."""
        name = waiting.delivery.endpoint_id
        queue = self._queues.get(name) or self._queues.setdefault(name, _Queue(name))
        queue.waiting.append(waiting)
        self._waiting += 1
        if len(queue.waiting) > TESTS_WAITING or self._waiting > self._most:
            self._overdue.append(self._taken_from(queue))
        self._settle(queue)

    def pump(self, now: int) -> None:
        """Begin or end those that can be signed, one an endpoint and round, while there are places."""
        while self._overdue:
            self._expire(self._overdue.popleft())
        blocked: list[_Queue] = []
        while self._line and self.in_flight < self._places:
            queue = self._line.popleft()
            queue.is_queued = False
            if queue.waiting and not self._advance(queue, now):
                blocked.append(queue)
            else:
                self._settle(queue)
        for queue in blocked:
            self._settle(queue)

    def _settle(self, queue: _Queue) -> None:
        """See to it that the queue is looked at again if it could begin one, and forgotten if it is over."""
        if queue.waiting and not queue.is_queued and queue.in_flight < TESTS_AT_ONCE:
            queue.is_queued = True
            self._line.append(queue)
        if not queue.waiting and not queue.in_flight:
            self._queues.pop(queue.endpoint_id, None)

    def _taken_from(self, queue: _Queue) -> Waiting:
        self._waiting -= 1
        return queue.waiting.popleft()

    def _advance(self, queue: _Queue, now: int) -> bool:
        """Begin or end the one at the head, if it may; whether it has left."""
        waiting = queue.waiting[0]
        if now - waiting.since > TEST_WAITS_US:
            self._expire(self._taken_from(queue))
            return True
        if not _is_over(waiting) and not self._attempts.can_sign(waiting.delivery):
            return self._wait_to_sign(queue)
        self._begin(queue, self._taken_from(queue))
        return True

    def _wait_to_sign(self, queue: _Queue) -> bool:
        """Wait for the view; who sent what does not open here waits for an answer, and no view has one."""
        endpoint = self._attempts.endpoint(queue.waiting[0].delivery)
        if endpoint is None or not self._attempts.is_locked(endpoint):
            return False
        self._expire(self._taken_from(queue), LOCKED)
        return True

    def _begin(self, queue: _Queue, waiting: Waiting) -> None:
        self._left(waiting)
        if _is_over(waiting) or not waiting.taken.begin():
            return
        endpoint = self._attempts.endpoint(waiting.delivery)
        reason = skip_reason(waiting.delivery, endpoint)
        if reason or endpoint is None:
            self._attempts.conclude(waiting, NO_REQUEST, Verdict("skipped", reason))
            return
        self.in_flight += 1
        queue.in_flight += 1
        self._requests.begin(self._attempt(queue, waiting, endpoint))

    def _expire(self, waiting: Waiting, outcome: Outcome = OVERDUE) -> None:
        """Nobody waits for it any more, too many wait, or it cannot be signed: it ends without a request."""
        self._left(waiting)
        if not _is_over(waiting) and waiting.taken.begin():
            telemetry.EXPIRED.labels("expired").inc()
            self._attempts.conclude(waiting, outcome, Verdict("failed", "expired"))

    async def _attempt(self, queue: _Queue, waiting: Waiting, endpoint: Endpoint) -> None:
        outcome, verdict = await self._attempts.make(waiting, endpoint)
        self.in_flight -= 1
        queue.in_flight -= 1
        self._attempts.conclude(waiting, outcome, verdict)
        self._settle(queue)


def _is_over(waiting: Waiting) -> bool:
    """Whether the owner before us, or after, has seen or sees to it."""
    return waiting.taken.done or waiting.taken.owner.stopping
