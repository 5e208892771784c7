"""/metrics, /healthz and /readyz of a group's process."""

from __future__ import annotations

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from engine.runtime.vitals import State

Answer = tuple[int, str, bytes]
PATIENCE_S = 5.0
"""How long whoever asks may take between two bytes: one that says nothing must not keep a thread."""
_TEXT = "text/plain; charset=utf-8"


def answer(path: str, look: Callable[[], State]) -> Answer:
    """Return (status, content type, body) for a path."""
    match path:
        case "/metrics":
            look()
            return 200, CONTENT_TYPE_LATEST, generate_latest()
        case "/healthz":
            return _said(look().stuck, "alive")
        case "/readyz":
            return _said(look().trouble, "ready")
    return 404, _TEXT, b"there are /metrics, /healthz and /readyz\n"


def _said(wrong: str, good: str) -> Answer:
    """503 with what is wrong, else 200."""
    return 503 if wrong else 200, _TEXT, f"{wrong or good}\n".encode()


def serve_probes(
    host: str, port: int, look: Callable[[], State], *, patience_s: float = PATIENCE_S
) -> ThreadingHTTPServer:
    """Answer probes on a thread of their own; port 0 takes any free one. `look` also sets the gauges."""

    class Handler(BaseHTTPRequestHandler):
        timeout = patience_s

        def do_GET(self) -> None:
            status, kind, body = answer(self.path.partition("?")[0], look)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Probes are not worth a log line."""

    server = ThreadingHTTPServer((host, port), Handler)
    server.daemon_threads = True
    Thread(target=server.serve_forever, name="probes", daemon=True).start()
    return server
