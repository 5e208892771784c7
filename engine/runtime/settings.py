"""Settings: environment variables `HOOKLOG_…` or a TOML file; unknown ones are refused."""

from __future__ import annotations

import os
import re
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from tomllib import TOMLDecodeError
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from engine.core.duration import parse_duration
from engine.runtime.setting_rules import (
    NEVER,
    Address,
    Database,
    Host,
    HostOrNone,
    Instance,
    Ladder,
    LadderOrNone,
    Port,
    PortOrAny,
    Prefix,
    Programs,
    Servers,
    Span,
    SpanOrNever,
    TenantOrNone,
    TenantsAddresses,
    Url,
)

PREFIX = "HOOKLOG_"
CONFIG_VARIABLE = "HOOKLOG_CONFIG"
# A body is at most 1 MiB and a record 2 MiB: the rest is for what surrounds a payload.
_PAYLOAD_MAX = 900 << 10
# An endpoint's longest timeout; below max.poll.interval.ms, with time left for the last commit.
_DRAIN_MIN_S, _DRAIN_MAX_S = 60, 240
# librdkafka wants the session to be no longer than the time between two polls
_SESSION_MIN_S, _SESSION_MAX_S = 1, 300
_DAY_S = 86_400
# `messages` keep for so long: nobody asks the window for an older one
_WINDOW_MAX_S = 7 * _DAY_S
# ClickHouse's DateTime ends in 2106: what is to be deleted later is deleted at once
_KEEP_MAX_DAYS = 10_000
_MAY_HOLD_SECRETS = frozenset({"clickhouse", "api"})
# One message's matches are one record: 40 bytes an endpoint, of 2 MiB with what shares the record.
_TENANT_ENDPOINTS_MAX = 40_000
_KAFKA_OPTIONS = re.compile(
    r"((security|sasl|ssl|enable\.ssl|enable\.sasl|client|socket|broker|metadata|connections)\.[a-z.]+)=(.*)",
    re.DOTALL,
)


class SettingsError(ValueError):
    """A setting is wrong; the message names it and says what to do."""


