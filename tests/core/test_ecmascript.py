"""JSON as JavaScript writes it, against tables and against Node itself."""

from __future__ import annotations

import shutil
import struct
import subprocess
from base64 import b64decode, b64encode
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.core.ecmascript import canonical
from engine.core.model import MessagePublished
from engine.core.payload import InvalidPayloadError, check_payload
from engine.core.profile import render
from engine.runtime.configuration.profiles import load_profiles

MEETINGBAAS = load_profiles()["meetingbaas"]
NODE_SCRIPT = """
const utf8 = new TextDecoder('utf-8', {fatal: true, ignoreBOM: true});
require('readline').createInterface({input: process.stdin}).on('line', (line) => {
  let answer = '!';
  try {
    const value = JSON.parse(utf8.decode(Buffer.from(line, 'base64')));
    answer = Buffer.from(JSON.stringify(value)).toString('base64');
  } catch {}
  process.stdout.write(answer + '\\n');
});
"""

NUMBERS = {
    "2.0": "2",
    "0": "0",
    "-0": "0",
    "-0.0": "0",
    "-1e-400": "0",
    "1.50": "1.5",
    "-2.5": "-2.5",
    "100": "100",
    "1E2": "100",
    "1e21": "1e+21",
    "1.5e+21": "1.5e+21",
    "-1e21": "-1e+21",
    "1e20": "100000000000000000000",
    "123456789012345680000": "123456789012345680000",
    "0.000001": "0.000001",
    "-0.0000015": "-0.0000015",
    "0.00001234": "0.00001234",
    "1e-7": "1e-7",
    "-1.25e-9": "-1.25e-9",
    "1e-10": "1e-10",
    "9007199254740993": "9007199254740992",
    "9999999999999999": "10000000000000000",
    "590295810358705651712": "590295810358705700000",
    "1e400": "null",
    "-1e400": "null",
    "1" * 5_000: "null",
    "0." + "3" * 5_000: "0.3333333333333333",
    "5e-324": "5e-324",
    "1.7976931348623157e308": "1.7976931348623157e+308",
    "0.1": "0.1",
}

TEXTS = {
    ' { "a" : [ 1 , true , false , null ] } ': '{"a":[1,true,false,null]}',
    "[]": "[]",
    "{}": "{}",
    '{"":{"":[{},[]]}}': '{"":{"":[{},[]]}}',
    r'"\u00e9\u65e5\ud83d\ude00"': '"é日😀"',
    r'"\/"': '"/"',
    r'"\u2028\u2029\u007f"': '"\u2028\u2029\x7f"',
    r'"\u0000\u001F\u0008\u000c\u000A\u000d\u0009\u0022\u005c"': r'"\u0000\u001f\b\f\n\r\t\"\\"',
    r'"\uD800"': r'"\ud800"',
    r'"\uDFFF\uD83D"': r'"\udfff\ud83d"',
    r'{"\uDC00":"\ud83d\u0041"}': r'{"\udc00":"\ud83dA"}',
    '{"b":1,"1":2,"0":3,"a":4}': '{"0":3,"1":2,"b":1,"a":4}',
    '{"01":1,"-1":2,"4294967295":3,"10":4,"4294967294":5,"9":6}': (
        '{"9":6,"10":4,"4294967294":5,"01":1,"-1":2,"4294967295":3}'
    ),
    '{"x":[{"z":{"b":1,"2":0}}],"1.0":1,"٣":2,"²":3," 1":4,"0":5}': (
        '{"0":5,"x":[{"z":{"2":0,"b":1}}],"1.0":1,"٣":2,"²":3," 1":4}'
    ),
    '{"a":1,"b":2,"a":3}': '{"a":3,"b":2}',
    '{"a":{"x":1},"5":1,"a":[],"5":{"5":2}}': '{"5":{"5":2},"a":[]}',
    '{"__proto__":1,"toJSON":2,"constructor":3}': '{"__proto__":1,"toJSON":2,"constructor":3}',
}

PIECES = st.sampled_from(
    [*'[]{},:"\\e-+.01 /\n\t\0\v\xa0\u2028\ufeffé😀', "\\u", "d800", "12"]
) | st.sampled_from(["true", "null", "NaN", '"a"', '"a":'])
INDEXES = ["0", "1", "2", "10", "4294967293", "4294967294"]
NEARLY = [
    "01",
    "-1",
    "-0",
    "1.0",
    "1e3",
    "4294967295",
    "4294967296",
    "99999999999",
    "a",
    "",
    "__proto__",
    r"\u0031",
]


