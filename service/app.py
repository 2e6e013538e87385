"""The composition root: wires the parts, and owns the order in which they start and stop."""

from __future__ import annotations

import ipaddress
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvloop
from granian.constants import Interfaces, Loops
from granian.http import HTTP1Settings
from granian.server import Server
from litestar import Litestar, get
from litestar.response import Redirect

from service import db, lifecycle, log
from service import settings as settings_module
from service.alerts import http as alerts_http
from service.alerts.delivery import Delivery
from service.alerts.rules import database_settings
from service.analytics import http as analytics_http
from service.analytics.reads import Reads
from service.analytics.series import Series
from service.errors import DatabaseUnavailableError, SettingsError
from service.ingest import http as ingest_http
from service.ingest.mqtt import Consumer
from service.ingest.pipeline import Pipeline
from service.maintenance.rollups import Rollups
from service.sessions import http as sessions_http
from service.sessions import messages as session_messages
from service.sessions.store import Sessions
from service.settings import Settings
from service.web import apidocs, health, problems


@get("/", include_in_schema=False)
async def home() -> Redirect:
    """Lead a person to the API page."""
    return Redirect("/api")


def create_app(settings: Settings) -> Litestar:
    """Wire the HTTP application; nothing connects before it starts, and it can start without a database."""
    pool = db.read_pool(settings)
    pipeline = Pipeline(settings, f"http/{settings.http_port}")
    reads = Reads(pool, settings)
    delivery = Delivery(settings, pool)

    @asynccontextmanager
    async def lifespan(_app: Litestar) -> AsyncIterator[None]:
        # On the way out the server has taken its last request: the pipeline drains, then the pool closes.
        await pool.open(wait=False)
        try:
            async with (
                pipeline,
                delivery,
                lifecycle.alongside(Rollups(settings, database_settings(settings)).run()),
            ):
                yield
        finally:
            await pool.close()

    async def check() -> None:
        if not pipeline.available:
            raise DatabaseUnavailableError("the writers cannot reach the database")
        await reads.ping()

    app = Litestar(
        route_handlers=[
            home,
            ingest_http.router(pipeline, settings),
            analytics_http.router(reads, Series(pool, settings)),
            alerts_http.router(pool),
            sessions_http.router(Sessions(pool)),
            health.router(check),
            *apidocs.routes(),
        ],
        lifespan=[lifespan],
        exception_handlers=problems.HANDLERS,
        openapi_config=apidocs.config(),
        request_max_body_size=settings.http_max_body_bytes,
        debug=False,
    )
    # The framework keeps paths in a set: sorted, two processes tell the same document.
    app.openapi_schema.paths = dict(sorted((app.openapi_schema.paths or {}).items()))
    return app


def asgi() -> Litestar:
    """Make the application inside a server process, from the environment."""
    lifecycle.die_with_parent(signal.SIGTERM)
    settings = settings_module.load()
    log.configure(settings.log_level, settings.log_format)
    return create_app(settings)


def serve(settings: Settings) -> None:
    """Run the HTTP service until SIGTERM or SIGINT. Raises SettingsError for an address that is not safe."""
    db.require_url(settings)
    try:
        local = ipaddress.ip_address(settings.http_host).is_loopback
    except ValueError:
        local = settings.http_host == "localhost"
    if not local:
        raise SettingsError(
            f"FLEETWATT_HTTP_HOST={settings.http_host}: without API keys the service listens on loopback "
            "only; put a reverse proxy with authentication in front of it"
        )
    with socket.socket() as probe:
        # The server shares its port with whoever listens on it already: say so instead.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.http_host, settings.http_port))
        except OSError as error:
            raise SettingsError(
                f"cannot listen on {settings.http_host}:{settings.http_port} ({error.strerror}): "
                "set FLEETWATT_HTTP_PORT to another port"
            ) from None
    log.get("http").info("listening", address=f"http://{settings.http_host}:{settings.http_port}")
    Server(
        "service.app:asgi",
        factory=True,
        interface=Interfaces.ASGI,
        address=settings.http_host,
        port=settings.http_port,
        workers=1,
        loop=Loops.uvloop,
        websockets=False,
        log_enabled=settings.log_level == "debug",
        http1_settings=HTTP1Settings(header_read_timeout=10_000),
        workers_kill_timeout=30,
    ).serve()


def work(settings: Settings) -> None:
    """Run the MQTT worker until SIGTERM or SIGINT."""
    uvloop.run(_work(settings))


async def _work(settings: Settings) -> None:
    stop = lifecycle.stop_requested()
    async with (
        db.read_pool(settings) as pool,
        Pipeline(settings, f"mqtt/{settings.mqtt_client_id}") as pipeline,
        Delivery(settings),
    ):
        sessions = session_messages.SessionMessages(settings, pool)
        handlers = {session_messages.TOPIC: sessions.take}
        async with lifecycle.alongside(Rollups(settings, database_settings(settings)).run(), sessions.run()):
            await Consumer(settings, pipeline, handlers).run(stop)