class Settings(BaseSettings):
    """All settings, with the variable's name in upper case after `HOOKLOG_`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    kafka: Servers = Field("127.0.0.1:9092", description="Bootstrap servers, host:port, comma-separated.")
    kafka_wait_s: float = Field(
        60, gt=0, le=_DAY_S, description="How long to wait for the broker at start, seconds."
    )
    kafka_options: SecretStr = Field(
        SecretStr(""),
        description="How to connect: librdkafka's name=value, comma-separated, such as"
        " security.protocol=SASL_SSL,sasl.mechanism=PLAIN,sasl.username=…,sasl.password=…",
    )
    prefix: Prefix = Field("hooklog.", description="Put before every topic and group name.")
    partitions: int = Field(8, ge=1, le=256, description="Partitions of the topics on a delivery's way.")
    replication: int = Field(1, ge=1, le=32_767, description="Replication factor of topics that are created.")
    tiers: Annotated[Ladder, NoDecode] = Field(
        ("5s", "30s", "2m", "10m", "30m", "2h"), description="The delay ladder, ascending, comma-separated."
    )
    draining_tiers: Annotated[LadderOrNone, NoDecode] = Field(
        (),
        description="Tiers taken out of the ladder where retries still wait: read until none is left there.",
    )
    group_protocol: Literal["classic", "consumer"] = Field("classic", description="Kafka group membership.")
    instance: Instance = Field(
        "0",
        description="Stable name of this process among those of its group: each process of a group, on any"
        " host, needs its own (such as a StatefulSet's ordinal); two with the same one end each other.",
    )
    session_timeout_s: float = Field(
        6,
        ge=_SESSION_MIN_S,
        le=_SESSION_MAX_S,
        description="Kafka session timeout (classic protocol), seconds; brokers have bounds of their own.",
    )
    drain_s: float = Field(
        65,
        ge=_DRAIN_MIN_S,
        le=_DRAIN_MAX_S,
        description="How long a revoke or a stop waits for requests in flight, seconds:"
        " at least the longest timeout of an endpoint (60).",
    )

    in_flight: int = Field(512, ge=1, le=100_000, description="Requests in flight, a dispatcher process.")
    endpoint_in_flight: int = Field(
        64, ge=1, le=100_000, description="Requests in flight, an endpoint and process."
    )
    waiting: int = Field(
        20_000, ge=1, le=10_000_000, description="Deliveries taken in and not yet sent, a process."
    )
    waiting_bytes: int = Field(64 << 20, ge=1, le=1 << 40, description="The same in bytes.")
    duplicate_window_s: float = Field(
        3600, ge=0, le=_WINDOW_MAX_S, description="How long a message id is remembered, seconds."
    )
    duplicate_window_max: int = Field(
        500_000, ge=1, le=100_000_000, description="How many message ids, a router process."
    )
    unknown_event_types: Literal["allow", "refuse"] = Field(
        "allow", description="What is done with messages of an event type that the catalogue lacks."
    )
    payload_max: int = Field(256 << 10, ge=1, le=_PAYLOAD_MAX, description="Largest payload, bytes.")

    tenant_endpoints_max: int = Field(
        10_000, ge=1, le=_TENANT_ENDPOINTS_MAX, description="How many endpoints a tenant may have."
    )

    disable_after: SpanOrNever = Field(
        "5d", description="An endpoint is disabled after only failures for so long, such as 5d; none: never."
    )
    warn_after: SpanOrNever = Field("3d", description="And warned about after so long; none: never.")
    disable_apart: Span = Field(
        "12h", description="Two of those failures must be so far apart, or neither is done."
    )
    operations_tenant: TenantOrNone = Field(
        "", description="Tenant whose endpoints get the operational webhooks (hooklog.…); empty: nobody does."
    )
    mail_host: HostOrNone = Field("", description="SMTP server of notifications; empty: no mail is sent.")
    mail_port: Port = Field(587, description="Its port.")
    mail_starttls: bool = Field(True, description="Encrypt by STARTTLS, or send nothing.")
    mail_ca_file: Path | None = Field(None, description="Certificates to trust instead of the system's, PEM.")
    mail_user: str = Field("", description="User there; empty: no login.")
    mail_password: SecretStr = Field(SecretStr(""), description="The user's password.")
    mail_from: Address = Field("hooklog@localhost", description="Sender of mails.")
    mail_to: Annotated[tuple[Address, ...], NoDecode] = Field(
        (), description="The platform's addresses, comma-separated: for tenants without one of their own."
    )
    mail_tenants: Annotated[TenantsAddresses, NoDecode] = Field(
        (), description="Tenants' own addresses: tenant=address, comma-separated."
    )

    clickhouse: Url = Field("http://127.0.0.1:8123", description="ClickHouse's HTTP interface.")
    clickhouse_database: Database = Field("hooklog", description="Database of the tables.")
    clickhouse_user: str = Field("default", description="ClickHouse user.")
    clickhouse_password: SecretStr = Field(SecretStr(""), description="ClickHouse password.")
    accounting_window_s: float = Field(
        3600,
        gt=0,
        le=30 * _DAY_S,
        description="How far back the continuous accounting reads at its start, seconds.",
    )
    retention_days: int = Field(
        90, ge=1, le=_KEEP_MAX_DAYS, description="How long ClickHouse keeps history, days."
    )
    rollup_days: int = Field(
        400, ge=1, le=_KEEP_MAX_DAYS, description="How long it keeps figures by minute and hour, days."
    )

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

    api_host: Host = Field("127.0.0.1", description="Address the API listens at.")
    api_port: Port = Field(8080, description="Port of the API.")
    api: str = Field(
        "", description="URL of the API, for the commands that ask it; empty: at the address and port above."
    )
    api_key: SecretStr | None = Field(None, description="Key that those commands use; else the admin key.")
    metrics_host: Host = Field("127.0.0.1", description="Address of a group's /metrics, /healthz, /readyz.")
    metrics_port: PortOrAny = Field(0, description="Its port; 0 is any free one.")
    metrics_of: Annotated[Programs, NoDecode] = Field(
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

    @field_validator(
        "tiers", "draining_tiers", "egress_allow", "mail_to", "mail_tenants", "metrics_of", mode="before"
    )
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(p.strip() for p in value.split(",") if p.strip()) if isinstance(value, str) else value

    @field_validator("draining_tiers")
    @classmethod
    def _not_in_the_ladder(cls, draining: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if not set(draining).isdisjoint(info.data.get("tiers", ())):
            raise ValueError("must be other tiers than those of HOOKLOG_TIERS")
        return draining

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

    @property
    def read_tiers_us(self) -> tuple[int, ...]:
        """The ladder, and what is drained of another one, in microseconds, ascending."""
        return tuple(sorted(map(parse_duration, (*self.tiers, *self.draining_tiers))))

    @property
    def disable_after_us(self) -> int | None:
        """`disable_after` in microseconds; None: never."""
        return _span_us(self.disable_after)

    @property
    def warn_after_us(self) -> int | None:
        """`warn_after` in microseconds; None: never."""
        return _span_us(self.warn_after)

    @property
    def disable_apart_us(self) -> int:
        """`disable_apart` in microseconds."""
        return parse_duration(self.disable_apart)


def _span_us(text: str) -> int | None:
    return None if text == NEVER else parse_duration(text)


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
        raise SettingsError(f"wrong setting: {'; '.join(map(_told, error.errors()))}") from None
    except (TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{CONFIG_VARIABLE}={config}: is no TOML file: {error}") from None


def _told(wrong: ErrorDetails) -> str:
    """Name a setting, its value unless that may be secret, and the rule."""
    value = wrong["input"]
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    shown = f"={text!r}" if _may_be_shown(str(wrong["loc"][0])) else ""
    return f"{'.'.join(map(str, wrong['loc']))}{shown}: {wrong['msg'].removeprefix('Value error, ')}"


def _may_be_shown(name: str) -> bool:
    """Whether a value is no secret and holds none; of what is no setting nobody knows."""
    field = Settings.model_fields.get(name)
    return field is not None and "Secret" not in str(field.annotation) and name not in _MAY_HOLD_SECRETS
