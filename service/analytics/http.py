"""The read routes: latest states, energy summaries, figures about the engine."""

from __future__ import annotations

from typing import Annotated, Final

from litestar import Response, Router, get
from litestar.di import NamedDependency, Provide
from litestar.params import FromQuery, PathParameter, QueryParameter, SkipValidation

from service.analytics import devices, openapi
from service.analytics.asked import (
    WIDTHS,
    AnyRequest,
    InjectedReads,
    InjectedSeries,
    found,
    span_of,
    wants_fresh,
)
from service.analytics.overview import Overviews
from service.analytics.reads import Reads
from service.analytics.series import Device, Series, Width
from service.questions import Questions, Source
from service.settings import Settings
from service.web import parameters
from service.web.answers import answer
from service.web.principal import KEY_SECURITY, READ, needs

# We made it: nothing to validate on each request.
InjectedOverviews = NamedDependency[SkipValidation[Overviews]]
_LIMIT_MAX = 10_000
_PARTS: Final[dict[str, Device | Width]] = {"vehicle": "vehicle", "meter": "meter", **WIDTHS}


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
    return found(await fresh_reads.meter_current(device_id), "meter", device_id)


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
    return found(await fresh_reads.vehicle_current(device_id), "vehicle", device_id)


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
    return found(await reads.performance(device_id, start, end), "vehicle", device_id)


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
    width = WIDTHS.get(part)
    span = span_of(from_, to, tz, width)
    if from_ is None and to is None and (finished := await series.finished_day()):
        span = span._replace(start=finished[0], end=finished[1])
    match part:
        case "hour" | "day":
            return answer(await series.fleet(part, span))
        case "vehicle" | "meter":
            return answer(await series.worst(part, span, size, least or 0.0))


@get(
    "/v1/analytics/overview",
    operation_class=openapi.OVERVIEW,
    summary="The fleet right now: devices, power, energy of the day, alerts, ingest",
)
async def overview(
    request: AnyRequest, overviews: InjectedOverviews, tz: FromQuery[str | None] = None
) -> Response[bytes]:
    """Give the head of the fleet's page; today is the day of the time zone tz, UTC unless asked, until now.

    It is worked out once for all who ask and kept for some seconds; asOf tells its moment. A request with
    `Cache-Control: no-cache` has it worked out anew.
    """
    return answer(await overviews.get(parameters.zone("tz", tz), fresh=wants_fresh(request)))


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
    overviews = Overviews(questions, settings)

    def source(request: AnyRequest) -> Source:
        return questions.primary if wants_fresh(request) else questions

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
            devices.vehicle_hourly,
            devices.vehicle_sessions,
            devices.meter_hourly,
            devices.meter_sessions,
            fleet,
            overview,
            stats,
        ],
        dependencies={
            # Whoever sent a reading and asks for the state of its device must find it there.
            "fresh_reads": Provide(lambda: Reads(questions.primary, settings), sync_to_thread=False),
            "reads": Provide(reads, sync_to_thread=False),
            "series": Provide(series, sync_to_thread=False),
            "overviews": Provide(lambda: overviews, sync_to_thread=False),
        },
        tags=["Analytics"],
        opt=needs(READ),
        security=KEY_SECURITY,
    )
