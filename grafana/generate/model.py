"""What a dashboard says; `build` turns it into Grafana's JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["stat", "graph", "bars", "table"]
Step = tuple[float, str]
"""From this value on, this colour."""


@dataclass(frozen=True, slots=True)
class Prom:
    """A PromQL expression; `legend` names its series, as in `{{group}}`."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Sql:
    """A query of ClickHouse. A graph's begins with a column `time`; a column of text names the series."""

    text: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel; `width` in twenty-fourths of the page, `base` is the colour below the first step."""

    kind: Kind
    title: str
    description: str
    unit: str
    queries: tuple[Prom | Sql, ...]
    width: int = 8
    steps: tuple[Step, ...] = ()
    base: str = "green"
    words: Mapping[str, str] = field(default_factory=dict)
    """What to show instead of a value."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """A table's columns with a unit of their own."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Where the cells of a table's column lead."""
    stacked: bool = False
    most: float | None = None
    """Where the axis ends, if the value has a limit."""


@dataclass(frozen=True, slots=True)
class Row:
    """A heading and the panels below it, left to right."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Picker:
    """A variable. `source` says where its values come from; `text` is typed in."""

    name: str
    label: str
    source: Literal["prometheus", "clickhouse", "text"]
    query: str = ""
    many: bool = False
    """Several may be chosen, and All, which is where it starts."""


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard; `uid` is the name of its file and part of its address."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    pickers: tuple[Picker, ...] = ()
    span: str = "now-1h"
