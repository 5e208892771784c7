"""Kafka headers: what they say of a record, and nothing where there is nothing to say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from engine.core.model import AttemptFinished
from engine.ports import Record
from schemas import headers
from tests.schemas.samples import SAMPLES

ATTEMPT = next(sample for sample in SAMPLES if isinstance(sample, AttemptFinished))
"""Attempt 2 of dlv_1: a 503, to be tried again."""


def test_the_cause_of_what_a_record_leads_to() -> None:
    """Its coordinates, which `cause_of` finds again."""
    record = Record("retry.30s", 3, 2**40, 9, None, None, {})
    assert headers.cause_of({headers.CAUSE: headers.cause_for(record)}) == ("retry.30s", 3, 2**40)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {}),
        ({"error_class": "http_5xx"}, {}),
        ({"retry_at": 9}, {"due": b"9"}),
        ({"delivery": b"12345"}, {"length": b"5"}),
        ({"disables": True}, {"disables": b"300"}),
    ],
)
def test_what_is_known_of_an_attempt_undecoded(changes: dict[str, Any], expected: dict[str, bytes]) -> None:
    """Always its delivery, number, decision and cause; the rest only if there is something to do."""
    plain = replace(ATTEMPT, error_class="", retry_at=0, delivery=b"", disables=False)
    always = {"cause": b"c", "delivery": b"dlv_1", "attempt": b"2", "decision": b"retry"}
    found = headers.of_attempt(replace(plain, **changes), b"c")
    assert found == always | expected
