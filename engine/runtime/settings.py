"""Settings: environment variables `HOOKLOG_…` or a TOML file; unknown ones are refused."""

from __future__ import annotations

import os
import re
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from tomllib import TOMLDecodeError
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
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
# One message's matches are one record: 40 bytes an endpoint, of 2 MiB with what shares the record.
_TENANT_ENDPOINTS_MAX = 40_000
NEVER = "none"
_ADDRESS = re.compile("[A-Za-z0-9.!#$%&'*+/=?^_{|}~-]+@[A-Za-z0-9.-]+")
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
    unknown_event_types: Literal["allow", "refuse"] = Field(
        "allow", description="What is done with messages of an event type that the catalogue lacks."
    )
    payload_max: int = Field(256 << 10, ge=1, le=_PAYLOAD_MAX, description="Largest payload, bytes.")

    tenant_endpoints_max: int = Field(
        10_000, ge=1, le=_TENANT_ENDPOINTS_MAX, description="How many endpoints a tenant may have."
    )

    disable_after: str = Field(
        "5d", description="An endpoint is disabled after only failures for so long, such as 5d; none: never."
    )
    warn_after: str = Field("3d", description="And warned about after so long; none: never.")
    disable_apart: str = Field(
        "12h", description="Two of those failures must be so far apart, or neither is done."
    )
    operations_tenant: str = Field(
        "", description="Tenant whose endpoints get the operational webhooks (hooklog.…); empty: nobody does."
    )
    mail_host: str = Field("", description="SMTP server of notifications; empty: no mail is sent.")
    mail_port: int = Field(587, ge=1, le=65_535, description="Its port.")
    mail_starttls: bool = Field(True, description="Encrypt by STARTTLS, or send nothing.")
    mail_ca_file: Path | None = Field(None, description="Certificates to trust instead of the system's, PEM.")
    mail_user: str = Field("", description="User there; empty: no login.")
    mail_password: SecretStr = Field(SecretStr(""), description="The user's password.")
    mail_from: str = Field("hooklog@localhost", description="Sender of mails.")
    mail_to: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="The platform's addresses, comma-separated: for tenants without one of their own."
    )
    mail_tenants: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Tenants' own addresses: tenant=address, comma-separated."
    )

    clickhouse: str = Field("http://127.0.0.1:8123", description="ClickHouse's HTTP interface.")
    clickhouse_database: str = Field("hooklog", description="Database of the tables.")
    clickhouse_user: str = Field("default", description="ClickHouse user.")
    clickhouse_password: SecretStr = Field(SecretStr(""), description="ClickHouse password.")
    accounting_window_s: float = Field(
        3600, gt=0, description="How far back the continuous accounting reads at its start, seconds."
    )
    retention_days: int = Field(90, ge=1, description="How long ClickHouse keeps history, days.")
    rollup_days: int = Field(400, ge=1, description="How long it keeps figures by minute and hour, days.")

    master_key: SecretStr | None = Field(None, description="Master key: 32 bytes in base64.")
    master_key_file: Path | None = Field(None, description="File that holds it.")
    previous_master_key: SecretStr | None = Field(
        None, description="Another master key that still opens what it has wrapped; for changing master keys."
    )
    previous_master_key_file: Path | None = Field(None, description="File that holds it.")
    admin_key: SecretStr | None = Field(None, description="The first API key.")
    allow_http: bool = Field(False, description="Allow endpoints at http:// URLs.")
    egress_allow: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = Field(
        (), description="Private networks that requests may go to, CIDR, comma-separated."
    )
    profiles_dir: Path | None = Field(None, description="Folder of a platform's own profiles.")

    api_host: str = Field("127.0.0.1", description="Address the API listens at.")
    api_port: int = Field(8080, description="Port of the API.")
    api: str = Field(
        "", description="URL of the API, for the commands that ask it; empty: at the address and port above."
    )
    api_key: SecretStr | None = Field(None, description="Key that those commands use; else the admin key.")
    metrics_host: str = Field("127.0.0.1", description="Address of a group's /metrics, /healthz, /readyz.")
    metrics_port: int = Field(0, description="Its port; 0 is any free one.")
    metrics_of: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Programs whose metrics the API's /metrics has too, name=URL, comma-separated."
    )
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

    @field_validator("tiers", "egress_allow", "mail_to", "mail_tenants", "metrics_of", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(p.strip() for p in value.split(",") if p.strip()) if isinstance(value, str) else value

    @field_validator("mail_from", "mail_to")
    @classmethod
    def _addresses(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not all(map(_ADDRESS.fullmatch, [value] if isinstance(value, str) else value)):
            raise ValueError("must be addresses such as ops@example.com")
        return value

    @field_validator("mail_tenants")
    @classmethod
    def _tenants_addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        pairs = [part.partition("=") for part in value]
        if not all(tenant and _ADDRESS.fullmatch(address) for tenant, _, address in pairs):
            raise ValueError("must be tenant=address, such as acme=ops@acme.example")
        return value

    @field_validator("disable_after", "warn_after", "disable_apart")
    @classmethod
    def _duration(cls, value: str, info: ValidationInfo) -> str:
        if value != NEVER or info.field_name == "disable_apart":
            parse_duration(value)
        return value

    @field_validator("tiers")
    @classmethod
    def _ascending(cls, tiers: tuple[str, ...]) -> tuple[str, ...]:
        durations = [parse_duration(tier) for tier in tiers]
        if not durations or durations != sorted(set(durations)) or durations[0] < 1_000_000:
            raise ValueError("must be durations of at least 1s, each longer than the one before")
        return tuple(format_duration(duration) for duration in durations)

    @field_validator("metrics_of")
    @classmethod
    def _programs(cls, programs: tuple[str, ...]) -> tuple[str, ...]:
        for program in programs:
            if re.fullmatch(r"[a-z0-9._-]+=https?://\S+", program) is None:
                raise ValueError(f"{program!r} is no name=URL")
        return programs

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
    def lease_s(self) -> float:
        """How long after a commit or produce was acknowledged work may begin: half the session, seconds."""
        return self.session_timeout_s / 2

    @property
    def kafka_properties(self) -> dict[str, str]:
        """`kafka_options` by name; holds secrets."""
        return dict(option.split("=", 1) for option in _split_options(self.kafka_options))

    @property
    def tenant_addresses(self) -> dict[str, str]:
        """Whom mail about a tenant's endpoints goes to, by tenant."""
        pairs = (part.partition("=") for part in self.mail_tenants)
        return {tenant: address for tenant, _, address in pairs}

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
