"""Progress: which inputs are done, what to commit, and what to read back on assignment.

Three rules make every hop safe without transactions (docs/design.md;
docs/adr/0002). Outputs name their input in the header `cause`. An input is
done only when all its outputs are acknowledged, and the commit is the lowest
input that is not done. The commit's metadata says, for each output partition,
from where an output of that input or a later one can be; on assignment the
outputs are read back from there, and inputs whose outputs are found are done.

Everything here runs on the thread that polls the consumer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from engine.ports import Consumer, Follower, Log, LogError, Position, Record, TopicPartition
from engine.runtime import telemetry
from engine.runtime.owned import Ends, Input, Owned, positions_of, settle_elsewhere
from schemas.headers import cause_of

FOLLOW_S = 90.0
"""After an assignment, for so long the outputs of whoever owned the partitions before are followed."""
FOLLOW_AHEAD_KB = 4_096
COMMIT_ALL_EVERY = 25
"""So often a commit says all positions again, in case one that said a change was refused."""
Drain = Callable[[Sequence[Owned]], bool]
_LOG = telemetry.logger("progress")


Recover = Callable[[Owned, int, Record], None]


def mark_found(owned: Owned, offset: int, output: Record) -> None:
    """For groups that write one output an input: finding it is enough; whose it is, is its key."""
    owned.found[offset] = output.key or True


def _nothing(owned: Owned) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Flow:
    """What a group reads, where its outputs can be, and what a found output means.

    `recover` notes a found output in `Owned.found`; `is_done` says whether what
    was noted is all that its input owes; `owning` prepares a new partition and
    `disowned` forgets it. With `seen`, outputs that the owner before still writes
    are followed for a while after an assignment, and passed to it too.
    """

    group: str
    topics: tuple[str, ...]
    outputs: Callable[[str, int], tuple[TopicPartition, ...]]
    recover: Recover = mark_found
    is_done: Callable[[object], bool] = bool
    owning: Callable[[Owned], None] = _nothing
    disowned: Callable[[Owned], None] = _nothing
    seen: Callable[[Owned, Record], None] | None = None
    waiting: frozenset[str] = frozenset()
    """Topics whose records wait, in order, until their outputs begin with `release`."""
    linger_ms: float = 0
    patience_ms: int = 0
    """How long outputs and fetches may wait for company: fewer, fuller requests to the broker."""


class Progress:
    """ports.Rebalance for the groups whose outputs name their inputs."""

    def __init__(self, log: Log, flow: Flow, drain: Drain) -> None:
        self._flow = flow
        self._drain = drain
        self.reader = log.reader()
        self._refresher = ThreadPoolExecutor(1, f"{flow.group}-ends")
        self._refreshing: Future[Ends] | None = None
        self._consumer: Consumer | None = None
        self._commits = 0
        self._ends: Ends = {}
        self._log = log
        self._follower: Follower | None = None
        self._following: Ends = {}
        """From where on the outputs of the owner before are followed."""
        self._follow_until = 0.0
        self._written: set[tuple[TopicPartition, int]] = set()
        """Outputs of our own that the follower is still to see."""
        self.owned: dict[TopicPartition, Owned] = {}
        self.gained = False
        """Set when partitions were assigned: a commit says at once whether they are ours."""

    def bind(self, consumer: Consumer) -> None:
        """Name the consumer whose partitions these are."""
        self._consumer = consumer

    # -- taking in and finishing -------------------------------------------------------

    def take(self, record: Record) -> Input | None:
        """Take a record in; None if it is not ours (any more) or was taken in already."""
        owned = self.owned.get((record.topic, record.partition))
        if owned is None or owned.stopping or record.offset < owned.next:
            return None
        waits = record.topic in self._flow.waiting
        taken = owned.take(record.offset, None if waits else owned.positions(record.offset, self._ends))
        taken.found = owned.found.pop(record.offset, None)
        taken.done = taken.found is not None and self._flow.is_done(taken.found)
        return taken

    def release(self, taken: Input) -> None:
        """The outputs of a waiting input begin now."""
        taken.positions = taken.owner.positions(taken.offset, self._ends)

    def acknowledged(self, at: TopicPartition, offset: int) -> None:
        """An output got this offset."""
        if offset >= self._ends.get(at, 0):
            self._ends[at] = offset + 1
        if self._follower is not None:
            self._written.add((at, offset))

    def end(self, at: TopicPartition) -> int:
        """Offset at which, at the least, a topic ends that outputs go to."""
        return self._ends.get(at, 0)

    def open_inputs(self) -> int:
        """Records taken in and not committable yet."""
        return sum(len(owned.open) for owned in self.owned.values())

    def commit(self, *, wait: bool = False, only: Sequence[Owned] | None = None) -> None:
        """Commit what has changed of the owned partitions; without `wait`, now and then all of them."""
        assert self._consumer is not None
        owned = list(self.owned.values() if only is None else only)
        self._commits += 1
        everything = wait or self._commits % COMMIT_ALL_EVERY == 0
        changed = [each for each in owned if each.moves(self._ends) or everything]
        # with nothing changed, one partition is enough to renew the lease
        positions = {each.at: each.position() for each in changed or owned[:1]}
        if positions:
            self._consumer.commit(positions, wait=wait)

    def refresh(self) -> None:
        """Learn where outputs end that others write too, in the background; never waits."""
        if self._refreshing is not None:
            if not self._refreshing.done():
                return
            self._advance_by(self._refreshing)
        wanted = {at for owned in self.owned.values() for at in owned.outputs}
        self._refreshing = self._refresher.submit(self.reader.ends, sorted(wanted)) if wanted else None

    def _advance_by(self, refreshing: Future[Ends]) -> None:
        try:
            self._advance(refreshing.result())
        except LogError as error:  # older ends only make the next read-back longer
            _LOG.warning("progress.refresh_failed", group=self._flow.group, error=str(error))

    def _advance(self, ends: Ends) -> None:
        for at, end in ends.items():
            self._ends[at] = max(self._ends.get(at, 0), end)

    # -- rebalances --------------------------------------------------------------------

    def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Read back what was written for the new partitions; return where to start."""
        assert self._consumer is not None
        self._drain(())  # what we sent before a loss must be there to be read back
        committed = self._consumer.committed(partitions)
        new = {at: self._own(at, position) for at, position in committed.items()}
        self._read_back(new)
        for owned in new.values():
            self._flow.owning(owned)
        self.owned.update(new)
        self.gained = True
        self._follow(new)
        telemetry.REBALANCES.labels(self._flow.group, "assigned").inc(len(new))
        telemetry.OWNED.labels(self._flow.group).set(len(self.owned))
        return {at: owned.next for at, owned in new.items()}

    def _own(self, at: TopicPartition, position: Position | None) -> Owned:
        outputs = self._flow.outputs(*at)
        if position is None:
            if (start := self.reader.starts([at])[at]) > 0:
                raise LogError(
                    f"group {self._flow.group} never committed {at[0]}/{at[1]}, whose log starts at {start}: "
                    "refusing to guess; run `hooklog topics create` before the first record"
                )
            return Owned(at, outputs, 0, (0,) * len(outputs))
        return Owned(at, outputs, position.offset, positions_of(at, position, outputs))

    def _read_back(self, new: Mapping[TopicPartition, Owned]) -> None:
        starts: Ends = {}
        for owned in new.values():
            for at, position in zip(owned.outputs, owned.kept, strict=True):
                starts[at] = min(starts.get(at, position), position)
        for at, lowest in self.reader.starts(list(starts)).items():
            starts[at] = max(starts[at], lowest)
        ends = self.reader.ends(list(starts))
        self._advance(ends)
        count = 0
        for output in self.reader.read({at: start for at, start in starts.items() if start < ends[at]}):
            count += 1
            self._recognise(new, output)
        telemetry.READ_BACK.labels(self._flow.group).inc(count)
        found = sum(len(owned.found) for owned in new.values())
        _LOG.info("progress.assigned", group=self._flow.group, count=len(new), read_back=count, found=found)

    def _recognise(self, new: Mapping[TopicPartition, Owned], output: Record) -> None:
        self.acknowledged((output.topic, output.partition), output.offset)
        cause = cause_of(output.headers)
        if cause is None:
            return
        topic, partition, offset = cause
        owned = new.get((topic, partition))
        if owned is not None and offset >= owned.next:
            owned.highest_found = max(owned.highest_found, offset)
            self._flow.recover(owned, offset, output)

    def _follow(self, new: Mapping[TopicPartition, Owned]) -> None:
        """Begin to follow the outputs of new partitions where their read-back ended."""
        if self._flow.seen is None:
            return
        self._follow_until = 0.0
        self._following |= {at: self._ends.get(at, 0) for owned in new.values() for at in owned.outputs}
        if self._follower is None:
            self._follower = self._log.follower(self._following, ahead_kb=FOLLOW_AHEAD_KB)
        else:
            self._follower.move(self._following)

    def follow(self, now: float) -> None:
        """Mark done what the owner before has finished since the read-back; `now` in monotonic seconds."""
        if self._follower is None:
            return
        self._follow_until = self._follow_until or now + FOLLOW_S
        if now > self._follow_until:  # nobody can still be at work on what we took over
            self._unfollow()
            return
        for output in self._follower.poll(0, 500):
            at = (output.topic, output.partition)
            self._following[at] = output.offset + 1
            if (at, output.offset) in self._written:
                self._written.discard((at, output.offset))
            else:
                self._notice(output)

    def _unfollow(self) -> None:
        if self._follower is not None:
            self._follower.close()
            self._follower = None
        self._following.clear()
        self._written.clear()

    def _notice(self, output: Record) -> None:
        """Take in an output that somebody else has written, or that we are not told of yet."""
        cause = cause_of(output.headers)
        owned = None if cause is None else self.owned.get(cause[:2])
        if owned is None or cause is None or self._flow.seen is None:
            return
        if cause[2] >= owned.next:
            self._flow.recover(owned, cause[2], output)
        settle_elsewhere(owned.open, cause[2])
        self._flow.seen(owned, output)

    def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Stop intake, drain, commit, give up."""
        mine = [self.owned[at] for at in partitions if at in self.owned]
        for owned in mine:
            owned.stopping = True
        drained = self._drain(mine)
        try:
            self.commit(wait=True, only=mine)
        except LogError as error:  # the next owner reads back what this commit would have said
            _LOG.warning("progress.last_commit_failed", group=self._flow.group, error=str(error))
        self._forget(mine, "revoked")
        _LOG.info("progress.revoked", group=self._flow.group, count=len(mine), drained=drained)

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        """Drop them and commit nothing: somebody else owns them already."""
        mine = [self.owned[at] for at in partitions if at in self.owned]
        for owned in mine:
            owned.stopping = True
        self._forget(mine, "lost")
        _LOG.warning("progress.lost", group=self._flow.group, count=len(mine))

    def _forget(self, owned: Sequence[Owned], event: str) -> None:
        for each in owned:
            del self.owned[each.at]
            self._flow.disowned(each)
        telemetry.REBALANCES.labels(self._flow.group, event).inc(len(owned))
        telemetry.OWNED.labels(self._flow.group).set(len(self.owned))

    def close(self) -> None:
        """Let go of the reader; call after the consumer is closed."""
        self._unfollow()
        self._refresher.shutdown()
        self.reader.close()
