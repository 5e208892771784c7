"""The people's side: endpoints made and changed over the API, while everything else breaks."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

import httpx

from engine.dev.chaos.books import Request
from engine.dev.chaos.cast import RETRY_POLICY, SUBSCRIBERS, TENANT, TIMEOUT_MS, Mode, Subscriber
from engine.dev.process import spawn, stop, tail, wait_until

_START_S = 60
_STOP_S = 5
_TIMEOUT_S = 30
_CREATE_S = 90
_AGAIN_S = 0.3
_CHANGE_EVERY_S = 0.4


class CustomerError(RuntimeError):
    """The API does not do what it is asked, for too long; the message has its words."""


@dataclass(frozen=True, slots=True)
class Customers:
    """The API with its key, and the receivers' process."""

    api: str
    key: str
    receivers: str
    dead: str
    http: httpx.Client

    def url(self, subscriber: Subscriber) -> str:
        """Where a subscriber's receiver listens."""
        return f"{self.dead if subscriber.name == 'dead' else self.receivers}/{subscriber.name}"

    def ask(self, method: str, path: str, body: object, key: str = "") -> httpx.Response:
        """One request to the API; httpx.TransportError while it is not there."""
        headers = {"Authorization": f"Bearer {self.key}"} | ({"Idempotency-Key": key} if key else {})
        return self.http.request(method, self.api + path, json=body, headers=headers)

    def create(self, subscriber: Subscriber) -> str:
        """Create an endpoint, trying again as a client would; the id. CustomerError after a while."""
        settings = {
            "tenant": TENANT,
            "url": self.url(subscriber),
            "event_types": subscriber.event_types,
            "profile": "standard",
            "secret": f"whsec_{_secret(subscriber)}",
            "retry_policy": list(RETRY_POLICY),
            "timeout_ms": TIMEOUT_MS,
        }
        self.http.put(f"{self.receivers}/secrets/{subscriber.name}", content=str(settings["secret"]))
        end, told = time.monotonic() + _CREATE_S, "no answer"
        while time.monotonic() < end:
            try:
                answer = self.ask("POST", "/v1/endpoints", settings, f"chaos-{subscriber.name}")
            except httpx.TransportError as error:
                told = str(error)
            else:
                if answer.status_code == 201:
                    return str(answer.json()["id"])
                told = answer.text
            time.sleep(_AGAIN_S)
        raise CustomerError(f"POST /v1/endpoints: {told}")

    def set_mode(self, name: str, mode: Mode) -> None:
        """Tell a receiver how to behave from now on."""
        self.http.put(f"{self.receivers}/modes/{name}", content=mode).raise_for_status()

    def count(self) -> int:
        """Requests that all receivers have had."""
        return int(self.http.get(f"{self.receivers}/count").text)

    def books(self) -> dict[str, list[Request]]:
        """What each receiver has written down."""
        shown = self.http.get(f"{self.receivers}/books").raise_for_status().json()
        return {name: [Request(*line) for line in lines] for name, lines in shown.items()}


def _secret(subscriber: Subscriber) -> str:
    """24 bytes in base64 that tell the receivers apart."""
    return subscriber.name.ljust(32, "A")


@dataclass(slots=True)
class Changes:
    """What was asked of the `changing` endpoint: the last change that was confirmed, and all tried."""

    confirmed: int = 0
    tried: int = 0
    times: list[int] = field(default_factory=list)
    """When each was confirmed, Unix nanoseconds."""


@contextmanager
def changing(customers: Customers, endpoint: str) -> Iterator[Changes]:
    """Change an endpoint's description and URL again and again, on a thread, until the block ends."""
    over, changes = Event(), Changes()

    def change() -> None:
        while not over.wait(_CHANGE_EVERY_S):
            changes.tried += 1
            number = changes.tried
            url = f"{customers.receivers}/changing/{number % 2}"
            try:
                answer = customers.ask(
                    "PATCH", f"/v1/endpoints/{endpoint}", {"description": str(number), "url": url}
                )
            except httpx.TransportError:
                continue
            if answer.status_code == 200:
                changes.confirmed = number
                changes.times.append(time.time_ns())

    thread = Thread(target=change, name="changing")
    thread.start()
    try:
        yield changes
    finally:
        over.set()
        thread.join()


def lost_change(customers: Customers, endpoint: str, changes: Changes) -> str:
    """What is wrong with the endpoint that was changed; empty if the last confirmed change holds."""
    answer = customers.ask("GET", f"/v1/endpoints/{endpoint}", None)
    shown = answer.json().get("description") or "0"
    if changes.confirmed <= int(shown) <= changes.tried:
        return ""
    return (
        f"change {changes.confirmed} of {changes.tried} was confirmed, and the endpoint is as after {shown}"
    )


@contextmanager
def customers(api: str, key: str, folder: Path) -> Iterator[Customers]:
    """Start the receivers, in a process of their own, and a client for the API."""
    log = folder / "receivers.log"
    process = spawn([sys.executable, "-m", "engine.dev.chaos.receivers"], log)
    try:
        if not wait_until(lambda: log.read_bytes().endswith(b"\n") or _ended(process), _START_S):
            raise CustomerError("the receivers do not start")
        if _ended(process):
            raise CustomerError(f"the receivers do not start:\n{tail(log)}")
        ports = json.loads(log.read_text().splitlines()[0])
        with httpx.Client(timeout=_TIMEOUT_S, trust_env=False) as http:
            host = "http://127.0.0.1"
            yield Customers(api, key, f"{host}:{ports['port']}", f"{host}:{ports['dead']}", http)
    finally:
        stop(process, _STOP_S)


def _ended(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is not None


EARLY = tuple(one for one in SUBSCRIBERS if not one.is_late)
