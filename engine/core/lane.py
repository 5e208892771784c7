"""A lane's rules: when an endpoint may be sent to, and how much at a time.

Three things hold an endpoint back, each a value with its transitions here: the
in-flight cap follows what the endpoint bears, the circuit stops requests to one
that is down, the bucket keeps to its rate limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CircuitState = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True)
class Lane:
    """Full snapshot of one lane: written while it is parked or its circuit is not closed, else a tombstone.

    While `parked`, every record of the endpoint on its partition of `deliveries`
    from offset `cursor` on is the lane's: it waits there, unread, until it is drained.
    """

    endpoint_id: str
    tenant: str = ""
    parked: bool = False
    cursor: int = 0
    attempts_from: int = 0
    """Offset on `attempts` from which outputs of what lies at or behind the cursor can be."""
    circuit: CircuitState = "closed"
    opened: int = 0
    """How often in a row the circuit has opened."""
    probe_at: int = 0
    """When an open circuit lets a probe through, microseconds since 1970 UTC."""
    changed_at: int = 0
    worker: str = ""
