"""Which addresses a request may go to: the second gate of the egress guard, asked at every dial.

The deny table follows the IANA special-purpose address registries (IPv4 and
IPv6), with whole forms that embed an IPv4 address and the clouds' metadata
addresses added. `ipaddress.is_global` lets several of these through.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network

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


def is_denied(address: str, allowed: Iterable[Network] = ()) -> bool:
    """Whether no request may go to a numeric address; `allowed` networks are exempt."""
    ip = ip_address(address.partition("%")[0])
    if any(ip in network for network in allowed if network.version == ip.version):
        return False
    return any(ip in network for network in DENIED if network.version == ip.version)
