"""Gate B at every dial: a dialer that never connects sees which addresses would have been dialled.

Names are resolved by a table, numeric forms by the system's own parser: no packet leaves this machine.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.core.address import Network, is_denied
from engine.core.egress import check_url
from engine.core.model import Answer
from engine.runtime.delivering.http import AiohttpSender, Resolver, guarded_socket
from engine.runtime.delivering.names import AddressInfo
from tests.runtime.receiver import post

PUBLIC, OTHER = "93.184.216.34", "2606:2800:220:1::1"
NAMES: dict[str, list[str]] = {
    "public.example": [PUBLIC],
    "both.example": [PUBLIC, OTHER],
    "private.example": ["10.0.0.1"],
    "public-then-private.example": [PUBLIC, "169.254.169.254"],
    "private-then-public.example": ["192.168.0.1", PUBLIC],
    "public-then-mapped.example": [PUBLIC, "::ffff:127.0.0.1"],
    "mapped.example": ["::ffff:127.0.0.1"],
    "compatible.example": ["::7f00:1"],
    "translated.example": ["::ffff:0:7f00:1"],
    "nat64.example": ["64:ff9b::7f00:1"],
    "nat64-local.example": ["64:ff9b:1::7f00:1"],
    "6to4.example": ["2002:7f00:1::1"],
    "teredo.example": ["2001:0:4136:e378:8000:63bf:80ff:fffe"],
    "zone.example": ["fe80::1%1"],
    "multicast.example": ["224.0.0.1"],
    "broadcast.example": ["255.255.255.255"],
    "zero.example": ["0.0.0.0"],
}


class Dialer:
    """Makes the guard's socket, notes the address, and connects nowhere."""

    def __init__(self, allowed: tuple[Network, ...] = ()) -> None:
        self._guard = guarded_socket(allowed)
        self.dialled: list[tuple[str, int]] = []

    def __call__(self, info: AddressInfo) -> socket.socket:
        """Raise whatever the guard lets through."""
        self._guard(info).close()
        self.dialled.append((str(info[4][0]), int(str(info[4][1]))))
        raise ConnectionRefusedError("this dialer never connects")


def look_up(host: str, port: int, **_: object) -> Sequence[AddressInfo]:
    """The table's addresses; else what the system reads the text as, if it is a number in some form."""
    numbers = NAMES.get(host.removesuffix("."), [host])
    kind, flags = socket.SOCK_STREAM, socket.AI_NUMERICHOST
    return [each for number in numbers for each in socket.getaddrinfo(number, port, type=kind, flags=flags)]


def send(url: str, *allowed: str, resolver: Resolver | None = None) -> tuple[Answer, list[tuple[str, int]]]:
    """Send one request; the answer, and what would have been dialled."""
    dialer = Dialer(tuple(map(ip_network, allowed)))

    async def main() -> Answer:
        sender = AiohttpSender(socket_factory=dialer, resolver=resolver or Resolver(look_up))
        answer = await sender.send(post(url))
        await sender.close()
        return answer

    return asyncio.run(main()), dialer.dialled


@pytest.mark.parametrize("name", ["public.example", "PUBLIC.example", "public.example."])
def test_a_public_address_is_dialled(name: str) -> None:
    """At the port of the URL; nothing answers here, which is a failed connection and no block."""
    for url, port in ((f"https://{name}/", 443), (f"http://{name}/", 80), (f"https://{name}:8443/", 8443)):
        answer, dialled = send(url)
        assert dialled == [(PUBLIC, port)]
        assert answer.error_class == "connect"


