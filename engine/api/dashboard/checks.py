"""What the accounting group said last: when it checked, and what was not where it must be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from prometheus_client.parser import text_string_to_metric_families

from engine.api.metrics import of_programs
from engine.api.services import Services

OLD_S = 900
"""A check of before then says nothing about now; the alert goes by the same."""
_GROUP = "accounting"
_UNACCOUNTED = "hooklog_unaccounted"
_CHECKED = "hooklog_accounting_checked_timestamp_seconds"
PROBLEMS: Mapping[str, str] = {
    "overdue": "deliveries that wait nowhere, or for too long",
    "unrouted": "messages that nobody has routed",
    "contradiction": "deliveries of which the log says two things",
    "history": "differences between the log and ClickHouse",
}


@dataclass(frozen=True, slots=True)
class Check:
    """The last check, whole; `at` in microseconds since 1970 UTC, 0: none is known."""

    at: int
    state: Literal["ok", "bad", "old", "none", "away", "unknown"]
    problems: Mapping[str, int]
    """By kind, only those that there are."""

    @property
    def unaccounted(self) -> int:
        """All problems together."""
        return sum(self.problems.values())


async def last_check(services: Services) -> Check:
    """Ask the accounting group for what it exports, as /metrics of the API does."""
    programs = [each for each in services.context.settings.metrics_of if _is_of_group(each)]
    text = await of_programs(programs)
    at, problems = _read(text)
    now = services.context.clock.now()
    if at:
        return Check(at, _state(now - at, problems), problems)
    if not programs:
        return Check(0, "unknown", {})
    return Check(0, "none" if f'program="{_GROUP}' in _samples(text) else "away", {})


def _is_of_group(program: str) -> bool:
    return program.partition("=")[0].partition(".")[0] == _GROUP


def _state(age_us: int, problems: Mapping[str, int]) -> Literal["ok", "bad", "old"]:
    if problems:
        return "bad"
    return "old" if age_us > OLD_S * 1_000_000 else "ok"


def _read(text: str) -> tuple[int, dict[str, int]]:
    """(when it was checked last, microseconds; problems by kind)."""
    at, problems = 0.0, dict.fromkeys(PROBLEMS, 0)
    for family in text_string_to_metric_families(_samples(text)):
        for sample in family.samples:
            if sample.name == _CHECKED:
                at = max(at, sample.value)
            else:
                kind = sample.labels["problem"]
                problems[kind] = problems.get(kind, 0) + int(sample.value)
    return int(at * 1_000_000), {kind: count for kind, count in problems.items() if count}


def _samples(text: str) -> str:
    """The lines of the two that are looked for: all of it takes long to parse."""
    wanted = (_UNACCOUNTED, _CHECKED)
    return "".join(f"{line}\n" for line in text.splitlines() if line.startswith(wanted))
