"""The egress guard's table against the whole IANA special-purpose registries, and against another's table.

The registries are those of https://www.iana.org/assignments/iana-ipv4-special-registry and
https://www.iana.org/assignments/iana-ipv6-special-registry, with multicast and what lies above
the global unicast block, which have registries of their own.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ssrfguard import DEFAULT_DENIED

from engine.core.address import DENIED, is_denied, refusal

IPV4 = """
0.0.0.0/8           this network
0.0.0.0/32          this host on this network
10.0.0.0/8          private use
100.64.0.0/10       shared address space
127.0.0.0/8         loopback
169.254.0.0/16      link local
172.16.0.0/12       private use
192.0.0.0/24        IETF protocol assignments
192.0.0.0/29        service continuity prefix
192.0.0.8/32        dummy address
192.0.0.9/32        Port Control Protocol anycast
192.0.0.10/32       TURN anycast
192.0.0.170/32      NAT64/DNS64 discovery
192.0.0.171/32      NAT64/DNS64 discovery
192.0.2.0/24        documentation (TEST-NET-1)
192.31.196.0/24     AS112-v4
192.52.193.0/24     AMT
192.88.99.0/24      deprecated: 6to4 relay anycast
192.88.99.2/32      6a44 relay anycast
192.168.0.0/16      private use
192.175.48.0/24     direct delegation AS112 service
198.18.0.0/15       benchmarking
198.51.100.0/24     documentation (TEST-NET-2)
203.0.113.0/24      documentation (TEST-NET-3)
224.0.0.0/4         multicast
240.0.0.0/4         reserved
255.255.255.255/32  limited broadcast
"""

IPV6 = """
::1/128             loopback
::/128              unspecified
::/96               deprecated: IPv4-compatible
::ffff:0:0/96       IPv4-mapped
::ffff:0:0:0/96     IPv4-translated (SIIT)
64:ff9b::/96        IPv4-IPv6 translation (NAT64)
64:ff9b:1::/48      IPv4-IPv6 translation, local use
100::/64            discard only
100:0:0:1::/64      dummy prefix
2001::/23           IETF protocol assignments
2001::/32           Teredo
2001:1::1/128       Port Control Protocol anycast
2001:1::2/128       TURN anycast
2001:1::3/128       DNS-SD registration anycast
2001:2::/48         benchmarking
2001:3::/32         AMT
2001:4:112::/48     AS112-v6
2001:10::/28        deprecated: ORCHID
2001:20::/28        ORCHIDv2
2001:30::/28        DRIP entity tags
2001:db8::/32       documentation
2002::/16           6to4
2620:4f:8000::/48   direct delegation AS112 service
3fff::/20           documentation
5f00::/16           segment routing SIDs
fc00::/7            unique local
fe80::/10           link local
fec0::/10           deprecated: site local
ff00::/8            multicast
4000::/3            unassigned
e000::/4            unassigned
"""

PUBLIC = """
1.0.0.0/8 8.0.0.0/7 11.0.0.0/8 64.0.0.0/5 100.0.0.0/10 128.0.0.0/3 172.0.0.0/12 172.32.0.0/11 192.0.1.0/24
192.0.4.0/22 192.172.0.0/16 193.0.0.0/8 198.16.0.0/15 198.20.0.0/14 203.0.112.0/24 203.0.114.0/23 208.0.0.0/4
2001:200::/23 2001:400::/22 2001:4000::/23 2003::/18 2400::/12 2600::/12 2610::/23 2620::/23 2800::/12
2a00::/12 2c00::/12
"""
"""Blocks that are allocated to the regional registries, or lie right beside a special one."""


def networks(table: str) -> list[IPv4Network | IPv6Network]:
    """The first word of each row."""
    return [ip_network(row.split()[0]) for row in table.strip().splitlines()]


def edges(network: IPv4Network | IPv6Network) -> list[str]:
    """Its first address, its last, and one in the middle."""
    middle = network.network_address + network.num_addresses // 2
    return [str(network[0]), str(middle), str(network[-1])]


@pytest.mark.parametrize("network", networks(IPV4) + networks(IPV6), ids=str)
def test_every_special_purpose_block_is_denied(network: IPv4Network | IPv6Network) -> None:
    """Whole, those that IANA calls globally reachable included: no customer's receiver is there."""
    assert all(is_denied(address) for address in edges(network))


@pytest.mark.parametrize("network", [ip_network(text) for text in PUBLIC.split()], ids=str)
def test_everything_else_is_public(network: IPv4Network | IPv6Network) -> None:
    """Where customers' receivers are."""
    assert not any(is_denied(address) for address in edges(network))


