"""One replay under way: advanced step by step by the thread that polls, so that nothing waits for it.

What is done is in its snapshot on `directory`: cursors below which all is
delivered to the log, and from where on that which lies above them was written.
Deliveries are written to `deliveries`, then named on `routings`, a batch at a
time; after a crash both are read back, and nothing is written or named twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from engine.core.change import Refusal
from engine.core.directory import directory_key
from engine.core.endpoint import Endpoint
from engine.core.replay import Replay, ReplayCancelled, ReplayFinished, ended, finish, resumed
from engine.core.routing import partition_of, subscriber
from engine.core.survey import Survey, Wanted
from engine.ports import Follower, Output
from engine.runtime import telemetry
from engine.runtime.context import Context
from engine.runtime.owned import Input
from engine.runtime.processor import settle
from engine.runtime.replaying.candidates import Candidates, Found, Tools, outputs_end
from engine.runtime.replaying.line import Item
from engine.runtime.replaying.remade import Source, batch_of, resent_of
from engine.runtime.replaying.surveying import Surveying
from schemas import headers

REPLAYS_MAX = 100
"""Replays of a tenant that run or wait their turn at the same time."""
BATCH_MAX = 100
OUTSTANDING_MAX = 200
"""Deliveries of an endpoint that are written and not yet attempted."""
SNAPSHOT_EVERY_S = 1.0
REFRESH_EVERY_S = 300.0
"""So often the snapshot of one that waits is written again: the read-back on assignment begins there."""
BURST_S = 1.0
"""Deliveries that the rate allows in so many seconds may be made at once."""
_LOG = telemetry.logger("replaying")


class End(NamedTuple):
    """How it ends: the fact, the coordinates that led to it, and the input that is done by it."""

    fact: ReplayFinished | ReplayCancelled
    cause: bytes
    taken: Input | None


class Running:
    """A replay under way; `over` when its end is on the log."""

    def __init__(self, tools: Tools, replay: Replay, found: Found) -> None:
        self._tools = tools
        self._context = tools.context
        self.replay = resumed(replay)
        self.over = False
        self._found = found
        self._cause = headers.cause("commands", replay.partition, replay.offset)
        self._surveying: Surveying | None = None
        self._candidates: Candidates | None = None
        self._batch: list[Item] = []
        self._ahead: list[tuple[Source, bool]] = []
        """What is seen to and not below the cursors yet: where it lies, and whether it was made."""
        self._left = 0
        """Outputs of the batch that are not acknowledged."""
        self._unnamed = [r for id, r in found.written.items() if id not in found.named]
        """Written, and to be named next."""
        self._end: End | None = None
        self._is_told = False
        """Whether the fact of its end is on the log."""
        self._attempts: Follower | None = None
        self._outstanding: defaultdict[str, set[bytes]] = defaultdict(set)
        self._refilled = self._written_at = self._context.clock.monotonic()
        self._tokens = 1.0
        self._is_changed = False
        if replay.only != "failed":  # of dead letters it is not known where they lie
            found.forget_below(replay.cursors)
        if found.end is not None:
            self._end, self._is_told = End(found.end, self._cause, None), True

    # -- steps -------------------------------------------------------------------------

    def step(self, seconds: float) -> None:
        """Go on for about so long, unless somebody else may own us by now."""
        if self.over or not self._tools.processor.holds_lease(self._context.settings.lease_s):
            return
        if self._left:
            return
        if self._unnamed:
            self._name()
        elif self._batch:
            self._conclude_batch()
        elif self._end is not None:
            self._finish(self._end)
        elif self._candidates is None:
            self._look(seconds)
        else:
            self._advance(self._candidates)

    def wait(self) -> None:
        """It is others' turn: only keep what would be read back short."""
        if not self._left and self._tools.processor.holds_lease(self._context.settings.lease_s):
            self._tell()

    def cancel(self, fact: ReplayCancelled, cause: bytes, taken: Input, *, is_told: bool) -> bool:
        """End it by hand; False if it ends already."""
        if self._end is not None:
            return False
        self._end, self._is_told = End(fact, cause, taken), is_told
        return True

    @property
    def fill(self) -> float:
        """Share of its fullest endpoint's places for deliveries not yet attempted that are taken."""
        return max(map(len, self._outstanding.values()), default=0) / OUTSTANDING_MAX

    @property
    def is_ending(self) -> bool:
        """Whether only its end is to be written."""
        return self._end is not None

    def _finish(self, end: End) -> None:
        """Write the fact, then the last snapshot; then the input that asked for it is done."""
        if not self._is_told:
            self._is_told = True
            fact = replace(end.fact, deliveries=self.replay.deliveries)  # a batch was under way, maybe
            self._end = end._replace(fact=fact)
            self._send(self._output("changes", self.replay.tenant, fact, end.cause))
            return
        self.replay = ended(self.replay, end.fact)
        self._left += 1
        self._tools.processor.send(
            snapshot_output(self._context, self.replay, end.cause), partial(self._ended, end)
        )
        _LOG.info("replay.ended", replay=self.replay.id, status=self.replay.status, reason=self.replay.reason)

    def _ended(self, end: End) -> None:
        self._left -= 1
        self.over = True
        if end.taken is not None:
            settle(end.taken)

    def _stop(self, reason: str = "") -> None:
        fact = finish(self.replay, self._context.clock.now(), reason)
        self._end = End(fact, self._cause, None)

    # -- looking -----------------------------------------------------------------------

    def _look(self, seconds: float) -> None:
        """Find out what is to be delivered, for so long."""
        if self._surveying is None:
            endpoints = self._endpoints()
            if not endpoints:
                self._stop(nobody(self.replay.endpoint_id))
                return
            self._surveying = self._begin_survey(endpoints)
        deadline = self._context.clock.monotonic() + seconds
        self._surveying.step()
        while not self._surveying.done and self._context.clock.monotonic() < deadline:
            self._surveying.step()
        if self._surveying.done:
            survey = self._surveying.survey
            self._surveying.close()
            self._surveying = None
            self._open(survey)

    def _endpoints(self) -> list[Endpoint]:
        """The endpoints that it is for and that are enabled now."""
        found = self._tools.remake.those(self.replay.tenant, self.replay.endpoint_id)
        return [each for each in found if each.enabled]

    def _begin_survey(self, endpoints: Iterable[Endpoint]) -> Surveying:
        replay, context = self.replay, self._context
        wanted = Wanted(replay.tenant, replay.since, replay.only, replay.event_types, replay.ends)
        subscribers = {each.id: subscriber(each, self._tools.remake.partitions) for each in endpoints}
        return Surveying(context.log, context.codec, context.clock, Survey(wanted, subscribers))

    def _open(self, survey: Survey) -> None:
        """Begin to read bodies at the cursors, and to follow the attempts of the endpoints."""
        found = self._candidates = Candidates(self._tools, self.replay, survey, self._found)
        planned = self.replay.planned or survey.by_event_type().total()
        missing = self.replay.missing + found.missing
        cursors, found.missing = tuple(found.cursors()), 0
        self.replay = replace(self.replay, planned=planned, missing=missing, cursors=cursors)
        self._is_changed = True
        at = {("attempts", partition_of(each, self._tools.remake.partitions)) for each in survey.subscribers}
        self._attempts = self._context.log.follower(self._tools.processor.progress.reader.ends(sorted(at)))

    def _advance(self, candidates: Candidates) -> None:
        """Read on if there is room, and make a batch of what may go now."""
        self._follow_attempts()
        candidates.read()
        if candidates.line:
            self._make_batch(candidates)
        elif candidates.is_through:
            self._stop()
        self._tell()

    # -- writing -----------------------------------------------------------------------

    def _make_batch(self, candidates: Candidates) -> None:
        """Take from the queue what rate and endpoints allow, and write it."""
        if not candidates.is_anybody_there():
            self._stop(nobody(self.replay.endpoint_id))
            return
        self._batch = candidates.line.take(self._allowed(), self._may_go)
        self._tokens -= len(self._batch) if self.replay.rate else 0
        for item in self._batch:
            if item.delivery is not None:
                self._send(self._tools.remake.output(item.delivery, self._cause))
                self._unnamed.append(resent_of(item.delivery))

    def _name(self) -> None:
        """Name what is written."""
        replay, now = self.replay, self._context.clock.now()
        named = batch_of(self._unnamed[:BATCH_MAX], replay, now)
        del self._unnamed[:BATCH_MAX]
        self._send(self._output("routings", "", named, self._cause))

    def _allowed(self) -> int:
        """How many deliveries the rate allows now."""
        now, rate = self._context.clock.monotonic(), self.replay.rate
        if not rate:
            return BATCH_MAX
        self._tokens = min(self._tokens + (now - self._refilled) * rate, max(1.0, rate * BURST_S))
        self._refilled = now
        return min(BATCH_MAX, int(self._tokens))

    def _may_go(self, item: Item) -> bool:
        """Whether its endpoint takes it; then it counts against that."""
        if item.delivery is None:
            return True
        outstanding = self._outstanding[item.endpoint_id]
        if len(outstanding) >= OUTSTANDING_MAX:
            return False
        outstanding.add(item.delivery_id.encode())
        return True

    def _conclude_batch(self) -> None:
        """All of it is acknowledged: the cursors move."""
        assert self._candidates is not None
        for item in self._batch:
            self._found.written.pop(item.delivery_id, None)
        seen_to = [(item.at, bool(item.delivery_id)) for item in self._batch]
        made = sum(is_made for _, is_made in seen_to)
        telemetry.REPLAYED.inc(made)
        replay, candidates = self.replay, self._candidates
        cursors = tuple(candidates.cursors())
        self._ahead = [each for each in self._ahead + seen_to if each[0][1] >= cursors[each[0][0]]]
        made_ahead = sum(is_made for _, is_made in self._ahead)
        self.replay = replace(
            replay,
            deliveries=replay.deliveries + made,
            skipped=replay.skipped + len(self._batch) - made,
            missing=replay.missing + candidates.missing,
            cursors=cursors,
            made_ahead=made_ahead,
            skipped_ahead=len(self._ahead) - made_ahead,
        )
        self._batch, self._is_changed, candidates.missing = [], True, 0
        self._tell()

    def _follow_attempts(self) -> None:
        """Learn what has been attempted."""
        assert self._attempts is not None
        for record in self._attempts.poll(0, 500):
            outstanding = self._outstanding.get((record.key or b"").decode())
            if outstanding is not None:  # the partition's other endpoints are no business of ours
                outstanding.discard(record.headers.get(headers.DELIVERY, b""))

    # -- telling -----------------------------------------------------------------------

    def _tell(self) -> None:
        """Write the snapshot, between batches, at most once a second; if nothing has changed, seldom."""
        now = self._context.clock.monotonic()
        every = SNAPSHOT_EVERY_S if self._is_changed else REFRESH_EVERY_S
        if self._batch or now - self._written_at < every:
            return
        self._written_at, self._is_changed = now, False
        self.replay = replace(self.replay, updated_at=self._context.clock.now(), positions=self._positions())
        self._tools.processor.send(snapshot_output(self._context, self.replay, self._cause), nothing)

    def _positions(self) -> tuple[int, ...]:
        """From where on outputs of what lies at or after the cursors can be; they stand still if some are."""
        if self._found.written or self._unnamed:  # what was read back must be found again
            return self.replay.positions
        if self._candidates is None or not self.replay.made_ahead:
            return outputs_end(self._tools, self.replay.partition)
        return self._candidates.positions()

    def _send(self, output: Output) -> None:
        self._left += 1
        self._tools.processor.send(output, self._acknowledged)

    def _acknowledged(self) -> None:
        self._left -= 1

    def _output(self, topic: str, key: str, value: object, cause: bytes) -> Output:
        encoded = self._context.codec.encode(value)
        return Output(topic, self.replay.partition, key.encode() or None, encoded, {headers.CAUSE: cause})

    def close(self) -> None:
        """Let go of the log."""
        for each in (self._surveying, self._candidates, self._attempts):
            if each is not None:
                each.close()


def nothing() -> None:
    """What follows an acknowledgement that nobody waits for."""


def nobody(endpoint_id: str) -> str:
    """Why there is nobody to deliver to."""
    if endpoint_id:
        return f"endpoint {endpoint_id!r} is disabled or deleted"
    return "the tenant has no endpoint that is enabled"


def too_many(replays: Sequence[Replay]) -> Refusal | None:
    """Why a tenant that has these under way gets no other one; None if it does."""
    if len(replays) < REPLAYS_MAX:
        return None
    reason = f"{len(replays)} replays of this tenant run or wait: cancel one, or wait until one has ended"
    return Refusal("too_many", reason)


def snapshot_output(context: Context, replay: Replay, cause: bytes) -> Output:
    """The record on `directory`."""
    key = directory_key("replay", replay.id).encode()
    return Output("directory", replay.partition, key, context.codec.encode(replay), {headers.CAUSE: cause})
