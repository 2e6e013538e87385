"""Spans of requests, messages and commits, exported by OpenTelemetry (OTLP over HTTP, protobuf).

One commit serves many requests and messages, so it is nobody's child: its span is linked to those of all that
it stores, and each of theirs to it. What is not sampled costs no span at all.

A thread of the library's exports; its queue is bounded, and what comes while it is full takes the place of
the oldest. So nothing waits for a collector.
"""

from __future__ import annotations

import asyncio
import logging
import random
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import structlog
from gmqtt.mqtt.property import Property
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Link, Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service import __version__, log, metrics
from service.tallies import OTHER, ROUTE, known_method
from service.tracing import CURRENT

# Of a commit's span; each span of theirs names its commit in any case.
_LINKS_MAX: Final = 128
_VALUE_MAX: Final = 256
_EXPORT_TIMEOUT_S: Final = 5.0
_FAREWELL_S: Final = 2.0
_CONTEXT: Final = TraceContextTextMapPropagator()
_FIELDS: Final = {name.encode(): name for name in _CONTEXT.fields}
_ENDED, _EXPORTED, _FAILED = (
    metrics.TRACE_SPANS.labels(result) for result in ("ended", "exported", "failed")
)

Take = Callable[[str, bytes], asyncio.Future[Any] | None]


class Traces:
    """Makes spans and exports them to a collector's address.

    `ratio` is the share of requests and messages to trace of those that bring no context of their own (W3C
    `traceparent`); what brings one is traced if its sampled flag says so.
    """

    def __init__(self, url: str, ratio: float, instance: str) -> None:
        # It tells of each try, with the address, which may hold a password.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        resource = Resource.create(
            {"service.name": "fleetwatt", "service.version": __version__, "service.instance.id": instance}
        )
        self._ratio = ratio
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,
            # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES have the last word.
            resource=resource.merge(OTELResourceDetector().detect()),
            span_limits=SpanLimits(max_links=_LINKS_MAX, max_attribute_length=_VALUE_MAX),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(_Processor(_Exporter(url)))
        self._tracer = self._provider.get_tracer("fleetwatt", __version__)

    def around(self, app: ASGIApp) -> ASGIApp:
        """Give an application that traces each request, from its headers to the end of its answer."""

        async def traced(scope: Scope, receive: Receive, send: Send) -> None:
            request: Any = scope
            span = self._begin_request(request) if request["type"] == "http" else None
            if span is None:
                await app(scope, receive, send)
                return
            method = known_method(request["method"])
            status = 0

            async def note_status(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            try:
                with _current(span):
                    await app(scope, receive, note_status)
            finally:
                route = request.get(ROUTE, OTHER)
                span.update_name(f"{method} {route}")
                values = {"http.request.method": method, "http.route": route}
                span.set_attributes({**values, "http.response.status_code": status})
                if status >= 500 or not status:
                    span.set_status(StatusCode.ERROR)
                span.end()

        return traced

    def _begin_request(self, request: Any) -> Span | None:
        carrier: dict[str, list[str]] = {}
        for name, value in request["headers"]:
            if name in _FIELDS:
                carrier.setdefault(_FIELDS[name], []).append(value.decode("latin-1"))
        return self._begin("request", SpanKind.SERVER, carrier, {})

    def message(
        self, topic: str, properties: bytes, payload: bytes, take: Take
    ) -> asyncio.Future[Any] | None:
        """Trace a message from here to its commit; `take` handles it, and gives what that is told by."""
        carrier = _user_properties(properties) if b"traceparent" in properties else {}
        values = {
            "messaging.system": "mqtt",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": topic,
            "messaging.message.body.size": len(payload),
        }
        span = self._begin(f"process {topic.partition('/')[0]}", SpanKind.CONSUMER, carrier, values)
        if span is None:
            return take(topic, payload)
        with _current(span):
            future = take(topic, payload)
        if future is None:
            span.end()
        else:
            future.add_done_callback(lambda done: _end_message(span, done))
        return future

    @contextmanager
    def commit(self, spans: Sequence[Span | None], readings: int) -> Iterator[None]:
        """Trace a commit, if any of what it stores is traced; `spans` are those of the payloads."""
        served = [each for each in spans if each is not None]
        if not served:
            yield
            return
        span = self._tracer.start_span(
            "commit",
            Context(),
            SpanKind.CLIENT,
            {
                "db.system.name": "postgresql",
                "fleetwatt.readings": readings,
                "fleetwatt.payloads": len(spans),
            },
            [Link(each.get_span_context()) for each in served[:_LINKS_MAX]],
        )
        for each in served:
            # Whoever waited too long has gone.
            if each.is_recording():
                each.add_link(span.get_span_context())
        try:
            with _current(span):
                yield
        except Exception as error:
            span.set_status(StatusCode.ERROR)
            span.set_attribute("error.type", type(error).__name__)
            raise
        finally:
            span.end()

    async def close(self) -> None:
        """Export what waits, for a moment at most: a collector that is away must not hold up the end."""
        farewell = threading.Thread(target=self._provider.shutdown, daemon=True)
        farewell.start()
        await asyncio.to_thread(farewell.join, _FAREWELL_S)

    def _begin(
        self, name: str, kind: SpanKind, carrier: Mapping[str, list[str]], values: dict[str, Any]
    ) -> Span | None:
        context = _CONTEXT.extract(carrier, Context()) if carrier else Context()
        parent = trace.get_current_span(context).get_span_context()
        wanted = parent.trace_flags.sampled if parent.is_valid else random.random() < self._ratio
        return self._tracer.start_span(name, context, kind, values) if wanted else None


class _Processor(BatchSpanProcessor):
    """The library's, and a count: what ended and was neither exported nor failed waits, or was dropped."""

    def on_end(self, span: ReadableSpan) -> None:
        _ENDED.inc()
        super().on_end(span)


class _Exporter(OTLPSpanExporter):
    """The library's, and a count; it says once that the collector is away, and once that it is back."""

    def __init__(self, url: str) -> None:
        super().__init__(url, timeout=_EXPORT_TIMEOUT_S)
        self._log = log.get("traces").bind(host=urlsplit(url).hostname)
        self._well = True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = super().export(spans)
        well = result is SpanExportResult.SUCCESS
        (_EXPORTED if well else _FAILED).inc(len(spans))
        if well is not self._well:
            self._well = well
            if well:
                self._log.info("traces_exported_again")
            else:
                self._log.warning("traces_not_exported", spans=len(spans))
        return result


@contextmanager
def _current(span: Span) -> Iterator[None]:
    """Make a span that of all that is done in the body, log lines included."""
    token = CURRENT.set(span)
    named = structlog.contextvars.bind_contextvars(trace_id=f"{span.get_span_context().trace_id:032x}")
    try:
        yield
    finally:
        structlog.contextvars.reset_contextvars(**named)
        CURRENT.reset(token)


def _end_message(span: Span, done: asyncio.Future[Any]) -> None:
    if done.cancelled() or done.exception() is not None:
        span.set_status(StatusCode.ERROR)
    span.end()


def _user_properties(raw: bytes) -> dict[str, list[str]]:
    """Read the user properties of a PUBLISH (MQTT 5, 3.3.2.3); none where they cannot be read."""
    found: dict[str, list[str]] = {}
    try:
        while raw:
            described = Property.factory(id_=raw[0])
            values, raw = described.loads(raw[1:])
            if pair := values.get("user_property"):
                found.setdefault(pair[0], []).append(pair[1])
    except (AttributeError, struct.error, UnicodeDecodeError, IndexError, TypeError, ValueError):
        return {}
    return found
