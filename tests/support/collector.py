"""A collector of traces: an HTTP server that takes OTLP in protobuf and keeps the spans."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

_PATIENCE_S = 20


class Taken(NamedTuple):
    """A span, its ids as in a traceparent; links are span ids."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    links: list[str]
    failed: bool
    values: dict[str, Any]
    events: list[str]


class Collector:
    """Takes spans on loopback. While `open` is not set an export gets no answer."""

    def __init__(self) -> None:
        self.spans: list[Taken] = []
        self.resources: list[dict[str, Any]] = []
        self.paths: set[str] = set()
        self.open = threading.Event()
        self.open.set()
        # Exports that came, answered or not.
        self.asked = 0
        self.port = 0

    @property
    def url(self) -> str:
        """Give the address to export to, without a path."""
        return f"http://127.0.0.1:{self.port}"

    def wait(self, well: Callable[[list[Taken]], bool]) -> list[Taken]:
        """Wait until the spans are as wanted; give those that are there when patience ends."""
        deadline = time.monotonic() + _PATIENCE_S
        while not well(list(self.spans)) and time.monotonic() < deadline:
            time.sleep(0.02)
        return list(self.spans)

    def take(self, path: str, body: bytes) -> None:
        """Keep what an export brought."""
        self.paths.add(path)
        for part in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resources.append(_values(part.resource.attributes))
            for scope in part.scope_spans:
                self.spans += [_taken(span) for span in scope.spans]


def _taken(span: Any) -> Taken:
    return Taken(
        span.name,
        span.kind,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        [link.span_id.hex() for link in span.links],
        span.status.code == span.status.STATUS_CODE_ERROR,
        _values(span.attributes),
        [event.name for event in span.events],
    )


def _values(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


@contextlib.contextmanager
def collecting() -> Iterator[Collector]:
    """Run a collector."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collector.asked += 1
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.open.wait(_PATIENCE_S)
            collector.take(self.path, body)
            answer = ExportTraceServiceResponse().SerializeToString()
            with contextlib.suppress(OSError):
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Write nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        collector.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield collector
        finally:
            collector.open.set()
            server.shutdown()
            thread.join()
