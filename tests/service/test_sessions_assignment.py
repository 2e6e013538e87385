"""Standing assignments: PUT and GET /v1/vehicles/{vehicleId}/meter."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from service.settings import Settings
from tests.support.strategies import Api, Owner, as_json, at, problem, rfc3339, rows, serving, vehicle

pytestmark = pytest.mark.anyio

SESSIONS = "select *, xmin::text from charging_session order by meter_id, during"
TRAIL = "select session_id, action, source from session_change order by change_id"


async def put(api: Api | httpx.AsyncClient, vehicle_id: str, meter: str | None, minute: float | None) -> Any:
    """Ask for an assignment; give the response."""
    since = {} if minute is None else {"since": rfc3339(at(minute))}
    return await api.put(f"/v1/vehicles/{vehicle_id}/meter", json={"meterId": meter, **since})


async def assigned(api: Api, vehicle_id: str, meter: str | None, minute: float) -> dict[str, Any]:
    """Make an assignment that is fine; give it as it is told."""
    response = await put(api, vehicle_id, meter, minute)
    assert response.status_code == 200, response.text
    told: dict[str, Any] = response.json()
    assert (told["vehicleId"], told["meterId"]) == (vehicle_id, meter)
    assert (await api.get(f"/v1/vehicles/{vehicle_id}/meter")).json() == told
    return told


async def spans(owner: Owner) -> list[tuple[str, str, float, float | None]]:
    """Give the sessions as (meter, vehicle, start, end), times in minutes."""
    return [
        (
            row["meter_id"],
            row["vehicle_id"],
            (row["during"].lower - at(0)).total_seconds() / 60,
            None if row["during"].upper is None else (row["during"].upper - at(0)).total_seconds() / 60,
        )
        for row in await rows(owner, SESSIONS)
    ]


async def test_from_meter_to_meter_to_none(api: Api, owner: Owner) -> None:
    """A new meter ends the old assignment at that moment; null only ends; the trail says who it was."""
    told = await assigned(api, "v-1", "m-1", 0)
    assert told["since"] == rfc3339(at(0))
    assert (await api.get(f"/v1/sessions/{told['sessionId']}")).json()["meterId"] == "m-1"
    await assigned(api, "v-1", "m-2", 60)
    ended = await assigned(api, "v-1", None, 120)
    assert (ended["since"], ended["sessionId"]) == (None, None)
    assert await spans(owner) == [("m-1", "v-1", 0, 60), ("m-2", "v-1", 60, 120)]
    trail = [(row["action"], row["source"]) for row in await rows(owner, TRAIL)]
    assert trail == [(action, "standing assignment") for action in ("started", "ended", "started", "ended")]


@pytest.mark.parametrize("minutes", [(0, 60, 120), (None, None, None)], ids=["since", "now"])
async def test_the_same_again_changes_nothing(
    api: Api, owner: Owner, minutes: tuple[float | None, ...]
) -> None:
    """Each request may be sent again: same answer, not a row written."""
    for meter, minute in zip(("m-1", "m-2", None), minutes, strict=True):
        first = await put(api, "v-1", meter, minute)
        before = [await rows(owner, statement) for statement in (SESSIONS, TRAIL)]
        for _ in range(2):
            again = await put(api, "v-1", meter, minute)
            assert (again.status_code, again.json()) == (200, first.json())
        assert [await rows(owner, statement) for statement in (SESSIONS, TRAIL)] == before


async def test_a_meter_that_is_the_vehicles_already(api: Api, owner: Owner) -> None:
    """Asked for later than it began, the assignment stays as it is; earlier, it would be a correction."""
    told = await assigned(api, "v-1", "m-1", 60)
    later = await put(api, "v-1", "m-1", 90)
    assert later.json() == told
    body = problem(await put(api, "v-1", "m-1", 30), 409, "session_started_later")
    assert body["field"] == "since"
    assert body["other"]["sessionId"] == told["sessionId"]
    assert await spans(owner) == [("m-1", "v-1", 60, None)]


async def test_now_is_the_moment_of_the_request(api: Api) -> None:
    """Without `since` the assignment begins now."""
    before = datetime.now(UTC)
    told = (await put(api, "v-1", "m-1", None)).json()
    assert before <= datetime.fromisoformat(told["since"]) <= datetime.now(UTC)


async def test_an_open_session_that_starts_too_late(api: Api, owner: Owner) -> None:
    """A session cannot end before or when it starts: a 409 names it, and nothing is changed."""
    told = await assigned(api, "v-1", "m-1", 60)
    for meter in ("m-2", None):
        for minute in (60, 30):
            body = problem(await put(api, "v-1", meter, minute), 409, "session_started_later")
            assert (body["field"], body["other"]["sessionId"]) == ("since", told["sessionId"])
    assert await spans(owner) == [("m-1", "v-1", 60, None)]
    assert len(await rows(owner, TRAIL)) == 1


async def test_a_meter_that_is_taken(api: Api, owner: Owner) -> None:
    """A meter that is taken, now or later, is a 409 that names the session; nothing is ended."""
    other = await assigned(api, "v-2", "m-2", 30)
    await assigned(api, "v-1", "m-1", 0)
    body = problem(await put(api, "v-1", "m-2", 60), 409, "session_overlap")
    assert body["other"]["sessionId"] == other["sessionId"]
    assert body["field"] == "meterId"
    # Also when it is taken only later on, by whomever.
    planned = {
        "vehicleId": "v-1",
        "meterId": "m-3",
        "startedAt": rfc3339(at(100)),
        "endedAt": rfc3339(at(110)),
    }
    await api.post("/v1/sessions", json=planned | {"sessionId": "planned"})
    body = problem(await put(api, "v-1", "m-3", 60), 409, "session_overlap")
    assert body["other"]["sessionId"] == "planned"
    assert [span for span in await spans(owner) if span[0] == "m-1"] == [("m-1", "v-1", 0, None)]


async def test_several_open_sessions(api: Api, owner: Owner) -> None:
    """All open sessions of the vehicle end, except one on the wanted meter; those of others do not."""
    for number in range(1, 4):
        body = {"vehicleId": "v-1", "meterId": f"m-{number}", "startedAt": rfc3339(at(number))}
        await api.post("/v1/sessions", json=body | {"sessionId": f"s-{number}"})
    await assigned(api, "v-2", "m-9", 0)
    assert (await api.get("/v1/vehicles/v-1/meter")).json()["sessionId"] == "s-3"
    told = await assigned(api, "v-1", "m-2", 60)
    assert (told["sessionId"], told["since"]) == ("s-2", rfc3339(at(2)))
    assert await spans(owner) == [
        ("m-1", "v-1", 1, 60),
        ("m-2", "v-1", 2, None),
        ("m-3", "v-1", 3, 60),
        ("m-9", "v-2", 0, None),
    ]


async def test_vehicles_that_were_never_heard_of(api: Api) -> None:
    """There is nothing to tell or to end of them: a 404. One that reported has no meter: nulls."""
    problem(await api.get("/v1/vehicles/v-1/meter"), 404, "unknown_device")
    problem(await put(api, "v-1", None, 0), 404, "unknown_device")
    await api.post("/v1/telemetry", json=[as_json(vehicle("v-1"))])
    nothing = {"vehicleId": "v-1", "meterId": None, "since": None, "sessionId": None}
    assert (await api.get("/v1/vehicles/v-1/meter")).json() == nothing
    assert (await put(api, "v-1", None, 0)).json() == nothing
    problem(await api.get("/v1/vehicles/a%20b/meter"), 400, "bad_parameter")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "meterId"),
        ({"meterId": "a b"}, "meterId"),
        ({"meterId": 5}, "meterId"),
        ({"meterId": "m-1", "since": "2026-01-31T12:00:00"}, "since"),
        ({"meterId": "m-1", "since": "9999-12-31T23:59:59-14:00"}, "since"),
        ({"meterId": "m-1", "since": "0001-01-01T00:00:00+14:00"}, "since"),
    ],
)
async def test_bad_bodies(api: Api, owner: Owner, body: dict[str, Any], field: str) -> None:
    """What cannot be read is a 400 that names the field."""
    answer = problem(await api.put("/v1/vehicles/v-1/meter", json=body), 400)
    assert answer["field"] == field
    assert await spans(owner) == []


async def test_many_assignments_at_once(settings: Settings, owner: Owner) -> None:
    """Vehicles and meters at the same moment: no vehicle has two meters, no meter two vehicles, no error."""
    async with serving(settings) as api:
        answers = await asyncio.gather(*(put(api, f"v-{n % 3}", f"m-{n % 4}", None) for n in range(36)))
    assert {answer.status_code for answer in answers} <= {200, 409}
    for answer in answers:
        if answer.status_code == 409:
            assert problem(answer, 409, "session_overlap")["other"] is not None
    still_open = [span for span in await spans(owner) if span[3] is None]
    assert len(still_open) == 3
    assert len({vehicle_id for _, vehicle_id, *_ in still_open}) == 3
