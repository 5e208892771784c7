"""A platform's own profile: what its file may say, and how it is told what is wrong."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from engine.core.model import DeliveryScheduled, MessagePublished, Policy
from engine.core.profile import (
    Profile,
    ProfileError,
    generate_secret,
    parse_profile,
    render,
    request_headers,
    signing_key,
    verify,
)
from engine.runtime.configuration.profiles import load_profiles

SECOND = 1_000_000
HOUR = 3_600 * SECOND
PUBLISHED = 1_768_730_400 * SECOND

OWN = """
success = "2xx"
timeout = "1500ms"
retries = ["1s", "1d"]
gone_disables = false
rotation_overlap = "1h"
https = "always"
data = "unchanged"
ping = "[]"
answer_header = "X-Answer"

[body]
v = 2
test = false
meta = { key = "{type}/{id}", at = "{published_s}", text = "at {published_s}" }
items = "{payload}"

[headers]
X-Acme-Time = "{published_s}"
X-Acme-Kind = "kind {wire_type}; {id}"

[wire_types]
"room.ended" = "roomEnded"

[signature]
headers = ["X-Acme-Signature"]
value = "h={hex}"
list = true
signs = "{published_s}|{body}|{id}"

[secret]
prefix = "acme-"
generate = "base64url"
key = "text"
"""


def in_data(fields: str) -> str:
    """A table [wire_type_in_data], and the header that it is put before."""
    return f"[wire_type_in_data]\n{fields}\n[wire_types]"


def own(old: str = "", new: str = "") -> Profile:
    """The platform's own profile above, with one text in it changed."""
    assert old in OWN
    return parse_profile("acme", tomllib.loads(OWN.replace(old, new, 1) if old else OWN))


def test_a_platforms_own_profile() -> None:
    """Constants, nesting, other fields and other signed bytes: no code is needed for them."""
    acme = own()
    body = render(acme, MessagePublished("acme", "msg_1", "room.ended", b"[1]", PUBLISHED))
    assert body.decode() == (
        '{"v":2,"test":false,"meta":{"key":"room.ended/msg_1","at":1768730400,"text":"at 1768730400"},'
        '"items":[1]}'
    )
    delivery = DeliveryScheduled(
        "dlv_1",
        "acme",
        "ep_1",
        "msg_1",
        "room.ended",
        attempt=1,
        trigger="scheduled",
        origin="",
        accepted_at=PUBLISHED,
        published_at=PUBLISHED,
        profile="acme",
        endpoint_epoch=0,
        view_offset=0,
        source_partition=0,
        source_offset=0,
        body=body,
    )
    secret = generate_secret(acme, bytes(range(32)))
    headers = request_headers(acme, delivery, [signing_key(acme, secret)], PUBLISHED + HOUR)
    assert headers["X-Acme-Time"] == "1768730400"
    assert headers["X-Acme-Kind"] == "kind roomEnded; msg_1"
    assert secret.startswith("acme-")
    assert verify(acme, secret, headers, body)
    assert not verify(acme, secret, headers | {"X-Acme-Time": "1768730401"}, body)
    assert not verify(acme, secret, headers | {"webhook-id": "msg_2"}, body)
    assert acme.policy == Policy((SECOND, 24 * HOUR), 1_500_000, None, False, "x-answer")
    assert (acme.https_only, acme.rotation_overlap_us) == ("always", HOUR)


