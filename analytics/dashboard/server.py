"""The dashboard as a server for this machine alone, with counts that go on while a job runs."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import msgspec

from clickstream.errors import ClickstreamError
from connectors.lake import Lake

TABLES: Final = ("enriched", "rejected", "raw")


@dataclass
class Counts:
    """How many rows of each table are committed; each file is looked into once."""

    lake: Lake
    _rows: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self) -> dict[str, int]:
        """Count now. A file that is replaced while it is counted shows in the next count."""
        with self._lock:
            counts = {}
            for table in TABLES:
                files = self.lake.files(table)
                for file in files:
                    if file.path not in self._rows:
                        try:
                            self._rows[file.path] = self.lake.rows(file)
                        except FileNotFoundError:
                            continue
                counts[table] = sum(self._rows.get(file.path, 0) for file in files)
            return counts


class DashboardServer(ThreadingHTTPServer):
    """Answers `/` with the page and `/counts.json` with the counts, to this machine alone.

    A request that names another host than this one is turned away: a page elsewhere could otherwise have its own name
    point here, and read along.
    """

    daemon_threads = True

    def __init__(self, port: int, page: Callable[[], bytes], counts: Callable[[], dict[str, int]]) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.page, self.counts = page, counts

    @property
    def url(self) -> str:
        """Where to look."""
        return f"http://127.0.0.1:{self.server_port}/"

    def handle_error(self, *_: Any) -> None:
        """Leave it: a browser that has gone away is nobody's trouble."""


class _Handler(BaseHTTPRequestHandler):
    server: DashboardServer

    def do_GET(self) -> None:
        port = self.server.server_port
        if self.headers.get("Host") not in (f"127.0.0.1:{port}", f"localhost:{port}"):
            self.send_error(403, "this dashboard is for this machine alone")
            return
        path = self.path.partition("?")[0]
        try:
            if path == "/":
                self._answer("text/html; charset=utf-8", self.server.page())
            elif path == "/counts.json":
                self._answer("application/json", msgspec.json.encode(self.server.counts()))
            else:
                self.send_error(404)
        except ClickstreamError as error:
            self._answer("text/plain; charset=utf-8", f"{error}\n".encode(), 503)

    def log_message(self, *_: Any) -> None:
        """Say nothing: who looks at what is nobody's business."""

    def _answer(self, kind: str, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.end_headers()
        self.wfile.write(body)
