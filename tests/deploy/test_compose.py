"""docker-compose.yml, the Dockerfile and Grafana's provisioning: what they name exists, and they agree."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from engine.cli.run import API
from engine.core.duration import parse_duration
from engine.runtime.settings import PREFIX, Settings
from engine.runtime.topics import GROUPS, MESSAGE_MAX

ROOT = Path(__file__).parents[2]
Yaml = dict[str, Any]

COMPOSE: Yaml = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, Yaml] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service.get("build")}
ONCE = {"topics", "tables"}
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
PROMETHEUS: Yaml = yaml.safe_load((ROOT / "grafana/prometheus/prometheus.yml").read_text(encoding="utf-8"))
# What the Compose specification allows a service to say, of what is used here.
KEYS = {
    *("build", "cap_drop", "command", "depends_on", "environment", "healthcheck", "image", "init", "ports"),
    *("read_only", "restart", "secrets", "security_opt", "stop_grace_period", "tmpfs", "ulimits", "volumes"),
}
CONDITIONS = {"service_healthy", "service_completed_successfully"}
_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")

each_service = pytest.mark.parametrize("name", SERVICES)


def documented() -> set[str]:
    """Variables that .env.example explains."""
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    return set(re.findall(r"^(?:# )?([A-Z_]+)=", text, re.MULTILINE))


def environment(name: str) -> dict[str, str]:
    """What a service's container is told: its own, and for ours what the image says."""
    said = dict(SERVICES[name].get("environment", {}))
    image = dict(re.findall(r"(HOOKLOG_\w+)=(\S+)", DOCKERFILE)) if name in OURS else {}
    return image | said


def texts(value: object) -> Iterator[str]:
    """All the texts in it."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from texts(each)
    elif isinstance(value, str):
        yield value


def port(name: str) -> int:
    """Where Prometheus finds the metrics of one of our services."""
    return 8080 if name == API else int(environment(name)["HOOKLOG_METRICS_PORT"])


# The file


def test_it_says_only_what_compose_knows() -> None:
    """Top-level names and keys of services are those of the Compose specification; none is mistyped."""
    assert {key for key in COMPOSE if not key.startswith("x-")} == {"name", "services", "secrets", "volumes"}
    assert {key for service in SERVICES.values() for key in service} <= KEYS


@each_service
def test_images_are_pinned(name: str) -> None:
    """To a release, never to what moves."""
    tag = SERVICES[name]["image"].partition(":")[2]
    assert re.fullmatch(r"v?\d+\.\d+\.\d+(\.\d+)?", tag)


@each_service
def test_every_service_is_watched(name: str) -> None:
    """It restarts, and has a health check: its own or the image's; what runs once has none."""
    service = SERVICES[name]
    assert service["restart"] == ("on-failure" if name in ONCE else "unless-stopped")
    if name in ONCE:
        assert service["healthcheck"] == {"disable": True}
    elif name in OURS and name != API:
        assert "HEALTHCHECK" in DOCKERFILE
    else:
        assert service["healthcheck"]["test"][0] == "CMD"
        for key in ("interval", "timeout", "start_period"):
            assert parse_duration(service["healthcheck"][key]) > 0


@each_service
def test_what_it_waits_for_can_come(name: str) -> None:
    """It depends on services that exist, until they are healthy, or have ended if they run once."""
    for other, how in SERVICES[name].get("depends_on", {}).items():
        assert how["condition"] in CONDITIONS
        assert (how["condition"] == "service_completed_successfully") == (other in ONCE)
        assert other in SERVICES


def test_nothing_waits_for_itself() -> None:
    """There is an order in which all can start."""
    waits = {name: set(service.get("depends_on", {})) for name, service in SERVICES.items()}
    started: set[str] = set()
    while ready := {name for name, others in waits.items() if others <= started} - started:
        started |= ready
    assert started == set(SERVICES)


@each_service
def test_files_exist_and_volumes_are_declared(name: str) -> None:
    """Every path is of this repository and mounted read-only; every named volume is declared."""
    for volume in SERVICES[name].get("volumes", []):
        source, _, rest = volume.partition(":")
        if source.startswith("."):
            assert (ROOT / source).exists()
            assert rest.endswith(":ro")
        else:
            assert source in COMPOSE["volumes"]
    assert set(SERVICES[name].get("secrets", [])) <= set(COMPOSE["secrets"])


@each_service
def test_ports_are_open_to_this_machine_only(name: str) -> None:
    """A trial is nobody else's business; each port is one that .env may change."""
    for published in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\$\{[A-Z]+_PORT:-\d+\}:\d+", published)