@pytest.mark.parametrize(
    ("old", "new", "field", "rule"),
    [
        ('timeout = "1500ms"', "", "timeout", "is missing"),
        ('timeout = "1500ms"', "timeout = 15", "timeout", "must be a text"),
        ("1500ms", "15 s", "timeout", "'15 s' is no duration"),
        ("1500ms", "-1s", "timeout", "is no duration"),
        ("1500ms", "1.5s", "timeout", "is no duration"),
        ("1500ms", "\u0661s", "timeout", "is no duration"),
        ("1500ms", "0s", "timeout", "must be longer than 0"),
        ('["1s", "1d"]', '["1s", "soon"]', "retries", "'soon' is no duration"),
        ('["1s", "1d"]', '["0s"]', "retries", "longer than 0"),
        ('["1s", "1d"]', "[1]", "retries", "must be a list of texts"),
        ('["1s", "1d"]', '"1s"', "retries", "must be a list"),
        ('"1h"', '"a day"', "rotation_overlap", "is no duration"),
        ('"2xx"', '"3xx"', "success", "must be"),
        ('"2xx"', "[]", "success", "must be"),
        ('"2xx"', "[200, 302]", "success", "must be"),
        ('"2xx"', '["200"]', "success", "must be"),
        ('"2xx"', "[200, 200]", "success", "must be"),
        ('"2xx"', "200", "success", "must be"),
        ("gone_disables = false", "gone_disables = 0", "gone_disables", "must be true or false"),
        ('"always"', '"never"', "https", "must be one of always, setting"),
        ('"unchanged"', '"minified"', "data", "must be one of unchanged, ecmascript"),
        ('"[]"', '"{"', "ping", "not JSON"),
        ('"X-Answer"', '"X Answer"', "answer_header", "is no header name"),
        ("[headers]", "[header]", "header", "is no field"),
        ("list = true", 'list = true\nsecret = "x"', "signature.secret", "is no field"),
        ('prefix = "acme-"', 'prefix = "acme-"\nlength = 3', "secret.length", "is no field"),
        ("v = 2", "v = 2.5", "body.v", "must be a text, a whole number"),
        ("v = 2", "v = [1]", "body.v", "must be a text, a whole number"),
        ("v = 2", "v = 1979-05-27", "body.v", "must be a text, a whole number"),
        ("v = 2", '"{v}" = 2', "body", "is no field here"),
        ('"{type}/{id}"', '"{type}/{user}"', "body.meta.key", "{user} is no field here"),
        ('"{type}/{id}"', '"{attempted_s}"', "body.meta.key", "{attempted_s} is no field here"),
        ('"{type}/{id}"', '"{type.__class__}"', "body.meta.key", "brace"),
        ('"{type}/{id}"', '"{id!r}"', "body.meta.key", "brace"),
        ('"{type}/{id}"', '"{{id}}"', "body.meta.key", "brace"),
        ('"{type}/{id}"', '"{}"', "body.meta.key", "is no field here"),
        ('"{type}/{id}"', '"{payload}"', "body", "exactly one"),
        ('items = "{payload}"', 'items = "x"', "body", "exactly one"),
        ('items = "{payload}"', 'items = "<{payload}>"', "body.items", "is no field here"),
        ("X-Acme-Kind", '"X Kind"', "headers", "is no header name"),
        ("X-Acme-Kind", '"Host"', "headers", "reserved"),
        ("X-Acme-Kind", '"Webhook-Id"', "headers", "reserved"),
        ("X-Acme-Kind", '"content-LENGTH"', "headers", "reserved"),
        ("X-Acme-Kind", '"x-acme-time"', "headers", "twice"),
        ("X-Acme-Kind", '"x-acme-signature"', "headers", "twice"),
        ('"kind {wire_type}; {id}"', '"a\\r\\nb"', "headers.X-Acme-Kind", "printable ASCII"),
        ('"kind {wire_type}; {id}"', '""', "headers.X-Acme-Kind", "printable ASCII"),
        ('"kind {wire_type}; {id}"', '"é"', "headers.X-Acme-Kind", "printable ASCII"),
        ('"kind {wire_type}; {id}"', '"{body}"', "headers.X-Acme-Kind", "is no field here"),
        ('"roomEnded"', '"room ended"', "wire_types.room.ended", "without spaces"),
        ('"roomEnded"', "1", "wire_types.room.ended", "must be a text"),
        ('["X-Acme-Signature"]', "[]", "signature.headers", "at least one"),
        ('["X-Acme-Signature"]', '["X:"]', "headers", "is no header name"),
        ('"h={hex}"', '"h="', "signature.value", "either {base64} or {hex}"),
        ('"h={hex}"', '"{hex}{base64}"', "signature.value", "either {base64} or {hex}"),
        ('"h={hex}"', '"h= {hex}"', "signature.value", "no space"),
        ("list = true", "list = false", "rotation_overlap", "must be 0s"),
        ('"{published_s}|{body}|{id}"', '"{published_s}"', "signature.signs", "{body} once"),
        ('"{published_s}|{body}|{id}"', '"{body}{body}"', "signature.signs", "{body} once"),
        ('"{published_s}|{body}|{id}"', '"{attempted_s}{body}"', "signature.signs", "alone in a header"),
        ('generate = "base64url"', 'generate = "base32"', "secret.generate", "must be one of"),
        ('key = "text"', 'key = "base64"', "secret", "would be refused"),
        ('prefix = "acme-"', 'prefix = "\\n"', "secret.prefix", "printable ASCII"),
        ('prefix = "acme-"', 'prefix = "é"', "secret.prefix", "printable ASCII"),
        ('prefix = "acme-"', 'prefix = "a b"', "secret.prefix", "printable ASCII"),
        ('prefix = "acme-"', f'prefix = "{"a" * 65}"', "secret.prefix", "at most 64"),
        ("1500ms", "61s", "timeout", "at most 60s"),
        ("1500ms", "31d", "timeout", "longer than 30d"),
        ('["1s", "1d"]', '["1s", "31d"]', "retries", "longer than 30d"),
        ('["1s", "1d"]', '["999999999d"]', "retries", "longer than 30d"),
        ('["1s", "1d"]', str(["1s"] * 51), "retries", "at most 50"),
        ('"1h"', '"999999999d"', "rotation_overlap", "longer than 30d"),
        ('"[]"', f"'{'[' * 501}{']' * 501}'", "ping", "nested deeper"),
        ('"[]"', "'" + '"' + "x" * 70_000 + '"' + "'", "ping", "at most 65536 bytes"),
        ('"[]"', "'NaN'", "ping", "no number"),
        ("v = 2", "v" + ".v" * 101 + " = 2", "body.v.v", "nested deeper than 100"),
        ('"kind {wire_type}; {id}"', f'"{"x" * 1_001}"', "headers.X-Acme-Kind", "at most 1000"),
        (
            "X-Acme-Kind",
            "".join(f'X-{n} = "1"\n' for n in range(20)) + "X-Acme-Kind",
            "headers",
            "at most 20",
        ),
        ('"room.ended" =', '"room ended" =', "wire_types.room ended", "is no event type"),
        ('"room.ended" =', '"" =', "wire_types.", "is no event type"),
        ('"roomEnded"', f'"{"x" * 257}"', "wire_types.room.ended", "1 to 256"),
        ("[wire_types]", in_data('key = ""\ntypes = ["x"]'), "wire_type_in_data.key", "not empty"),
        ("[wire_types]", in_data('key = "k"\ntypes = []'), "wire_type_in_data.types", "list of event types"),
        ("[wire_types]", in_data('key = "k"\ntypes = ["a b"]'), "wire_type_in_data.types", "of event types"),
        ("[wire_types]", in_data('key = "k"\ntypes = [1]'), "wire_type_in_data.types", "list of texts"),
        ("[wire_types]", in_data('key = "k"\ntypes = ["x"]\nat = 1'), "wire_type_in_data.at", "is no field"),
        (
            "[wire_types]",
            '[wire_type_in_data]\nkey = "event"\ntypes = ["x"]\n[wire_types]',
            "wire_type_in_data",
            "ecmascript",
        ),
        ("[wire_types]", "[wire_type_in_data]\n[wire_types]", "wire_type_in_data.key", "is missing"),
        ("[body]", "[body]\n1 = 2", "", ""),
    ],
)
def test_a_wrong_profile_is_refused(old: str, new: str, field: str, rule: str) -> None:
    """The error begins with the field and names the rule; the last case is right and passes."""
    if not rule:
        assert render(own(old, new), MessagePublished("acme", "msg_1", "x", b"1", 0)).startswith(
            b'{"1":2,"v":2'
        )
        return
    with pytest.raises(ProfileError) as refused:
        own(old, new)
    named, _, said = str(refused.value).partition(": ")
    assert named == field or (named.endswith("…") and named.startswith(field))
    assert rule in said


