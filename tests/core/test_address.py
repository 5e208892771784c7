"""The egress guard's table of addresses, by example and against `ipaddress`'s own."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.address import DENIED, is_denied

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
V4, V6 = st.integers(0, 2**32 - 1).map(IPv4Address), st.integers(0, 2**128 - 1).map(IPv6Address)
GLOBAL_UNICAST = st.integers(0x2000 << 112, (0x4000 << 112) - 1).map(IPv6Address)

DENIED_ADDRESSES = """
0.0.0.0 0.1.2.3                                     this network
10.0.0.1 10.255.255.255                             private
172.16.0.1 172.31.255.255 192.168.0.1               private
100.64.0.1 100.127.255.255 100.100.100.200          carrier-grade NAT, a cloud's metadata in it
127.0.0.1 127.1.2.3 127.255.255.255                 loopback
169.254.0.1 169.254.169.254 169.254.170.2           link-local, the clouds' metadata
168.63.129.16                                       Azure's wire server
192.0.0.1 192.0.0.192 192.0.2.1                     protocol assignments, documentation
192.31.196.1 192.52.193.1 192.175.48.1              AS112, AMT
192.88.99.1                                         6to4 relays
198.18.0.1 198.19.255.255                           benchmarks
198.51.100.1 203.0.113.1                            documentation
224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255 multicast, reserved, broadcast
:: ::1                                              unspecified, loopback
::127.0.0.1 ::8.8.8.8                               IPv4-compatible
::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:8.8.8.8     IPv4-mapped
::ffff:0:127.0.0.1 ::ffff:0:8.8.8.8                 IPv4-translated
64:ff9b::7f00:1 64:ff9b::8.8.8.8 64:ff9b:1::1       NAT64
100::1 100:0:0:1::1                                 discard
2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2        Teredo
2001:2::1 2001:10::1 2001:20::1 2001:1ff::1         protocol assignments
2001:db8::1 3fff::1 3fff:fff::1                     documentation
2002:7f00:1::1 2002:808:808::1                      6to4
2620:4f:8000::1                                     AS112
4000::1 5f00::1                                     outside global unicast, SRv6
fc00::1 fd00:ec2::254 fd12:3456::1                  unique local, a cloud's metadata
fe80::1 fe80::1%eth0 fe80::a9fe:a9fe fec0::1        link-local, site-local
ff02::1 ff0e::1                                     multicast
"""

PUBLIC = """
1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 93.184.216.34 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1
168.63.129.15 168.63.129.17 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 191.255.255.255
192.0.1.1 192.0.3.0 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 203.0.112.1 223.255.255.255
2000::1 2001:200::1 2001:4860:4860::8888 2003::1 2606:4700:4700::1111 2620:4f:7fff::1 2a00:1450:4001::1
3ffe::1
"""


@pytest.mark.parametrize(
    "address", [word for row in DENIED_ADDRESSES.strip().splitlines() for word in row[:52].split()]
)
def test_no_request_goes_there(address: str) -> None:
    """Addresses inside somebody's network, and every form that hides one."""
    assert is_denied(address)


@pytest.mark.parametrize("address", PUBLIC.split())
def test_requests_may_go_there(address: str) -> None:
    """Public addresses, those right beside a denied block included."""
    assert not is_denied(address)


@pytest.mark.parametrize(
    ("address", "denied"),
    [
        ("127.0.0.1", False),
        ("127.255.255.255", False),
        ("::1", False),
        ("10.0.0.1", True),
        ("169.254.169.254", True),
        ("::ffff:127.0.0.1", True),
        ("::127.0.0.1", True),
        ("2002:7f00:1::1", True),
        ("8.8.8.8", False),
    ],
)
def test_allowed_networks_are_exempt(address: str, *, denied: bool) -> None:
    """Exactly they are: not other private ones, and not their addresses in another form."""
    assert is_denied(address, LOOPBACK) is denied


def test_one_address_may_be_allowed() -> None:
    """A /32 opens one address and none beside it."""
    allowed = (ip_network("10.0.0.5/32"),)
    assert not is_denied("10.0.0.5", allowed)
    assert is_denied("10.0.0.4", allowed)


@pytest.mark.parametrize(
    "address", ["", "localhost", "example.com", "127.1", "0x7f000001", "2130706433", "0177.0.0.1", "1.2.3"]
)
def test_what_is_no_address_is_an_error(address: str) -> None:
    """It never counts as public: only what the system resolved, in its usual form, gets here."""
    with pytest.raises(ValueError, match="address"):
        is_denied(address)


@given(V4 | V6 | GLOBAL_UNICAST)
def test_whatever_python_calls_private_is_denied(address: IPv4Address | IPv6Address) -> None:
    """An oracle that shares nothing with the table: `is_global` is not enough, but it is necessary."""
    if not address.is_global or address.is_multicast or address.is_reserved or address.is_link_local:
        assert is_denied(str(address))


@given(V4)
def test_no_form_of_ipv6_hides_an_ipv4_address(address: IPv4Address) -> None:
    """Compatible, mapped, translated, NAT64, 6to4 and Teredo are denied, public or not inside."""
    inner = int(address)
    hidden = [
        inner,
        0xFFFF << 32 | inner,
        0xFFFF << 48 | inner,
        0x64FF9B << 96 | inner,
        0x2002 << 112 | inner << 80,
        0x20010000 << 96 | inner ^ 0xFFFFFFFF,
    ]
    assert all(is_denied(str(IPv6Address(number))) for number in hidden)


@given(V4 | V6)
def test_a_zone_changes_nothing(address: IPv4Address | IPv6Address) -> None:
    """`%eth0` is not part of the address."""
    assert is_denied(f"{address}%eth0") == is_denied(str(address))


@given(V4 | GLOBAL_UNICAST)
def test_only_the_table_denies(address: IPv4Address | IPv6Address) -> None:
    """What is in none of its networks is allowed."""
    inside = any(address in network for network in DENIED if network.version == address.version)
    assert is_denied(str(address)) == inside
