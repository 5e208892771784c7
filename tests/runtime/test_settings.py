"""Settings: where they come from, what is refused, and what is never shown."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from engine.runtime.kafka.client import Cluster
from engine.runtime.settings import Settings, SettingsError, load_settings
from engine.runtime.topics import catalogue, inputs, tier_topics

CANARY = "canary-in-a-coal-mine"


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.upper().startswith("HOOKLOG_"):
            monkeypatch.delenv(name)


def toml(folder: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    """Name a settings file with this content."""
    (folder / "hooklog.toml").write_text(content)
    monkeypatch.setenv("HOOKLOG_CONFIG", str(folder / "hooklog.toml"))


# -- where they come from ---------------------------------------------------------------


def test_defaults() -> None:
    """Without a variable or a file they are the documented ones."""
    assert load_settings().tiers == ("5s", "30s", "2m", "10m", "30m", "2h")
    assert load_settings().tiers_us[-1] == 7_200_000_000
    assert load_settings().master_key is None


def test_when_endpoints_are_warned_about_and_disabled() -> None:
    """In microseconds; None is never."""
    settings = load_settings(disable_after="5d", warn_after="none", disable_apart="90m")
    assert settings.disable_after_us == 5 * 86_400_000_000
    assert settings.warn_after_us is None
    assert settings.disable_apart_us == 5_400_000_000


def test_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers, lists, networks and flags, from their text."""
    monkeypatch.setenv("HOOKLOG_PARTITIONS", "4")
    monkeypatch.setenv("HOOKLOG_TIERS", "1s, 90s,3600s")
    monkeypatch.setenv("HOOKLOG_EGRESS_ALLOW", "127.0.0.0/8, ::1/128")
    monkeypatch.setenv("HOOKLOG_ALLOW_HTTP", "true")
    settings = load_settings()
    assert settings.partitions == 4
    assert settings.tiers == ("1s", "90s", "1h")
    assert settings.egress_allow == (ip_network("127.0.0.0/8"), ip_network("::1/128"))
    assert settings.allow_http


def test_arguments_over_variables_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this order, each setting on its own."""
    toml(tmp_path, monkeypatch, 'partitions = 2\nprefix = "file."\nkafka = "file:1"\ntiers = ["2s", "4s"]\n')
    monkeypatch.setenv("HOOKLOG_PARTITIONS", "4")
    monkeypatch.setenv("HOOKLOG_PREFIX", "variable.")
    settings = load_settings(partitions=6)
    assert (settings.partitions, settings.prefix, settings.kafka) == (6, "variable.", "file:1")
    assert settings.tiers == ("2s", "4s")


# -- what is refused --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["HOOKLOG_PARTITION", "HOOKLOG_", "hooklog_partitions", "Hooklog_Config"])
def test_an_unknown_variable_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A typing error is never ignored, a name in lower case included; the value isn't shown."""
    monkeypatch.setenv(name, CANARY)
    with pytest.raises(SettingsError, match=f"unknown setting {name}") as refused:
        load_settings()
    assert CANARY not in str(refused.value)


