"""Durations: what is one, and that each has one name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.duration import format_duration, parse_duration
from engine.core.profile_table import ProfileError, Table


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("250ms", 250_000),
        ("5s", 5_000_000),
        ("2m", 120_000_000),
        ("2h", 7_200_000_000),
        ("1d", 86_400_000_000),
        ("0s", 0),
        ("120s", 120_000_000),
        ("999999999ms", 999_999_999_000),
    ],
)
def test_durations(text: str, us: int) -> None:
    """A whole number and a unit, the same in a profile as anywhere else."""
    assert parse_duration(text) == us
    assert Table({"timeout": text}).duration("timeout") == us


@pytest.mark.parametrize(
    "text",
    [
        *("", "5", "s", "5 s", " 5s", "5s\n", "1.5s", "-5s", "5S", "5sec", "5s30s", "1h30m", "5us"),
        *("\u0665s", "1000000000ms"),
    ],
)
def test_what_is_no_duration(text: str) -> None:
    """Refused, with an example of what is one; a profile's error names the field too."""
    with pytest.raises(ValueError, match="such as 30s"):
        parse_duration(text)
    with pytest.raises(ProfileError, match=r"^retry\.timeout: .* such as 30s"):
        Table({"timeout": text}, "retry").duration("timeout")


@given(st.integers(0, 10**9).map(lambda ms: ms * 1_000))
def test_a_duration_survives_the_way_through(us: int) -> None:
    """Written and read again it is the same, to the millisecond."""
    assert parse_duration(format_duration(us)) == us


@given(st.integers(1, 10**6), st.sampled_from(["ms", "s", "m", "h", "d"]))
def test_a_duration_has_one_name(number: int, unit: str) -> None:
    """However it was written, the shortest form is the same: topics are named by it."""
    short = format_duration(parse_duration(f"{number}{unit}"))
    assert format_duration(parse_duration(short)) == short
    assert len(short) <= len(f"{number}{unit}")
