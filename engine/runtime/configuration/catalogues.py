"""The platforms' event types that are shipped: read from `engine/catalogues/*.toml`."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

from engine.core.directory import EventType

_SHIPPED = Path(__file__).parents[2] / "catalogues"


def names() -> tuple[str, ...]:
    """The platforms there is a catalogue of."""
    return tuple(sorted(file.stem for file in _SHIPPED.glob("*.toml")))


def shipped(name: str) -> tuple[EventType, ...]:
    """A platform's event types, in the file's order; ValueError naming the platforms there are."""
    if name not in names():
        raise ValueError(f"there is no catalogue {name!r}; there are {', '.join(names())}")
    catalogue = tomllib.loads((_SHIPPED / f"{name}.toml").read_text(encoding="utf-8"))
    payloads = catalogue["payloads"]
    return tuple(
        EventType(
            type_name,
            each["description"],
            schema=_compact(payloads[each["payload"]]["schema"]),
            example=_compact(payloads[each["payload"]]["example"]),
        )
        for type_name, each in catalogue["types"].items()
    )


def _compact(text: str) -> str:
    """Numbers stay as written: an example says `2.0` where a platform does."""
    return json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":"))
