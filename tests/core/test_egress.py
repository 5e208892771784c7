"""Gate A: which URLs an endpoint may have."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import ip_network
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

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
        ("", "ASCII"),
        ("https", "https://"),
        ("//example.com/", "https://"),
        ("https:example.com", "name a host"),
        ("https:///example.com", "name a host"),
        ("https:/\\example.com", "backslashes"),
        ("javascript:alert(1)", "https://"),
        ("file:///etc/passwd", "https://"),
        ("gopher://127.0.0.1:6379/_x", "https://"),
        (" https://example.com/", "spaces"),
        ("https://example.com/\t", "control characters"),
        ("https://exa\tmple.com/", "control characters"),
        ("https://example.com\n/", "control characters"),
        ("https://example.com/\0", "control characters"),
        ("https://example.com/\x7f", "control characters"),
        ("https://example.com/\u2028", "control characters"),
        ("https://@example.com/", "user name"),
        ("https://:@example.com/", "user name"),
        ("https://example.com@169.254.169.254/", "user name"),
        ("https://example.com:443@127.0.0.1/", "user name"),
        ("https://example.com%2f@127.0.0.1/", "user name"),
        ("https://example.com%2e/", "name a host"),
        ("https://%31%32%37.0.0.1/", "name a host"),
        ("https://127.0.0.1%00.example.com/", "name a host"),
        ("https://127.0.0.1%2f.example.com/", "name a host"),
        ("https://\uff11\uff12\uff17.\uff10.\uff10.\uff11/", "ASCII"),
        ("https://\u2460\u2461\u2466.0.0.1/", "ASCII"),
        ("https://127\u30020\u30020\u30021/", "ASCII"),
        ("https://\u0661.\u0662.\u0663.\u0664/", "ASCII"),
        ("https://loc\u00adalhost.example/", "ASCII"),
        ("https://ⓔxample.com/", "ASCII"),
        ("https://127.0.0.1./", "numeric"),
        ("https://127.0.1/", "numeric"),
        ("https://0/", "numeric"),
        ("https://0.0.0.0/", "numeric"),
        ("https://017700000001/", "numeric"),
        ("https://0177.0.0.1/", "numeric"),
        ("https://127.0.0.01/", "numeric"),
        ("https://0x7f.0x0.0x0.0x1/", "numeric"),
        ("https://0x7F.0.0.1/", "numeric"),
        ("https://127.0.0.0x1/", "numeric"),
        ("https://0x/", "numeric"),
        ("https://example.0x7f/", "numeric"),
        ("https://example.1/", "numeric"),
        ("https://256.256.256.256/", "numeric"),
        ("https://1.2.3.4.5/", "numeric"),
        ("https://4294967296/", "numeric"),
        ("https://8.8.8.8/", "numeric"),
        ("https://[::]/", "numeric"),
        ("https://[::127.0.0.1]/", "numeric"),
        ("https://[::ffff:127.0.0.1]/", "numeric"),
        ("https://[::ffff:7f00:1]/", "numeric"),
        ("https://[::ffff:0:7f00:1]/", "numeric"),
        ("https://[64:ff9b::7f00:1]/", "numeric"),
        ("https://[2002:7f00:1::]/", "numeric"),
        ("https://[2001:0:0:0:0:0:80ff:fffe]/", "numeric"),
        ("https://[fe80::1%25eth0]/", "numeric"),
        ("https://[fe80::1%eth0]/", "numeric"),
        ("https://[0000:0000:0000:0000:0000:0000:0000:0001]/", "numeric"),
        ("https://[v1.example.com]/", "brackets"),
        ("https://[vf.x]/", "brackets"),
        ("https://[example.com]/", "no URL"),
        ("https://[127.0.0.1]/", "no URL"),
        ("https://[::1/", "no URL"),
        ("https://::1/", "no URL"),
        ("https://example.com]/", "no URL"),
        ("https://example.com:-1/", "no URL"),
        ("https://example.com:+443/", "no URL"),
        ("https://example.com:4_43/", "no URL"),
        ("https://example.com:443:443/", "no URL"),
        ("https://example.com:65536/", "no URL"),
        ("https://example.com:6379/", "port 6379"),
        ("https://example../", "name a host"),
        ("https://./", "name a host"),
        ("https://.example.com/", "name a host"),
        ("https://a-.example/", "name a host"),
        ("https://exam*ple.com/", "name a host"),
        ("https://a.example,b.example/", "name a host"),
        ("https://" + "a" * 64 + ".example/", "name a host"),
        ("https://" + "a." * 127 + "example/", "name a host"),
        ("https://localhost./", "with a domain"),
        ("https://LOCALHOST/", "with a domain"),
        ("https://kubernetes/", "with a domain"),
        ("https://receiver.localhost/", "public host"),
        ("https://printer.local./", "public host"),
        ("https://metadata.google.internal/computeMetadata/v1/", "public host"),
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


@pytest.mark.parametrize(
    ("url", "is_fine"),
    [
        ("http://127.0.0.1:39059/", True),
        ("http://[::1]:1/", True),
        ("http://localhost:1/", True),
        ("https://8.8.8.8/", True),
        ("https://10.0.0.1/", False),
        ("http://169.254.169.254/latest/meta-data/", False),
        ("http://[::ffff:127.0.0.1]/", False),
        ("http://[fe80::1%25eth0]/", False),
        ("http://0.0.0.0/", False),
        ("https://receiver.internal:9000/", True),
    ],
)
def test_with_the_allowed_networks_numeric_hosts_are_told_at_once(url: str, *, is_fine: bool) -> None:
    """What the second gate would block at every try is refused when the endpoint is made."""
    networks = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
    if is_fine:
        check_url(url, allow_http=True, private=True, allowed=networks)
        return
    with pytest.raises(ValueError, match="requests may not go to"):
        check_url(url, allow_http=True, private=True, allowed=networks)


PIECES = st.sampled_from(
    [*"@:/?#[].%\\-_0x~;,&=*'", "example", ".com", "127.0.0.1", "xn--", "443", "::1", "%2e", "v1"]
)


@given(st.lists(PIECES | st.text(max_size=3), max_size=12).map("".join))
def test_the_client_reads_a_url_as_we_do(text: str) -> None:
    """The same host and port: else what was checked would not be what is dialled."""
    url = f"https://{text}"
    try:
        check_url(url, allow_http=False)
    except ValueError:
        return
    ours, theirs = urlsplit(url), URL(url)
    assert (theirs.scheme, theirs.raw_host, theirs.port) == ("https", ours.hostname, ours.port or 443)
    assert theirs.user is theirs.password is None


@given(st.text(max_size=60), st.booleans(), st.booleans())
def test_any_text_is_judged_and_nothing_else_raised(text: str, allow_http: bool, private: bool) -> None:
    """Whatever is given, the answer is yes or a ValueError."""
    with suppress(ValueError):
        check_url(f"https://{text}", allow_http=allow_http, private=private)
        assert text.isascii()
