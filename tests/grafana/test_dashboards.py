"""The dashboards: committed as generated, and by the rules of a dashboard that can be trusted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import units
from prometheus_client import REGISTRY

from engine.runtime import telemetry
from engine.runtime.history.migration import MIGRATIONS
from grafana.generate.boards import files
from tests.grafana.dashboards import CLICKHOUSE, FOLDER, Json, Target, dashboards, panels, pickers, targets

BOARDS = dashboards()
PANELS = {f"{uid} / {panel['title']}": panel for uid, board in BOARDS.items() for panel in panels(board)}
TARGETS = [target for board in BOARDS.values() for target in targets(board)]
PROMQL = [target for target in TARGETS if target.kind == "prometheus"]
SQL = [target for target in TARGETS if target.kind == CLICKHOUSE]
PICKERS = [target for board in BOARDS.values() for target in pickers(board)]
OTHERS = {"up", "process_cpu_seconds_total", "process_resident_memory_bytes"}
_SELECTOR = re.compile(r"([a-zA-Z_][\w:]*)\{([^}]*)\}")
_UNITS = {value for name, value in vars(units).items() if isinstance(value, str) and not name.startswith("_")}

each_board = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
each_panel = pytest.mark.parametrize("panel", PANELS.values(), ids=PANELS)
each_promql = pytest.mark.parametrize("target", PROMQL, ids=lambda target: target.place)
each_sql = pytest.mark.parametrize("target", SQL, ids=lambda target: target.place)


def exported() -> Iterator[str]:
    """The names of all series of the one list of metrics."""
    for family in (*REGISTRY.collect(), *telemetry.STACK.collect()):
        if not family.name.startswith("hooklog_"):
            continue
        endings = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}.get(family.type, ("",))
        yield from (family.name + ending for ending in endings)


def recorded() -> set[str]:
    """What the recording rules make."""
    rules = (FOLDER.parent / "prometheus" / "recording.yml").read_text(encoding="utf-8")
    return set(re.findall(r"- record: (\S+)", rules))


def labels() -> set[str]:
    """Every label there is: ours, and what Prometheus adds."""
    declared = [value for value in vars(telemetry).values() if hasattr(value, "_labelnames")]
    return {name for metric in declared for name in metric._labelnames} | {"le", "job", "instance"}


def views() -> set[str]:
    """What analysts read: the views that the migrations make."""
    made = re.compile(r"CREATE OR REPLACE VIEW \{database\}\.(\w+)")
    return {name for file in MIGRATIONS.glob("*.sql") for name in made.findall(file.read_text())}


# As generated


def test_the_committed_files_are_the_generated_ones() -> None:
    """Byte for byte: whoever changes one runs `python -m grafana.generate`."""
    there = {file.name: file.read_text(encoding="utf-8") for file in FOLDER.glob("*.json")}
    assert there == files()


def test_there_are_the_five() -> None:
    """Overview, delivery, log and groups, history, endpoint, under addresses that others link to."""
    assert set(BOARDS) == {f"hooklog-{n}" for n in ("overview", "delivery", "groups", "history", "endpoint")}


@each_board
def test_grafanas_model_holds_it(board: Json) -> None:
    """Read by the model of Grafana's SDK and written again, every panel and query is still there."""
    register_default_plugins()
    kept = model.Dashboard.from_json(board).to_json()
    read = [_plain(panel) for panel in _list(kept["panels"])]
    assert [panel["title"] for panel in read] == [panel["title"] for panel in board["panels"]]
    for panel, before in zip(read, board["panels"], strict=True):
        found = [_plain(target) for target in panel.get("targets") or []]
        asked = [target.get("expr") or target.get("rawSql") for target in found]
        assert asked == [target.get("expr") or target.get("rawSql") for target in before.get("targets", [])]


def _plain(value: Any) -> Json:
    made: Json = value if isinstance(value, dict) else value.to_json()
    return made


def _list(value: object) -> list[Any]:
    assert isinstance(value, list)
    return value


# A dashboard


@each_board
def test_a_dashboard_is_complete(board: Json) -> None:
    """Named by its file, described, tagged, not editable, in the reader's time zone, and up to date."""
    assert board["uid"] in BOARDS
    assert board["title"].startswith("hooklog: ")
    assert board["description"].endswith(".")
    assert board["tags"] == ["hooklog"]
    assert board["editable"] is False
    assert board["timezone"] == "browser"
    assert board["refresh"]


@each_board
def test_a_dashboard_leads_to_the_others(board: Json) -> None:
    """By a link that keeps the time and what is picked."""
    assert [(link["type"], link["tags"]) for link in board["links"]] == [("dashboards", ["hooklog"])]
    assert all(link["keepTime"] and link["includeVars"] for link in board["links"])


@each_board
def test_data_sources_are_variables(board: Json) -> None:
    """One for each kind that the panels use, and none that they do not."""
    used = {panel["datasource"]["type"] for panel in panels(board)}
    kinds = [each["query"] for each in board["templating"]["list"] if each["type"] == "datasource"]
    assert sorted(kinds) == sorted(used)


@each_board
def test_the_first_row_answers_the_first_question(board: Json) -> None:
    """Is it working: a row with a question, and single figures with colours below it."""
    first, rest = board["panels"][0], board["panels"][1:]
    assert first["type"] == "row"
    assert first["title"].endswith("?")
    until = next(place for place, panel in enumerate(rest) if panel["type"] == "row")
    assert until >= 4
    assert {panel["type"] for panel in rest[:until]} == {"stat"}


