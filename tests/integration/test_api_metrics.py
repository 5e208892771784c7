"""The API's own metrics, and those of other programs that it serves with them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from engine.api.metrics import ASKED_WITHIN_S, merged
from engine.runtime.probes import serve_probes
from engine.runtime.settings import SettingsError, load_settings
from engine.runtime.vitals import State
from tests.integration.api_fixtures import Api, make_context, running
from tests.runtime.test_telemetry import promtool_says


@pytest.fixture(scope="module")
def silent() -> Iterator[str]:
    """The URL of a program that takes connections and says nothing, as a frozen one does."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/metrics"


@pytest.fixture(scope="module")
def api(silent: str) -> Iterator[Api]:
    """An API that is to ask a program that is there, one that is gone, and one that is frozen."""
    there = serve_probes("127.0.0.1", 0, State)
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        gone = server.getsockname()[1]
    programs = (
        f"router=http://127.0.0.1:{there.server_address[1]}/metrics",
        f"control=http://127.0.0.1:{gone}/metrics",
        f"dispatcher={silent}",
    )
    context = make_context()
    settings = context.settings.model_copy(update={"metrics_of": programs})
    with running(make_context(settings)) as each:
        yield each
    there.shutdown()
    there.server_close()


def test_the_whole_stacks_metrics_are_one_exposition(api: Api) -> None:
    """Each family once, each sample with its program, sound to Prometheus; a program that is gone says 0."""
    answer = api.ask("GET", "/metrics")
    assert answer.status_code == 200
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    programs = {sample.labels["program"] for sample in families["hooklog_requests_in_flight"].samples}
    assert programs == {"api", "router"}
    up = {sample.labels["program"]: sample.value for sample in families["hooklog_program_up"].samples}
    asked = {"router": 1, "control": 0, "dispatcher": 0}  # others in this process may have asked more
    assert {program: up[program] for program in asked} == asked
    heads = [line for line in answer.text.splitlines() if line.startswith("# TYPE ")]
    assert len(heads) == len(set(heads))
    assert promtool_says(answer.content) == ""


def test_the_programs_to_ask_are_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `hooklog dev` gives it; what is no name and URL is refused."""
    monkeypatch.setenv("HOOKLOG_METRICS_OF", "router=http://127.0.0.1:1/metrics, x.1=http://h:2/")
    assert load_settings().metrics_of == ("router=http://127.0.0.1:1/metrics", "x.1=http://h:2/")
    monkeypatch.setenv("HOOKLOG_METRICS_OF", 'a"b=http://127.0.0.1:1/metrics')
    with pytest.raises(SettingsError, match="must be name=URL"):
        load_settings()


def test_a_program_that_hangs_keeps_nobody_waiting(api: Api) -> None:
    """The answer comes though it says nothing; Prometheus gives up after 10 s, and waits half as long."""
    assert "hooklog_program_up" in api.ask("GET", "/metrics").text
    assert ASKED_WITHIN_S <= 5


def requests(method: str, route: str, status: str) -> float:
    """How many the API has counted."""
    labels = {"method": method, "route": route, "status": status}
    return REGISTRY.get_sample_value("hooklog_api_requests_total", labels) or 0


@pytest.mark.parametrize(
    ("method", "path", "route", "status"),
    [
        ("GET", "/healthz", "/healthz", "2xx"),
        ("GET", "/v1/endpoints/ep_secret", "/v1/endpoints/{endpoint_id}", "4xx"),
        ("GET", "/no/such/route", "none", "4xx"),
        ("BREW", "/healthz", "/healthz", "4xx"),
    ],
)
def test_a_request_is_counted_by_its_route_never_by_its_path(
    api: Api, method: str, path: str, route: str, status: str
) -> None:
    """So that neither ids nor whoever tries paths make series; the same for methods."""
    counted = method if method == "GET" else "other"
    before = requests(counted, route, status)
    api.ask(method, path)
    assert requests(counted, route, status) == before + 1
    labels = {"method": counted, "route": route}
    assert REGISTRY.get_sample_value("hooklog_api_request_duration_seconds_count", labels)


@pytest.mark.parametrize(
    ("sample", "labelled"),
    [
        ("a_b 1.0", 'a_b{program="x"} 1.0'),
        ('a_b{c="d"} 1.0', 'a_b{program="x",c="d"} 1.0'),
        ('a_b{c="} e{",d="1 2"} 1e9', 'a_b{program="x",c="} e{",d="1 2"} 1e9'),
    ],
)
def test_a_sample_is_given_its_program_and_stays_what_it_is(sample: str, labelled: str) -> None:
    """Whatever is in its labels' values."""
    head = "# HELP a_b A.\n# TYPE a_b gauge\n"
    assert merged({"x": f"{head}{sample}\n"}) == f"{head}{labelled}\n"


def test_a_family_that_several_have_is_said_once() -> None:
    """Its samples together, its help as the first one has it."""
    texts = {name: f"# HELP a {name}.\n# TYPE a gauge\na 1\n# HELP b B.\n# TYPE b gauge\n" for name in "xy"}
    said = '# HELP a x.\n# TYPE a gauge\na{program="x"} 1\na{program="y"} 1\n# HELP b B.\n# TYPE b gauge\n'
    assert merged(texts) == said
