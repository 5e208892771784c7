"""Bytes and records: the encoding is the Avro specification's, and nothing odd is ever accepted."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from io import BytesIO
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_writer
from fastavro.schema import to_parsing_canonical_form
from hypothesis import given
from hypothesis import strategies as st

from engine.core.directory import Tenant
from engine.core.model import DeliveryScheduled, MessagePublished, Routing
from schemas import headers
from schemas.codec import (
    MARKER,
    PREFIX_BYTES,
    RECORDS,
    Codec,
    UndecodableError,
    UnknownSchemaError,
    file_name,
    fingerprint_of,
)
from tests.schemas.kept import FOLDER, NAMES, current
from tests.schemas.samples import SAMPLES
from tests.schemas.values import frozen, plain

CODEC = Codec()
REQUIRED = {"MessagePublished": {"tenant", "id", "event_type", "payload", "published_at"}}
"""Fields without a default: what a producer must always say…"""
NESTED = {"settings", "secret", "data_key"}
"""…and records inside records, whose own fields have defaults."""

records = pytest.mark.parametrize("name", NAMES)
samples = pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: type(sample).__name__)


def crc_64_avro(data: bytes) -> int:
    """Rabin fingerprint, bit by bit, from the polynomial in the specification."""
    fingerprint = polynomial = 0xC15D213AA4D7A795
    for byte in data:
        fingerprint ^= byte
        for _ in range(8):
            fingerprint = (fingerprint >> 1) ^ (polynomial if fingerprint & 1 else 0)
    return fingerprint


def every_record(schema: Any) -> list[Any]:
    """A schema's record and those inside it."""
    if isinstance(schema, list):
        return [found for item in schema for found in every_record(item)]
    if not isinstance(schema, dict):
        return []
    inside = [found for value in schema.values() for found in every_record(value)]
    return [schema, *inside] if schema.get("type") == "record" else inside


def written(name: str, value: Any) -> bytes:
    """What another Avro implementation would write: from the schema file alone."""
    schema, out = current(name), BytesIO()
    out.write(b"\xc3\x01" + crc_64_avro(to_parsing_canonical_form(schema).encode()).to_bytes(8, "little"))
    schemaless_writer(out, parse_schema(schema), value)
    return out.getvalue()


def as_plain(record: Any) -> dict[str, Any]:
    """A record and those inside it as dicts."""
    return asdict(record)


# -- schemas ---------------------------------------------------------------------------


def test_every_schema_file_is_of_a_record() -> None:
    """No schema is left over, and none is missing."""
    nested = {"endpoint_settings", "sealed_headers", "sealed_secret"}
    assert {path.stem for path in FOLDER.glob("*.avsc")} == {*NAMES, *nested}


@records
def test_a_dataclass_has_the_fields_of_its_schema(name: str) -> None:
    """A field is in both or in neither."""
    schema = current(name)
    assert schema["name"] == NAMES[name].__name__
    assert {f.name for f in fields(NAMES[name])} == {f["name"] for f in schema["fields"]}


@records
def test_every_record_and_field_says_what_it_is(name: str) -> None:
    """A doc on every record and field, nested ones included, ends as a sentence."""
    for schema in every_record(current(name)):
        for described in (schema, *schema["fields"]):
            assert described.get("doc", "").endswith("."), f"{schema['name']}: {described['name']}"


@records
def test_every_field_has_a_default(name: str) -> None:
    """Only nested records and what a producer must say have none."""
    for schema in every_record(current(name)):
        without = {f["name"] for f in schema["fields"] if "default" not in f}
        assert without - NESTED == REQUIRED.get(schema["name"], set())


@records
def test_types_that_are_named_mean_one_thing(name: str) -> None:
    """fastavro accepts every schema as it stands, times included."""
    parsed: Any = parse_schema(current(name))
    assert parsed["name"] == f"hooklog.{NAMES[name].__name__}"


@pytest.mark.parametrize(
    ("record", "last"), [("delivery_scheduled", "body"), ("attempt_finished", "delivery")]
)
def test_what_is_sliced_off_stays_last(record: str, last: str) -> None:
    """The scheduler cuts the last field off the end of the value, undecoded."""
    assert current(record)["fields"][-1]["name"] == last


# -- the header ------------------------------------------------------------------------


def test_the_fingerprint_of_int_is_the_known_vector() -> None:
    """CRC-64-AVRO of `"int"`, little-endian as it stands in the header, both ways of computing it."""
    assert crc_64_avro(b'"int"').to_bytes(8, "little").hex() == "8f5c393f1ad57572"
    schema: Any = "int"
    assert fingerprint_of(schema).hex() == "8f5c393f1ad57572"


@samples
def test_a_value_starts_with_the_fingerprint_of_its_schema(sample: object) -> None:
    """c3 01, then CRC-64-AVRO of the parsing canonical form, computed here on its own."""
    canonical = to_parsing_canonical_form(current(file_name(type(sample).__name__)))
    expected = MARKER + crc_64_avro(canonical.encode()).to_bytes(8, "little")
    assert CODEC.encode(sample)[:PREFIX_BYTES] == expected


def test_no_two_schemas_share_a_fingerprint() -> None:
    """The fingerprint alone says which record it is."""
    assert len({CODEC.encode(sample)[:PREFIX_BYTES] for sample in SAMPLES}) == len(RECORDS)


