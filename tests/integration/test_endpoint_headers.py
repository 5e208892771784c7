"""Custom headers of an endpoint: whatever could change a request's meaning is refused in clear words."""

from __future__ import annotations

import pytest

from tests.integration.api_fixtures import Api
from tests.integration.api_fixtures import shared_api as api

__all__ = ["api"]


def answer_to(api: Api, headers: object, profile: str = "standard") -> tuple[int, str]:
    """Status, and what is said about the headers, of an attempt to create an endpoint with them."""
    wanted = {
        "tenant": "acme",
        "url": "https://receiver.example.com/",
        "profile": profile,
        "headers": headers,
    }
    answer = api.ask("POST", "/v1/endpoints", wanted)
    errors = answer.json().get("errors", [])
    assert all(error["field"].startswith("headers") for error in errors)
    return answer.status_code, " ".join(error["message"] for error in errors)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            " ",
            "X:",
            ":",
            ":path",
            "X A",
            " X-A",
            "X-A ",
            "X\tA",
            "X\rA",
            "X\nA",
            "X-A\r\nX-B",
            "X\0A",
            "\x7f",
        ),
        *(
            "X-É",
            "X\u2028",
            "X😀",
            "X(A)",
            "X,A",
            "X/A",
            "X;A",
            "X=A",
            "X@A",
            "X[A]",
            'X"A"',
            "X{A}",
        ),
        "X" * 129,
    ],
)
def test_what_is_no_header_name(api: Api, name: str) -> None:
    """No token of RFC 9110: spaces, separators, controls, anything beyond ASCII, nothing at all."""
    status, said = answer_to(api, {name: "1"})
    assert status == 422
    assert "is no header name" in said


@pytest.mark.parametrize(
    "name",
    [
        *(
            "Host",
            "Content-Length",
            "Transfer-Encoding",
            "Connection",
            "Keep-Alive",
            "TE",
            "Trailer",
            "Upgrade",
        ),
        *(
            "Expect",
            "Accept-Encoding",
            "Content-Encoding",
            "Cookie",
            "Proxy-Authorization",
            "Proxy-Connection",
        ),
        *(
            "Content-Type",
            "User-Agent",
            "Webhook-Id",
            "WEBHOOK-SIGNATURE",
            "webhook-timestamp",
            "webhook-anything",
        ),
    ],
)
def test_reserved_names(api: Api, name: str) -> None:
    """What the client or we set, in any case of letters."""
    for written in (name, name.lower(), name.upper()):
        status, said = answer_to(api, {written: "1"})
        assert status == 422
        assert "cannot be chosen" in said


@pytest.mark.parametrize(
    ("profile", "name"),
    [
        ("baxcloud", "X-BaxCloud-Signature"),
        ("bedrud", "x-webhook-signature"),
        ("bedrud", "X-BEDRUD-SIGNATURE"),
        ("bedrud", "x-webhook-event"),
        ("bedrud", "x-bedrud-timestamp"),
        ("meetingbaas", "x-meetingbaas-signature"),
    ],
)
def test_headers_of_the_profile(api: Api, profile: str, name: str) -> None:
    """A second one beside ours would be for the receiver to choose from."""
    status, said = answer_to(api, {name: "0" * 64}, profile)
    assert status == 422
    assert "cannot be chosen" in said


@pytest.mark.parametrize(
    "value",
    [
        *(
            "a\r\nX-B: 1",
            "a\nb",
            "a\rb",
            "a\0b",
            "\x1b[0m",
            "\x7f",
            " abc",
            "abc ",
            "\tabc",
            "é",
            "\u2028",
            "😀",
        ),
        "x" * 4_097,
    ],
)
def test_values_that_are_refused(api: Api, value: str) -> None:
    """Line ends above all: they would begin another header."""
    status, said = answer_to(api, {"X-A": value})
    assert status == 422
    assert "the value of X-A must be printable ASCII" in said
    assert value not in said


@pytest.mark.parametrize("headers", [[], "X-A: 1", 1, {"X-A": 1}, {"X-A": None}, {"X-A": ["1"]}, {"X-A": {}}])
def test_other_kinds_of_headers(api: Api, headers: object) -> None:
    """An object of strings, nothing else."""
    assert answer_to(api, headers)[0] == 422


def test_how_many_and_how_often(api: Api) -> None:
    """At most 20, and no name twice however it is written."""
    assert answer_to(api, {f"X-{n}": "1" for n in range(20)})[0] == 201
    assert answer_to(api, {f"X-{n}": "1" for n in range(21)})[0] == 422
    assert answer_to(api, {"X-A": "1", "x-a": "2"})[0] == 422


@pytest.mark.parametrize("value", ["1", "", "Bearer abc.def", "a b\tc", "~!@#$%^&*()", "x" * 4_096])
def test_ordinary_headers(api: Api, value: str) -> None:
    """Such as a token of the receiver's own."""
    assert answer_to(api, {"Authorization": value, "X-Api-Key": value})[0] == 201