@each_board
def test_panels_fill_the_page(board: Json) -> None:
    """Lines of 24 columns, nothing over another, ids and titles of their own."""
    taken = [
        (x, y)
        for at in (panel["gridPos"] for panel in board["panels"])
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(taken) == len(set(taken))
    assert len(taken) == 24 * (1 + max(y for _, y in taken))
    assert max(x for x, _ in taken) == 23
    for key in ("id", "title"):
        found = [panel[key] for panel in board["panels"]]
        assert len(found) == len(set(found))


@each_board
def test_variables_are_defined_and_used(board: Json) -> None:
    """No query names a variable that the dashboard lacks, and none is there for nothing."""
    defined = {each["name"] for each in board["templating"]["list"]}
    queries = " ".join(target.text for target in (*targets(board), *pickers(board)))
    used = set(re.findall(r"\$\{?(?!__)(\w+)", queries))
    assert used <= defined
    assert defined - {"prometheus", "clickhouse"} <= used


# A panel


@each_panel
def test_a_panel_says_what_it_shows(panel: Json) -> None:
    """A title, a description in sentences, a unit that Grafana knows, a query, a templated data source."""
    assert panel["title"]
    assert len(panel["description"]) > 30
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"] in _UNITS
    assert panel["targets"]
    for source in (panel["datasource"], *(target["datasource"] for target in panel["targets"])):
        assert source == panel["datasource"]
        assert source["uid"] in {"${prometheus}", "${clickhouse}"}


@each_panel
def test_thresholds_rise_from_a_base(panel: Json) -> None:
    """The first step has no value, the others ascend, and all have a colour."""
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    values = [step["value"] for step in steps]
    assert values[0] is None
    assert values[1:] == sorted(set(values[1:]))
    assert all(step["color"] for step in steps)


@each_panel
def test_links_lead_somewhere(panel: Json) -> None:
    """To a dashboard that exists, with variables that it has, from a column that the query has."""
    for override in panel["fieldConfig"]["overrides"]:
        column = override["matcher"]["options"]
        assert any(re.search(rf"\b{column}\b", target["rawSql"]) for target in panel["targets"])
        linked = [each["value"] for each in override["properties"] if each["id"] == "links"]
        for link in (link for links in linked for link in links):
            uid = re.findall(r"/d/([\w-]+)", link["url"])[0]
            known = {variable["name"] for variable in BOARDS[uid]["templating"]["list"]}
            assert set(re.findall(r"var-(\w+)=", link["url"])) <= known


# PromQL


@each_promql
def test_only_metrics_that_exist_are_asked_for(target: Target) -> None:
    """Each name is in the one list of metrics, each label too."""
    names = {name for name, _ in _SELECTOR.findall(target.text)}
    assert names
    assert names <= set(exported()) | recorded() | OTHERS
    grouped = {label for found in re.findall(r"by \(([^)]*)\)", target.text) for label in found.split(", ")}
    matched = {
        label for _, found in _SELECTOR.findall(target.text) for label in re.findall(r"(\w+)=~?\"", found)
    }
    assert grouped | matched <= labels()


@each_promql
def test_every_selector_is_of_the_chosen_deployment(target: Target) -> None:
    """Two deployments in one Prometheus are never added up unasked."""
    bare = _SELECTOR.sub("", target.text)
    assert not re.search(r"\b(hooklog|process)[_:]\w+", bare)
    assert all('job=~"$job"' in matchers for _, matchers in _SELECTOR.findall(target.text))


@each_promql
def test_counters_are_asked_for_their_rate(target: Target) -> None:
    """Never their height; rates over what Grafana chooses; quantiles by `le`."""
    for name, before in re.findall(r"()(.{0,10}\w+_(?:total|bucket|count)\{)", target.text):
        assert re.search(r"(rate|increase)\s*\(", name + before), before
    ranges = re.findall(r"rate\([^\[]*\[(.*?)\]", target.text)
    assert ranges == ["$__rate_interval"] * target.text.count("rate(")
    for found in re.findall(r"histogram_quantile\([\d.]+, sum by \(([^)]*)\)", target.text):
        assert "le" in found.split(", ")
    assert target.text.count("histogram_quantile(") == target.text.count("sum by (le")


# SQL


@each_sql
def test_only_views_are_read(target: Target) -> None:
    """The names that analysts know; a table of an engine would count rows twice."""
    read = set(re.findall(r"\bFROM (\w+)", target.text))
    assert read
    assert read <= views()


@each_sql
def test_a_query_reads_a_part(target: Target) -> None:
    """Of the dashboard's time, of one message, or of one endpoint's few changes."""
    limits = ("$__timeFilter(", "message_id = ${message:", "subject_id = ${endpoint:")
    for part in re.split(r"\bUNION ALL\b", target.text):
        assert any(limit in part for limit in limits) or "$__fromTime" in part


@each_sql
def test_a_graphs_query_begins_with_time(target: Target) -> None:
    """And is in its order: the plugin makes series of nothing else. A table's has a limit or one subject."""
    if target.is_graph:
        assert re.match(r"SELECT (time|\$__timeInterval\(\w+\) AS time),", target.text)
        assert target.text.endswith("ORDER BY time")
    assert ";" not in target.text


@pytest.mark.parametrize("target", PICKERS, ids=lambda target: target.place)
def test_pickers_read_little(target: Target) -> None:
    """Of Prometheus by a metric that exists, of ClickHouse by the hourly rollup."""
    if target.kind == "prometheus":
        assert re.findall(r"label_values\((\w+), job\)", target.text)[0] in set(exported())
    else:
        assert "FROM endpoint_hours" in target.text
