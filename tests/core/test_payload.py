"""What a payload may be."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.payload import MAX_DEPTH, InvalidPayloadError, check_payload, depth

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        b" \t\r\n[1] \n",
        b"null",
        b'"text"',
        b"-0.5e+10",
        b"1e400",
        b"1" * 5_000,
        b'{"a":1,"a":2}',
        b'"\\ud800"',
        '{"é":"日本語 😀"}'.encode(),
        b"[" * MAX_DEPTH + b"]" * MAX_DEPTH,
        b'{"a":' * MAX_DEPTH + b"1" + b"}" * MAX_DEPTH,
        b"[" + b"[]," * 2_000 + b"{}]",
        b'["' + b"[" * 2_000 + b'\\"[{"]',
    ],
)
def test_strict_json_passes(payload: bytes) -> None:
    """Any JSON value passes, whatever its numbers, keys or width; nothing stands for `{}`."""
    check_payload(payload)


@pytest.mark.parametrize(
    ("payload", "rule"),
    [
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b"\xff\xfe{\x00}\x00", "not valid UTF-8 at byte 0"),
        (b'"\xed\xa0\x80"', "not valid UTF-8 at byte 1"),
        (b'"\xc0\xaf"', "not valid UTF-8 at byte 1"),
        (b"NaN", "NaN is no number"),
        (b"[Infinity]", "Infinity is no number"),
        (b"[-Infinity]", "-Infinity is no number"),
        (b"{", "not JSON"),
        (b" ", "not JSON"),
        (b"{} {}", r"Extra data \(character 3\)"),
        (b"{'a':1}", "not JSON"),
        (b"[1,]", "not JSON"),
        (b"01", "not JSON"),
        (b"1.", "not JSON"),
        (b"+1", "not JSON"),
        (b'"a\nb"', "not JSON"),
        (b'"\\x41"', "not JSON"),
        (b'"\\ud8g0"', "not JSON"),
        ("\u00a0{}".encode(), "not JSON"),
        ("\u0661".encode(), "not JSON"),
        (b"// no\n{}", "not JSON"),
        (b"[" * 501 + b"]" * 501, "deeper than 500"),
        (b'{"a":[' * 251 + b"]}" * 251, "deeper than 500"),
        (b"[" * 200_000, "deeper than 500"),
    ],
)
def test_anything_else_is_refused(payload: bytes, rule: str) -> None:
    """The error names the rule that is broken, and never exhausts the stack."""
    with pytest.raises(InvalidPayloadError, match=rule):
        check_payload(payload)


def test_error_does_not_quote_the_payload() -> None:
    """Payloads are the customer's: an error message holds none of one."""
    with pytest.raises(InvalidPayloadError) as refused:
        check_payload(b'{"card": canary4242}')
    assert "canary" not in str(refused.value)
    assert "card" not in str(refused.value)


@given(JSON, st.booleans())
def test_what_json_writes_passes(value: object, ascii_only: bool) -> None:
    """Whatever a JSON library writes is accepted, escapes or not."""
    check_payload(json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "replace"))


@given(JSON)
def test_depth_is_the_nesting(value: object) -> None:
    """Depth is counted as a recursive reader would, brackets in strings aside."""

    def nesting(item: object) -> int:
        if isinstance(item, dict):
            return 1 + max(map(nesting, item.values()), default=0)
        return 1 + max(map(nesting, item), default=0) if isinstance(item, list) else 0

    assert depth(json.dumps(value).encode()) == nesting(value)


@pytest.mark.parametrize("unit", [b'\\"[', b'"[\\', b'"[', b"\\\\[", b'"["['])
def test_measuring_depth_takes_linear_time(unit: bytes) -> None:
    """No text makes the exact measure slow: quadratic time would be minutes here."""
    started = time.perf_counter()
    depth(b'"' + unit * 100_000)
    assert time.perf_counter() - started < 30
