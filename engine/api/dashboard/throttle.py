"""How often somebody may try to log in."""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv6Address, ip_address

from engine.ports import Clock

FAILURES_MAX = 10
WINDOW_S = 300.0
ADDRESSES_MAX = 10_000
_NETWORK_BITS = 64


class Throttle:
    """Counts failed logins by address (IPv6: by /64 network), in bounded memory: the oldest are forgotten."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failed: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def wait_s(self, address: str) -> float:
        """How long an address has to wait before it may try, seconds; 0: not at all."""
        since, failures = self._failed.get(network_of(address), (0.0, 0))
        left = since + WINDOW_S - self._clock.monotonic()
        return max(left, 0.0) if failures >= FAILURES_MAX else 0.0

    def failed(self, address: str) -> None:
        """Count a failure; a window begins with the first one."""
        network, now = network_of(address), self._clock.monotonic()
        since, failures = self._failed.pop(network, (now, 0))
        self._failed[network] = (since, failures + 1) if now < since + WINDOW_S else (now, 1)
        if len(self._failed) > ADDRESSES_MAX:
            self._failed.popitem(last=False)


def network_of(address: str) -> str:
    """Who has an IPv6 address has its whole network; what is no address counts as one."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        mapped = parsed.ipv4_mapped
        return str(mapped) if mapped else f"{int(parsed) >> _NETWORK_BITS:x}"
    return address
