"""Asking the API: one request a call, every refusal in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from engine.cli.errors import FAILED, UNREACHABLE, CommandError
from engine.cli.settings import read_settings

if TYPE_CHECKING:
    from httpx import Response

    from engine.runtime.settings import Settings

_SECONDS = 60.0
"""A test send waits for the endpoint's answer, a change for its decision."""
Query = Mapping[str, str | int | None]
Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API answered: as it was written, and as values."""

    raw: bytes
    value: Json


def path(*parts: str) -> str:
    """`("endpoints", "a/b")` -> `/v1/endpoints/a%2Fb`."""
    return "/".join(("/v1", *map(_segment, parts)))


def _segment(part: str) -> str:
    """Quote an id; one that is . or .. would otherwise be taken for a step in the path."""
    quoted = quote(part, safe="")
    return quoted.replace(".", "%2E") if part in (".", "..") else quoted


def ask(
    method: str,
    where: str,
    body: object = None,
    *,
    query: Query | None = None,
    idempotency_key: str | None = None,
) -> Answer:
    """Return the answer, {} if it is empty; CommandError says why not, with status 1 or 3."""
    import orjson  # noqa: PLC0415

    content = body if isinstance(body, bytes) else b"" if body is None else orjson.dumps(body)
    headers = {"Content-Type": "application/json"} if content else {}
    if idempotency_key is not None:
        headers["Idempotency-Key"] = idempotency_key
    given = {name: value for name, value in (query or {}).items() if value is not None}
    answer = _send(method, where, content, (headers, given))
    found = _json(answer)
    if not answer.is_success:
        status = UNREACHABLE if answer.status_code == 503 else FAILED
        raise CommandError(_told(answer, found), status, found)
    return Answer(answer.content or b"{}", found)


def _send(
    method: str, where: str, content: bytes, extras: tuple[Mapping[str, str], Mapping[str, str | int]]
) -> Response:
    import httpx  # noqa: PLC0415

    settings = read_settings()
    url, (headers, query) = api_url(settings), extras
    named = {"Authorization": f"Bearer {_key(settings)}", **headers}
    try:
        # environment proxies are not asked: the key is for the API alone
        with httpx.Client(base_url=url, timeout=_SECONDS, trust_env=False) as client:
            return client.request(method, where, content=content, headers=named, params=query)
    except (httpx.TransportError, httpx.InvalidURL) as error:
        reason = str(error) or type(error).__name__
        raise CommandError(
            f"the API at {url} cannot be asked: {reason}; is it running, and HOOKLOG_API right?", UNREACHABLE
        ) from None


def api_url(settings: Settings) -> str:
    """Where the API is: HOOKLOG_API, or where one with these settings listens; CommandError."""
    if settings.api:
        _check_url(settings.api)
    host = "127.0.0.1" if settings.api_host in ("0.0.0.0", "::") else settings.api_host  # noqa: S104
    return settings.api.rstrip("/") or f"http://{host}:{settings.api_port}"


def _check_url(url: str) -> None:
    """Its value is not told: it may hold a password."""
    from httpx import URL, InvalidURL  # noqa: PLC0415

    try:
        parsed = URL(url)
    except InvalidURL as error:
        raise CommandError(f"HOOKLOG_API: {error}; write a URL such as http://127.0.0.1:8080") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise CommandError("HOOKLOG_API: is no URL of http or https; write one such as http://127.0.0.1:8080")


def _key(settings: Settings) -> str:
    for name, key in (("HOOKLOG_API_KEY", settings.api_key), ("HOOKLOG_ADMIN_KEY", settings.admin_key)):
        if key is not None and (text := key.get_secret_value()):
            if not (text.isascii() and text.isprintable()):
                raise CommandError(f"{name}: must be printable ASCII, as it is sent in a header")
            return text
    raise CommandError("no API key: set HOOKLOG_API_KEY (`hooklog dev` prints one when it is ready)")


def _json(answer: Response) -> Json:
    try:
        found = answer.json() if answer.content else {}
    except ValueError:
        found = None
    if isinstance(found, dict):
        return found
    raise CommandError(f"{answer.url} answered {answer.status_code} with no JSON: is that the API?", FAILED)


def _told(answer: Response, problem: Mapping[str, object]) -> str:
    return f"{problem.get('detail') or problem.get('title') or 'refused'} (HTTP {answer.status_code})"


def given(**values: object) -> Json:
    """What was given of a body: None is left out, and so is an empty list."""
    return {name: value for name, value in values.items() if value is not None and value != []}


def pairs(headers: Sequence[str]) -> dict[str, str] | None:
    """`["X-Team: blue"]` -> `{"X-Team": "blue"}`, None if there is none; CommandError."""
    found = {}
    for header in headers:
        name, colon, value = header.partition(":")
        if not colon:
            raise CommandError(f"--header: {header!r} is none: write it as NAME: VALUE")
        found[name.strip()] = value.strip()
    return found or None
