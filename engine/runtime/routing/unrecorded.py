"""Routed messages until their RoutedBatch is written."""

from __future__ import annotations

from collections import deque

from engine.core.model import Routing
from engine.runtime.owned import Input

BATCH_MAX = 500
BATCH_BYTES_MAX = 256 << 10


class Unrecorded:
    """A message that is routed, until its RoutedBatch is written."""

    __slots__ = ("first", "left", "routing", "taken", "view")

    def __init__(self, taken: Input, first: int, routing: Routing, view: tuple[int, ...]) -> None:
        self.taken = taken
        self.first = first
        """Offset after the message before it: holes of the log belong to the message they precede."""
        self.routing = routing
        self.view = view
        self.left = 0
        """Outputs sent and not acknowledged."""


def acknowledged_run(unrecorded: deque[Unrecorded]) -> list[Unrecorded]:
    """Take from the front what makes one RoutedBatch: acknowledged, without a gap, of one view."""
    batch: list[Unrecorded] = []
    room = BATCH_BYTES_MAX
    while unrecorded and unrecorded[0].left == 0 and len(batch) < BATCH_MAX and room > 0:
        head = unrecorded[0]
        room -= _size(head.routing)
        if batch and (head.view is not batch[0].view or head.first != batch[-1].routing.offset + 1):
            break
        batch.append(unrecorded.popleft())
    return batch


def _size(routing: Routing) -> int:
    """About how many bytes it takes in a RoutedBatch."""
    names = sum(len(each) + 2 for each in routing.matched)
    reasons = sum(len(each.endpoint_id) + len(each.reason) + 4 for each in routing.skipped)
    return 64 + 4 * len(routing.tenant) + len(routing.message_id) + len(routing.event_type) + names + reasons
