"""A set of coordinates, a few bits each: offsets of partitions, in blocks."""

from __future__ import annotations

from collections.abc import Iterator

_SHIFT = 9
_MASK = (1 << _SHIFT) - 1


class Marks:
    """A set of (partition, offset)."""

    def __init__(self) -> None:
        self._blocks: dict[tuple[int, int], int] = {}

    def add(self, partition: int, offset: int) -> None:
        """Put one in."""
        at = partition, offset >> _SHIFT
        self._blocks[at] = self._blocks.get(at, 0) | 1 << (offset & _MASK)

    def discard(self, partition: int, offset: int) -> None:
        """Take one out, if it is in."""
        at = partition, offset >> _SHIFT
        self._blocks[at] = self._blocks.get(at, 0) & ~(1 << (offset & _MASK))

    def __contains__(self, at: tuple[int, int]) -> bool:
        return bool(self._blocks.get((at[0], at[1] >> _SHIFT), 0) >> (at[1] & _MASK) & 1)

    def __len__(self) -> int:
        return sum(bits.bit_count() for bits in self._blocks.values())

    def __sub__(self, other: Marks) -> Marks:
        """Those that are not in the other one."""
        left = Marks()
        for at, bits in self._blocks.items():
            if kept := bits & ~other._blocks.get(at, 0):
                left._blocks[at] = kept
        return left

    def within(self, partition: int, first: int, end: int) -> int:
        """How many of a partition lie from `first` to below `end`."""
        return sum(first <= offset < end for offset in self._of(partition))

    def span(self, partition: int) -> tuple[int, int] | None:
        """(lowest, highest + 1) of a partition; None if it has none."""
        blocks = [(n, bits) for (p, n), bits in self._blocks.items() if p == partition and bits]
        if not blocks:
            return None
        (low, first), (high, last) = min(blocks), max(blocks)
        lowest = (first & -first).bit_length() - 1
        return (low << _SHIFT) + lowest, (high << _SHIFT) + last.bit_length()

    def _of(self, partition: int) -> Iterator[int]:
        for (p, n), bits in self._blocks.items():
            left = bits if p == partition else 0
            while left:
                lowest = left & -left
                yield (n << _SHIFT) + lowest.bit_length() - 1
                left ^= lowest
