"""One scan for several lanes: each gets every record of its own, once and in order, at its own pace."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.ports import Output, Record
from engine.runtime.delivering.drain import DrainScan
from engine.runtime.delivering.parked import Parked
from engine.runtime.memory import MemoryLog
from engine.runtime.owned import Owned
from tests.pipeline.world import ManualClock

AT = ("deliveries", 0)
KEYS = ("a", "b", "c")
NEVER = 10**9
"""An intake so far ahead that no lane catches up with it."""


class Heard:
    """Notes which lanes were resumed."""

    def __init__(self) -> None:
        self.resumed_lanes: list[str] = []

    def resumed(self, parked: Parked, heard: int) -> None:
        """Its records come on their own again."""
        self.resumed_lanes.append(parked.endpoint_id)

    def cleared(self, parked: Parked, heard: int) -> None:
        """Not the scan's."""


class Scene:
    """A partition, parked lanes, and their scan."""

    def __init__(self) -> None:
        self.log = MemoryLog(1, ManualClock())
        self.owned = Owned(AT, (), NEVER, ())
        self.heard = Heard()
        self.lanes: dict[bytes, Parked] = {}
        self.firsts: dict[str, int] = {}
        self.got: dict[str, list[int]] = {key: [] for key in KEYS}
        self.scan = DrainScan(self.log, self.owned, self.lanes, self.heard)

    def append(self, key: str) -> int:
        """A record for a lane."""
        return self.log.append(Output(*AT, key.encode(), b""))

    def park(self, key: str, first: int, wanted: int) -> None:
        """Park a lane from an offset on."""
        lane = Parked(self.owned, key, "t")
        lane.wanted = wanted
        lane.begin(first, ())
        self.lanes[lane.key] = lane

    def act(self, action: str, key: str, number: int, most: int) -> None:
        """Do one of ACTIONS."""
        lane = self.lanes.get(key.encode())
        match action:
            case "append":
                for _ in range(number):
                    self.append(key)
            case "leave" if lane is not None:
                lane.left = min(lane.left + number, lane.handed)
            case "scan":
                self.scan.step(self.take, number * 3, most)
            case "park" if lane is None:
                self.firsts[key] = max(self.log.end(AT) - 2 * number, 0)
                self.park(key, self.firsts[key], number)

    def take(self, lane: Parked, record: Record) -> None:
        """What the intake does."""
        lane.handed += 1
        self.got[lane.endpoint_id].append(record.offset)

    def expected(self, key: str, first: int) -> list[int]:
        """Offsets of a lane's records."""
        return [r.offset for r in self.log.records(AT, first) if r.key == key.encode()]


ACTIONS = st.one_of(
    st.tuples(st.just("append"), st.sampled_from(KEYS), st.integers(1, 4)),
    st.tuples(st.just("leave"), st.sampled_from(KEYS), st.integers(1, 3)),
    st.tuples(st.just("scan"), st.just(""), st.integers(1, 4)),
    st.tuples(st.just("park"), st.sampled_from(KEYS), st.integers(1, 9)),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(ACTIONS, min_size=20, max_size=150), st.sampled_from([1, 3, 100]))
def test_every_lane_gets_its_records_once_and_in_order(
    actions: list[tuple[str, str, int]], most: int
) -> None:
    """However lanes park, fill up and make room, in whatever order."""
    scene = Scene()
    for action, key, number in actions:
        scene.act(action, key, number, most)
    scene.owned.next = scene.log.end(AT)
    for _ in range(3 * scene.log.end(AT) + 3):
        for lane in scene.lanes.values():
            lane.left = lane.handed
        scene.scan.step(scene.take, 5, most)
    for key, first in scene.firsts.items():
        assert scene.got[key] == scene.expected(key, first)
    assert sorted(scene.heard.resumed_lanes) == sorted(scene.firsts)


def test_a_full_lane_stops_nobody_and_nothing_is_read_for_nothing() -> None:
    """The others go on; when no lane has room, the scan rests."""
    scene = Scene()
    for _ in range(20):
        for key in KEYS:
            scene.append(key)
    scene.owned.next = 60
    for key, wanted in zip(KEYS, (1, 10, 20), strict=True):
        scene.park(key, 0, wanted)
    while scene.scan.step(scene.take, 7, 100):
        pass
    held = [len(scene.got[key]) for key in KEYS]
    assert held[:2] == [1, 10]
    assert 10 < held[2] <= 20, "a lane is filled up again when half of it is empty"
    scene.lanes[b"a"].left = 1
    scene.scan.step(scene.take, 7, 100)
    assert scene.got["a"] == [0, 3]
