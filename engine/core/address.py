"""Which addresses a request may go to: the second gate of the egress guard, asked at every dial.

The deny table follows the IANA special-purpose address registries (IPv4 and
IPv6), with whole forms that embed an IPv4 address and the clouds' metadata
addresses added. `ipaddress.is_global` lets several of these through.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network

PORTS = frozenset({80, 443, 8443})
"""Ports that requests may go to, except in networks that are allowed by name."""

DENIED: tuple[Network, ...] = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/3",  # unspecified, loopback, every form that embeds IPv4 (::a.b.c.d, ::ffff:…), NAT64
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "2620:4f:8000::/48",
        "3fff::/20",
        "4000::/2",
        "8000::/1",  # all above the global unicast block 2000::/3
    )
)

_LOOPBACK = "127.0.0.1"


def is_denied(address: str, allowed: Iterable[Network] = ()) -> bool:
    """Whether no request may go to a numeric address; `allowed` networks are exempt."""
    ip = ip_address(address.partition("%")[0])
    return not _is_in(ip, allowed) and _is_in(ip, DENIED)


def refusal(address: str, port: int, allowed: tuple[Network, ...] = ()) -> str:
    """Why no connection may be made; empty if one may. An allowed network opens its own ports only.

    Where loopback is allowed, as in `hooklog dev`, any port is.
    """
    if is_denied(address, allowed):
        return f"the address {address} is not allowed"
    if (
        port in PORTS
        or not is_denied(_LOOPBACK, allowed)
        or _is_in(ip_address(address.partition("%")[0]), allowed)
    ):
        return ""
    return f"port {port} is not allowed at {address}: only {', '.join(map(str, sorted(PORTS)))}"


def _is_in(ip: IPv4Address | IPv6Address, networks: Iterable[Network]) -> bool:
    return any(ip in network for network in networks if network.version == ip.version)