def test_every_denied_block_has_its_reason() -> None:
    """No block is denied that no registry names: Azure's wire server is the one exception."""
    special = {network for network in networks(IPV4) + networks(IPV6) if network.prefixlen > 0}
    for denied in DENIED:
        overlapping = [each for each in special if each.version == denied.version and each.overlaps(denied)]
        assert overlapping or str(denied) == "168.63.129.16/32"


# -- another's table ---------------------------------------------------------------------

DIFFERENCES = {
    **dict.fromkeys(
        ("192.0.0.9", "192.0.0.10", "192.31.196.1", "192.52.193.1", "192.175.48.1"), "IANA: reachable"
    ),
    **dict.fromkeys(("2001:1::1", "2001:1::2", "2001:1::3", "2001:3::1", "2001:4:112::1"), "IANA: reachable"),
    **dict.fromkeys(("2001:20::1", "2001:30::1", "2620:4f:8000::1"), "IANA: reachable"),
    **dict.fromkeys(
        ("::ffff:8.8.8.8", "::8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"), "a public one inside"
    ),
    "168.63.129.16": "Azure's wire server",
    "::ffff:0:7f00:1": "IPv4-translated",
    "4000::1": "unassigned",
    "e000::1": "unassigned",
}
"""What we deny and ssrfguard 0.4 permits, and why: whatever embeds an IPv4 address is refused outright."""


@pytest.mark.parametrize("address", DIFFERENCES)
def test_where_ssrfguard_is_laxer(address: str) -> None:
    """Ours is the stricter of the two; none of these is where a receiver is."""
    assert is_denied(address)
    assert not DEFAULT_DENIED.classify(address).blocked


V4, V6 = st.integers(0, 2**32 - 1).map(IPv4Address), st.integers(0, 2**128 - 1).map(IPv6Address)


def beside(network: IPv4Network | IPv6Network, step: int) -> IPv4Address | IPv6Address:
    """An address at an edge of a network, within or without."""
    number = int(network[-1] if step > 0 else network[0]) + step
    kind = IPv4Address if network.version == 4 else IPv6Address
    return kind(min(max(0, number), 2**network.max_prefixlen - 1))


SPECIAL = st.builds(beside, st.sampled_from(networks(IPV4) + networks(IPV6)), st.integers(-2, 2))


@given(V4 | V6 | SPECIAL)
@example(ip_address("fd00:ec2::254"))
@example(ip_address("100.100.100.200"))
@example(ip_address("169.254.169.254"))
@settings(max_examples=500)
def test_whatever_ssrfguard_denies_is_denied(address: IPv4Address | IPv6Address) -> None:
    """An oracle that shares nothing with our table."""
    if DEFAULT_DENIED.classify(address).blocked:
        assert is_denied(str(address))


# -- ports, and what an allowed network opens ---------------------------------------------

TEN = (ip_network("10.1.0.0/16"), ip_network("fd00:1::/32"))
DEV = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


@pytest.mark.parametrize(
    ("address", "port", "allowed", "said"),
    [
        ("8.8.8.8", 443, (), ""),
        ("8.8.8.8", 80, (), ""),
        ("2a00::1", 8443, (), ""),
        ("8.8.8.8", 22, (), "port 22 is not allowed"),
        ("8.8.8.8", 22, TEN, "port 22 is not allowed"),
        ("8.8.8.8", 0, TEN, "port 0 is not allowed"),
        ("10.1.0.1", 22, TEN, ""),
        ("fd00:1::1", 9_000, TEN, ""),
        ("10.2.0.1", 443, TEN, "the address 10.2.0.1 is not allowed"),
        ("fd00:2::1", 443, TEN, "the address fd00:2::1 is not allowed"),
        ("::ffff:10.1.0.1", 443, TEN, "is not allowed"),
        ("64:ff9b::a01:1", 443, TEN, "is not allowed"),
        ("2002:a01:1::1", 443, TEN, "is not allowed"),
        ("127.0.0.1", 443, TEN, "is not allowed"),
        ("169.254.169.254", 80, TEN, "is not allowed"),
        ("127.0.0.1", 39_059, DEV, ""),
        ("8.8.8.8", 9_000, DEV, ""),
        ("10.1.0.1", 80, DEV, "is not allowed"),
        ("169.254.169.254", 80, DEV, "is not allowed"),
    ],
)
def test_an_allowed_network_opens_what_it_names(
    address: str, port: int, allowed: tuple[IPv4Network | IPv6Network, ...], said: str
) -> None:
    """Its addresses and their ports, nothing else; only with loopback, as in `hooklog dev`, any port."""
    why = refusal(address, port, allowed)
    assert said in why
    assert bool(why) is bool(said)
