"""Golden bytes: an encoding that changes breaks these tests before it breaks a log."""

from __future__ import annotations

import pytest

from schemas.codec import PREFIX_BYTES, Codec, file_name, fingerprint_of
from tests.schemas.kept import GOLDEN, HOW, NAMES, golden, lines, read, versions
from tests.schemas.samples import SAMPLES

CODEC = Codec()
KEPT = [(name, number) for name in NAMES for number in versions(name)]
BY_NAME = {file_name(type(sample).__name__): sample for sample in SAMPLES}

every_version = pytest.mark.parametrize(("name", "version"), KEPT)


def test_there_is_a_sample_of_every_record() -> None:
    """One each, so that no record goes without golden bytes."""
    assert BY_NAME.keys() == NAMES.keys()
    assert len(SAMPLES) == len(NAMES)


def test_golden_files_and_kept_versions_belong_together() -> None:
    """Every kept version has its golden bytes, and there are no others."""
    assert {path.name for path in GOLDEN.iterdir()} == {golden(*kept).name for kept in KEPT}, HOW


@pytest.mark.parametrize("name", NAMES)
def test_the_encoding_is_what_it_was(name: str) -> None:
    """The sample of today gives the golden bytes of the newest version, byte for byte."""
    newest = golden(name, max(versions(name)))
    assert lines(CODEC.encode(BY_NAME[name])) == newest.read_text(), f"{newest.name} differs: {HOW}"


@every_version
def test_golden_bytes_are_of_their_version(name: str, version: int) -> None:
    """A kept schema is never edited: its fingerprint is the one that the bytes begin with."""
    written = bytes.fromhex(golden(name, version).read_text())
    assert written[2:PREFIX_BYTES] == fingerprint_of(read(versions(name)[version]))


@every_version
def test_golden_bytes_are_decoded(name: str, version: int) -> None:
    """What any kept version wrote is read today: as the sample, except for fields it did not have."""
    decoded = CODEC.decode(bytes.fromhex(golden(name, version).read_text()))
    assert type(decoded) is NAMES[name]
    for field in (
        f["name"] for f in read(versions(name)[version])["fields"] if version == max(versions(name))
    ):
        assert getattr(decoded, field) == getattr(BY_NAME[name], field)
