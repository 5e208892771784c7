"""/metrics, /healthz and /readyz of a group's process."""

from __future__ import annotations

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

Answer = tuple[int, str, bytes]
_TEXT = "text/plain; charset=utf-8"


def answer(path: str, is_ready: Callable[[], bool]) -> Answer:
    """Return (status, content type, body) for a path."""
    if path == "/metrics":
        return 200, CONTENT_TYPE_LATEST, generate_latest()
    if path == "/healthz":
        return 200, _TEXT, b"alive\n"
    if path == "/readyz":
        return (200, _TEXT, b"ready\n") if is_ready() else (503, _TEXT, b"not ready yet\n")
    return 404, _TEXT, b"there are /metrics, /healthz and /readyz\n"


def serve_probes(host: str, port: int, is_ready: Callable[[], bool]) -> ThreadingHTTPServer:
    """Answer probes on a thread of their own; port 0 takes any free one."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, kind, body = answer(self.path.partition("?")[0], is_ready)
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
