"""Which minutes ClickHouse agrees on with the log, by counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

MINUTE_US = 60_000_000


@dataclass(slots=True)
class Minute:
    """First-time deliveries of messages accepted in one minute."""

    deliveries: int = 0
    touched_at: int = 0
    """When the last RoutedBatch that says so was appended, microseconds."""
    overlapped: bool = False
    """Two batches tell of one message, perhaps with other endpoints: the count may be short."""


class Found(NamedTuple):
    """What ClickHouse has of the first-time deliveries accepted in one minute."""

    minute: int
    """Since 1970 UTC."""
    deliveries: int = 0
    said: int = 0
    """Attempts that the deliveries say were made."""
    made: int = 0
    """Rows in `attempts`."""


class Agreement:
    """Remembers who agreed. A difference counts when it is there twice in a row.

    ClickHouse writes a batch table by table: one look may fall between two of them.
    """

    def __init__(self) -> None:
        self._agreed: dict[int, int] = {}
        """When the minute's last batch was appended, as it was then."""
        self._suspected: dict[int, int] = {}
        self.differences: dict[int, int] = {}
        """Rows too many or too few, by minute."""

    def open(self, minutes: Mapping[int, Minute], span: range, projected_at: int) -> list[int]:
        """Minutes of a span to be asked about: projected by then (microseconds), and not agreed on."""
        for known in (self._agreed, self._suspected, self.differences):
            for old in [minute for minute in known if minute < span.start]:
                del known[old]
        return [m for m in span if self._is_open(m, minutes.get(m, Minute()), projected_at)]

    def _is_open(self, number: int, minute: Minute, projected_at: int) -> bool:
        return minute.touched_at < projected_at and self._agreed.get(number) != minute.touched_at

    def judge(self, asked: Sequence[int], minutes: Mapping[int, Minute], found: Mapping[int, Found]) -> None:
        """Compare what was asked about; the minutes that are not in `found` have no rows."""
        for number in asked:
            minute = minutes.get(number, Minute())
            difference = _difference(minute, found.get(number, Found(number)))
            if not difference:
                self._agreed[number] = minute.touched_at
            if difference and self._suspected.get(number) == difference:
                self.differences[number] = difference
            else:
                self.differences.pop(number, None)
            self._suspected[number] = difference

    def again(self) -> None:
        """Ask about all of them again: rows may be lost at any time."""
        self._agreed.clear()


def _difference(minute: Minute, found: Found) -> int:
    deliveries = 0 if minute.overlapped else abs(found.deliveries - minute.deliveries)
    return deliveries + abs(found.said - found.made)
