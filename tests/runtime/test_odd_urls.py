"""URLs that the client cannot read: refused for new endpoints, an answer where one is there already."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from engine.core.egress import check_url
from tests.runtime.test_dial import send

ODD = ("http://)z[::1]~-x", "http://x[::1]/", "http://[::1]x/", "http://[::1]x:80/", "http://a[::1]:80/")


@pytest.mark.parametrize("url", ODD)
def test_text_around_brackets_is_refused_even_where_private_is_allowed(url: str) -> None:
    """Python's own parser takes the address and forgets the rest; the client raises or goes elsewhere."""
    allowed = (ip_network("::1/128"),)
    with pytest.raises(ValueError, match=r"brackets|no URL"):
        check_url(url, allow_http=True, private=True, allowed=allowed)


@pytest.mark.parametrize("url", ["http://[::1]/", "http://[::1]:9/x", "http://[::1]:/"])
def test_an_address_in_brackets_is_fine_there(url: str) -> None:
    """With a port, or without."""
    check_url(url, allow_http=True, private=True, allowed=(ip_network("::1/128"),))


@pytest.mark.parametrize("url", [*ODD, "http://[", "http://a:port/", "http://a:99999/"])
def test_the_sender_answers_for_what_it_cannot_read(url: str) -> None:
    """Nothing is raised, which would end the dispatcher, and with it the deliveries of everybody."""
    answer, dialled = send(url, "::1/128")
    assert (answer.status_code, answer.error_class, dialled) == (0, "blocked", [])
