"""The composition root: wires the parts, and owns the order in which they start and stop."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Final

import uvloop
from litestar import Litestar

from service import db, dsn, lifecycle, log, metrics, tracing
from service import settings as settings_module
from service.access import http as access_http
from service.access import openapi as access_openapi
from service.access.guard import Guard
from service.access.require_keys import require_keys
from service.alerts import http as alerts_http
from service.alerts.delivery import Delivery
from service.alerts.rules import database_settings
from service.analytics import http as analytics_http
from service.broker import BrokerAddress
from service.dashboard import http as dashboard_http
from service.dead_letters import http as dead_letters_http
from service.dead_letters.retry import Again, submit_to
from service.dead_letters.store import Letters
from service.errors import DatabaseUnavailableError
from service.ingest import http as ingest_http
from service.ingest.mqtt import Consumer
from service.ingest.pipeline import Pipeline
from service.maintenance.dead_letters import DeadLetterBounds
from service.maintenance.retention import Expiry
from service.maintenance.rollups import Rollups
from service.pulse import Pulse
from service.questions import Questions
from service.sessions import http as sessions_http
from service.sessions import messages as session_messages
from service.sessions.store import Sessions
from service.settings import Settings
from service.stream import http as stream_http
from service.stream.announce import Announcer
from service.stream.hub import Hub
from service.web import apidocs, apipage, health, hosts, problems, server
from service.web.edge import Edge
from service.web.express import Express
from service.web.problems import unavailable

_OTHER_CONNECTIONS: Final = 4


def create_app(settings: Settings, *, served: bool = False) -> Litestar:
    """Wire the HTTP application; nothing connects before it starts, and it can start without a database.

    `served` says that it runs in a process of the HTTP server.
    """
    # Wide questions to analytics, however many, must not keep anything else waiting.
    questions = Questions(settings)
    pool = db.read_pool(settings, "serve", _OTHER_CONNECTIONS)
    name = f"http/{settings.http_port}"
    traces = tracing.start(settings, name)
    announcer = Announcer(settings)
    pipeline = Pipeline(settings, name, traces, announcer.note)
    hub = Hub(settings)
    delivery = Delivery(settings, pool)
    guard = Guard(settings, pool)
    again = Again(settings, pool, submit_to(pipeline, settings))
    pulse = Pulse(settings)
    intake = ingest_http.Intake(pipeline, settings)
    jobs: list[Callable[[], Coroutine[Any, Any, None]]] = [
        Rollups(settings, database_settings(settings)).run,
        DeadLetterBounds(settings).run,
        Expiry(settings).run,
    ]
    if served:
        jobs.append(partial(server.cut_stalled, settings))

    @asynccontextmanager
    async def lifespan(_app: Litestar) -> AsyncIterator[None]:
        # On the way out the server has taken its last request: the pipeline drains, then the pools close.
        await pool.open(wait=False)
        if served:
            # The server waits for all that is being answered: streams would have it wait for good.
            lifecycle.call_when_stopping(hub.close)
        try:
            async with (
                questions,
                announcer,
                pipeline,
                hub,
                delivery,
                guard.running(),
                lifecycle.alongside(*(job() for job in jobs)),
            ):
                yield
        finally:
            await pulse.close()
            await pool.close()
            if traces is not None:
                await traces.close()

    async def check() -> dict[str, str]:
        breaker = pipeline.breaker
        if not pipeline.available:
            raise unavailable("the writers cannot reach the database", breaker=breaker.state.word)
        try:
            await pulse.feel()
        except DatabaseUnavailableError as error:
            # It does not open the breaker, which only a writer's try could close again: perhaps none comes.
            raise unavailable(f"{error}", breaker=breaker.state.word) from error
        replica = questions.replica_state
        return {"breaker": breaker.state.word} | ({"replica": replica} if replica else {})

    app = Litestar(
        route_handlers=[
            dashboard_http.router(),
            ingest_http.router(intake),
            analytics_http.router(questions, settings),
            alerts_http.router(pool),
            stream_http.router(hub, guard.still_admits),
            sessions_http.router(Sessions(pool)),
            dead_letters_http.router(Letters(pool), again.take),
            access_http.router(guard),
            health.router(check),
            *apipage.routes(),
        ],
        guards=[guard],
        lifespan=[lifespan],
        exception_handlers=problems.HANDLERS,
        openapi_config=apipage.config(),
        request_max_body_size=settings.http_max_body_bytes,
        cors_config=hosts.cors(settings),
        # The framework's own would take the place of ours, and write text.
        logging_config=None,
        debug=False,
    )
    # The framework keeps paths in a set: sorted, two processes tell the same document.
    app.openapi_schema.paths = dict(sorted((app.openapi_schema.paths or {}).items()))
    access_openapi.tell_where_sign_ins_count(app)
    apidocs.tell_common_statuses(app.openapi_schema)
    express = Express(guard.admit, ingest_http.express_routes(intake))
    edge = Edge(app.asgi_handler, settings, express)
    app.asgi_handler = edge if traces is None else traces.around(edge)
    return app


def asgi() -> Litestar:
    """Make the application inside a server process, from the environment."""
    lifecycle.die_with_parent(signal.SIGTERM)
    settings = settings_module.load()
    log.configure(settings.log_level, settings.log_format, service=True)
    app = create_app(settings, served=True)
    lifecycle.collect_seldom()
    return app


def serve(settings: Settings) -> None:
    """Run the HTTP service until SIGTERM or SIGINT. Raises SettingsError for an address that is not safe."""
    dsn.warn_unprotected(db.require_url(settings))
    if settings.read_database_url:
        dsn.warn_unprotected(settings.read_database_url, "FLEETWATT_READ_DATABASE_URL")
    require_keys(settings)
    if settings.mqtt_url:
        # Alerts go there: what is wrong with the settings is told before anything starts.
        BrokerAddress.of(settings)
    tracing.check(settings)
    server.run("service.app:asgi", settings)


def work(settings: Settings, *, leave: bool = False) -> None:
    """Run the MQTT worker until SIGTERM or SIGINT, or have it `leave`: empty and end its session there."""
    dsn.warn_unprotected(db.require_url(settings))
    uvloop.run(_work(settings, leave=leave))


async def _work(settings: Settings, *, leave: bool) -> None:
    stop = lifecycle.stop_requested()
    lifecycle.collect_seldom()
    if settings.worker_metrics_port:
        metrics.serve(settings.worker_metrics_host, settings.worker_metrics_port)
    name = f"mqtt/{settings.mqtt_client_id}"
    traces = tracing.start(settings, name)
    async with (
        AsyncExitStack() as stack,
        # By its name doctor sees that a worker is there.
        db.read_pool(settings, f"worker {settings.mqtt_client_id}") as pool,
        Announcer(settings) as announcer,
        Pipeline(settings, name, traces, announcer.note) as pipeline,
        Delivery(settings),
    ):
        if traces is not None:
            stack.push_async_callback(traces.close)
        sessions = session_messages.SessionMessages(settings, pool)
        handlers = {session_messages.TOPIC: sessions.take}
        rollups = Rollups(settings, database_settings(settings))
        jobs = (rollups.run(), DeadLetterBounds(settings).run(), Expiry(settings).run(), sessions.run())
        async with lifecycle.alongside(*jobs):
            consumer = Consumer(settings, pipeline, handlers, traces)
            await (consumer.leave(stop) if leave else consumer.run(stop))
