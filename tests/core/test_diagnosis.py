"""The likely cause of a failed attempt, in words."""

from __future__ import annotations

import pytest

from engine.core.diagnosis import likely_cause
from engine.core.model import ERROR_CLASSES


@pytest.mark.parametrize("error_class", ERROR_CLASSES)
def test_every_error_class_has_a_cause(error_class: str) -> None:
    """Nobody is left with a word of ours alone."""
    assert len(likely_cause(error_class)) > 20


@pytest.mark.parametrize(
    ("error_class", "status", "size", "rotated", "said"),
    [
        ("http_4xx", 401, 10, False, "the secret differs"),
        ("http_4xx", 403, 10, False, "the secret differs"),
        ("http_4xx", 401, 10, True, "still holds the old secret"),
        ("http_4xx", 403, 10, True, "still holds the old secret"),
        ("http_4xx", 413, 102_401, False, "Express"),
        ("http_4xx", 413, 102_400, False, "limits the size"),
        ("http_5xx", 500, 10, True, "missing or malformed signature"),
        ("http_5xx", 500, 10, False, "missing field"),
        ("http_5xx", 502, 10, False, "a proxy before it"),
        ("timeout", 0, 10, True, "slower than its time limit"),
        ("http_4xx", 418, 10, True, "refuses"),
        ("http_2xx", 204, 10, False, "only 200"),
    ],
)
def test_causes(error_class: str, status: int, size: int, *, rotated: bool, said: str) -> None:
    """The platforms' own lists of what to check, and the status codes beside them."""
    assert said in likely_cause(error_class, status, size, rotated=rotated)


def test_a_success_has_no_cause() -> None:
    """Nothing is said where nothing failed."""
    assert likely_cause("", 200, 200_000, rotated=True) == ""
