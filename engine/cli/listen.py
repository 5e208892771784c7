"""`hooklog listen`: a local receiver that verifies and shows what arrives."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.errors import FAILED, CommandError
from engine.cli.output import Format, Output, print_json
from engine.cli.profiles import profile_named

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp import ClientSession, web

    from engine.core.profile import Profile

_HOST = "127.0.0.1"
_BODY_MAX = 2 << 20
_FORWARD_S = 30.0
_HOP_HEADERS = {"host", "content-length", "transfer-encoding", "connection", "keep-alive", "te", "upgrade"}


@dataclass(frozen=True, slots=True)
class Arrival:
    """What is shown of a request. `signature`: valid, invalid, or unchecked without a secret."""

    method: str
    path: str
    id: str
    event: str
    bytes: int
    signature: str
    answered: int
    body: str


@dataclass(frozen=True, slots=True)
class Receiver:
    """How to judge, show and pass on what arrives."""

    profile: Profile
    secret: str | None
    forward_to: str | None
    output: Format


def listen(
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 is any free port.")] = 0,
    secret: Annotated[
        str | None, typer.Option(envvar="WEBHOOK_SECRET", help="The endpoint's secret, to verify signatures.")
    ] = None,
    profile: Annotated[str, typer.Option(help="Wire profile of the endpoint.")] = "standard",
    forward_to: Annotated[str | None, typer.Option(help="URL that gets every request too.")] = None,
    output: Output = Format.text,
) -> None:
    """Receive webhooks on 127.0.0.1, verify and show them, answer 200 (401 if the signature is wrong)."""
    from engine.core.profile import check_secret  # noqa: PLC0415

    chosen = profile_named(profile)
    if secret is not None:
        try:
            check_secret(chosen, secret)
        except ValueError as error:
            raise CommandError(str(error)) from None
    asyncio.run(_serve(Receiver(chosen, secret, forward_to, output), port))


async def _serve(receiver: Receiver, port: int) -> None:
    from aiohttp import ClientSession, ClientTimeout, web  # noqa: PLC0415

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with ClientSession(timeout=ClientTimeout(total=_FORWARD_S), auto_decompress=False) as session:

        async def handle(request: web.Request) -> web.Response:
            return await _receive(receiver, session, request)

        application = web.Application(client_max_size=_BODY_MAX)
        application.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, _HOST, port)
        try:
            await site.start()
        except OSError as error:
            raise CommandError(f"cannot listen at port {port}: {error.strerror}", FAILED) from None
        _announce(receiver, f"http://{_HOST}:{runner.addresses[0][1]}")
        await stop.wait()
        await runner.cleanup()


def _announce(receiver: Receiver, url: str) -> None:
    if receiver.output is Format.json:
        print_json({"listening": url})
    else:
        print(f"listening at {url} (profile {receiver.profile.name}); stop with Ctrl-C", flush=True)


async def _receive(receiver: Receiver, session: ClientSession, request: web.Request) -> web.Response:
    from aiohttp import web  # noqa: PLC0415

    body = await request.read()
    signature = _judge(receiver, request.headers, body)
    status, answer = (401, b"") if signature == "invalid" else (200, b"")
    if receiver.forward_to is not None and signature != "invalid":
        status, answer = await _forward(receiver.forward_to, session, request, body)
    _show(receiver, _arrival(request, body, signature, status))
    return web.Response(status=status, body=answer)


def _judge(receiver: Receiver, headers: Mapping[str, str], body: bytes) -> str:
    from engine.core.profile import verify  # noqa: PLC0415

    if receiver.secret is None:
        return "unchecked"
    return "valid" if verify(receiver.profile, receiver.secret, dict(headers), body) else "invalid"


async def _forward(url: str, session: ClientSession, request: web.Request, body: bytes) -> tuple[int, bytes]:
    """(status, body) of the answer; 502 if there is none."""
    from aiohttp import ClientError  # noqa: PLC0415

    headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_HEADERS}
    target = url.rstrip("/") + request.raw_path if request.raw_path != "/" else url
    try:
        async with session.request(
            request.method, target, data=body, headers=headers, allow_redirects=False
        ) as answer:
            return answer.status, await answer.read()
    except (ClientError, TimeoutError) as error:
        return 502, f"forwarding failed: {error or type(error).__name__}".encode()


def _arrival(request: web.Request, body: bytes, signature: str, status: int) -> Arrival:
    return Arrival(
        method=request.method,
        path=request.raw_path,
        id=request.headers.get("webhook-id", ""),
        event=event_type(body),
        bytes=len(body),
        signature=signature,
        answered=status,
        body=body.decode("utf-8", "replace"),
    )


def event_type(body: bytes) -> str:
    """What the body calls its event, if it does in one of the usual ways."""
    import json  # noqa: PLC0415

    try:
        found = json.loads(body)
    except ValueError:
        return ""
    named = (found.get("type"), found.get("event")) if isinstance(found, dict) else ()
    return next((name for name in named if isinstance(name, str)), "")


def _show(receiver: Receiver, arrival: Arrival) -> None:
    if receiver.output is Format.json:
        print_json(asdict(arrival))
        return
    print(
        f"{arrival.method} {arrival.path} {arrival.event} {arrival.id} "
        f"{arrival.bytes} bytes, signature {arrival.signature}, answered {arrival.answered}",
        flush=True,
    )
