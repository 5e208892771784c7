"""Values as people read them, charts, payloads as text, and shared answers; without an API."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.api.dashboard import charts, words
from engine.api.dashboard.fresh import Shared
from engine.api.dashboard.payload_view import SHOWN_MAX, pretty
from engine.core.model import ERROR_CLASSES, SKIP_REASONS
from tests.integration.history_fixtures import Hand


@pytest.mark.parametrize(
    ("ms", "said"),
    [
        (0.4, "0.4 ms"),
        (850, "850 ms"),
        (2_400, "2.4 s"),
        (9_000, "9 s"),
        (125_000, "2 m 5 s"),
        (7.2e6, "2 h"),
    ],
)
def test_durations(ms: float, said: str) -> None:
    """Two units at most."""
    assert words.milliseconds(ms) == said


def test_shares_are_never_rounded_up_to_all() -> None:
    """One failure in a million is not none."""
    assert (words.percent(1.0), words.percent(0.999999), words.percent(0.5)) == (
        "100 %",
        "99.99 %",
        "50.00 %",
    )


def test_what_nobody_would_see_is_made_visible() -> None:
    """NUL, escape, and what turns the direction of text; line breaks stay."""
    assert words.visible("a\0\x1b[31m\u202eb\n\t") == "a\u2400\u241b[31m\ufffdb\n\t"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"decision": "delivered", "status_code": 204}, "delivered: it answered 204"),
        ({"decision": "retry"}, "retry in 2 m, because it answered 503"),
        (
            {"decision": "failed", "reason": "timeout", "status_code": 0, "error_class": "timeout"},
            "given up, because all its tries are used up; the last time no answer came in time",
        ),
        ({"decision": "skipped", "reason": "deleted"}, "skipped, because the endpoint was deleted"),
    ],
)
def test_decisions_in_words(changed: dict[str, object], said: str) -> None:
    """What followed, and why."""
    at = datetime(2026, 5, 1, tzinfo=UTC)
    told = {"status_code": 503, "error_class": "http_5xx", "reason": "", "duration_ms": 0, "attempted_at": at}
    assert words.decided({**told, "next_attempt_at": at.replace(minute=2), **changed}) == said


@pytest.mark.parametrize("name", sorted({*SKIP_REASONS, *ERROR_CLASSES}))
def test_every_reason_has_words(name: str) -> None:
    """Whatever a delivery can end with is said in words, not by its name; what nobody knows is shown."""
    assert words.reason(name) != name
    assert words.reason("unheard_of") == "unheard_of"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda x: st.lists(x) | st.dictionaries(st.text(), x),
        max_leaves=20,
    )
)
def test_json_that_is_laid_out_says_the_same(value: object) -> None:
    """Only space between its parts changes."""
    shown = pretty(json.dumps(value), SHOWN_MAX)
    assert not shown.is_whole or json.loads(shown.text) == value


@given(st.text())
def test_what_is_no_json_is_laid_out_without_losing_anything(text: str) -> None:
    """But space."""
    assert "".join(pretty(text, 10**6).text.split()) == "".join(text.split())


def test_charts_escape_what_they_are_told_and_show_a_single_failure() -> None:
    """One among ten thousand has a height that one can see."""
    series = [charts.Series("ok", [9_999.0, 0.0]), charts.Series("bad", [1.0, 0.0])]
    drawn = charts.stacked(series, ["<b>", "x"], 'said "so"')
    assert "<b>" not in drawn
    assert 'aria-label="said &#34;so&#34;"' in drawn
    assert 'class="c-bad"' in drawn
    assert 'height="1.50"' in drawn
    assert "style=" not in drawn
    assert charts.stacked([], [], "x")


def test_an_answer_is_shared_kept_for_a_while_and_given_stale_while_asked_anew() -> None:
    """Errors are not kept."""
    clock, asked = Hand(), list[int]()

    async def ask() -> int:
        asked.append(1)
        await asyncio.sleep(0)
        if len(asked) == 3:
            raise OSError("away")
        return len(asked)

    async def see() -> None:
        shared: Shared[int] = Shared(clock, lasts_s=2, stale_s=60)
        assert list(await asyncio.gather(shared.get("k", ask), shared.get("k", ask))) == [1, 1]
        clock.now_s = 3
        assert await shared.get("k", ask) == 1
        for _ in range(5):  # turns of the loop, which is all the question needs
            await asyncio.sleep(0)
        assert await shared.get("k", ask) == 2
        clock.now_s = 100
        with pytest.raises(OSError, match="away"):
            await shared.get("k", ask)
        assert await shared.get("k", ask) == 4

    asyncio.run(see())
