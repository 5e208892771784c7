"""A partition that this process owns, and the inputs taken in from it that are not done yet."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, groupby

from engine.ports import LogError, Position, TopicPartition

METADATA_MAX = 4_095
Positions = tuple[int, ...]
Ends = dict[TopicPartition, int]


class Input:
    """A record taken in, until all its outputs are acknowledged."""

    __slots__ = ("begun", "done", "found", "offset", "owner", "positions")

    def __init__(self, owner: Owned, offset: int, positions: Positions | None) -> None:
        self.owner = owner
        self.offset = offset
        self.positions = positions
        self.found: object = None
        """What the read-back found of its outputs."""
        self.begun = False
        self.done = False

    def begin(self) -> bool:
        """Start its work, from whatever thread; False if its partition is being given up.

        The mark comes before the look and `drain` looks after the order to stop, so one sees the other.
        """
        self.begun = True
        if self.owner.stopping:
            self.begun = False
        return self.begun


class Owned:
    """One input partition that this process owns."""

    def __init__(self, at: TopicPartition, outputs: tuple[TopicPartition, ...], start: int, kept: Positions):
        self.at = at
        self.outputs = outputs
        self.next = start
        """Lowest offset not taken in yet."""
        self.open: deque[Input] = deque()
        self.found: dict[int, object] = {}
        """What was read back of the outputs of inputs not taken in yet, by offset."""
        self.highest_found = -1
        self.kept = kept
        """Positions of the commit we started from; they hold until `highest_found` is committed."""
        self._committed = (start, kept)
        self.stopping = False
        self.aside: dict[bytes, deque[Input]] = {}
        """Inputs by key that somebody else than the commit answers for: those of parked lanes."""

    def positions(self, offset: int, ends: Mapping[TopicPartition, int]) -> Positions:
        """From where outputs of the input at `offset`, or of a later one, can be."""
        return self.kept if offset <= self.highest_found else tuple([ends[at] for at in self.outputs])

    def take(self, offset: int, positions: Positions | None) -> Input:
        """Take a record in; without positions its outputs begin only when they are set."""
        self.next = offset + 1
        taken = Input(self, offset, positions)
        self.open.append(taken)
        return taken

    def moves(self, ends: Mapping[TopicPartition, int]) -> bool:
        """Work out what to commit; whether that differs from last time."""
        before, self._committed = self._committed, self.committable(ends)
        return before != self._committed

    def position(self) -> Position:
        """Return what `moves` worked out, as a commit."""
        offset, outputs = self._committed
        return Position(offset, encode_positions(self.outputs, outputs))

    def is_busy(self) -> bool:
        """Whether something that was begun is not done."""
        return any(each.begun and not each.done for each in chain(self.open, *self.aside.values()))

    def committable(self, ends: Mapping[TopicPartition, int]) -> tuple[int, Positions]:
        """Return the lowest offset that is not done, and the positions that go with it."""
        while self.open and self.open[0].done:
            self.open.popleft()
        if not self.open:
            return self.next, self.positions(self.next, ends)
        lowest = self.open[0]
        return lowest.offset, lowest.positions or self.positions(lowest.offset, ends)


def settle_elsewhere(inputs: Iterable[Input], offset: int) -> None:
    """Somebody else has done the input at an offset: it is done, unless we have begun it ourselves."""
    for taken in inputs:
        if taken.offset == offset and not taken.begun:
            taken.done = True


def encode_positions(outputs: Sequence[TopicPartition], positions: Positions) -> str:
    """Positions as commit metadata, by topic, such as `routings=7;deliveries=3,0`: topics may come and go.

    Outputs of one topic stand together.
    """
    by_topic = groupby(zip(outputs, positions, strict=True), lambda each: each[0][0])
    text = ";".join(f"{topic}={','.join(str(at) for _, at in each)}" for topic, each in by_topic)
    if len(text) > METADATA_MAX:
        raise LogError(f"{len(positions)} output positions do not fit a commit: use fewer partitions")
    return text


def positions_of(at: TopicPartition, commit: Position, outputs: Sequence[TopicPartition]) -> Positions:
    """What a commit of an input partition says of its outputs.

    An output to the input partition itself comes after its input; older hooklogs did not reckon with it.
    """
    is_named = not commit.metadata or "=" in commit.metadata
    known = [each for each in outputs if is_named or each != at]
    positions = dict(zip(known, decode_positions(commit.metadata, known), strict=True))
    return tuple(
        max(positions.get(each, 0), commit.offset) if each == at else positions[each] for each in outputs
    )


def decode_positions(metadata: str, outputs: Sequence[TopicPartition]) -> Positions:
    """Undo `encode_positions`. Where the commit says nothing of a topic, it is read from its beginning."""
    if metadata and "=" not in metadata:
        return _decode_nameless(metadata, len(outputs))
    said = dict(_of_topic(part) for part in metadata.split(";") if part)
    for topic, count in Counter(topic for topic, _ in outputs).items():
        if len(said.setdefault(topic, (0,) * count)) != count:
            raise LogError(
                f"a commit has {len(said[topic])} positions of {topic} where {count} belong: "
                "another number of partitions needs another HOOKLOG_PREFIX"
            )
    left = {topic: iter(positions) for topic, positions in said.items()}
    return tuple(next(left[topic]) for topic, _ in outputs)


def _of_topic(part: str) -> tuple[str, Positions]:
    topic, _, positions = part.partition("=")
    return topic, tuple(map(int, positions.split(",")))


def _decode_nameless(metadata: str, count: int) -> Positions:
    """Read what an older hooklog committed: positions without their topics."""
    positions = tuple(map(int, metadata.split(",")))
    if len(positions) != count:
        raise LogError(
            f"a commit of an older hooklog has {len(positions)} output positions where {count} belong: "
            "start once with the HOOKLOG_TIERS of before, and change them after that"
        )
    return positions