def test_published_ports_differ() -> None:
    """No two services want the same one."""
    wanted = [re.findall(r":-(\d+)\}", each)[0] for s in SERVICES.values() for each in s.get("ports", [])]
    assert len(wanted) == len(set(wanted))


def test_variables_are_documented_and_secrets_have_no_default() -> None:
    """.env.example explains each that the file uses and no other; without a secret nothing starts."""
    used = {found[0]: found[1] for text in texts(SERVICES) for found in _VARIABLE.findall(text)}
    secrets = {secret["environment"] for secret in COMPOSE["secrets"].values()}
    assert set(used) | secrets == documented()
    assert all(how == ("-" if name.endswith("_PORT") else "?") for name, how in used.items())


def test_secrets_are_not_committed() -> None:
    """`.env` is ignored, and the example has no value for a secret."""
    assert "/.env" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    given = re.findall(r"^[A-Z_]+=(.*)$", (ROOT / ".env.example").read_text(encoding="utf-8"), re.MULTILINE)
    assert not any(given)


def test_no_path_of_a_machine() -> None:
    """Everything is relative to the repository or inside a container."""
    mounted = [volume for s in SERVICES.values() for volume in s.get("volumes", [])]
    assert not [volume for volume in mounted if volume.startswith(("/", "~"))]


# hooklog in it


def test_every_group_and_the_api_run() -> None:
    """One service each, of the same image, named as Prometheus finds them."""
    commands = {name: service["command"] for name, service in OURS.items() if name not in ONCE}
    assert commands == {name: ["run", name] for name in (*GROUPS, API)}
    assert {service["image"] for service in OURS.values()} == {"hooklog:0.1.0"}


def test_topics_and_tables_are_made_before() -> None:
    """Each by its command, once; everything of ours that runs waits for both."""
    assert OURS["topics"]["command"] == ["topics", "create"]
    assert OURS["tables"]["command"] == ["migrate"]
    assert all(set(OURS[name]["depends_on"]) == ONCE for name in (*GROUPS, API))


@pytest.mark.parametrize("name", OURS)
def test_every_setting_exists(name: str) -> None:
    """An unknown HOOKLOG_ variable would refuse to start; the values are valid ones."""
    said = environment(name)
    assert all(isinstance(value, str) for value in said.values())
    settings = {name.removeprefix(PREFIX).lower(): value for name, value in said.items()}
    assert set(settings) <= set(Settings.model_fields)
    filled = {name: _VARIABLE.sub("filled", value) for name, value in settings.items()}
    assert Settings.model_validate(filled).kafka == "kafka:19092"


def test_addresses_are_those_of_the_services() -> None:
    """Kafka's inner listener, ClickHouse's HTTP port, the mail catcher, Grafana's sources."""
    said = environment("router")
    assert (
        f"INSIDE://{said['HOOKLOG_KAFKA']}" in SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    )
    assert said["HOOKLOG_CLICKHOUSE"] == "http://clickhouse:8123"
    assert said["HOOKLOG_CLICKHOUSE_USER"] == SERVICES["clickhouse"]["environment"]["CLICKHOUSE_USER"]
    assert said["HOOKLOG_MAIL_HOST"] in SERVICES
    assert SERVICES["grafana"]["environment"]["PROMETHEUS_URL"] == "http://prometheus:9090"
    assert SERVICES["grafana"]["environment"]["CLICKHOUSE_HOST"] in SERVICES


