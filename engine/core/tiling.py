"""What RoutedBatches cover of a partition of `messages`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from engine.core.accounting import Range


@dataclass(slots=True)
class Tiling:
    """What RoutedBatches cover of one partition of `messages`; None before the first of them."""

    frontier: int | None = None
    gaps: list[Range] = field(default_factory=list)

    def cover(self, covered: Range) -> list[Range]:
        """Add a batch's range; return what of it no batch had covered before."""
        frontier = covered.first if self.frontier is None else self.frontier
        fresh = [_common(gap, covered) for gap in self.gaps if _meets(gap, covered)]
        if fresh:
            self.gaps = [rest for gap in self.gaps for rest in _without(gap, covered)]
        if covered.first > frontier:
            self.gaps.append(Range(frontier, covered.first - 1))
        if covered.last >= frontier:
            fresh.append(Range(max(frontier, covered.first), covered.last))
        self.frontier = max(frontier, covered.last + 1)
        return fresh

    @property
    def missing(self) -> int:
        """Offsets that are in no batch, below the frontier."""
        return sum(gap.last - gap.first + 1 for gap in self.gaps)


def _meets(one: Range, other: Range) -> bool:
    return one.first <= other.last and other.first <= one.last


def _common(one: Range, other: Range) -> Range:
    return Range(max(one.first, other.first), min(one.last, other.last))


def _without(gap: Range, covered: Range) -> Iterator[Range]:
    if not _meets(gap, covered):
        yield gap
        return
    if gap.first < covered.first:
        yield Range(gap.first, covered.first - 1)
    if gap.last > covered.last:
        yield Range(covered.last + 1, gap.last)
