"""The health of the endpoints of owned partitions: loaded from `health`, folded, written back.

Snapshots go into the transaction that commits the attempts folded, so what the topic says and
the commit always agree (docs/adr/0012). An endpoint that is healthy has no snapshot.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Literal

from engine.core.change import DisableEndpoint
from engine.core.diagnosis import likely_cause
from engine.core.endpoint import Endpoint
from engine.core.health import (
    NEVER,
    Due,
    EndpointHealth,
    Rule,
    due,
    fold,
    gone,
    is_notable,
    seen_of,
    standing,
    told,
)
from engine.core.model import AttemptFinished
from engine.core.notice import Notice, NoticeKind, last_failure, notice_of
from engine.core.recent import Recent
from engine.core.routing import partition_of
from engine.core.template import rfc3339
from engine.ports import LogError, Output, Reader, Record
from engine.runtime import telemetry
from engine.runtime.context import Context
from schemas import headers
from schemas.codec import UndecodableError, UnknownSchemaError

ACTOR = "health"
COPIES_US, COPIES_MAX = 60_000_000, 20_000
"""Copies of an attempt's record that overlapping owners wrote come within so long; a partition's, at most."""
SUCCESS_US, SUCCESSES_MAX = 3_600_000_000, 20_000
"""The last success of a healthy endpoint is remembered for so long, of so many a partition."""
UNKNOWN_US = 86_400_000_000
"""What was last attempted so long ago is in every view, or was forgotten."""
VISIBLE_WITHIN_S = 15.0
"""How long a transaction of the owner before may stay open: a little more than its time limit."""
_NOTICES: Mapping[Due, NoticeKind] = {"recovered": "recovered", "warn": "warned", "digest": "exhausted"}


class Partition:
    """What is known of one partition's endpoints."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.states: dict[str, EndpointHealth] = {}
        """Only of endpoints that are not simply healthy."""
        self.written: dict[str, EndpointHealth] = {}
        """As `health` has them."""
        self.changed: set[str] = set()
        self.successes: Recent[int] = Recent(SUCCESS_US, SUCCESSES_MAX)
        self.copies: Recent[bool] = Recent(COPIES_US, COPIES_MAX)

    def put(self, health: EndpointHealth) -> None:
        """Take in a new state."""
        self.states[health.endpoint_id] = health
        self.changed.add(health.endpoint_id)

    def drop(self, endpoint_id: str) -> None:
        """Forget an endpoint."""
        self.states.pop(endpoint_id, None)
        self.changed.add(endpoint_id)

    def cause(self, health: EndpointHealth) -> Mapping[str, bytes]:
        """The header that names the last attempt that led to this."""
        return {headers.CAUSE: headers.cause("attempts", self.number, health.offset)}

    def is_copy(self, record: Record) -> bool:
        """Whether an attempt's record was seen before; the first one by offset counts."""
        key = headers.attempt_key(record.headers)
        if key is None:
            return False
        found = key in self.copies
        self.copies.put(key, True, record.timestamp)
        return found


