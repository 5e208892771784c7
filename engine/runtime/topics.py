"""The topics, as docs/design.md lists them, and the groups that read them."""

from __future__ import annotations

from dataclasses import dataclass

from engine.core.duration import format_duration, parse_duration
from engine.ports import Log, TopicPartition
from engine.runtime.settings import Settings

DAY_MS = 86_400_000
KEPT = -1
MESSAGE_MAX = 2 << 20
"""Largest record, bytes."""
RETRY_NOW = "retry.0"
"""The tier of what is due within the smallest delay."""

GROUPS = ("control", "router", "dispatcher", "scheduler", "projector", "health", "accounting", "replayer")


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic: partitions, and how long its records stay (milliseconds; None: compacted)."""

    name: str
    partitions: int
    retention_ms: int | None


def partitions_of(log: Log, *topics: str) -> list[TopicPartition]:
    """All partitions of some topics."""
    return [(topic, n) for topic in topics for n in range(log.partitions(topic))]


def tier_topic(tier_us: int) -> str:
    """Return the name of a delay topic: 5_000_000 -> `retry.5s`, 0 -> `retry.0`."""
    return f"retry.{format_duration(tier_us)}" if tier_us else RETRY_NOW


def tier_topics(settings: Settings) -> dict[str, int]:
    """Delay topics that are read and their delays in microseconds, shortest first."""
    return {tier_topic(tier): tier for tier in (0, *settings.read_tiers_us)}


def tier_of(topic: str) -> str | None:
    """The delay that a topic of any ladder is named by: `retry.5s` -> `5s`; None for any other topic."""
    kind, _, delay = topic.partition(".")
    try:
        parse_duration(delay)
    except ValueError:
        return None
    return delay if kind == "retry" else None


def catalogue(settings: Settings) -> tuple[TopicSpec, ...]:
    """Every topic with its partitions and retention."""
    week, month, many = 7 * DAY_MS, 30 * DAY_MS, settings.partitions
    deleted = {
        "messages": week,
        "routings": 2 * week,
        "commands": week,
        "changes": KEPT,
        "deliveries": week,
        "attempts": month,
        **{name: week + tier // 1000 for name, tier in tier_topics(settings).items()},
        "dead-letters": month,
        "notices": month,
    }
    return (
        *(TopicSpec(name, many, retention) for name, retention in deleted.items()),
        *(TopicSpec(name, many, None) for name in ("endpoints", "directory", "lanes", "health")),
        TopicSpec("invalid", 1, month),
    )


def kept_us(settings: Settings, topic: str) -> int:
    """How long a record stays on a topic at the least, microseconds; KeyError if no time is set for it."""
    kept_ms = {spec.name: spec.retention_ms for spec in catalogue(settings) if spec.retention_ms}
    return kept_ms[topic] * 1_000


def inputs(settings: Settings) -> dict[str, tuple[str, ...]]:
    """Topics that each group reads as a group."""
    return {
        "control": ("commands",),
        "router": ("messages",),
        "dispatcher": ("deliveries",),
        "scheduler": ("attempts", *tier_topics(settings)),
        "projector": ("routings", "attempts", "changes"),
        "health": ("attempts", "changes"),
        "operations": ("notices",),
        "mail": ("notices",),
        "replayer": ("commands",),
    }
