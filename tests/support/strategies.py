"""Readings for the tests: builders, their JSON, and the hypothesis strategies of the whole suite."""

from __future__ import annotations

import json
import string
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final, cast

import httpx
import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from litestar.testing import AsyncTestClient
from psycopg import AsyncConnection

from service.app import create_app
from service.ingest.outcome import Decoded
from service.readings import MeterReading, Reading, TimeRule, VehicleReading
from service.settings import Settings
from tests.support.histories import SEASONS, Correct, History, LocalDays, Plug, Refresh, Store, Trail

Api = AsyncTestClient[Any]
Owner = AsyncConnection[dict[str, Any]]

# A busy machine must not fail a property: no deadline, and examples may be slow to draw.
pure: Final = settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow])
# Examples that each ask a real database; its fixtures serve all of them, so each uses ids of its own.
against_a_database: Final = settings(
    deadline=None,
    max_examples=20,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

NOW: Final = datetime(2026, 1, 31, 12, tzinfo=UTC)
RULE: Final = TimeRule(now=NOW.timestamp)


def at(minute: float = 0) -> datetime:
    """Give a moment, in minutes from NOW."""
    return NOW + timedelta(minutes=minute)


def meter(
    device_id: str = "m-1", minute: float = 0, kwh: float = 0.1, voltage: float = 230.0
) -> MeterReading:
    """Make a meter reading."""
    return MeterReading(device_id, at(minute), kwh, voltage)


def vehicle(
    device_id: str = "v-1", minute: float = 0, kwh: float = 0.1, soc: float = 50.0, temp: float = 25.0
) -> VehicleReading:
    """Make a vehicle reading."""
    return VehicleReading(device_id, at(minute), soc, kwh, temp)


def as_json(reading: Reading) -> dict[str, Any]:
    """Give a reading as the JSON object that a device sends."""
    built: dict[str, Any] = msgspec.to_builtins(reading)
    return built


def altered(reading: Reading, **changes: Any) -> dict[str, Any]:
    """Give a reading as JSON with fields replaced, or left out where the new value is `...`."""
    built = as_json(reading) | changes
    return {name: value for name, value in built.items() if value is not ...}


def encode(*readings: Reading | dict[str, Any]) -> bytes:
    """Give readings as a JSON array."""
    return msgspec.json.encode(readings)


def decoded(*readings: Reading) -> Decoded:
    """Make the payload that decoding a good array would have given."""
    return Decoded(
        body=encode(*readings), readings=list(readings), indices=list(range(len(readings))), rejections=[]
    )


async def rows(owner: Owner, statement: str) -> list[dict[str, Any]]:
    """Run a query of a test."""
    return await (await owner.execute(statement.encode())).fetchall()


@asynccontextmanager
async def serving(settings: Settings, **changes: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Run an application of the test's own, some settings changed, on the test's own event loop.

    Litestar's client runs it in a thread and blocks the loop for each request: no two could be under way
    at once. It also takes the escapes off a path twice.
    """
    app = create_app(msgspec.structs.replace(settings, **changes))
    transport = httpx.ASGITransport(cast("Any", app))
    async with app.lifespan(), httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        yield client


def problem(response: httpx.Response, status: int, code: str | None = None) -> dict[str, Any]:
    """Check that an answer is problem details (RFC 9457); give its members."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json", response.text
    body: dict[str, Any] = response.json()
    assert {"type", "title", "status", "detail", "code"} <= set(body), body
    assert body["status"] == status
    assert body["type"] == "urn:fleetwatt:problem:" + body["code"].replace("_", "-")
    assert body["title"]
    assert body["detail"]
    if code is not None:
        assert body["code"] == code, body
    return body


def rfc3339(moment: datetime) -> str:
    """Write a moment as the API does."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


device_ids: Final = st.text(string.ascii_letters + string.digits + "._:-", min_size=1, max_size=64)
zones: Final = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(
    lambda minutes: timezone(timedelta(minutes=minutes))
)
timestamps: Final = st.datetimes(
    (NOW - timedelta(days=20_000)).replace(tzinfo=None),
    (NOW - timedelta(days=1)).replace(tzinfo=None),
    timezones=zones,
)
energies: Final = st.floats(0, 1000)
meter_readings: Final = st.builds(MeterReading, device_ids, timestamps, energies, st.floats(0, 1000))
vehicle_readings: Final = st.builds(
    VehicleReading, device_ids, timestamps, st.floats(0, 100), energies, st.floats(-60, 150)
)
readings: Final = meter_readings | vehicle_readings

json_values: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=6,
)
_FIELD_NAMES: Final = sorted({*as_json(meter()), *as_json(vehicle()), "readings", "extra"})
# Objects that look like readings and are not quite: right names, any values.
near_readings: Final = st.dictionaries(st.sampled_from(_FIELD_NAMES), json_values, max_size=7)


@st.composite
def bad_readings(draw: st.DrawFn) -> Any:
    """Give a JSON value that is certainly no good reading: a good one with one field spoilt, or no object."""
    if draw(st.booleans()):
        return draw(json_values.filter(lambda value: not isinstance(value, dict)))
    reading = as_json(draw(readings))
    name = draw(st.sampled_from(sorted(reading)))
    reading[name] = draw(st.sampled_from([None, True, [], {}, "", "1 ", -61.0, 1e6]))
    return reading


# Payloads that are almost JSON: a good one with some bytes cut out, doubled or replaced.
@st.composite
def torn_payloads(draw: st.DrawFn) -> bytes:
    """Give the bytes of a payload that was damaged on its way."""
    body = draw(st.lists(readings | near_readings, max_size=3).map(json_array))
    start = draw(st.integers(0, len(body)))
    end = draw(st.integers(start, min(len(body), start + 8)))
    return body[:start] + draw(st.binary(max_size=4)) + body[end:]


def json_array(parts: list[Any]) -> bytes:
    """Give a JSON array of readings and other values."""
    return json.dumps([as_json(p) if isinstance(p, Reading) else p for p in parts]).encode()


@st.composite
def windows(draw: st.DrawFn, minutes: int = 240) -> tuple[datetime, datetime]:
    """Give a window of whole seconds that starts near NOW and may be empty."""
    start = draw(st.integers(-1800, minutes * 60))
    length = draw(st.integers(0, minutes * 60 + 3600))
    return NOW + timedelta(seconds=start), NOW + timedelta(seconds=start + length)


# Zones whose clocks change: at an hour of the night; by half an hour; back onto midnight, which comes twice;
# at midnight, which is skipped, and back past it. And zones that are half an hour off.
CHANGING_ZONES: Final = [
    "Europe/London",
    "Australia/Lord_Howe",
    "Atlantic/Azores",
    "America/Havana",
    "America/Santiago",
    "America/St_Johns",
]
LOCAL_ZONES: Final = ["UTC", "Asia/Kolkata", *CHANGING_ZONES]
# A connection's time zone must not matter.
session_zones: Final = st.sampled_from(LOCAL_ZONES)


def near(hours_from: int, hours_to: int) -> st.SearchStrategy[timedelta]:
    """Give a distance in time: a whole hour or day, a microsecond beside it, half past, or anywhere."""
    beside = st.sampled_from([0, 0, 0, 1, -1, 1_800_000_000]) | st.integers(1, 3_599_999_999)
    whole = st.integers(hours_from, hours_to) | st.integers(hours_from // 24, hours_to // 24).map(
        lambda day: 24 * day
    )
    return st.builds(lambda hours, us: timedelta(hours=hours, microseconds=us), whole, beside)


@st.composite
def spans(draw: st.DrawFn) -> tuple[timedelta, timedelta]:
    """Give the ends of a span, as distances: within an hour, of any length, or of days; sometimes empty."""
    start = draw(near(-60, 60))
    length = draw(near(0, 2) | near(0, 120) | near(30, 120) | near(48, 120))
    return start, start + max(timedelta(), length)


trails: Final = st.builds(
    Trail,
    kind=st.sampled_from(["meter", "vehicle"]),
    device=st.integers(0, 2),
    # One in four is months old.
    start=st.builds(
        lambda distance, months: distance - timedelta(days=100 * (months == 0)),
        near(-48, 72),
        st.integers(0, 3),
    ),
    step=st.sampled_from(
        [
            timedelta(minutes=30),
            timedelta(minutes=1),
            timedelta(seconds=59, microseconds=999_999),
            timedelta(minutes=17, microseconds=1),
            timedelta(hours=1, minutes=3),
        ]
    ),
    length=st.integers(1, 12) | st.integers(30, 120),
    variant=st.integers(0, 1),
)
stores: Final = st.builds(Store, st.lists(trails, min_size=1, max_size=8), st.booleans())
full_stores: Final = st.builds(Store, st.lists(trails, min_size=6, max_size=8), st.booleans())
refreshes: Final = st.builds(
    Refresh, (st.integers(20, 80) | st.integers(-60, 80)).map(lambda hour: timedelta(hours=hour))
)
plugs: Final = st.builds(
    Plug, st.integers(0, 2), st.integers(0, 1), near(-60, 72), st.none() | near(-48, 80) | near(-48, 80)
)
corrections: Final = st.builds(
    Correct, st.integers(0, 5), st.integers(0, 1), st.none() | near(-48, 80) | near(-48, 80)
)
edge_lists: Final = (
    st.builds(
        LocalDays,
        st.sampled_from(LOCAL_ZONES),
        st.integers(-3, 0),
        st.integers(1, 4),
    )
    | st.lists(near(-60, 80), min_size=2, max_size=6).map(sorted)
    | st.integers(-48, 60).map(lambda first: [timedelta(hours=hour) for hour in range(first, first + 30)])
)
histories: Final = st.builds(
    History,
    season=st.integers(0, len(SEASONS) - 1),
    # Something to roll up and somewhere to bill it come first, so that few examples prove nothing.
    steps=st.builds(
        lambda opening, rest: [*opening, *rest],
        st.tuples(full_stores, plugs, plugs, refreshes, stores),
        st.lists(stores | refreshes | plugs | corrections, max_size=4),
    ),
    windows=st.lists(spans(), min_size=2, max_size=3),
    edges=st.lists(edge_lists, min_size=1, max_size=2),
    zone=session_zones,
)