@pytest.mark.parametrize("line", ["z = 1\n1 = 2", "big = 9007199254740993"])
def test_a_body_that_javascript_would_write_otherwise_is_refused(line: str) -> None:
    """Receivers that verify `JSON.stringify(req.body)` would answer 401 to every request."""
    own('data = "unchanged"', 'data = "ecmascript"')
    table = tomllib.loads(OWN.replace('"unchanged"', '"ecmascript"').replace("[body]", f"[body]\n{line}"))
    with pytest.raises(ProfileError, match="body: JavaScript would write it in another way"):
        parse_profile("acme", table)


@pytest.mark.parametrize("name", ["", "Acme", "1st", "a b", "a/b", "é", "a" * 65, "a\n"])
def test_names_of_profiles(name: str) -> None:
    """A name is a word that is safe in URLs, labels and file names."""
    with pytest.raises(ProfileError, match="name: "):
        parse_profile(name, tomllib.loads(OWN))


def test_own_profiles_are_loaded_from_a_folder(tmp_path: Path) -> None:
    """They stand beside the shipped ones; other files are left alone."""
    (tmp_path / "acme.toml").write_text(OWN)
    (tmp_path / "notes.txt").write_text("not a profile")
    assert load_profiles(tmp_path) == load_profiles() | {"acme": own()}


@pytest.mark.parametrize(
    ("file", "text", "rule"),
    [
        ("acme.toml", OWN.replace("1500ms", "soon").encode(), "timeout: 'soon' is no duration"),
        ("acme.toml", b"timeout = ", "is no TOML"),
        ("acme.toml", b"\xff", "is no TOML"),
        ("standard.toml", OWN.encode(), "name: standard is a shipped profile"),
        ("My Profile.toml", OWN.encode(), "name: 'My Profile' must be"),
        ("acme.toml", b"a = " + b"{b = " * 5_000, "nested too deep"),
        ("acme.toml", None, "cannot be read"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, file: str, text: bytes | None, rule: str) -> None:
    """The error names the file, the field and the rule; None is a folder of that name."""
    if text is None:
        (tmp_path / file).mkdir()
    else:
        (tmp_path / file).write_bytes(text)
    with pytest.raises(ProfileError) as refused:
        load_profiles(tmp_path)
    assert str(refused.value).startswith(f"{tmp_path / file}: ")
    assert rule in str(refused.value)


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """A mistyped setting must not silently mean no profiles."""
    with pytest.raises(ProfileError, match="there is no such folder"):
        load_profiles(tmp_path / "nowhere")
