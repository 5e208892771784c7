"""The committed dashboards as data, and Grafana's macros and variables put in as Grafana puts them in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "grafana" / "dashboards"
CLICKHOUSE = "grafana-clickhouse-datasource"

Json = dict[str, Any]


def dashboards() -> dict[str, Json]:
    """Every dashboard by its file's name without the ending."""
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(FOLDER.glob("*.json"))}


def panels(board: Json) -> list[Json]:
    """The panels, without the headings of rows."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


@dataclass(frozen=True, slots=True)
class Target:
    """A query of a panel, or of a variable, and where it stands."""

    place: str
    kind: str
    text: str
    is_instant: bool = True
    is_graph: bool = False


def targets(board: Json) -> Iterator[Target]:
    """All queries of the panels of a dashboard."""
    for panel in panels(board):
        for target in panel["targets"]:
            kind = target["datasource"]["type"]
            text = target["rawSql"] if kind == CLICKHOUSE else target["expr"]
            place = f"{board['uid']} / {panel['title']} / {target['refId']}"
            yield Target(place, kind, text, bool(target.get("instant")), panel["type"] == "timeseries")


def pickers(board: Json) -> Iterator[Target]:
    """The queries of a dashboard's variables."""
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            place = f"{board['uid']} / ${variable['name']}"
            yield Target(place, variable["datasource"]["type"], variable["query"])


# Grafana's and the plugin's own words


def promql(text: str, job: str, interval: str) -> str:
    """Put in what Grafana would."""
    return text.replace("$__rate_interval", interval).replace("$job", job)


@dataclass(frozen=True, slots=True)
class Scene:
    """The dashboard's time (Unix seconds), the step (seconds) and what is picked; no value is All."""

    start: int
    end: int
    step: int
    picked: Mapping[str, str]


def sql(text: str, scene: Scene) -> str:
    """Put in what the plugin (its macros) and Grafana (variables) would."""
    text = re.sub(
        r"\$__conditionalAll\(((?:[^()]|\([^()]*\))*), \$(\w+)\)",
        lambda found: found[1] if scene.picked.get(found[2]) else "1=1",
        text,
    )
    text = re.sub(r"\$\{(\w+):singlequote\}", lambda found: quoted(scene.picked[found[1]]), text)
    start, end = f"toDateTime({scene.start})", f"toDateTime({scene.end})"
    text = re.sub(r"\$__timeFilter\((\w+)\)", rf"\1 >= {start} AND \1 <= {end}", text)
    step = rf"toStartOfInterval(toDateTime(\1), INTERVAL {scene.step} second)"
    text = re.sub(r"\$__timeInterval\((\w+)\)", step, text)
    return text.replace("$__fromTime", start).replace("$__toTime", end)


def quoted(text: str) -> str:
    """As Grafana's format `singlequote` does."""
    return "'" + text.replace("'", "\\'") + "'"
