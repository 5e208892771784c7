"""Lanes: what the dispatcher keeps for each endpoint. Runs on the event loop.

A lane holds the deliveries that wait for one endpoint and begins them as its
circuit, rate limit, in-flight cap and share of this process allow. What it
cannot take is parked: it waits on the log (engine.runtime.delivering.parking).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from itertools import chain

from engine.core.delivery import Verdict, skip_reason
from engine.core.endpoint import Endpoint
from engine.core.lane import (
    CLOSED,
    Cap,
    Circuit,
    adapted,
    after,
    first_cap,
    is_suspect,
    lets_through,
    probing,
)
from engine.core.model import Outcome
from engine.runtime import telemetry
from engine.runtime.context import Context
from engine.runtime.delivering.attempt import Attempts, Waiting
from engine.runtime.delivering.lane import (
    DRAINED_MAX,
    LOOK_US,
    LiveLane,
    held_by,
    hold,
    is_held_back,
    let_go,
    lock,
    take_token,
    tell_parked,
)
from engine.runtime.delivering.parked import Parked
from engine.runtime.delivering.parking import Parking
from engine.runtime.delivering.patience import Patience, Wakes
from engine.runtime.delivering.places import Places
from engine.runtime.delivering.requests import NO_REQUEST, Requests, Sends
from engine.runtime.delivering.suspects import Suspects
from engine.runtime.owned import Input, Owned
from engine.runtime.processor import Processor


class Lanes:
    """The lanes of this process."""

    def __init__(self, context: Context, processor: Processor, attempts: Attempts, parking: Parking) -> None:
        self._context = context
        self._settings = context.settings
        self._processor = processor
        self._attempts = attempts
        self._parking = parking
        self._lanes: dict[str, LiveLane] = {}
        self._line: deque[LiveLane] = deque()
        self._wakes = Wakes()
        self._blocked: list[LiveLane] = []
        """Lanes that wait for a newer view, or for others to end requests: the next pump looks again."""
        self._circuits: Counter[str] = Counter()
        self.places = Places(context.settings)
        self._requests = Requests()
        self._suspects = Suspects(context.settings.in_flight)
        self._patience = Patience()
        self._tests = Sends(self._requests, attempts, self.places.leave, context.settings)
        self.failed = self._requests.failed

    # -- what the thread that polls tells ------------------------------------------------

    def arrive(self, batch: Sequence[Waiting]) -> None:
        """Queue deliveries in their lanes and start what can start."""
        now = self._context.clock.now()
        for waiting in batch:
            waiting.since = now
            self.places.take(waiting)
            if waiting.delivery.trigger == "test":
                self._tests.add(waiting)
            else:
                self._queue(waiting, now)
        self.pump()

    def _queue(self, waiting: Waiting, now: int) -> None:
        delivery = waiting.delivery
        lane = self._lane(delivery.endpoint_id, delivery.tenant, waiting.taken.owner)
        parked_us = now - waiting.appended_at if waiting.parked is not None and lane.is_to_blame else 0
        waiting.held_us = held_by(lane, now) - parked_us
        lane.waiting.append(waiting)
        lane.bytes += waiting.size
        if waiting.parked is None and (
            lane.is_diverted or self.places.is_over(len(lane.waiting), lane.bytes)
        ):
            self._park(lane)
        self._stand_in_line(lane)

    def restore(self, owned: Owned, found: Iterable[Parked]) -> None:
        """A partition is ours: its lanes are what the log says."""
        self.forget(owned.at[1])
        for parked in found:
            lane = self._lane(parked.endpoint_id, parked.tenant, owned)
            lane.parked, lane.is_diverted = parked, parked.is_parked
            self._turn_circuit(lane, parked.circuit)
            self._forget_idle(lane)

    def changed(self, endpoint_ids: Iterable[str]) -> None:
        """The view has other snapshots of these endpoints, or none any more."""
        for lane in [self._lanes[id] for id in endpoint_ids if id in self._lanes]:
            self._forget_idle(lane)

    def forget(self, partition: int) -> None:
        """A partition is not ours any more."""
        for lane in [lane for lane in self._lanes.values() if lane.owned.at[1] == partition]:
            while lane.waiting:
                self._leave(lane, lane.waiting.popleft())
            lane.parked = None
            self._turn_circuit(lane, CLOSED)
            del self._lanes[lane.endpoint_id]

    def resumed(self, parked: Parked, heard: int) -> None:
        """A parked lane's records come on their own again."""
        lane = self._lanes.get(parked.endpoint_id)
        if lane is not None and lane.parked is parked and parked.asked == heard:
            lane.is_diverted = False

    def cleared(self, parked: Parked, heard: int) -> None:
        """The log says nothing of a lane any more."""
        lane = self._lanes.get(parked.endpoint_id)
        if lane is not None and lane.parked is parked and parked.asked == heard:
            lane.parked, lane.is_diverted = None, False
            self._forget_idle(lane)

    # -- what a lane holds -----------------------------------------------------------------

    def _lane(self, endpoint_id: str, tenant: str, owned: Owned) -> LiveLane:
        lane = self._lanes.get(endpoint_id)
        if lane is None or lane.owned is not owned:
            cap, now = first_cap(self._settings.endpoint_in_flight), self._context.clock.now()
            lane = self._lanes[endpoint_id] = LiveLane(endpoint_id, tenant, owned, cap, now)
        return lane

    def _park(self, lane: LiveLane) -> None:
        """Leave what came on its own on the log; what was drained for the lane came before it, and stays."""
        if not lane.is_diverted or lane.circuit.state != "closed":
            lane.is_to_blame = bool(lane.held_since)
        given: list[Input] = []
        while lane.waiting and lane.waiting[-1].parked is None:
            given.append(self._leave(lane, lane.waiting.pop()).taken)
        if given:
            lane.is_diverted = True
            self._parking.ask(self._parked(lane), given[::-1])

    def _parked(self, lane: LiveLane) -> Parked:
        if lane.parked is None:
            lane.parked = Parked(lane.owned, lane.endpoint_id, lane.tenant)
            tell_parked(lane)
        return lane.parked

    def _leave(self, lane: LiveLane, waiting: Waiting) -> Waiting:
        """Count out a delivery that was taken from its lane."""
        lane.bytes -= waiting.size
        self.places.leave(waiting)
        return waiting

    def _stand_in_line(self, lane: LiveLane) -> None:
        if lane.is_queued or not lane.waiting or (lane.is_aside and is_suspect(lane.circuit)):
            return
        is_held = bool(lane.wakes_at) or lane.in_flight >= int(lane.cap.size)
        if is_held != bool(lane.held_since):
            (hold if is_held else let_go)(lane, self._context.clock.now())
        if not is_held:
            lane.is_queued = True
            self._line.append(lane)
        elif not lane.is_watched:
            self._patience.watch(lane, self._context.clock.now())

    def _forget_idle(self, lane: LiveLane) -> None:
        """Keep a lane for what waits, or holds its endpoint back; of a deleted one nothing does."""
        if lane.waiting or lane.in_flight:
            return
        if is_held_back(lane) and self._attempts.is_deleted(lane.endpoint_id):
            lane.is_limited, lane.gone_version, is_told = False, -1, lane.circuit.state != "closed"
            self._turn_circuit(lane, CLOSED)
            if is_told:
                self._parking.ask(self._parked(lane), ())
        if not is_held_back(lane) and lane.parked is None and self._lanes.get(lane.endpoint_id) is lane:
            del self._lanes[lane.endpoint_id]

    # -- beginning what may begin --------------------------------------------------------

    def pump(self) -> None:
        """Begin deliveries, one a lane and round, while there is room and the broker answers."""
        if not self._processor.may_begin(self._settings.lease_s):
            return
        now = self._context.clock.now()
        for lane in self._patience.lost(now):
            self._park(lane)
        self._tests.pump(now)
        for lane in chain(self._wakes.due(now), self._suspects.called()):
            self._stand_in_line(lane)
        while self._line and self._requests.in_flight < self._settings.in_flight:
            lane = self._line.popleft()
            lane.is_queued = False
            if lane.waiting and self._advance(lane, now):
                self._stand_in_line(lane)
            elif lane.waiting:
                self._patience.watch(lane, now)
            self._forget_idle(lane)
        blocked, self._blocked = self._blocked, []
        for lane in blocked:
            self._stand_in_line(lane)

    def _advance(self, lane: LiveLane, now: int) -> bool:
        """Begin or end the delivery at the head, if it may; else see to it that it is looked at again."""
        waiting, delivery = lane.waiting[0], lane.waiting[0].delivery
        if waiting.taken.done or waiting.taken.owner.stopping:  # the owner before us, or after, sees to it
            self._leave(lane, lane.waiting.popleft())
            return True
        endpoint = self._attempts.endpoint(delivery)
        if not self._attempts.can_sign(delivery):
            return self._wait_to_sign(lane, waiting, endpoint, now)
        if lane.is_locked:
            lock(lane, is_locked=False)
        if endpoint is not None and endpoint.version > lane.gone_version >= 0:
            lane.gone_version = -1
        reason = skip_reason(delivery, endpoint, lane.gone_version)
        if reason or endpoint is None:
            self._end(lane, NO_REQUEST, Verdict("skipped", reason))
            return True
        if self._expires(lane, waiting, endpoint, now):
            return True
        if not self._may_begin(lane, endpoint, now):
            return False
        waiting.held_us = held_by(lane, now) - waiting.held_us
        self._begin(lane, endpoint)
        return True

    def _wait_to_sign(self, lane: LiveLane, waiting: Waiting, endpoint: Endpoint | None, now: int) -> bool:
        """Wait for the view; what does not open here is left on the log, until it has waited too long."""
        if endpoint is None or not self._attempts.is_locked(endpoint):
            self._blocked.append(lane)
            return False
        if self._expires(lane, waiting, endpoint, now):
            return True
        lock(lane, is_locked=True)
        self._hold_back(lane)
        self._wakes.sleep(lane, now + LOOK_US)
        return False

    def _expires(self, lane: LiveLane, waiting: Waiting, endpoint: Endpoint, now: int) -> bool:
        """End the delivery at the head if it has waited too long."""
        if why := self._attempts.expiry(waiting, endpoint, lane.circuit, now):
            telemetry.EXPIRED.labels(why).inc()
            self._end(lane, Outcome("none", error_class=why), Verdict("failed", why))
        return bool(why)

    def _end(self, lane: LiveLane, outcome: Outcome, verdict: Verdict) -> None:
        """End the delivery at the head without a request."""
        waiting = self._leave(lane, lane.waiting.popleft())
        if lane.parked is not None:
            lane.parked.wanted = DRAINED_MAX  # the next ones may end likewise
        if waiting.taken.begin():
            self._attempts.conclude(waiting, outcome, verdict)

    def _may_begin(self, lane: LiveLane, endpoint: Endpoint, now: int) -> bool:
        if not lets_through(lane.circuit, now):
            hold(lane, now)
            self._hold_back(lane)
            return False
        if not self._suspects.takes(lane):
            hold(lane, now)
            return False
        if lane.in_flight and lane.in_flight >= self._settings.in_flight - self._requests.in_flight:
            self._blocked.append(lane)  # its share is used up: the rest is for others
            return False
        rate = endpoint.settings.rate_limit
        if rate is not None and (look_at := take_token(lane, rate, now)):
            hold(lane, now)
            self._wakes.sleep(lane, look_at)
            return False
        return True

    def _hold_back(self, lane: LiveLane) -> None:
        """The circuit is not closed, or no key opens: what waits is left on the log, but for the next one."""
        self._park(lane)
        if lane.parked is not None:
            lane.parked.wanted = 1
        if len(lane.waiting) > 1:
            # drained ones: what came on its own came after them, and none of it has begun while they wait
            lane.is_diverted = True
            drained = [self._leave(lane, lane.waiting.pop()).taken for _ in range(len(lane.waiting) - 1)]
            self._parking.ask(self._parked(lane), (), drained[::-1])
        if lane.circuit.state == "open":
            self._wakes.sleep(lane, lane.circuit.probe_at)

    # -- one attempt -----------------------------------------------------------------------

    def _begin(self, lane: LiveLane, endpoint: Endpoint) -> None:
        waiting = self._leave(lane, lane.waiting.popleft())
        if not waiting.taken.begin():
            return
        began = lane.circuit
        if began.state == "open":
            self._turn_circuit(lane, probing(began))
        lane.in_flight += 1
        self._requests.in_flight += 1
        self._suspects.in_flight += is_suspect(began)
        self._requests.begin(self._attempt(lane, waiting, endpoint, began))

    async def _attempt(self, lane: LiveLane, waiting: Waiting, endpoint: Endpoint, began: Circuit) -> None:
        """Make the request of a delivery that began with this circuit."""
        outcome, verdict = await self._attempts.make(waiting, endpoint)
        self._requests.in_flight -= 1
        self._suspects.in_flight -= is_suspect(began)
        lane.in_flight -= 1
        if verdict.disables:
            lane.gone_version = max(lane.gone_version, outcome.endpoint_version)
        self._attempts.conclude(waiting, outcome, verdict)
        self._learn(lane, outcome, is_probe=began.state == "open")
        self._stand_in_line(lane)
        self._forget_idle(lane)
        self.pump()

    def _learn(self, lane: LiveLane, outcome: Outcome, *, is_probe: bool) -> None:
        """Let the cap and the circuit follow what the endpoint bears."""
        now = self._context.clock.now()
        lane.cap = adapted(lane.cap, outcome, now, self._settings.endpoint_in_flight)
        circuit = after(lane.circuit, outcome, now, probe=is_probe)
        if circuit is lane.circuit or lane.owned.stopping:
            return
        before = lane.circuit.state
        self._turn_circuit(lane, circuit)
        if circuit.state == before:
            return
        if circuit.state == "closed":
            lane.cap = Cap(1.0)
        self._parking.ask(self._parked(lane), ())

    def _turn_circuit(self, lane: LiveLane, circuit: Circuit) -> None:
        self._circuits[lane.circuit.state] -= 1
        self._circuits[circuit.state] += 1
        lane.circuit = circuit
        tell_parked(lane)

    def observe(self) -> None:
        """Set the gauges."""
        telemetry.IN_FLIGHT.set(len(self._requests.under_way))
        telemetry.PLACES.set(self._settings.in_flight)
        for state in ("open", "half_open"):
            telemetry.CIRCUITS.labels(state).set(self._circuits[state])
