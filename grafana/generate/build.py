"""From what a dashboard says to Grafana's JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable

from grafana_foundation_sdk.builders import bargauge, stat, table, timeseries
from grafana_foundation_sdk.builders import common as options
from grafana_foundation_sdk.builders import dashboard as make
from grafana_foundation_sdk.builders import prometheus as promql
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.runtime import UnknownDataquery
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common, dashboard

from grafana.generate.model import Board, Panel, Picker, Prom, Sql, Step

PROMETHEUS, CLICKHOUSE = "prometheus", "grafana-clickhouse-datasource"
TAG = "hooklog"
_PLUGIN_VERSION = "4.5.1"
_TIME_SERIES, _TABLE = 0, 1
_HEIGHTS = {"stat": 4, "graph": 8, "bars": 8, "table": 9}
_ALL = dashboard.VariableOption(selected=True, text="All", value="$__all")

_Visual = stat.Panel | timeseries.Panel | bargauge.Panel | table.Panel


def to_json(board: Board) -> str:
    """Return the dashboard as Grafana imports it."""
    made = (
        make.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags([TAG])
        .readonly()
        .refresh("30s")
        .time(board.span, "now")
        .timezone("browser")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .link(_to_the_others())
    )
    for variable in _variables(board):
        made.with_variable(variable)
    number = 0
    for row in board.rows:
        number += 1
        made.with_row(make.Row(row.title).id(number))
        for panel in row.panels:
            number += 1
            made.with_panel(_panel(panel).id(number))
    return json.dumps(made.build(), cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _to_the_others() -> make.DashboardLink:
    return (
        make.DashboardLink("hooklog")
        .type(dashboard.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .keep_time(True)
        .include_vars(True)
        .tooltip("The other dashboards, for the same time")
    )


# Variables


def _variables(board: Board) -> Iterable[Builder[dashboard.VariableModel]]:
    kinds = {type(query) for row in board.rows for panel in row.panels for query in panel.queries}
    if Prom in kinds:
        yield make.DatasourceVariable("prometheus").label("Prometheus").type(PROMETHEUS)
    if Sql in kinds:
        yield make.DatasourceVariable("clickhouse").label("ClickHouse").type(CLICKHOUSE)
    yield from map(_variable, board.pickers)


def _variable(picker: Picker) -> Builder[dashboard.VariableModel]:
    if picker.source == "text":
        return make.TextBoxVariable(picker.name).label(picker.label)
    made = (
        make.QueryVariable(picker.name)
        .label(picker.label)
        .datasource(_source(picker.source))
        .query(picker.query)
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_ASC)
    )
    if not picker.many:
        return made
    made = made.multi(True).include_all(True).current(_ALL)
    return made.all_value(".+") if picker.source == "prometheus" else made


def _source(name: str) -> dashboard.DataSourceRef:
    kind = PROMETHEUS if name == "prometheus" else CLICKHOUSE
    return dashboard.DataSourceRef(type_val=kind, uid=f"${{{name}}}")


# Panels


def _panel(panel: Panel) -> _Visual:
    made = _visual(panel)
    made.title(panel.title).description(panel.description).unit(panel.unit)
    made.span(panel.width).height(_HEIGHTS[panel.kind])
    made.datasource(_source(_source_of(panel))).thresholds(_thresholds(panel))
    if panel.kind == "graph" and _source_of(panel) == "clickhouse":
        made.interval("1m")  # the rollups' step: between its points there would be nothing
    for place, query in enumerate(panel.queries):
        made.with_target(_target(query, chr(ord("A") + place), panel))
    _refine(made, panel)
    return made


def _refine(made: _Visual, panel: Panel) -> None:
    if panel.words:
        said = {value: dashboard.ValueMappingResult(text=word) for value, word in panel.words.items()}
        made.mappings([dashboard.ValueMap(options=said)])
    if panel.most is not None:
        made.min(0).max(panel.most)
    for column, unit in panel.columns.items():
        made.override_by_name(column, [dashboard.DynamicConfigValue("unit", unit)])
    for column, url in panel.links.items():
        made.override_by_name(column, [dashboard.DynamicConfigValue("links", [_link(column, url)])])


def _visual(panel: Panel) -> _Visual:
    match panel.kind:
        case "stat":
            return stat.Panel().reduce_options(_last()).graph_mode(common.BigValueGraphMode.NONE)
        case "bars":
            return (
                bargauge.Panel()
                .reduce_options(_last().values(_source_of(panel) == "clickhouse"))
                .orientation(common.VizOrientation.HORIZONTAL)
                .display_mode(common.BarGaugeDisplayMode.BASIC)
            )
        case "table":
            return table.Panel()
        case "graph":
            return _graph(panel)


def _graph(panel: Panel) -> timeseries.Panel:
    made = (
        timeseries.Panel()
        .line_width(1)
        .fill_opacity(30 if panel.stacked else 10)
        .axis_soft_min(0)
        .show_points(common.VisibilityMode.NEVER)
        .legend(_legend())
        .tooltip(options.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI))
    )
    if panel.steps:
        style = options.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
        made.thresholds_style(style)
    return made.stacking(options.StackingConfig().mode(common.StackingMode.NORMAL)) if panel.stacked else made


def _legend() -> options.VizLegendOptions:
    return (
        options.VizLegendOptions()
        .display_mode(common.LegendDisplayMode.TABLE)
        .placement(common.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs(["lastNotNull", "max"])
    )


def _last() -> options.ReduceDataOptions:
    return options.ReduceDataOptions().calcs(["lastNotNull"])


def _thresholds(panel: Panel) -> make.ThresholdsConfig:
    steps: tuple[Step | tuple[None, str], ...] = ((None, panel.base), *panel.steps)
    return (
        make.ThresholdsConfig()
        .mode(dashboard.ThresholdsMode.ABSOLUTE)
        .steps([dashboard.Threshold(value=value, color=color) for value, color in steps])
    )


def _link(column: str, url: str) -> dict[str, object]:
    return {"title": f"Show this {column.removesuffix('_id')}", "url": url}


# Queries


class _Made(Builder[Dataquery]):
    """A query of a plugin that the SDK does not know."""

    def __init__(self, query: dict[str, object]) -> None:
        self._query = UnknownDataquery(query)

    def build(self) -> Dataquery:
        return self._query


def _source_of(panel: Panel) -> str:
    return "prometheus" if isinstance(panel.queries[0], Prom) else "clickhouse"


def _target(query: Prom | Sql, name: str, panel: Panel) -> Builder[Dataquery]:
    if isinstance(query, Sql):
        return _Made(_clickhouse(query, name, panel))
    made = promql.Dataquery().expr(query.expr).ref_id(name).datasource(_source("prometheus"))
    made = made.range() if panel.kind == "graph" else made.instant()
    return made.legend_format(query.legend or "__auto")


def _clickhouse(query: Sql, name: str, panel: Panel) -> dict[str, object]:
    in_time = panel.kind == "graph"
    return {
        "datasource": _source("clickhouse").to_json(),
        "editorType": "sql",
        "format": _TIME_SERIES if in_time else _TABLE,
        "pluginVersion": _PLUGIN_VERSION,
        "queryType": "timeseries" if in_time else "table",
        "rawSql": query.text,
        "refId": name,
    }