@pytest.mark.parametrize(
    "url",
    [
        *(f"https://{name}/" for name in NAMES if "public" not in name and name != "both.example"),
        *(f"https://{name}./" for name in ("private.example", "mapped.example")),
        "https://public.example:22/",
        "https://public.example:6379/",
        "http://127.0.0.1/",
        "http://127.0.0.1./",
        "http://127.1/",
        "http://127.0.1/",
        "http://2130706433/",
        "http://017700000001/",
        "http://0177.0.0.1/",
        "http://0x7f000001/",
        "http://0x7F.0.0.1/",
        "http://0x7f.1/",
        "http://127.0.0.01/",
        "http://0/",
        "http://169.254.43518/",
        "http://2852039166/",
        "http://0xA9FEA9FE/",
        "http://0251.0376.0251.0376/",
        "http://[::]/",
        "http://[::1]/",
        "http://[0:0:0:0:0:0:0:1]/",
        "http://[::127.0.0.1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:a9fe:a9fe]/",
        "http://[::ffff:0:127.0.0.1]/",
        "http://[64:ff9b::169.254.169.254]/",
        "http://[2002:a9fe:a9fe::]/",
        "http://[fd00:ec2::254]/",
        "http://[fe80::1%251]/",
        "http://[ff02::1]/",
        "http://user:pw@127.0.0.1/",
        "http://public.example@127.0.0.1/",
        "http://\uff11\uff12\uff17.\uff10.\uff10.\uff11/",
        "http://\u2460\u2461\u2466.0.0.1/",
        "http://127\u30020\u30020\u30021/",
    ],
)
def test_no_way_to_write_it_leads_inside(url: str) -> None:
    """Even where nobody checked the URL when the endpoint was made: nothing is dialled."""
    answer, dialled = send(url)
    assert dialled == []
    assert (answer.status_code, answer.error_class) == (0, "blocked")


def test_of_several_addresses_no_private_one_is_dialled() -> None:
    """The public one is tried, the private one is a block whichever comes first."""
    for name in ("public-then-private.example", "private-then-public.example", "public-then-mapped.example"):
        answer, dialled = send(f"https://{name}/")
        assert answer.error_class == "blocked"
        assert not [address for address, _ in dialled if is_denied(address)]


def test_a_name_that_changes_its_mind_is_checked_at_each_dial() -> None:
    """Public when the endpoint was made, private when it is dialled: the answer of this lookup counts."""
    answers = [[PUBLIC], ["127.0.0.1"], ["169.254.169.254"], [OTHER]]

    def rebinding(host: str, port: int, **_: object) -> Sequence[AddressInfo]:
        return look_up(answers.pop(0)[0], port)

    found = [send("https://rebinding.example/", resolver=Resolver(rebinding)) for _ in range(4)]
    assert [answer.error_class for answer, _ in found] == ["connect", "blocked", "blocked", "connect"]
    assert [dialled for _, dialled in found] == [[(PUBLIC, 443)], [], [], [(OTHER, 443)]]


@pytest.mark.parametrize(
    ("url", "dialled"),
    [
        ("https://10.1.2.3:9000/", [("10.1.2.3", 9000)]),
        ("https://10.2.0.1/", []),
        ("https://127.0.0.1/", []),
        ("https://169.254.169.254/", []),
        ("https://[::ffff:10.1.2.3]/", []),
        ("https://public.example:9000/", []),
        ("https://public.example/", [(PUBLIC, 443)]),
        ("https://private.example/", []),
    ],
)
def test_an_allowed_network_opens_what_it_names(url: str, dialled: list[tuple[str, int]]) -> None:
    """Private deployments: that network with its ports, and nothing else."""
    answer, found = send(url, "10.1.0.0/16")
    assert found == dialled
    assert answer.error_class == ("connect" if dialled else "blocked")


@pytest.mark.parametrize(
    "name", ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"]
)
def test_no_proxy_is_dialled(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the environment would connect where we do not look."""
    monkeypatch.setenv(name, "http://127.0.0.1:3128")
    for scheme, port in (("http", 80), ("https", 443)):
        assert send(f"{scheme}://public.example/")[1] == [(PUBLIC, port)]


PARTS = st.sampled_from(
    [
        "127",
        "0",
        "1",
        "0x7f",
        "0177",
        "169",
        "254",
        "10",
        ".",
        ".",
        ".",
        ":",
        "[",
        "]",
        "%",
        "@",
        "/",
        "public.example",
    ]
)


@given(st.lists(PARTS | st.text(max_size=2), min_size=1, max_size=10).map("".join))
@example("0x7f.1")
def test_whatever_is_written_nothing_private_is_dialled(text: str) -> None:
    """And whatever passes when an endpoint is made ends in an answer, never in an exception."""
    url = f"https://{text}"
    checked = False
    with suppress(ValueError):
        check_url(url, allow_http=True, private=True)
        checked = True
    if checked:
        _, dialled = send(url)
        assert not [address for address, _ in dialled if is_denied(address)]