@pytest.mark.parametrize("content", ["partition = 4\n", "[kafka]\nx = 1\n", "partitions = 0\n"])
def test_a_wrong_file_is_refused(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unknown names, wrong types and values out of range are named."""
    toml(tmp_path, monkeypatch, content)
    with pytest.raises(SettingsError, match=r"wrong setting: (partition|kafka)"):
        load_settings()


def test_a_file_that_is_no_toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says which file and where in it."""
    toml(tmp_path, monkeypatch, "partitions: 4\n")
    with pytest.raises(SettingsError, match=r"hooklog\.toml: is no TOML file: .*line 1"):
        load_settings()


def test_a_file_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A named file must be there: its settings are not optional."""
    monkeypatch.setenv("HOOKLOG_CONFIG", "nowhere.toml")
    with pytest.raises(SettingsError, match=r"nowhere\.toml: there is no such file"):
        load_settings()


@pytest.mark.parametrize(
    "tiers", ["", " , ", "5", "5s,x", "30s,5s", "5s,5s", "60s,1m", "0s,5s", "500ms,5s", "5s,30s,20s", "31d"]
)
def test_bad_tiers(tiers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Durations of a second or more, each longer than the one before."""
    monkeypatch.setenv("HOOKLOG_TIERS", tiers)
    with pytest.raises(SettingsError, match=r"tiers=.*: (must be 1 to 50 durations|.*is no duration)"):
        load_settings()


ONE_OF = "Input should be '"
BOUNDS: dict[str, tuple[str, ...]] = {
    "kafka_wait_s": ("0", "-1", "86401", "inf", "nan"),
    "partitions": ("0", "257", "many"),
    "replication": ("0", "32768"),
    "session_timeout_s": ("0", "0.5", "301", "nan"),
    "drain_s": ("59", "300"),
    "in_flight": ("0", "100001"),
    "endpoint_in_flight": ("0", "100001"),
    "waiting": ("0", "10000001"),
    "waiting_bytes": ("0", "1099511627777"),
    "duplicate_window_s": ("-5", "604801", "inf"),
    "duplicate_window_max": ("-1", "0", "100000001"),
    "payload_max": ("0", "1000000"),
    "tenant_endpoints_max": ("0", "40001"),
    "mail_port": ("0", "65536"),
    "accounting_window_s": ("0", "2592001", "inf"),
    "retention_days": ("0", "10001"),
    "rollup_days": ("0", "10001"),
    "api_port": ("0", "99999"),
    "metrics_port": ("-1", "65536"),
}
"""Numbers that are refused; their rule is a bound."""
RULES: dict[str, tuple[str, tuple[str, ...]]] = {
    "kafka": ("host:port", ("", "a:1,", "a:0", "a:65536", "a:b", "a b:1", "http:/a")),
    "prefix": ("characters", ("a/b", "a b", "é.", "x" * 201)),
    "group_protocol": (ONE_OF, ("newest",)),
    "instance": ("characters|empty", ("", "a b", "a/b", "x" * 201)),
    "unknown_event_types": (ONE_OF, ("maybe",)),
    "disable_after": ("duration|at least 1s|at most 3650d", ("5 days", "0s", "3651d", "never")),
    "warn_after": ("duration|at least 1s|at most 3650d", ("-3d", "999ms", "999999999d")),
    "disable_apart": ("duration|at most 3650d", ("none", "3651d")),
    "operations_tenant": ("tenant's id", (" acme", "a" * 129)),
    "mail_host": ("host name", ("a b", "smtp://a")),
    "mail_starttls": ("boolean", ("perhaps",)),
    "mail_from": ("address", ("", "nobody")),
    "mail_to": ("address", ("nobody", "a@b.example,c")),
    "mail_tenants": ("tenant=address|each tenant once", ("acme", "=a@b.example", "a=x@b.c,a=y@b.c")),
    "clickhouse_database": ("letters", ("", "1a", "a-b", "a; DROP", "a" * 101)),
    "allow_http": ("boolean", ("perhaps",)),
    "egress_allow": ("IPv4", ("127.0.0.1/8", "everywhere")),
    "api_host": ("host name", ("", "a b", "http://a")),
    "metrics_host": ("host name", ("", "a b")),
    "metrics_of": ("name=URL", ("http://a", "api=http://a", "a=http://b,a=http://c", "a=ftp://b")),
    "log_level": (ONE_OF, ("loud",)),
}
"""What is refused of the others, and what of the rule is told."""
HIDDEN: dict[str, tuple[str, tuple[str, ...]]] = {
    "kafka_options": ("name=value", (f"acks={CANARY}", CANARY, f"security.protocol=SSL,group.id={CANARY}")),
    "clickhouse": (
        "a URL",
        ("", "http://", f"{CANARY}:8123", f"ftp://{CANARY}", f"http://u:{CANARY}@a:99999"),
    ),
}
"""The same, of those whose value may hold a secret."""
WHERE_USED = {
    *("mail_ca_file", "master_key_file", "previous_master_key_file", "profiles_dir"),  # when it is read
    *("master_key", "previous_master_key", "admin_key", "api_key", "api"),  # by who needs one
    *("mail_user", "mail_password", "clickhouse_user", "clickhouse_password"),  # by the server
}
"""Whose values are judged where they are used."""


def rows(table: dict[str, tuple[str, tuple[str, ...]]]) -> list[tuple[str, str, str]]:
    """(setting, value, what is told of the rule)."""
    return [(name, value, rule) for name, (rule, values) in table.items() for value in values]


def test_every_setting_has_its_bounds() -> None:
    """None is forgotten, and none is named that is no more."""
    assert {*BOUNDS, *RULES, *HIDDEN, *WHERE_USED, "tiers", "draining_tiers"} == set(Settings.model_fields)


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        *((name, value, "should be|finite") for name, values in BOUNDS.items() for value in values),
        *rows(RULES),
    ],
)
def test_a_wrong_value_is_told(name: str, value: str, rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Setting, value and rule, so that it can be found and mended."""
    monkeypatch.setenv(f"HOOKLOG_{name.upper()}", value)
    with pytest.raises(SettingsError, match=rf"wrong setting: {name}[^=]*=.*: .*({rule})") as refused:
        load_settings()
    parts = [part.strip() for part in value.split(",")]
    assert any(repr(part)[1:-1] in str(refused.value) for part in parts)


@pytest.mark.parametrize(("name", "value", "rule"), rows(HIDDEN))
def test_a_wrong_value_that_may_be_secret_is_not_told(
    name: str, value: str, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The setting and its rule only."""
    monkeypatch.setenv(f"HOOKLOG_{name.upper()}", value)
    with pytest.raises(SettingsError, match=rf"wrong setting: {name}: .*{rule}") as refused:
        load_settings()
    assert CANARY not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kafka", "kafka:9092,SSL://b-1.kafka.example:9094, [::1]:9092,alone"),
        ("prefix", ""),
        ("prefix", "a.B_c-1."),
        ("instance", "router-0.a_b"),
        ("session_timeout_s", "1"),
        ("duplicate_window_s", "0"),
        ("disable_after", "none"),
        ("warn_after", "3650d"),
        ("disable_apart", "0s"),
        ("operations_tenant", ""),
        ("operations_tenant", "the platform"),
        ("mail_host", ""),
        ("clickhouse", "https://clickhouse.example/path"),
        ("clickhouse_database", "_hooklog2"),
        ("api_host", "::"),
        ("api_port", "65535"),
        ("metrics_port", "0"),
        ("metrics_of", "router=http://127.0.0.1:9100/metrics,router.1=https://b:1/"),
        ("retention_days", "10000"),
    ],
)
def test_what_lies_within_the_bounds(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ends themselves, and what only looks odd."""
    monkeypatch.setenv(f"HOOKLOG_{name.upper()}", value)
    assert str(getattr(load_settings(), name)) in (value, f"{value}.0", str(tuple(value.split(","))))


@pytest.mark.parametrize("draining", ["1m,5s", "30s", "5s,2h", "31d", "soon"])
def test_bad_draining_tiers(draining: str) -> None:
    """Durations in order like the ladder's, and none of the ladder's own."""
    with pytest.raises(SettingsError, match=r"draining_tiers=.*: .*(durations|duration|other tiers)"):
        load_settings(tiers="30s,2h", draining_tiers=draining)


def test_draining_tiers_are_read_in_order_and_written_to_no_more() -> None:
    """The ladder is what it was; topics are read from the shortest on."""
    settings = load_settings(tiers="5s,20s,2m", draining_tiers="30s,10m")
    assert settings.tiers_us == (5_000_000, 20_000_000, 120_000_000)
    assert list(tier_topics(settings)) == [f"retry.{tier}" for tier in ("0", "5s", "20s", "30s", "2m", "10m")]
    assert {"retry.30s", "retry.10m"} < {spec.name for spec in catalogue(settings)}
    assert {"retry.30s", "retry.10m"} < set(inputs(settings)["scheduler"])


def test_settings_do_not_change() -> None:
    """They are read once; nobody sets one later."""
    name = "partitions"
    with pytest.raises(ValueError, match="frozen"):
        setattr(load_settings(), name, 3)


# -- what is never shown ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["master_key", "admin_key", "clickhouse_password"])
def test_secrets_are_masked(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In repr, str and JSON."""
    monkeypatch.setenv(f"HOOKLOG_{name.upper()}", CANARY)
    settings = load_settings()
    assert getattr(settings, name).get_secret_value() == CANARY
    for shown in (repr(settings), str(settings), settings.model_dump_json(), repr(settings.model_dump())):
        assert CANARY not in shown


def test_kafka_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """Properties by name; a value may contain commas and equals signs, and is never shown."""
    options = f"security.protocol=SASL_SSL, sasl.mechanism=PLAIN,sasl.password=a,b=c,{CANARY}="
    monkeypatch.setenv("HOOKLOG_KAFKA_OPTIONS", options)
    settings = load_settings()
    assert settings.kafka_properties == {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "PLAIN",
        "sasl.password": f"a,b=c,{CANARY}=",
    }
    for shown in (repr(settings), settings.model_dump_json(), repr(Cluster.of(settings))):
        assert CANARY not in shown


def test_a_wrong_kafka_option_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be a password: only its place is told."""
    monkeypatch.setenv("HOOKLOG_KAFKA_OPTIONS", f"security.protocol=SSL,group.id={CANARY}")
    with pytest.raises(SettingsError, match="part 2 must be name=value") as refused:
        load_settings()
    assert CANARY not in str(refused.value)


def test_secrets_are_not_in_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in that of another setting, nor where a secret itself has the wrong type."""
    toml(tmp_path, monkeypatch, f'partitions = 0\nmaster_key = "{CANARY}"\nadmin_key = ["{CANARY}"]\n')
    with pytest.raises(SettingsError, match="admin_key") as refused:
        load_settings()
    assert CANARY not in str(refused.value)
    assert refused.value.__cause__ is None


# -- topics -----------------------------------------------------------------------------


def test_the_ladders_topics() -> None:
    """Named by their delay, and retry.0 for what is due sooner."""
    topics = tier_topics(load_settings(tiers="5s,90s,2h"))
    assert topics == {"retry.0": 0, "retry.5s": 5_000_000, "retry.90s": 90_000_000, "retry.2h": 7_200_000_000}


def test_topics_on_the_way_of_a_delivery_share_one_number() -> None:
    """So that an output's partition is its input's."""
    specs = {spec.name: spec for spec in catalogue(load_settings(partitions=5))}
    assert {name for name, spec in specs.items() if spec.partitions != 5} == {"invalid"}
    assert len(specs) == len(catalogue(load_settings(partitions=5)))


def test_retention() -> None:
    """A tier keeps its records a week longer than they wait; facts are kept, snapshots compacted."""
    specs = {spec.name: spec.retention_ms for spec in catalogue(load_settings())}
    week = 7 * 86_400_000
    assert specs["retry.0"] == week
    assert specs["retry.2h"] == week + 7_200_000
    assert specs["changes"] == -1
    compacted = ["endpoints", "directory", "lanes", "health"]
    assert [name for name, kept in specs.items() if kept is None] == compacted
    assert (specs["routings"] or 0) >= (specs["messages"] or 0)


def test_every_input_is_a_topic() -> None:
    """No group reads what nobody creates."""
    names = {spec.name for spec in catalogue(load_settings())}
    for topics in inputs(load_settings()).values():
        assert set(topics) <= names
