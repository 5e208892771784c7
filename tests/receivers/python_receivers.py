"""Receivers in Python as the platforms' documentation writes them, on Flask and FastAPI."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from flask import Flask, abort, request
from standardwebhooks import Webhook, WebhookVerificationError
from werkzeug.serving import make_server

from engine.dev.process import wait_until


def _verified(secret: str, signature: str | None, body: bytes) -> bool:
    expected = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(signature or "", expected)


def _handled(body: bytes) -> dict[str, object]:
    """What the published handlers read: KeyError, and so 500, where a field is missing."""
    event = json.loads(body)
    data = event["data"]
    match event["event"]:
        case "complete":
            return {"bot": data["bot_id"], "words": len(data["transcript"]), "mp4": data["mp4"]}
        case "failed":
            return {"bot": data["bot_id"], "error": data["error"], "message": data["message"]}
        case "transcription_complete":
            return {"bot": data["bot_id"]}
    return {"event": event["event"]}


def meetingbaas_flask(secrets: Sequence[str]) -> Flask:
    """Meeting BaaS's Flask receiver; the path's number says which secret it has."""
    app = Flask("receiver")

    @app.post("/<int:number>")
    def webhook(number: int) -> dict[str, object]:
        body = request.get_data()
        if not _verified(secrets[number], request.headers.get("X-MeetingBaas-Signature"), body):
            abort(401)
        return _handled(body)

    return app


def meetingbaas_fastapi(secrets: Sequence[str]) -> FastAPI:
    """Meeting BaaS's FastAPI receiver."""
    app = FastAPI()

    @app.post("/{number}")
    async def webhook(number: int, request: Request) -> dict[str, object]:
        body = await request.body()
        if not _verified(secrets[number], request.headers.get("x-meetingbaas-signature"), body):
            raise HTTPException(401, "Invalid signature")
        return _handled(body)

    return app


def standard_fastapi(secrets: Sequence[str]) -> FastAPI:
    """Standard Webhooks: the official library."""
    app = FastAPI()

    @app.post("/{number}")
    async def webhook(number: int, request: Request) -> dict[str, object]:
        try:
            verified = Webhook(secrets[number]).verify(await request.body(), dict(request.headers))
        except WebhookVerificationError as error:
            raise HTTPException(401, str(error)) from None
        return {"type": verified["type"]}

    return app


@contextmanager
def serving_flask(app: Flask) -> Iterator[int]:
    """Serve on a free port, until the end of the block."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def serving_fastapi(app: FastAPI) -> Iterator[int]:
    """The same on uvicorn."""
    server = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", 0, log_level="critical"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert wait_until(lambda: server.started, 60)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
