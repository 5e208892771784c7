"""Writing to the log from the event loop: send now, await the broker's acknowledgement."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Iterable

from engine.api.problems import Problem
from engine.ports import Output, Producer, QueueFullError

ACKNOWLEDGED_WITHIN_S = 10.0
_IDLE_S = 0.5
_POLL_S = 0.05
_WAITING_MAX = 20_000
_WAITING_BYTES_MAX = 128 << 20
_FULL = "too many records wait for Kafka: send less at a time"
_RETRY = {"Retry-After": "1"}


class Publisher:
    """One producer, polled by whoever runs `run` on a thread. `publish` is called on the loop."""

    def __init__(
        self,
        producer: Producer,
        *,
        limit_s: float = ACKNOWLEDGED_WITHIN_S,
        waiting_bytes_max: int = _WAITING_BYTES_MAX,
    ) -> None:
        """Make it on the loop. `limit_s`: how long an acknowledgement is waited for."""
        self._producer = producer
        self._limit_s = limit_s
        self._waiting_bytes_max = waiting_bytes_max
        self._loop = asyncio.get_running_loop()
        self._acknowledged: deque[tuple[asyncio.Future[int], int, int]] = deque()
        self._settling = False
        self._waiting_bytes = 0
        self._sent = threading.Event()
        self._stopped = threading.Event()

    async def publish(self, output: Output) -> int:
        """Return the offset once all replicas have it; Problem 503 if that takes too long."""
        future = self._send(output)
        try:
            async with asyncio.timeout(self._limit_s):
                return await future
        except TimeoutError:
            raise self._late() from None

    async def publish_all(self, outputs: Iterable[Output | Problem]) -> list[int | Problem]:
        """Offsets in order; problems for problems, and for what was not taken or acknowledged in time."""
        sent = [each if isinstance(each, Problem) else self._sent_or_not(each) for each in outputs]
        waiting = [each for each in sent if not isinstance(each, Problem)]
        if waiting:
            await asyncio.wait(waiting, timeout=self._limit_s)
        return [each if isinstance(each, Problem) else self._offset(each) for each in sent]

    def _offset(self, future: asyncio.Future[int]) -> int | Problem:
        return future.result() if future.done() else self._late()

    def _late(self) -> Problem:
        return Problem(
            503,
            f"Kafka has not acknowledged it within {self._limit_s:g} s: it may yet; "
            "repeat it with the same id or Idempotency-Key",
            headers=_RETRY,
        )

    def _sent_or_not(self, output: Output) -> asyncio.Future[int] | Problem:
        try:
            return self._send(output)
        except Problem as problem:
            return problem

    def _send(self, output: Output) -> asyncio.Future[int]:
        """Queue it if there is room. It takes room until Kafka has it, even if nobody waits any more."""
        size = len(output.key or b"") + len(output.value or b"")
        if len(self._producer) >= _WAITING_MAX or self._waiting_bytes + size > self._waiting_bytes_max:
            raise Problem(503, _FULL, headers=_RETRY)
        future: asyncio.Future[int] = self._loop.create_future()
        try:
            self._producer.send(output, lambda offset: self._acknowledge(future, size, offset))
        except QueueFullError:
            raise Problem(503, _FULL, headers=_RETRY) from None
        self._waiting_bytes += size
        self._sent.set()
        return future

    def run(self) -> None:
        """Poll until `stop`, then wait for what was sent; LogError if the broker finally refuses a record."""
        while not self._stopped.is_set():
            self._sent.wait(_IDLE_S)
            self._sent.clear()
            self._producer.poll(0)
            while len(self._producer) and not self._stopped.is_set():
                self._producer.poll(_POLL_S)
        self._producer.flush(ACKNOWLEDGED_WITHIN_S)

    def stop(self) -> None:
        """Make `run` return."""
        self._stopped.set()
        self._sent.set()

    def _acknowledge(self, future: asyncio.Future[int], size: int, offset: int) -> None:
        """On the polling thread: one wake-up of the loop for all that is acknowledged together."""
        self._acknowledged.append((future, size, offset))
        if not self._settling:
            self._settling = True
            self._loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        self._settling = False
        while self._acknowledged:
            future, size, offset = self._acknowledged.popleft()
            self._waiting_bytes -= size
            if not future.done():
                future.set_result(offset)