# -- round trips -----------------------------------------------------------------------


@records
@given(data=st.data())
def test_any_value_survives_the_way_through(name: str, data: st.DataObject) -> None:
    """What any Avro writer writes is decoded to the same values, and encoded to the same bytes."""
    value = data.draw(plain(current(name)))
    encoded = written(name, value)
    decoded: Any = CODEC.decode(encoded)
    assert type(decoded) is NAMES[name]
    assert as_plain(decoded) == frozen(value)
    assert CODEC.encode(decoded) == encoded


@samples
def test_a_sample_survives_the_way_through(sample: object) -> None:
    """The decoded record equals the encoded one, nested records and tuples included."""
    assert CODEC.decode(CODEC.encode(sample)) == sample


def test_nested_records_come_back_as_records() -> None:
    """Routings are Routing and hold tuples, so a decoded record is as immutable as a made one."""
    batch: Any = next(s for s in SAMPLES if type(s).__name__ == "RoutedBatch")
    decoded: Any = CODEC.decode(CODEC.encode(batch))
    assert isinstance(decoded.routings, tuple)
    assert isinstance(decoded.routings[0], Routing)
    assert isinstance(decoded.routings[0].matched, tuple)


def test_encoding_leaves_the_record_as_it_was() -> None:
    """A record that was encoded can be encoded again."""
    for sample in SAMPLES:
        assert CODEC.encode(sample) == CODEC.encode(sample)


# -- what is refused -------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [None, b"", b"\xc3", b"\xc3\x01", b"\xc3\x01" + bytes(7), b"{}", b"\0" * 40]
)
def test_other_bytes_are_undecodable(value: bytes | None) -> None:
    """What does not even begin as it must is refused with words that say so."""
    with pytest.raises(UndecodableError, match="c3 01"):
        CODEC.decode(value)


def test_an_unknown_fingerprint_is_an_error_of_its_own() -> None:
    """It may be of a newer hooklog: no reason to call the record broken."""
    with pytest.raises(UnknownSchemaError, match="0102030405060708"):
        CODEC.decode(MARKER + bytes(range(1, 9)) + b"\0")


@samples
def test_a_value_cut_anywhere_is_undecodable(sample: object) -> None:
    """At every length short of the whole."""
    encoded = CODEC.encode(sample)
    for length in range(len(encoded)):
        with pytest.raises(UndecodableError):
            CODEC.decode(encoded[:length])


@samples
def test_bytes_after_the_end_are_refused(sample: object) -> None:
    """A record is exactly one value."""
    with pytest.raises(UndecodableError, match="after the end"):
        CODEC.decode(CODEC.encode(sample) + b"\0")


@samples
@given(noise=st.binary(max_size=60))
def test_noise_is_undecodable_or_a_record(sample: object, noise: bytes) -> None:
    """Whatever follows a known fingerprint: no other exception, and no other kind of record."""
    try:
        decoded = CODEC.decode(CODEC.encode(sample)[:PREFIX_BYTES] + noise)
    except UndecodableError:
        return
    assert type(decoded) is type(sample)


def test_a_wrong_kind_is_named() -> None:
    """decode_as says what it found and what it wanted."""
    with pytest.raises(UndecodableError, match="a Tenant where a DeliveryScheduled belongs"):
        CODEC.decode_as(DeliveryScheduled, CODEC.encode(Tenant("acme")))


def test_the_right_kind_is_returned() -> None:
    """decode_as returns the record, typed."""
    assert CODEC.decode_as(Tenant, CODEC.encode(Tenant("acme", "Acme"))).name == "Acme"


def test_an_enum_takes_its_symbols_only() -> None:
    """A symbol that the schema doesn't have cannot be written."""
    sample = next(s for s in SAMPLES if isinstance(s, DeliveryScheduled))
    plain_sample = {**asdict(sample), "trigger": "by hand"}
    with pytest.raises(ValueError, match="by hand"):
        CODEC.encode(DeliveryScheduled(**plain_sample))


def test_a_producers_defaults_are_ours() -> None:
    """The dataclass's defaults are the schema's."""
    schema = {f["name"]: f for f in json.loads((FOLDER / "message_published.avsc").read_text())["fields"]}
    message = MessagePublished("t", "i", "e", b"", 0)
    for name in schema.keys() - REQUIRED["MessagePublished"]:
        assert getattr(message, name) == schema[name]["default"]


# -- headers ---------------------------------------------------------------------------


@given(
    st.text("abcdefghijklmnopqrstuvwxyz.-0123456789:", min_size=1), st.integers(0, 999), st.integers(0, 2**63)
)
def test_a_cause_survives_the_way_through(topic: str, partition: int, offset: int) -> None:
    """Coordinates come back as they were, whatever the topic's name."""
    assert headers.parse_cause(headers.cause(topic, partition, offset)) == (topic, partition, offset)


@pytest.mark.parametrize("value", [b"", b"messages", b"messages:1", b"messages:x:1", b"messages:1:"])
def test_other_headers_are_no_cause(value: bytes) -> None:
    """Anything else raises ValueError."""
    with pytest.raises(ValueError, match=r"."):
        headers.parse_cause(value)