class States:
    """The health of every endpoint whose partition of `attempts` this process owns."""

    def __init__(self, context: Context, endpoints: Mapping[str, Endpoint]) -> None:
        self._context = context
        self._endpoints = endpoints
        chosen = context.settings
        self._rule = Rule(chosen.disable_after_us, chosen.warn_after_us, chosen.disable_apart_us)
        self._partitions: dict[int, Partition] = {}

    # -- owning ------------------------------------------------------------------------

    def load(self, reader: Reader, owned: Mapping[int, int]) -> dict[int, str]:
        """Take up partitions, by the next offset of each; return those that cannot be read, and why."""
        self._partitions = {number: Partition(number) for number in owned}
        if not owned:
            return {}
        self._await_visible(reader)
        unread: dict[int, str] = {}
        for record in reader.read(reader.starts([("health", number) for number in owned])):
            try:
                self._take_up(record)
            except UnknownSchemaError as error:
                unread.setdefault(record.partition, f"health offset {record.offset}: {error}")
        lately = self._context.clock.now() - COPIES_US
        for record in reader.read(reader.since([("attempts", number) for number in owned], lately)):
            if record.offset < owned[record.partition]:
                self._partitions[record.partition].is_copy(record)
        return unread

    def _await_visible(self, reader: Reader) -> None:
        """Wait for the last transaction of the owner before: its snapshots are told of after its commit."""
        at = [("health", number) for number in self._partitions]
        clock, ends = self._context.clock, reader.tails(at)
        deadline = clock.monotonic() + VISIBLE_WITHIN_S
        while any(end < ends[each] for each, end in reader.ends(at).items()):
            if clock.monotonic() > deadline:
                raise LogError("a transaction on the topic health stays open: is another process frozen?")

    def _take_up(self, record: Record) -> None:
        mine, endpoint_id = self._partitions[record.partition], (record.key or b"").decode()
        if record.value is None:
            mine.states.pop(endpoint_id, None)
            mine.written.pop(endpoint_id, None)
        else:
            health = self._context.codec.decode_as(EndpointHealth, record.value)
            mine.states[endpoint_id] = mine.written[endpoint_id] = health

    def keep(self, owned: Iterable[int]) -> None:
        """Forget the partitions that are somebody else's now."""
        kept = set(owned)
        self._partitions = {number: mine for number, mine in self._partitions.items() if number in kept}

    # -- folding -----------------------------------------------------------------------

    def fold(self, record: Record) -> list[Output]:
        """Take in an attempt; return what its answer leads to at once. Test sends say nothing."""
        mine, found = self._partitions[record.partition], record.headers
        if headers.is_test(found) or mine.is_copy(record):
            return []
        is_success = found.get(headers.DECISION) == b"delivered" and headers.DISABLES not in found
        if is_success and (record.key or b"").decode() not in mine.states:
            mine.successes.put(record.key or b"", record.timestamp, record.timestamp)
            return []
        try:
            attempt = self._context.codec.decode_as(AttemptFinished, record.value)
        except UndecodableError:
            return []  # the projector puts it on `invalid`
        return self._fold(mine, record, attempt)

    def _fold(self, mine: Partition, record: Record, attempt: AttemptFinished) -> list[Output]:
        health = mine.states.get(attempt.endpoint_id)
        if health is None:
            succeeded_at = mine.successes.get(attempt.endpoint_id.encode()) or 0
            health = EndpointHealth(attempt.endpoint_id, attempt.tenant, succeeded_at=succeeded_at)
        health = fold(health, seen_of(attempt, record.offset), record.timestamp)
        stopped = gone(health, attempt.endpoint_version, record.timestamp) if attempt.disables else None
        mine.put(stopped or health)
        if stopped is None:
            return []
        return [self._disable(mine, stopped, "gone")]

    # -- what is due -------------------------------------------------------------------

    def sweep(self) -> Iterator[Output]:
        """Say and ask what is due by now; forget deleted endpoints."""
        now = self._context.clock.now()
        for mine in self._partitions.values():
            for health in list(mine.states.values()):
                endpoint = self._endpoints.get(health.endpoint_id)
                if _is_gone(endpoint, health, now):
                    mine.drop(health.endpoint_id)
                    continue
                rule = self._rule if endpoint is not None and endpoint.enabled else NEVER
                for what in due(health, rule, now):
                    yield self._output(mine, health, what)
                    health = told(health, what, now)  # noqa: PLW2901  the next one is due to what this leaves
                    mine.put(health)
        self._observe()

    def _observe(self) -> None:
        """Set the gauges."""
        states = [health for mine in self._partitions.values() for health in mine.states.values()]
        counts = Counter(standing(health) for health in states)
        for state in ("failing", "warned", "disabled"):
            telemetry.ENDPOINTS_FAILING.labels(state).set(counts[state])

    def _output(self, mine: Partition, health: EndpointHealth, what: Due) -> Output:
        if what == "disable":
            return self._disable(mine, health, "failing")
        notice = notice_of(_NOTICES[what], health, self._context.clock.now())
        if what == "warn" and self._rule.disable_after_us is not None:
            notice = replace(notice, disable_at=health.since + self._rule.disable_after_us)
        if (endpoint := self._endpoints.get(health.endpoint_id)) is not None:
            notice = replace(notice, url=endpoint.settings.url)
        return notice_output(self._context, notice, mine.cause(health))

    def _disable(self, mine: Partition, health: EndpointHealth, kind: Literal["gone", "failing"]) -> Output:
        """The command holds for the version that was asked (docs/adr/0007)."""
        command = DisableEndpoint(
            command_id=f"{kind}:{health.endpoint_id}:v{health.version}",
            tenant=health.tenant,
            actor=ACTOR,
            requested_at=self._context.clock.now(),
            endpoint_id=health.endpoint_id,
            reason=kind if kind == "gone" else why_disabled(health),
            expected_version=health.version,
        )
        partition = partition_of(health.tenant, self._context.log.partitions("commands"))
        value = self._context.codec.encode(command)
        return Output("commands", partition, health.tenant.encode(), value, mine.cause(health))

    # -- writing back ------------------------------------------------------------------

    def snapshots(self) -> Iterator[Output]:
        """What must be on `health` before the attempts folded are committed."""
        now = self._context.clock.now()
        for mine in self._partitions.values():
            for endpoint_id in sorted(mine.changed):
                health = mine.states.get(endpoint_id)
                if health is not None and not is_notable(health, now):
                    health = None
                    self._heal(mine, mine.states.pop(endpoint_id))
                if health != mine.written.get(endpoint_id):
                    yield self._snapshot(mine, endpoint_id, health)
                    mine.written.pop(endpoint_id, None)
                    if health is not None:
                        mine.written[endpoint_id] = health
            mine.changed.clear()

    def _heal(self, mine: Partition, health: EndpointHealth) -> None:
        if health.succeeded_at:
            mine.successes.put(health.endpoint_id.encode(), health.succeeded_at, self._context.clock.now())

    def _snapshot(self, mine: Partition, endpoint_id: str, health: EndpointHealth | None) -> Output:
        if health is None:
            return Output("health", mine.number, endpoint_id.encode(), None)
        value = self._context.codec.encode(health)
        return Output("health", mine.number, endpoint_id.encode(), value, mine.cause(health))


def _is_gone(endpoint: Endpoint | None, health: EndpointHealth, now: int) -> bool:
    """Whether an endpoint was deleted; one that our view lacks is either new or long gone."""
    if endpoint is not None:
        return endpoint.deleted
    return max(health.failed_at, health.succeeded_at) < now - UNKNOWN_US


def why_disabled(health: EndpointHealth) -> str:
    """The reason that the audit trail and people are given, in words."""
    last = last_failure(health.error_class, health.status_code)
    cause = likely_cause(health.error_class, health.status_code, health.request_bytes)
    since = rfc3339(health.since // 1_000_000 * 1_000_000)
    return f"only failures since {since} ({health.failures}, the last: {last}): {cause or 'see its attempts'}"


def notice_output(context: Context, notice: Notice, cause: Mapping[str, bytes]) -> Output:
    """The record on `notices`."""
    telemetry.NOTIFICATIONS.labels(notice.kind, "written").inc()
    partition = partition_of(notice.endpoint_id, context.log.partitions("notices"))
    return Output("notices", partition, notice.endpoint_id.encode(), context.codec.encode(notice), cause)
