"""The read routes: latest states, energy summaries, figures about the engine."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Final

from litestar import Request, Response, Router, get
from litestar.di import NamedDependency, Provide
from litestar.params import FromQuery, PathParameter, QueryParameter, SkipValidation

from service.analytics import openapi
from service.analytics.reads import Reads
from service.analytics.series import Device, Series, Span, Width
from service.questions import Questions, Source
from service.settings import Settings
from service.web import parameters
from service.web.answers import answer
from service.web.principal import KEY_SECURITY, READ, needs
from service.web.problems import Problem

# We made it: nothing to validate on each request.
InjectedReads = NamedDependency[SkipValidation[Reads]]
InjectedSeries = NamedDependency[SkipValidation[Series]]
AnyRequest = Request[Any, Any, Any]
_LIMIT_MAX = 10_000
# More than a year of hours.
_INTERVALS_MAX = 9_000
_LENGTH: Final[dict[Width, timedelta]] = {"hour": timedelta(hours=1), "day": timedelta(days=1)}
_WIDTHS: Final[dict[str, Width]] = {"hour": "hour", "day": "day"}
_PARTS: Final[dict[str, Device | Width]] = {"vehicle": "vehicle", "meter": "meter", **_WIDTHS}


def _wants_fresh(request: AnyRequest) -> bool:
    """Tell whether a client takes no answer but one of now (RFC 9111, 5.2.1.4)."""
    return "no-cache" in request.headers.get("cache-control", "").lower()


def _found(body: dict[str, Any] | None, what: str, device_id: str) -> Response[bytes]:
    if body is None:
        raise Problem(404, "unknown_device", f"no {what} {device_id!r} has ever reported")
    return answer(body)


@get(
    "/v1/ingest/meter/{meterId:str}/current",
    operation_class=openapi.METER_CURRENT,
    summary="Latest state of a meter",
)
async def meter_current(
    fresh_reads: InjectedReads, meter_id: Annotated[str, PathParameter(name="meterId")]
) -> Response[bytes]:
    """Give the newest reading of one meter."""
    device_id = parameters.device("meterId", meter_id)
    return _found(await fresh_reads.meter_current(device_id), "meter", device_id)


@get(
    "/v1/ingest/vehicle/{vehicleId:str}/current",
    operation_class=openapi.VEHICLE_CURRENT,
    summary="Latest state of a vehicle",
)
async def vehicle_current(
    fresh_reads: InjectedReads, vehicle_id: Annotated[str, PathParameter(name="vehicleId")]
) -> Response[bytes]:
    """Give the newest reading of one vehicle."""
    device_id = parameters.device("vehicleId", vehicle_id)
    return _found(await fresh_reads.vehicle_current(device_id), "vehicle", device_id)


@get(
    "/v1/analytics/meters/states",
    operation_class=openapi.METER_STATES,
    summary="Latest state of all meters, page by page",
)
async def meter_states(
    reads: InjectedReads,
    limit: FromQuery[str | None] = None,
    after: FromQuery[str | None] = None,
    since: FromQuery[str | None] = None,
    before: FromQuery[str | None] = None,
) -> Response[bytes]:
    """Give meters in id order; filter by the time of the newest reading (since <= time < before)."""
    return answer(
        await reads.meter_states(
            {
                **parameters.page(limit, after, _LIMIT_MAX),
                "since": parameters.timestamp("since", since),
                "before": parameters.timestamp("before", before),
            }
        )
    )


@get(
    "/v1/analytics/vehicles/states",
    operation_class=openapi.VEHICLE_STATES,
    summary="Latest state of all vehicles, page by page",
)
async def vehicle_states(
    reads: InjectedReads,
    limit: FromQuery[str | None] = None,
    after: FromQuery[str | None] = None,
    since: FromQuery[str | None] = None,
    before: FromQuery[str | None] = None,
    soc_below: Annotated[str | None, QueryParameter(name="socBelow")] = None,
) -> Response[bytes]:
    """Give vehicles in id order; filter by the time of the newest reading and by state of charge."""
    return answer(
        await reads.vehicle_states(
            {
                **parameters.page(limit, after, _LIMIT_MAX),
                "since": parameters.timestamp("since", since),
                "before": parameters.timestamp("before", before),
                "soc_below": parameters.number("socBelow", soc_below, 0, 100),
            }
        )
    )


@get(
    "/v1/analytics/performance/{vehicleId:str}",
    operation_class=openapi.PERFORMANCE,
    summary="Energy billed, delivered and lost by a vehicle",
)
async def performance(
    reads: InjectedReads,
    vehicle_id: Annotated[str, PathParameter(name="vehicleId")],
    from_: Annotated[str | None, QueryParameter(name="from")] = None,
    to: FromQuery[str | None] = None,
) -> Response[bytes]:
    """Give the energy summary over [from, to), the last 24 hours unless asked.

    AC is what the meters of the vehicle's charging sessions counted while a session lasted; DC is what the
    vehicle reported. efficiencyRatio is DC / AC, null without AC.
    """
    device_id = parameters.device("vehicleId", vehicle_id)
    start, end = parameters.window(from_, to)
    return _found(await reads.performance(device_id, start, end), "vehicle", device_id)


@get(
    "/v1/analytics/vehicles/{vehicleId:str}/hourly",
    operation_class=openapi.HOURLY,
    summary="Energy of a vehicle hour by hour, or day by day",
)
async def hourly(
    series: InjectedSeries,
    vehicle_id: Annotated[str, PathParameter(name="vehicleId")],
    from_: Annotated[str | None, QueryParameter(name="from")] = None,
    to: FromQuery[str | None] = None,
    by: FromQuery[str | None] = None,
    tz: FromQuery[str | None] = None,
) -> Response[bytes]:
    """Give the time series behind the energy summary over [from, to), the last 24 hours unless asked.

    by is hour (unless asked) or day; tz is the time zone whose hours and days these are, UTC unless asked.
    The first and the last one are cut by the window.
    """
    device_id = parameters.device("vehicleId", vehicle_id)
    width = parameters.choice("by", by, _WIDTHS, "hour")
    span = _span(from_, to, tz, width)
    return _found(await series.vehicle(device_id, width, span), "vehicle", device_id)


@get(
    "/v1/analytics/fleet",
    operation_class=openapi.FLEET,
    summary="Energy of the fleet: worst vehicles or meters first, or by hour or day",
)
async def fleet(
    series: InjectedSeries,
    from_: Annotated[str | None, QueryParameter(name="from")] = None,
    to: FromQuery[str | None] = None,
    by: FromQuery[str | None] = None,
    tz: FromQuery[str | None] = None,
    limit: FromQuery[str | None] = None,
    least_kwh: Annotated[str | None, QueryParameter(name="leastKwh")] = None,
) -> Response[bytes]:
    """Give the fleet's energy over [from, to), and a list of its parts.

    Without from and to these are the newest 24 finished hours that the rollups hold, and before the first
    refresh the 24 hours until now; periodStart and periodEnd tell.

    by is vehicle (unless asked) or meter: up to limit of them (20), the lowest DC / AC first, of those that
    drew at least leastKwh of AC energy, 0.5 unless asked: less cannot tell a fault. Or by is hour or day:
    those of the time zone tz, UTC unless asked, in the order of time.
    """
    part = parameters.choice("by", by, _PARTS, "vehicle")
    size = parameters.page("20" if limit is None else limit, None, _LIMIT_MAX)["page_size"]
    least = parameters.number("leastKwh", "0.5" if least_kwh is None else least_kwh, 0, 1e9)
    width = _WIDTHS.get(part)
    span = _span(from_, to, tz, width)
    if from_ is None and to is None and (finished := await series.finished_day()):
        span = span._replace(start=finished[0], end=finished[1])
    match part:
        case "hour" | "day":
            return answer(await series.fleet(part, span))
        case "vehicle" | "meter":
            return answer(await series.worst(part, span, size, least or 0.0))


def _span(from_: str | None, to: str | None, tz: str | None, width: Width | None) -> Span:
    """Read a window and a zone; refuse a window of more hours or days than one answer should hold."""
    start, end = parameters.window(from_, to)
    if width and (end - start) / _LENGTH[width] > _INTERVALS_MAX:
        message = f"from and to are more than {_INTERVALS_MAX:,} {width}s apart: ask for a part"
        if width == "hour":
            message += ", or by=day"
        raise Problem(400, "bad_parameter", message, field="from")
    return Span(start, end, parameters.zone("tz", tz))


@get(
    "/v1/analytics/stats",
    operation_class=openapi.STATS,
    summary="Figures about the engine",
)
async def stats(reads: InjectedReads) -> Response[bytes]:
    """Give devices, exact row counts, ingest rate and lag, dead letters, rollups' freshness, storage."""
    return answer(await reads.stats())


def router(questions: Questions, settings: Settings) -> Router:
    """Give the read routes, bound to whom they ask."""

    def source(request: AnyRequest) -> Source:
        return questions.primary if _wants_fresh(request) else questions

    def reads(request: AnyRequest) -> Reads:
        return Reads(source(request), settings)

    def series(request: AnyRequest) -> Series:
        return Series(source(request), settings)

    return Router(
        path="/",
        route_handlers=[
            meter_current,
            vehicle_current,
            meter_states,
            vehicle_states,
            performance,
            hourly,
            fleet,
            stats,
        ],
        dependencies={
            # Whoever sent a reading and asks for the state of its device must find it there.
            "fresh_reads": Provide(lambda: Reads(questions.primary, settings), sync_to_thread=False),
            "reads": Provide(reads, sync_to_thread=False),
            "series": Provide(series, sync_to_thread=False),
        },
        tags=["Analytics"],
        opt=needs(READ),
        security=KEY_SECURITY,
    )
