"""Every panel's query runs on the real Prometheus and the real engine, on a real run, and returns data."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.e2e.watched import TENANT, Watched, watched
from tests.grafana.dashboards import CLICKHOUSE, Scene, Target, dashboards, pickers, promql, sql, targets

BOARDS = dashboards()
FALLBACK = " or on() vector(0)"
# Nothing of the kind happens in this run: what answers is the fallback, the 0 that a healthy system shows.
QUIET = {
    "hooklog-overview / Processes down / A",
    "hooklog-overview / People told / A",
    "hooklog-delivery / Blocked by the egress rules / A",
    "hooklog-delivery / Given up / B",
    "hooklog-delivery / Secrets that do not open / A",
    "hooklog-groups / Waiting for an upgrade / A",
    "hooklog-groups / Copies dropped / A",
    "hooklog-groups / Read back / A",
    "hooklog-groups / Records refused / A",
    "hooklog-groups / Errors and timeouts / A",
}
_SHORT_S, _LONG_S = 3600, 3 * 86_400
_ALL_OF_IT = "30m"
"""As the rate's interval: longer than the run, however slow the machine is."""

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """One run for all."""
    with watched(tmp_path_factory.mktemp("watched")) as running:
        yield running


def asked(kind: str) -> list[Target]:
    """All queries of one kind, of panels."""
    return [target for board in BOARDS.values() for target in targets(board) if target.kind == kind]


def at(seconds: int, step: int, picked: dict[str, str]) -> Scene:
    """The last so many seconds, as Grafana would ask for them."""
    now = int(time.time()) + 1
    return Scene(now - seconds, now, step, picked)


def is_data(rows: list[tuple[object, ...]]) -> bool:
    """There are rows, and something in them."""
    return any(value is not None and value != "" for row in rows for value in row)


def test_every_expression_has_a_value(scene: Watched) -> None:
    """Each on its own; what would be empty without its fallback is listed above."""
    silent, only_fallback = [], set()
    for target in asked("prometheus"):
        text = promql(target.text, "hooklog", _ALL_OF_IT)
        if not scene.evaluate(text):
            silent.append(f"{target.place}: {text}")
        if FALLBACK in text and not scene.evaluate(text.replace(FALLBACK, "")):
            only_fallback.add(target.place)
    assert silent == []
    assert only_fallback <= QUIET


def test_every_query_has_rows(scene: Watched) -> None:
    """By minutes and by hours, for everything and for one tenant, endpoint and message."""
    one = {"tenant": TENANT, "endpoint": scene.endpoints["flaky"], "message": scene.message}
    everything = {"message": scene.message}
    silent = []
    for target in asked(CLICKHOUSE):
        needs_one = target.place.startswith("hooklog-endpoint")
        for picked in (one,) if needs_one else (one, everything):
            for seconds, step in ((_SHORT_S, 60), (_LONG_S, 3600)):
                text = sql(target.text, at(seconds, step, _completed(target, picked, scene)))
                table = scene.history.query(text)
                if not is_data([tuple(row) for row in table.rows]):
                    silent.append(f"{target.place}, {picked}, {seconds} s:\n{text}")
    assert silent == []


def test_every_picker_offers_something(scene: Watched) -> None:
    """The deployment of Prometheus, the tenant and its endpoints of ClickHouse."""
    found: dict[str, set[str]] = {}
    for target in (target for board in BOARDS.values() for target in pickers(board)):
        if target.kind == CLICKHOUSE:
            rows = scene.history.query(sql(target.text, at(_SHORT_S, 60, {}))).rows
            found[target.place] = {str(row[0]) for row in rows}
        else:
            metric = target.text.removeprefix("label_values(").partition(",")[0]
            url = f"{scene.prometheus}/api/v1/label/job/values"
            answer = scene.http.get(url, params={"match[]": metric}).json()
            found[target.place] = set(answer["data"])
    assert found.pop("hooklog-history / $tenant") == {TENANT}
    assert found.pop("hooklog-endpoint / $tenant") == {TENANT}
    for place in ("hooklog-history / $endpoint", "hooklog-endpoint / $endpoint"):
        assert found.pop(place) == set(scene.endpoints.values())
    assert set(map(tuple, found.values())) == {("hooklog",)}


# What has rows for an endpoint of one kind only.
_OF_ONE_KIND = {
    "hooklog-history / Failed deliveries / A": "broken",
    "hooklog-history / Pending deliveries / A": "dead",
}


def _completed(target: Target, picked: dict[str, str], scene: Watched) -> dict[str, str]:
    """The endpoint that such a query is about, else what is picked."""
    kind = _OF_ONE_KIND.get(target.place)
    return picked | {"endpoint": scene.endpoints[kind]} if kind and "endpoint" in picked else picked
