"""Gate A: which URLs an endpoint may have."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.egress import check_url


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "https://hooks.example.com:8443/a?b=c%20d",
        "https://xn--bcher-kva.example/x",
        "https://example.com./",
    ],
)
def test_ordinary_https_urls_pass(url: str) -> None:
    """An https URL of a public host name is allowed."""
    check_url(url, allow_http=False)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://example.com/", "http is not allowed"),
        ("ftp://example.com/", "https://"),
        ("https://", "name a host"),
        ("example.com", "https://"),
        ("https://user:pw@example.com/", "user name"),
        ("https://example.com/#top", "fragment"),
        ("https://example.com/#", "fragment"),
        ("https://example.com/a b", "spaces"),
        ("https://example.com/\r\nX: y", "control characters"),
        ("https://example.com\\@evil.example/", "backslashes"),
        ("https://bücher.example/", "ASCII"),
        ("https://localhost/", "with a domain"),
        ("https://127.0.0.1/", "numeric"),
        ("https://127.1/", "numeric"),
        ("https://2130706433/", "numeric"),
        ("https://0x7f.1/", "numeric"),
        ("https://0x7f000001/", "numeric"),
        ("https://[::1]/", "numeric"),
        ("https://example.com:22/", "port 22"),
        ("https://example.com:0/", "port 0"),
        ("https://example.com:99999/", "no URL"),
        ("https://exa%6dple.com/", "name a host"),
        ("https://a..example/", "name a host"),
        ("https://-a.example/", "name a host"),
        ("https://example.com/" + "x" * 2_048, "at most"),
    ],
)
def test_other_urls_are_refused_with_the_rule(url: str, said: str) -> None:
    """The error names the rule that the URL breaks."""
    with pytest.raises(ValueError, match=said):
        check_url(url, allow_http=False)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:39059/x", "http://localhost:1/", "http://[::1]:9/", "https://10.0.0.1/"]
)
def test_private_networks_can_be_allowed(url: str) -> None:
    """In `hooklog dev` http, loopback and any port are fine."""
    check_url(url, allow_http=True, private=True)


@pytest.mark.parametrize("url", ["http://127.1/", "http://0x7f000001/", "http://017700000001/"])
def test_odd_numeric_forms_are_refused_even_where_private_is_allowed(url: str) -> None:
    """Addresses are written in one way only."""
    with pytest.raises(ValueError, match="usual form"):
        check_url(url, allow_http=True, private=True)


@given(st.text(max_size=60), st.booleans(), st.booleans())
def test_any_text_is_judged_and_nothing_else_raised(text: str, allow_http: bool, private: bool) -> None:
    """Whatever is given, the answer is yes or a ValueError."""
    with suppress(ValueError):
        check_url(f"https://{text}", allow_http=allow_http, private=private)
        assert text.isascii()
