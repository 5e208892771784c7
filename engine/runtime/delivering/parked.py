"""What the log says of one lane, and how far its drain is."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from engine.core.lane import CLOSED, Circuit, Lane
from engine.runtime.owned import Input, Owned

AHEAD_MAX = 100_000
"""Offsets behind the cursor that may be drained or done: the lane's one record names those that are."""


class Parked:
    """What the log says of one lane, and how far its drain is.

    The thread that polls owns it, but for the five that the event loop sets: `circuit`, `wanted`,
    `left`, `asked` and `is_slow`.
    """

    __slots__ = (
        "_acknowledged",
        "_covered_from",
        "_passed",
        "_sent",
        "asked",
        "behind",
        "changed_s",
        "circuit",
        "drained",
        "drained_to",
        "found",
        "handed",
        "heard",
        "is_parked",
        "is_slow",
        "key",
        "left",
        "owned",
        "tenant",
        "until",
        "wanted",
        "written",
    )

    def __init__(self, owned: Owned, endpoint_id: str, tenant: str) -> None:
        self.owned = owned
        self.key = endpoint_id.encode()
        self.tenant = tenant
        self.circuit: Circuit = CLOSED
        self.wanted = 1
        """How many drained deliveries may wait in the lane."""
        self.is_slow = False
        """Whether what was drained waits in the lane for long: then it takes nothing on its own."""
        self.handed = self.left = 0
        """Deliveries that the drain gave to the lane, and those that left it."""
        self.asked = self.heard = 0
        """Requests that the event loop made of us, and those that we have seen to."""
        self.is_parked = False
        self.behind: int | None = None
        """Offset that the scan must come back to for this lane; None while they are in step."""
        self.until: int | None = None
        """Once unparking: what lies below is the drain's, the rest comes on its own again."""
        self.drained_to = 0
        """Everything below has been drained before: what was on its way to the lane then is no news."""
        self.drained: deque[Input] = deque()
        self.found: set[int] = set()
        """Offsets behind the cursor that were attempted before."""
        self.changed_s = 0.0
        self.written: Lane | None = None
        self._passed: deque[tuple[int, Input]] = deque()
        self._sent = self._acknowledged = self._covered_from = 0

    @property
    def endpoint_id(self) -> str:
        """The endpoint."""
        return self.key.decode()

    @property
    def stands(self) -> tuple[bool, int]:
        """What changes when it parks, or parks again."""
        return self.is_parked, self._covered_from

    def room(self, most: int) -> int:
        """How many more deliveries the lane takes now, if no more than `most` may wait in it.

        None while one that hangs holds the cursor back too far; what was done before us alone holds nobody.
        Where one each is all there is room for, those whose circuit is not closed leave it to the others.
        """
        if most == 1 and self.circuit.state != "closed":
            return 0
        if self.drained and len(self.drained) + len(self.found) >= AHEAD_MAX:
            return 0
        return min(self.wanted, most) - (self.handed - self.left)

    def holds(self, offset: int) -> bool:
        """Whether a record of its endpoint waits for the drain, or has been drained."""
        return self.is_parked and (self.until is None or offset < self.until)

    def pass_over(self, taken: Input) -> None:
        """Mark an input done unread, once the log says that the lane answers for it."""
        if self._covered_from <= self._acknowledged:
            taken.done = True
        else:
            self._passed.append((self._covered_from, taken))

    def begin(self, first: int, found: Iterable[int]) -> None:
        """Park, from offset `first` on."""
        if not self.is_parked:
            self.is_parked, self.behind = True, max(first, self.drained_to)
            self.found |= set(found)
        elif self.until is not None:
            # what came on its own in between is the commit's, and lies behind the cursor all the same
            self.behind = max(first, self.until)
        else:
            return
        self.until = None
        self._covered_from = self._sent + 1

    def take_back(self, drained: Sequence[Input]) -> None:
        """The lane cannot take these now: the scan comes back to them."""
        returned = {taken.offset for taken in drained}
        kept = [taken for taken in self.drained if taken.offset not in returned]
        self.drained.clear()
        self.drained.extend(kept)
        self.behind, self.until = drained[0].offset, None

    def sending(self) -> int:
        """Number the next snapshot."""
        self._sent += 1
        return self._sent

    def acknowledge(self, number: int) -> bool:
        """The log has a snapshot; whether it is the last one sent."""
        self._acknowledged = number
        while self._passed and self._passed[0][0] <= number:
            self._passed.popleft()[1].done = True
        return number == self._sent

    def cursor(self, scanned: int) -> int:
        """Lowest offset that is the lane's and not done."""
        while self.drained and self.drained[0].done:
            self.drained.popleft()
        if self.drained:
            return self.drained[0].offset
        return scanned if self.behind is None else self.behind
