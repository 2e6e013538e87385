"""The route of alerts: open ones, closed ones, page by page."""

from __future__ import annotations

from typing import Annotated

from litestar import Response, Router, get
from litestar.di import NamedDependency, Provide
from litestar.params import FromQuery, QueryParameter, SkipValidation

from service.alerts import openapi
from service.alerts.alert import Alert
from service.db import ReadPool, fetch_all
from service.sql import query
from service.web import parameters
from service.web.answers import answer, cut_page
from service.web.principal import KEY_SECURITY, READ, needs
from service.web.problems import Problem

# We made it: nothing to validate on each request.
InjectedPool = NamedDependency[SkipValidation[ReadPool]]
_LIMIT_MAX = 1000
_STATES = {"open": True, "closed": False, "all": None}
_KINDS = {"low_efficiency": "low_efficiency", "data_fault": "data_fault"}
_LAST_ID = 2**53


def _alert_id(name: str, text: str) -> int:
    value = parameters.number(name, text, 0, _LAST_ID)
    if value is None or not value.is_integer():
        raise Problem(400, "bad_parameter", f"{name} must be the id of an alert", field=name)
    return int(value)


@get("/v1/alerts", operation_class=openapi.LIST, summary="Efficiency alerts, newest first")
async def list_alerts(
    alert_pool: InjectedPool,
    state_: Annotated[str | None, QueryParameter(name="state")] = None,
    vehicle_id: Annotated[str | None, QueryParameter(name="vehicleId")] = None,
    meter_id: Annotated[str | None, QueryParameter(name="meterId")] = None,
    kind: FromQuery[str | None] = None,
    from_: Annotated[str | None, QueryParameter(name="from")] = None,
    to: FromQuery[str | None] = None,
    limit: FromQuery[str | None] = None,
    after: FromQuery[str | None] = None,
) -> Response[bytes]:
    """Give alerts that were open at some time in [from, to), of any state unless asked for open or closed.

    `next` goes into `after` of the next request; it is null on the last page.
    """
    size = parameters.page(limit, None, _LIMIT_MAX)["page_size"]
    start, end = parameters.open_window(from_, to)
    rows = await fetch_all(
        alert_pool,
        query("list_alerts"),
        {
            "is_open": parameters.choice("state", state_, _STATES, "all"),
            "vehicle_id": None if vehicle_id is None else parameters.device("vehicleId", vehicle_id),
            "meter_id": None if meter_id is None else parameters.device("meterId", meter_id),
            "alert_kind": None if kind is None else parameters.choice("kind", kind, _KINDS, ""),
            "window_from": start,
            "window_to": end,
            "after_alert": None if after is None else _alert_id("after", after),
            "page_size": size + 1,
        },
    )
    rows, last = cut_page(rows, size)
    return answer({"alerts": [Alert.from_row(row) for row in rows], "next": last and last["alert_id"]})


def router(pool: ReadPool) -> Router:
    """Give the routes of alerts, bound to a pool."""
    return Router(
        path="/",
        route_handlers=[list_alerts],
        dependencies={"alert_pool": Provide(lambda: pool, sync_to_thread=False)},
        tags=["Analytics"],
        opt=needs(READ),
        security=KEY_SECURITY,
    )
