"""Probes and metrics: is the process alive, can it take readings, what has it counted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final

from litestar import MediaType, Response, Router, get
from litestar.di import NamedDependency, Provide
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIResponse
from litestar.params import SkipValidation
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from service import __version__
from service.replica import STATES
from service.web.answers import answer, rfc3339
from service.web.apidocs import STRING, TIME, an_object, json_answer, lacking, one_of, operation, problem
from service.web.principal import KEY_SECURITY, PUBLIC, READ, needs

# Gives what to say beside "ok"; raises Problem when the process cannot do its work right now.
Check = Callable[[], Awaitable[dict[str, str]]]
# We made it: nothing to validate on each request.
InjectedCheck = NamedDependency[SkipValidation[Check]]

_ALWAYS: Final = {"status": STRING, "timestamp": TIME, "service": STRING, "version": STRING}
_ALIVE = operation({"200": json_answer(an_object(**_ALWAYS), "Alive")})
_READY = operation(
    {
        "200": json_answer(
            lacking(an_object(**_ALWAYS, breaker=STRING, replica=one_of(*STATES)), "replica"),
            "Ready; `replica` where one answers analytics: unless it is ok the primary does",
        ),
        "503": problem("The database does not answer, or `breaker` is not closed: told within 2 s"),
    }
)

_METRICS = operation(
    {
        "200": OpenAPIResponse(
            description="Counters in the text format of Prometheus",
            content={
                "text/plain": OpenAPIMediaType(
                    schema=STRING,
                    example="# TYPE fleetwatt_buffer_readings gauge\nfleetwatt_buffer_readings 0.0\n",
                )
            },
        )
    }
)


def _body() -> dict[str, Any]:
    return {
        "status": "ok",
        "timestamp": rfc3339(datetime.now(UTC)),
        "service": "fleetwatt",
        "version": __version__,
    }


@get("/health", operation_class=_ALIVE, summary="Alive, and which version")
async def health() -> Response[bytes]:
    """Tell that the process answers."""
    return answer(_body())


@get("/health/live", operation_class=_ALIVE, summary="Liveness probe")
async def live() -> Response[bytes]:
    """Tell that the process answers; a failure means: restart it."""
    return answer(_body())


@get("/health/ready", operation_class=_READY, summary="Readiness probe")
async def ready(check: InjectedCheck) -> Response[bytes]:
    """Tell that the database answers and readings can be stored; 503 means: send traffic elsewhere."""
    return answer(_body() | await check())


@get(
    "/metrics",
    operation_class=_METRICS,
    summary="Metrics for Prometheus",
    media_type=MediaType.TEXT,
    # Of most use while the database is away.
    opt=needs(READ, database=False),
    security=KEY_SECURITY,
)
async def metrics() -> Response[bytes]:
    """Give the process's counters."""
    return Response(content=generate_latest(), media_type=CONTENT_TYPE_LATEST)


def router(check: Check) -> Router:
    """Give the probes, bound to a check."""
    return Router(
        path="/",
        route_handlers=[health, live, ready, metrics],
        dependencies={"check": Provide(lambda: check, sync_to_thread=False)},
        tags=["Health"],
        opt=needs(PUBLIC),
    )
