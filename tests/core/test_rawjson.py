"""JSON whose parts keep their text."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core import rawjson
from engine.core.model import MessagePublished
from engine.core.submission import RefusedError, read_message

BLANK = MessagePublished("", "msg_new", "", b"", 7)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(
    st.dictionaries(st.text(st.characters(codec="utf-8")), JSON, max_size=5),
    st.sampled_from([None, 1, "\t"]),
    st.booleans(),
)
def test_each_part_is_the_text_it_was_written_in(
    members: dict[str, object], indent: object, ascii_only: bool
) -> None:
    """Cutting an object apart gives texts that mean what its members mean, in every layout."""
    written = json.dumps(members, indent=indent, ensure_ascii=ascii_only)  # type: ignore[arg-type]
    found = rawjson.parse(written.encode(), 0)
    assert {name: json.loads(part.text) for name, part in found.items()} == members
    assert all(part.text in written for part in found.values())


@pytest.mark.parametrize(
    "payload",
    [
        "1.0",
        "1e400",
        "-0",
        "123456789012345678901234567890",
        '{"b": 1.10,\n "a" :[ ] }',
        '"\\u00e9\\/"',
        "9" * 5_000,
        "null",
    ],
)
def test_a_payload_keeps_every_byte(payload: str) -> None:
    """Numbers, spaces and escapes of a payload survive as they were written."""
    body = f' {{"tenant":"t", "payload" : {payload} ,"event_type":"a.b"}} '.encode()
    message = read_message(rawjson.parse(body, 1), BLANK, 10_000)
    assert message == MessagePublished("t", "msg_new", "a.b", payload.encode(), 7)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "Expecting"),
        (b"[]", "Expecting"),
        (b"{", "Expecting"),
        (b"{}x", "Extra data"),
        (b'{"a":1,}', "Expecting"),
        (b'{"a" 1}', "Expecting"),
        (b"{1:2}", "property name"),
        (b'{"a":1,"a":2}', "twice"),
        (b'{"a":NaN}', "NaN"),
        (b'{"a":"\xff"}', "UTF-8"),
        (b'\xef\xbb\xbf{"a":1}', "byte order mark"),
        (b'{"a":"\x01"}', "control character"),
        (b'{"payload":' + b"[" * 501 + b"]" * 501 + b"}", "deeper than 500"),
        (b"[" * 200_000, "deeper than 500"),
    ],
)
def test_what_is_no_object_is_refused(body: bytes, said: str) -> None:
    """The error says where or why."""
    with pytest.raises(ValueError, match=said):
        rawjson.parse(body, 1)


def test_a_payload_may_be_as_deep_as_the_limit() -> None:
    """500 levels of a payload pass, although the body around it adds one."""
    payload = b"[" * 500 + b"]" * 500
    assert rawjson.parse(b'{"payload":' + payload + b"}", 1)["payload"].text.encode() == payload


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"tenant": "t", "event_type": "a"}, "payload"),
        ({"event_type": "a", "payload": 1}, "tenant"),
        ({"tenant": "", "event_type": "a", "payload": 1}, "tenant"),
        ({"tenant": 5, "event_type": "a", "payload": 1}, "tenant"),
        ({"tenant": "\ud800", "event_type": "a", "payload": 1}, "tenant"),
        ({"tenant": "t", "payload": 1}, "event_type"),
        ({"tenant": "t", "event_type": "a b", "payload": 1}, "event_type"),
        ({"tenant": "t", "event_type": "a", "payload": 1, "id": "a.b"}, "id"),
        ({"tenant": "t", "event_type": "a", "payload": 1, "ordering_key": "\n"}, "ordering_key"),
        ({"tenant": "t", "event_type": "a", "payload": 1, "surprise": 1}, "surprise"),
        ({"tenant": "t", "event_type": "a", "payload": "x" * 200}, "payload"),
    ],
)
def test_a_wrong_message_names_its_field(body: dict[str, object], field: str) -> None:
    """Each rule is told with the field that breaks it."""
    with pytest.raises(RefusedError) as caught:
        read_message(rawjson.parse(json.dumps(body).encode(), 1), BLANK, 100)
    assert caught.value.field == field
    assert caught.value.too_large == (field == "payload" and "payload" in body)


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), JSON, max_size=5), st.booleans())
def test_values_are_what_json_says(members: dict[str, object], ascii_only: bool) -> None:
    """What a strict parse gives is what was written."""
    written = json.dumps(members, ensure_ascii=ascii_only)
    assert rawjson.values(written.encode(), 100) == members


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "Expecting"),
        (b"[]", "Expecting"),
        (b"{}x", "Extra data"),
        (b'{"a":[{"b":1,"b":2}]}', '"b" is there twice'),
        (b'{"a":[NaN]}', "NaN is no number"),
        (b'{"a":-Infinity}', "-Infinity is no number"),
        (b'{"a":1e999}', "out of range"),
        (b'{"a":' + b"9" * 301 + b"}", "more than 300 digits"),
        (b'{"a":["\\ud800"]}', "half a surrogate pair"),
        (b'{"\\udfff":1}', "half a surrogate pair"),
        (b'{"a":"\xff"}', "UTF-8"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b'{"a":' + b"[" * 101 + b"]" * 101 + b"}", "deeper than 100"),
    ],
)
def test_values_are_read_more_strictly_than_a_payload(body: bytes, said: str) -> None:
    """At any depth; the error says what is wrong."""
    with pytest.raises(ValueError, match=said):
        rawjson.values(body, 100)