class Node:
    """A Node process that answers `JSON.stringify(JSON.parse(text))`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def canonical(self, text: bytes) -> bytes | None:
        """What Node makes of a text; None when it refuses it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b64encode(text).decode() + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        assert answer, "node has ended"
        return None if answer == "!" else b64decode(answer)


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """One Node process for all tests."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("node is not installed: JavaScript's rules are checked against the tables only")
    command = [program, "-e", NODE_SCRIPT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Node(process)


def _double(bits: bytes) -> str:
    value: float = struct.unpack(">d", bits)[0]
    return repr(value) if value - value == 0 else "0"


def _escaped(text: str) -> str:
    return "".join(f"\\u{unit:04x}" for unit in struct.unpack(f">{len(text)}H", text.encode("utf-16-be")))


number_texts = (
    st.from_regex(r"-?(0|[1-9][0-9]{0,24})(\.[0-9]{1,24})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)
    | st.from_regex(r"-?[1-9](\.[0-9]{1,18})?e(-[1-9]|1[5-9]|2[0-3])", fullmatch=True)
    | st.binary(min_size=8, max_size=8).map(_double)
    | st.integers(-(2**70), 2**70).map(str)
    | st.sampled_from([text for text in NUMBERS if len(text) < 100])
)
plain_texts = st.text(
    st.characters(exclude_characters='"\\', exclude_categories=["Cs"], min_codepoint=32), max_size=6
)
escapes = st.sampled_from([r"\n", r"\/", r"\"", r"\\", r"\u001F", r"\uD83D", r"\uDE00", r"\u00e9", r"\ud800"])
basic_escaped = st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]), max_size=4).map(
    _escaped
)
string_texts = st.lists(plain_texts | escapes | basic_escaped, max_size=4).map(
    lambda parts: f'"{"".join(parts)}"'
)
keys = string_texts | st.sampled_from([f'"{key}"' for key in INDEXES + NEARLY])
spaces = st.sampled_from(["", "", "", " ", "\n", "\t\r "])


def _containers(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    members = st.tuples(keys, spaces, inner).map(lambda m: f"{m[0]}{m[1]}:{m[1]}{m[2]}")
    objects = st.tuples(spaces, st.lists(members, max_size=6)).map(lambda o: f"{{{o[0]}{','.join(o[1])}}}")
    arrays = st.tuples(spaces, st.lists(inner, max_size=4)).map(lambda a: f"[{a[0]}{f'{a[0]},'.join(a[1])}]")
    return objects | arrays


documents = st.recursive(
    number_texts | string_texts | st.sampled_from(["true", "false", "null"]), _containers, max_leaves=12
)


@pytest.mark.parametrize(("text", "expected"), list(NUMBERS.items()) + list(TEXTS.items()))
def test_table(text: str, expected: str) -> None:
    """Numbers, escapes, key order and duplicate keys come out as ECMA-262 says."""
    assert canonical(text.encode()) == expected.encode()


@pytest.mark.parametrize("text", list(NUMBERS) + list(TEXTS))
def test_table_is_what_node_says(node: Node, text: str) -> None:
    """The table above is not just our reading of the specification."""
    assert node.canonical(text.encode()) == canonical(text.encode())


@settings(max_examples=1_000, deadline=None)
@given(text=number_texts)
def test_numbers_equal_node(node: Node, text: str) -> None:
    """Any number, however spelled, is printed as Node prints it."""
    assert canonical(text.encode()) == node.canonical(text.encode())


@settings(max_examples=600, deadline=None)
@given(text=documents)
def test_documents_equal_node(node: Node, text: str) -> None:
    """Any document is written as Node writes it, and writing it again changes nothing."""
    written = canonical(text.encode())
    assert written == node.canonical(text.encode())
    assert canonical(written) == written


@settings(max_examples=600, deadline=None)
@given(text=st.lists(PIECES, max_size=8).map("".join))
@example("\ufeff{}")
@example('{"a":1}{')
def test_payloads_are_accepted_exactly_when_node_accepts_them(node: Node, text: str) -> None:
    """A payload that we let through is one that a receiver can parse, and the other way round."""
    payload = text.encode()
    try:
        check_payload(payload)
    except InvalidPayloadError:
        accepted = False
    else:
        accepted = bool(payload)
    assert accepted == (node.canonical(payload) is not None)


@settings(max_examples=300, deadline=None)
@given(text=documents, event_type=st.sampled_from(["meeting.completed", "meeting.failed", "meeting.started"]))
def test_meetingbaas_bodies_survive_node(node: Node, text: str, event_type: str) -> None:
    """The bytes on the wire equal `JSON.stringify(JSON.parse(body))`, so Node receivers verify them."""
    body = render(MEETINGBAAS, MessagePublished("t", "m", event_type, text.encode(), 0))
    assert node.canonical(body) == body


@pytest.mark.parametrize("depth", [1, 500])
def test_deep_documents(depth: int) -> None:
    """As deep as a payload may be."""
    text = b'{"a":[' * (depth // 2) + b"1.0" + b"]}" * (depth // 2)
    assert canonical(text) == text.replace(b"1.0", b"1")


@pytest.mark.parametrize("text", [b"", b"NaN", b"[1,]", b"\xff", b"\xef\xbb\xbf1", b"-Infinity"])
def test_what_is_no_json_is_refused(text: bytes) -> None:
    """As JSON.parse throws, so do we."""
    with pytest.raises(ValueError, match=r"no JSON|Expecting|BOM|decode"):
        canonical(text)