def test_the_broker_keeps_what_hooklog_relies_on() -> None:
    """As the embedded one: broker's time, our record size, no topics by accident."""
    kafka = SERVICES["kafka"]["environment"]
    assert kafka["KAFKA_LOG_MESSAGE_TIMESTAMP_TYPE"] == "LogAppendTime"
    assert kafka["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
    assert kafka["KAFKA_MESSAGE_MAX_BYTES"] == kafka["KAFKA_REPLICA_FETCH_MAX_BYTES"] == str(MESSAGE_MAX)


def test_a_stop_lets_requests_end() -> None:
    """Longer than a group drains."""
    drain_s = Settings.model_fields["drain_s"].default
    for name in (*GROUPS, API):
        assert parse_duration(OURS[name]["stop_grace_period"]) > (drain_s + 10) * 1_000_000


def test_ours_may_do_nothing_that_they_need_not() -> None:
    """Read-only, no capabilities, no new privileges, secrets as files."""
    for service in OURS.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["environment"]["HOOKLOG_MASTER_KEY_FILE"] == "/run/secrets/master_key"
        assert "HOOKLOG_MASTER_KEY" not in service["environment"]


# The image


def test_the_image_is_small_and_safe() -> None:
    """Two stages from a pinned slim Python, no build tools in the last, a user that is not root."""
    build, last = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
    assert re.search(r"^ARG PYTHON=python:3\.\d+\.\d+-slim$", DOCKERFILE, re.MULTILINE)
    assert "pip install" in build
    assert "--constraint constraints.txt" in build
    assert "install" not in last.replace("uninstall", "")
    assert re.search(r"^USER [1-9]\d*$", last, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK ", last, re.MULTILINE)


def test_the_image_copies_what_the_project_is() -> None:
    """Every source exists and .dockerignore lets it through; nothing else of the folder gets in."""
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
        for source in shlex.split(line)[:-1]
    }
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert all((ROOT / source).exists() for source in copied)
    assert {line.removeprefix("!") for line in ignored if line.startswith("!")} == copied
    assert "*" in ignored


def test_the_images_probe_asks_where_a_group_answers() -> None:
    """At the port that the image sets, on an address that Prometheus reaches."""
    said = environment("router")
    assert f"http://127.0.0.1:{said['HOOKLOG_METRICS_PORT']}/readyz" in DOCKERFILE
    assert said["HOOKLOG_METRICS_HOST"] == said["HOOKLOG_API_HOST"] == "0.0.0.0"
    assert f"EXPOSE 8080 {said['HOOKLOG_METRICS_PORT']}" in DOCKERFILE


# Prometheus and Grafana


def test_prometheus_scrapes_every_process() -> None:
    """Each of ours that runs, at its port, and nothing else; its rule files are there."""
    targets = {
        target
        for scraped in PROMETHEUS["scrape_configs"]
        for static in scraped["static_configs"]
        for target in static["targets"]
    }
    assert targets == {f"{name}:{port(name)}" for name in (*GROUPS, API)}
    assert all((ROOT / "grafana/prometheus" / file).exists() for file in PROMETHEUS["rule_files"])


def test_grafanas_sources_are_those_of_the_dashboards() -> None:
    """Prometheus and ClickHouse by its plugin, which is installed; every variable is set, none editable."""
    text = (ROOT / "grafana/provisioning/datasources/hooklog.yaml").read_text(encoding="utf-8")
    sources: list[Yaml] = yaml.safe_load(text)["datasources"]
    grafana = SERVICES["grafana"]["environment"]
    assert [each["type"] for each in sources] == ["prometheus", "grafana-clickhouse-datasource"]
    assert re.fullmatch(r"grafana-clickhouse-datasource \d+\.\d+\.\d+", grafana["GF_INSTALL_PLUGINS"])
    assert set(re.findall(r"\$(?!_)(\w+)", re.sub(r"#.*", "", text))) <= set(grafana)
    assert not any(each["editable"] for each in sources)
    assert sources[0]["jsonData"]["timeInterval"] == PROMETHEUS["global"]["scrape_interval"]
    assert sources[1]["jsonData"]["defaultDatabase"] == Settings.model_fields["clickhouse_database"].default


def test_grafana_finds_the_dashboards() -> None:
    """The provider reads the folder that they are mounted at; the first page is the overview."""
    text = (ROOT / "grafana/provisioning/dashboards/hooklog.yaml").read_text(encoding="utf-8")
    (provider,) = yaml.safe_load(text)["providers"]
    folder = provider["options"]["path"]
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert f"./grafana/dashboards:{folder}:ro" in SERVICES["grafana"]["volumes"]
    assert (ROOT / "grafana/dashboards" / home.removeprefix(f"{folder}/")).exists()
    assert provider["allowUiUpdates"] is False


def test_grafana_reads_clickhouse_and_changes_nothing() -> None:
    """Its user may read hooklog's database and no more; the password comes from the environment."""
    users = ElementTree.parse(ROOT / "grafana/clickhouse/reader.xml").getroot()
    clickhouse, grafana = SERVICES["clickhouse"]["environment"], SERVICES["grafana"]["environment"]
    user = grafana["CLICKHOUSE_USER"]
    password = users.find(f"users/{user}/password")
    assert password is not None
    assert clickhouse[password.attrib["from_env"]] == grafana["CLICKHOUSE_PASSWORD"]
    assert [each.text for each in users.iterfind(f"users/{user}/grants/query")] == [
        "GRANT SELECT ON hooklog.*"
    ]
    assert users.findtext("profiles/reader/readonly") == "2"
