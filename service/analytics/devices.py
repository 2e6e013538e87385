"""The routes of one vehicle or one meter over time: hours and days, and charging sessions."""

from __future__ import annotations

from typing import Annotated, Final

from litestar import Response, get
from litestar.params import FromQuery, PathParameter, QueryParameter

from service.analytics import openapi
from service.analytics.asked import WIDTHS, InjectedSeries, found, span_of
from service.analytics.series import Device, Series
from service.web import parameters
from service.web.problems import Problem

# Each has its energy worked out: some 0.4 ms a session.
_SESSIONS_MAX: Final = 500
_SESSIONS: Final = 50


@get(
    "/v1/analytics/vehicles/{vehicleId:str}/hourly",
    operation_class=openapi.HOURLY,
    summary="Energy of a vehicle hour by hour, or day by day",
)
async def vehicle_hourly(
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
    width = parameters.choice("by", by, WIDTHS, "hour")
    return found(await series.vehicle(device_id, width, span_of(from_, to, tz, width)), "vehicle", device_id)


@get(
    "/v1/analytics/meters/{meterId:str}/hourly",
    operation_class=openapi.METER_HOURLY,
    summary="Energy of a meter hour by hour, or day by day",
)
async def meter_hourly(
    series: InjectedSeries,
    meter_id: Annotated[str, PathParameter(name="meterId")],
    from_: Annotated[str | None, QueryParameter(name="from")] = None,
    to: FromQuery[str | None] = None,
    by: FromQuery[str | None] = None,
    tz: FromQuery[str | None] = None,
) -> Response[bytes]:
    """Give what the meter counted and its voltage over [from, to), the last 24 hours unless asked.

    meteredAcKwh is all that it counted, in sessions or not. The other figures are those of a charger: AC and
    DC while a vehicle drew from it and from no other. by and tz are as for vehicles.
    """
    device_id = parameters.device("meterId", meter_id)
    width = parameters.choice("by", by, WIDTHS, "hour")
    return found(await series.meter(device_id, width, span_of(from_, to, tz, width)), "meter", device_id)


@get(
    "/v1/analytics/vehicles/{vehicleId:str}/sessions",
    operation_class=openapi.SESSIONS,
    summary="Charging sessions of a vehicle with the energy of each",
)
async def vehicle_sessions(
    series: InjectedSeries,
    vehicle_id: Annotated[str, PathParameter(name="vehicleId")],
    from_: Annotated[str | None, QueryParameter(name="from")] = None,
    to: FromQuery[str | None] = None,
    limit: FromQuery[str | None] = None,
    after: FromQuery[str | None] = None,
) -> Response[bytes]:
    """Give sessions that touch [from, to), all unless asked, newest start first, each with all of its energy.

    Of a session that goes on, what was counted until now. `next` goes into `after`.
    """
    return await _sessions(series, "vehicle", vehicle_id, (from_, to), limit, after)


@get(
    "/v1/analytics/meters/{meterId:str}/sessions",
    operation_class=openapi.SESSIONS,
    summary="Charging sessions of a meter with the energy of each",
)
async def meter_sessions(
    series: InjectedSeries,
    meter_id: Annotated[str, PathParameter(name="meterId")],
    from_: Annotated[str | None, QueryParameter(name="from")] = None,
    to: FromQuery[str | None] = None,
    limit: FromQuery[str | None] = None,
    after: FromQuery[str | None] = None,
) -> Response[bytes]:
    """Give sessions that touch [from, to), all unless asked, newest start first, each with all of its energy.

    Of a session that goes on, what was counted until now. `next` goes into `after`.
    """
    return await _sessions(series, "meter", meter_id, (from_, to), limit, after)


async def _sessions(
    series: Series,
    device: Device,
    text: str,
    window: tuple[str | None, str | None],
    limit: str | None,
    after: str | None,
) -> Response[bytes]:
    device_id = parameters.device(f"{device}Id", text)
    size = parameters.page(f"{_SESSIONS}" if limit is None else limit, None, _SESSIONS_MAX)["page_size"]
    start, end = parameters.open_window(*window)
    last = None if after is None else parameters.device("after", after)
    if last is not None and not await series.has_session(last):
        raise Problem(400, "bad_parameter", f"there is no session {last!r} to go on after", field="after")
    return found(await series.sessions(device, device_id, (start, end), size, last), device, device_id)
