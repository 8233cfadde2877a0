"""The ops port: is it alive, is it ready, what runs, and the metrics. Plain HTTP on loopback, in threads of its own.

It shares nothing with the node but a board of facts, so it answers also when the node's loop is stuck, and then says
so: a node whose last sign of life is too old is not alive.
"""

import json
import socket
import socketserver
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic
from types import TracebackType
from typing import Any, cast

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from p2pledger.node.config import Address
from p2pledger.primitives.errors import ConfigError

STALE_S = 30.0
"""Without a sign of life for so long the node is stuck; heartbeats come every few seconds."""
REQUEST_S_MAX = 5.0
THREADS_MAX = 8


@dataclass(frozen=True, slots=True)
class Facts:
    """What the node says about itself at one moment. Each check is a name and whether it holds."""

    checks: Mapping[str, bool] = field(default_factory=dict)
    version: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def is_ready(self) -> bool:
        """All checks hold, and there are some."""
        return bool(self.checks) and all(self.checks.values())


class Board:
    """The latest facts: written by the node, read by the ops port. Facts are immutable, so a swap is enough."""

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._facts = Facts()
        self._posted = now()

    def post(self, facts: Facts) -> None:
        """Replace the facts; also the sign of life."""
        with self._lock:
            self._facts, self._posted = facts, self._now()

    def read(self) -> tuple[Facts, float]:
        """The facts and their age in seconds."""
        with self._lock:
            return self._facts, self._now() - self._posted


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


def answer(target: str, board: Board, registry: CollectorRegistry) -> Answer:
    """What a GET of `target` gets."""
    path, _, query = target.partition("?")
    facts, age_s = board.read()
    is_alive = age_s < STALE_S
    match path:
        case "/livez":
            return _line(200, "ok") if is_alive else _line(503, f"stuck: no sign of life for {age_s:.0f} s")
        case "/readyz":
            checks = {"alive": is_alive, **facts.checks}
            ok = is_alive and facts.is_ready
            if "verbose" not in query.split("&"):
                return _line(200 if ok else 503, "ok" if ok else "not ready")
            lines = [f"[{'+' if holds else '-'}] {name}" for name, holds in checks.items()]
            return _line(200 if ok else 503, "\n".join([*lines, "ready" if ok else "not ready"]))
        case "/version":
            return Answer(200, json.dumps(dict(facts.version)).encode() + b"\n", "application/json")
        case "/metrics":
            return Answer(200, generate_latest(registry), CONTENT_TYPE_LATEST)
        case _:
            return _line(404, "not found; there are /livez, /readyz?verbose, /version and /metrics")


def _line(status: int, text: str) -> Answer:
    return Answer(status, text.encode() + b"\n")


class OpsServer:
    """Listens while it is entered as a context; `port` is the bound one. Raises ConfigError if it cannot listen."""

    def __init__(self, address: Address, board: Board, registry: CollectorRegistry) -> None:
        if not address.is_loopback:
            raise ConfigError(f"ops address {address} is not a loopback address")
        try:
            self._server = _Server(address, board, registry)
        except OSError as error:
            raise ConfigError(f"ops port {address} cannot be opened: {error.strerror}") from error
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="ops", daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def __enter__(self) -> "OpsServer":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 16

    def __init__(self, address: Address, board: Board, registry: CollectorRegistry) -> None:
        if ":" in address.host:
            self.address_family = socket.AF_INET6
        super().__init__((address.host, address.port), _Handler)
        self.board = board
        self.registry = registry
        self._places = threading.BoundedSemaphore(THREADS_MAX)

    def server_bind(self) -> None:
        # HTTPServer would look its own name up here, which can hang without DNS.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)  # full: whoever asks so often can ask again
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A visitor that hangs up is no event."""


class _Handler(BaseHTTPRequestHandler):
    timeout = REQUEST_S_MAX
    server_version = "p2pledger"
    sys_version = ""

    def do_GET(self) -> None:
        self._reply(with_body=True)

    def do_HEAD(self) -> None:
        self._reply(with_body=False)

    def _reply(self, *, with_body: bool) -> None:
        server = cast(_Server, self.server)
        reply = answer(self.path, server.board, server.registry)
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(reply.body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        if with_body:
            self.wfile.write(reply.body)

    def log_message(self, format: str, *args: Any) -> None:
        """The node's log is for the node."""
