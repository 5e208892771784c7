"""The drain: one scan a partition re-reads `deliveries` for all of its parked lanes.

It goes on while a lane has room and stops when none has; a lane that had no
room when its record came by remembers the offset, and the scan comes back to it.
Runs on the thread that polls Kafka.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import NamedTuple

from engine.ports import Follower, Log, Record, TopicPartition, TrimmedError
from engine.runtime.delivering.parked import Parked
from engine.runtime.delivering.parking import ParkingListener, tell_trimmed
from engine.runtime.owned import Owned
from schemas import headers

READ_MAX = 200
"""Records of a partition at a time: the intake is waiting."""
AHEAD_KB = 2_048
"""What a scan may fetch ahead: there may be one a partition."""

Take = Callable[[Parked, Record], None]


class DrainScan:
    """The scan of one partition."""

    def __init__(
        self, log: Log, owned: Owned, lanes: Mapping[bytes, Parked], listener: ParkingListener
    ) -> None:
        self._log = log
        self._listener = listener
        self._follower: Follower | None = None
        self._missed: set[bytes] = set()
        self.owned = owned
        self._lanes = lanes
        self.position = -1
        """Offset of the next record to come; -1 before there is any."""

    def step(self, take: Take, limit: int, most: int) -> int:
        """Hand on at most `limit` records, to lanes that hold fewer than `most`; return how many came."""
        hungry = [lane for lane in self._lanes.values() if _is_hungry(lane, most)]
        if not hungry:
            return 0
        follower = self._aim(min(self.position if lane.behind is None else lane.behind for lane in hungry))
        start, records = self.position, self._read(follower, limit)
        for record in records:
            self._pass(record, start, take, most)
        if records:
            self.position = records[-1].offset + 1
        for lane in hungry:
            if (
                lane.behind is not None
                and start <= lane.behind <= self.position
                and lane.key not in self._missed
            ):
                lane.behind = None
        self._missed.clear()
        self._unpark(most)
        return len(records)

    def _aim(self, target: int) -> Follower:
        """Go where the hungriest lane needs us."""
        if self._follower is None:
            self._follower = self._log.follower({self.owned.at: target}, ahead_kb=AHEAD_KB)
        elif target != self.position:
            for lane in self._lanes.values():
                if lane.is_parked and lane.behind is None:
                    lane.behind = self.position
            self._follower.move({self.owned.at: target})
        self.position = target
        return self._follower

    def _read(self, follower: Follower, limit: int) -> list[Record]:
        """Read what comes next, up to where the intake is: an attempt must follow its input's positions."""
        limit = min(limit, self.owned.next - self.position)
        try:
            return follower.poll(0, limit) if limit > 0 else []
        except TrimmedError:
            self._pass_trimmed(follower)
            return []

    def _pass_trimmed(self, follower: Follower) -> None:
        """Retention was faster than a lane is: say what it took, and go on with what is left."""
        reader = self._log.reader()
        start = reader.starts([self.owned.at])[self.owned.at]
        reader.close()
        for lane in self._lanes.values():
            wanted = self.position if lane.behind is None else lane.behind
            if lane.is_parked and lane.until is None and wanted < start:
                tell_trimmed(lane, wanted, start)
                lane.behind = start
        self.position = max(self.position, start)
        follower.move({self.owned.at: self.position})

    def _pass(self, record: Record, start: int, take: Take, most: int) -> None:
        """Hand a record to its lane; `start` is where this reading began."""
        lane = self._lanes.get(record.key or b"")
        if lane is None or not lane.is_parked or lane.until is not None or headers.is_test(record.headers):
            return
        if lane.behind is not None and not start <= lane.behind <= record.offset:
            return  # it has had this one, or lacks one that came before
        if lane.room(most) <= 0:
            self._missed.add(lane.key)
            if lane.behind is None:
                lane.behind = record.offset
            return
        if lane.key in self._missed:
            return  # room that came up since: the order within a lane is kept
        lane.behind = None
        if record.offset not in lane.found:
            take(lane, record)

    def _unpark(self, most: int) -> None:
        """A healthy lane that has caught up with the intake takes its records as they come again."""
        for lane in self._lanes.values():
            caught_up = lane.behind is None and self.position >= self.owned.next
            is_healthy = lane.circuit.state == "closed" and not lane.is_slow
            if _is_hungry(lane, most) and caught_up and is_healthy:
                lane.until = self.position
                self._listener.resumed(lane, lane.heard)

    def close(self) -> None:
        """Let go of the connection."""
        if self._follower is not None:
            self._follower.close()


def _is_hungry(lane: Parked, most: int) -> bool:
    return lane.is_parked and lane.until is None and lane.room(most) * 2 >= min(lane.wanted, most)


class Room(NamedTuple):
    """How many deliveries each parked lane may hold, and how many more all of them together."""

    most: int
    left: int


class Drain:
    """The scans of every partition that has parked lanes."""

    def __init__(self, log: Log, listener: ParkingListener) -> None:
        self._log = log
        self._listener = listener
        self._scans: dict[TopicPartition, DrainScan] = {}

    def scanned(self, lane: Parked) -> int:
        """Offset up to which its partition has been scanned."""
        scan = self._scans.get(lane.owned.at)
        return -1 if scan is None else scan.position

    def step(
        self,
        lanes: Mapping[TopicPartition, dict[bytes, Parked]],
        take: Take,
        room: Room,
        held: Container[TopicPartition] = (),
    ) -> int:
        """Scan where lanes are hungry and there is room; the partitions in `held` wait.

        Return how many records were read.
        """
        for at, scan in list(self._scans.items()):
            if not any(lane.is_parked for lane in lanes.get(at, {}).values()):
                scan.close()
                del self._scans[at]
        read = 0
        for at, of_partition in lanes.items():
            owned = next((lane.owned for lane in of_partition.values() if lane.is_parked), None)
            if owned is not None and at not in held:
                limit = min(READ_MAX, room.left - read)
                read += self._scan(at, owned, of_partition).step(take, limit, room.most) if limit > 0 else 0
        return read

    def _scan(self, at: TopicPartition, owned: Owned, lanes: Mapping[bytes, Parked]) -> DrainScan:
        scan = self._scans.get(at)
        if scan is None or scan.owned is not owned:
            if scan is not None:
                scan.close()
            scan = self._scans[at] = DrainScan(self._log, owned, lanes, self._listener)
        return scan

    def close(self) -> None:
        """Let go of every connection."""
        for scan in self._scans.values():
            scan.close()
