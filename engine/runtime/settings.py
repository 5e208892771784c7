"""Settings: environment variables `HOOKLOG_…` or a TOML file; unknown ones are refused."""

from __future__ import annotations

import os
import re
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from tomllib import TOMLDecodeError
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from engine.core.duration import format_duration, parse_duration

PREFIX = "HOOKLOG_"
CONFIG_VARIABLE = "HOOKLOG_CONFIG"
# A body is at most 1 MiB and a record 2 MiB: the rest is for what surrounds a payload.
_PAYLOAD_MAX = 900 << 10
# An endpoint's longest timeout; below max.poll.interval.ms, with time left for the last commit.
_DRAIN_MIN_S, _DRAIN_MAX_S = 60, 240
_KAFKA_OPTIONS = re.compile(
    r"((security|sasl|ssl|enable\.ssl|enable\.sasl|client|socket|broker|metadata|connections)\.[a-z.]+)=(.*)",
    re.DOTALL,
)


class SettingsError(ValueError):
    """A setting is wrong; the message names it and says what to do."""


class Settings(BaseSettings):
    """All settings, with the variable's name in upper case after `HOOKLOG_`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    kafka: str = Field("127.0.0.1:9092", description="Bootstrap servers, host:port, comma-separated.")
    kafka_wait_s: float = Field(60, gt=0, description="How long to wait for the broker at start, seconds.")
    kafka_options: SecretStr = Field(
        SecretStr(""),
        description="How to connect: librdkafka's name=value, comma-separated, such as"
        " security.protocol=SASL_SSL,sasl.mechanism=PLAIN,sasl.username=…,sasl.password=…",
    )
    prefix: str = Field("hooklog.", description="Put before every topic and group name.")
    partitions: int = Field(8, ge=1, le=256, description="Partitions of the topics on a delivery's way.")
    replication: int = Field(1, ge=1, description="Replication factor of topics that are created.")
    tiers: Annotated[tuple[str, ...], NoDecode] = Field(
        ("5s", "30s", "2m", "10m", "30m", "2h"), description="The delay ladder, ascending, comma-separated."
    )
    group_protocol: Literal["classic", "consumer"] = Field("classic", description="Kafka group membership.")
    instance: str = Field(
        "0",
        description="Stable name of this process among those of its group: each process of a group, on any"
        " host, needs its own (such as a StatefulSet's ordinal); two with the same one end each other.",
    )
    session_timeout_s: float = Field(6, description="Kafka session timeout (classic protocol), seconds.")
    drain_s: float = Field(
        65,
        ge=_DRAIN_MIN_S,
        le=_DRAIN_MAX_S,
        description="How long a revoke or a stop waits for requests in flight, seconds:"
        " at least the longest timeout of an endpoint (60).",
    )

    in_flight: int = Field(512, ge=1, description="Requests in flight, a dispatcher process.")
    endpoint_in_flight: int = Field(64, ge=1, description="Requests in flight, an endpoint and process.")
    waiting: int = Field(20_000, ge=1, description="Deliveries taken in and not yet sent, a process.")
    waiting_bytes: int = Field(64 << 20, ge=1, description="The same in bytes.")
    duplicate_window_s: float = Field(3600, description="How long a message id is remembered, seconds.")
    duplicate_window_max: int = Field(500_000, description="How many message ids, a router process.")
    payload_max: int = Field(256 << 10, ge=1, le=_PAYLOAD_MAX, description="Largest payload, bytes.")

    clickhouse: str = Field("http://127.0.0.1:8123", description="ClickHouse's HTTP interface.")
    clickhouse_database: str = Field("hooklog", description="Database of the tables.")
    clickhouse_user: str = Field("default", description="ClickHouse user.")
    clickhouse_password: SecretStr = Field(SecretStr(""), description="ClickHouse password.")
    accounting_window_s: float = Field(
        3600, gt=0, description="How far back the continuous accounting reads at its start, seconds."
    )
    retention_days: int = Field(90, ge=1, description="How long ClickHouse keeps history, days.")

    master_key: SecretStr | None = Field(None, description="Master key: 32 bytes in base64.")
    master_key_file: Path | None = Field(None, description="File that holds it.")
    admin_key: SecretStr | None = Field(None, description="The first API key.")
    allow_http: bool = Field(False, description="Allow endpoints at http:// URLs.")
    egress_allow: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = Field(
        (), description="Private networks that requests may go to, CIDR, comma-separated."
    )
    profiles_dir: Path | None = Field(None, description="Folder of a platform's own profiles.")

    api_host: str = Field("127.0.0.1", description="Address the API listens at.")
    api_port: int = Field(8080, description="Port of the API.")
    metrics_host: str = Field("127.0.0.1", description="Address of a group's /metrics, /healthz, /readyz.")
    metrics_port: int = Field(0, description="Its port; 0 is any free one.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe line.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments over environment over the file that HOOKLOG_CONFIG names."""
        file = os.environ.get(CONFIG_VARIABLE)
        toml = (TomlConfigSettingsSource(settings_cls, Path(file)),) if file else ()
        return (init_settings, env_settings, *toml)

    @field_validator("tiers", "egress_allow", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(p.strip() for p in value.split(",") if p.strip()) if isinstance(value, str) else value

    @field_validator("tiers")
    @classmethod
    def _ascending(cls, tiers: tuple[str, ...]) -> tuple[str, ...]:
        durations = [parse_duration(tier) for tier in tiers]
        if not durations or durations != sorted(set(durations)) or durations[0] < 1_000_000:
            raise ValueError("must be durations of at least 1s, each longer than the one before")
        return tuple(format_duration(duration) for duration in durations)

    @field_validator("kafka_options")
    @classmethod
    def _connecting(cls, options: SecretStr) -> SecretStr:
        for number, option in enumerate(_split_options(options), 1):
            if _KAFKA_OPTIONS.fullmatch(option) is None:
                raise ValueError(
                    f"part {number} must be name=value with a name of security.…, sasl.…, ssl.…, client.…,"
                    " socket.…, broker.…, metadata.… or connections.…"
                )
        return options

    @property
    def kafka_properties(self) -> dict[str, str]:
        """`kafka_options` by name; holds secrets."""
        return dict(option.split("=", 1) for option in _split_options(self.kafka_options))

    @property
    def tiers_us(self) -> tuple[int, ...]:
        """The ladder in microseconds, ascending."""
        return tuple(parse_duration(tier) for tier in self.tiers)


def _split_options(options: SecretStr) -> list[str]:
    """Split at commas that a name follows: a password may contain others."""
    text = options.get_secret_value()
    return [part.strip() for part in re.split(r",(?=\s*[a-z]+\.[a-z.]*=)", text) if part.strip()]


def load_settings(**overrides: Any) -> Settings:
    """Read and check the settings; SettingsError names each that is wrong."""
    known = {PREFIX + name.upper() for name in Settings.model_fields} | {CONFIG_VARIABLE}
    unknown = sorted(name for name in os.environ if name.upper().startswith(PREFIX) and name not in known)
    if unknown:
        raise SettingsError(f"unknown setting {', '.join(unknown)}: `hooklog config` lists those there are")
    config = os.environ.get(CONFIG_VARIABLE)
    if config and not Path(config).is_file():
        raise SettingsError(f"{CONFIG_VARIABLE}={config}: there is no such file")
    try:
        return Settings(**overrides)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise SettingsError(f"wrong setting: {wrong}") from None
    except (TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{CONFIG_VARIABLE}={config}: is no TOML file: {error}") from None
