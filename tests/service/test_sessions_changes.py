"""Corrections of sessions: each leaves its trace, and every answer follows from the sessions as they are."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from psycopg import errors

from service.settings import Settings
from tests.support.servers import Postgres
from tests.support.strategies import (
    NOW,
    Api,
    Owner,
    as_json,
    at,
    meter,
    problem,
    rfc3339,
    rows,
    serving,
    vehicle,
)

pytestmark = pytest.mark.anyio

DAY = {"from": rfc3339(NOW - timedelta(hours=12)), "to": rfc3339(NOW + timedelta(hours=12))}


async def add(api: Api, session_id: str, start: float, end: float | None, **changes: Any) -> dict[str, Any]:
    """Store a session from and to minutes after NOW; give it as it is told."""
    body = {
        "sessionId": session_id,
        "vehicleId": "v-1",
        "meterId": "m-1",
        "startedAt": rfc3339(at(start)),
        "endedAt": None if end is None else rfc3339(at(end)),
    }
    response = await api.post("/v1/sessions", json=body | changes)
    assert response.status_code == 201, response.text
    told: dict[str, Any] = response.json()
    return told


async def changes_of(api: Api, session_id: str) -> list[dict[str, Any]]:
    """Give the audit trail, without numbers and times, having checked these."""
    response = await api.get(f"/v1/sessions/{session_id}/changes")
    assert response.status_code == 200, response.text
    assert response.json()["sessionId"] == session_id
    found: list[dict[str, Any]] = response.json()["changes"]
    numbers = [each.pop("changeId") for each in found]
    times = [each.pop("changedAt") for each in found]
    assert numbers == sorted(set(numbers))
    assert times == sorted(times)
    return found


def values(session: dict[str, Any]) -> dict[str, Any]:
    """Give what of a session the trail keeps."""
    return {name: value for name, value in session.items() if name != "sessionId"}


async def test_every_change_leaves_its_trace(api: Api) -> None:
    """Start, end, corrections and opening again: action, source, and the values before and after."""
    told = [await add(api, "s-1", 0, None)]
    steps: list[tuple[str, dict[str, Any]]] = [
        ("ended", {"endedAt": rfc3339(at(60))}),
        ("corrected", {"endedAt": rfc3339(at(50))}),
        ("corrected", {"vehicleId": "v-2"}),
        ("corrected", {"meterId": "m-2"}),
        ("corrected", {"startedAt": rfc3339(at(-10))}),
        ("reopened", {"endedAt": None}),
        ("corrected", {"vehicleId": "v-1", "endedAt": rfc3339(at(70))}),
    ]
    for _, update in steps:
        response = await api.patch("/v1/sessions/s-1", json=update)
        assert response.status_code == 200, response.text
        told.append(response.json())
        assert (await api.get("/v1/sessions/s-1")).json() == told[-1]
    expected = [{"action": "started", "source": "http", "before": None, "after": values(told[0])}]
    expected += [
        {"action": action, "source": "http", "before": values(before), "after": values(after)}
        for (action, _), before, after in zip(steps, told, told[1:], strict=False)
    ]
    assert await changes_of(api, "s-1") == expected
    finished = await add(api, "s-2", 100, 110)
    assert await changes_of(api, "s-2") == [
        {"action": "recorded", "source": "http", "before": None, "after": values(finished)}
    ]


async def test_what_changes_nothing_leaves_no_trace(api: Api, owner: Owner) -> None:
    """The same values again, a repeated request and a refused one write nothing, not even updated_at."""
    await add(api, "s-1", 0, 60)
    await add(api, "s-2", 60, None, vehicleId="v-2")
    both = (
        "select *, xmin::text from charging_session order by 1",
        "select * from session_change order by 1",
    )
    before = [await rows(owner, statement) for statement in both]
    same = {"vehicleId": "v-1", "startedAt": "2026-01-31T13:00:00+01:00", "endedAt": rfc3339(at(60))}
    for update in ({"vehicleId": "v-1"}, {"endedAt": rfc3339(at(60))}, same):
        assert (await api.patch("/v1/sessions/s-1", json=update)).status_code == 200
    again = (await api.get("/v1/sessions/s-1")).json()
    assert (await api.post("/v1/sessions", json=again)).status_code == 200
    problem(await api.patch("/v1/sessions/s-1", json={"endedAt": rfc3339(at(61))}), 409, "session_overlap")
    problem(await api.patch("/v1/sessions/s-1", json={"endedAt": rfc3339(at(-1))}), 400)
    problem(await api.post("/v1/sessions", json=again | {"sessionId": "s-3"}), 409, "session_overlap")
    problem(await api.post("/v1/sessions", json=again | {"vehicleId": "v-9"}), 409, "session_exists")
    assert [await rows(owner, statement) for statement in both] == before


async def test_unknown_sessions(api: Api, owner: Owner) -> None:
    """A session that never was is a 404; one older than the trail has none, a deleted one keeps its own."""
    problem(await api.get("/v1/sessions/nobody"), 404, "unknown_session")
    problem(await api.get("/v1/sessions/nobody/changes"), 404, "unknown_session")
    problem(await api.get("/v1/sessions/a%20b"), 400, "bad_parameter")
    told = await add(api, "s-1", 0, 60)
    await owner.execute("delete from session_change")
    assert await changes_of(api, "s-1") == []
    await owner.execute("delete from charging_session")
    assert await changes_of(api, "s-1") == [
        {"action": "deleted", "source": "sql", "before": values(told), "after": None}
    ]


async def test_nobody_gets_around_the_trail(
    postgres: Postgres, database: str, settings: Settings, owner: Owner
) -> None:
    """Plain SQL is logged as such, and the service can neither write nor change nor remove what is logged."""
    with psycopg.connect(settings.database_url, autocommit=True) as connection:
        connection.execute(
            "insert into charging_session (session_id, vehicle_id, meter_id, during) "
            "values ('s-1', 'v', 'm', tstzrange('2026-01-01Z', null))"
        )
        connection.execute("update charging_session set updated_at = now()")
        with connection.transaction():
            connection.execute("select set_config('fleetwatt.source', 'a test', true)")
            connection.execute("update charging_session set vehicle_id = 'v-2'")
        # The name was that transaction's alone.
        connection.execute("update charging_session set vehicle_id = 'v-3'")
        for statement in (
            "insert into session_change (session_id, action, source) values ('s-1', 'ended', 'x')",
            "update session_change set source = 'x'",
            "delete from session_change",
            "truncate session_change",
            "alter table charging_session disable trigger session_change",
            "update charging_session set session_id = 's-2'",
            "update charging_session set created_at = now()",
            "delete from charging_session",
        ):
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(statement.encode())
    found = await rows(owner, "select action, source, vehicle_before, vehicle_after from session_change")
    assert [tuple(row.values()) for row in found] == [
        ("started", "sql", None, "v"),
        ("corrected", "a test", "v", "v-2"),
        ("corrected", "sql", "v-2", "v-3"),
    ]
    with (
        psycopg.connect(postgres.url("fleetwatt_bi", database)) as connection,
        pytest.raises(errors.InsufficientPrivilege),
    ):
        connection.execute("select * from public.session_change")


async def performance(api: Api, vehicle_id: str) -> tuple[float, int]:
    """Give what a vehicle was billed over the day, and from how many meter readings."""
    response = await api.get(f"/v1/analytics/performance/{vehicle_id}", params=DAY)
    assert response.status_code == 200, response.text
    body = response.json()
    return body["totalAcConsumedKwh"], body["readingsCount"]["meter"]


@pytest.mark.parametrize(
    ("update", "first", "second"),
    [
        # The meters count 1 and 100 kWh a minute; the session lasts from minute 60 to 180 on meter m-1.
        ({"vehicleId": "v-1"}, (120, 120), (0, 0)),
        ({"vehicleId": "v-2"}, (0, 0), (120, 120)),
        ({"meterId": "m-2"}, (12_000, 120), (0, 0)),
        ({"startedAt": rfc3339(at(30))}, (150, 150), (0, 0)),
        ({"startedAt": rfc3339(at(90.5))}, (89, 89), (0, 0)),
        ({"endedAt": rfc3339(at(150))}, (90, 90), (0, 0)),
        ({"endedAt": None}, (180, 180), (0, 0)),
        (
            {
                "vehicleId": "v-2",
                "meterId": "m-2",
                "startedAt": rfc3339(at(0)),
                "endedAt": rfc3339(at(10)),
            },
            (0, 0),
            (1000, 10),
        ),
    ],
    ids=["none", "vehicle", "meter", "earlier", "later", "shorter", "reopened", "everything"],
)
async def test_answers_follow_a_correction(
    api: Api, update: dict[str, Any], first: tuple[float, int], second: tuple[float, int]
) -> None:
    """After each kind of correction the summaries of vehicles and fleet are those of the new session."""
    readings = [meter("m-1", minute, 1.0) for minute in range(240)]
    readings += [meter("m-2", minute, 100.0) for minute in range(240)]
    cars = [vehicle(name, minute, 0.5) for name in ("v-1", "v-2") for minute in range(3)]
    body = [as_json(reading) for reading in readings] + [as_json(reading) for reading in cars]
    assert (await api.post("/v1/telemetry", json=body)).status_code == 200
    await add(api, "s-1", 60, 180)
    assert await performance(api, "v-1") == (120, 120)
    response = await api.patch("/v1/sessions/s-1", json=update)
    assert response.status_code == 200, response.text
    assert await performance(api, "v-1") == first
    assert await performance(api, "v-2") == second
    fleet = (await api.get("/v1/analytics/fleet", params=DAY)).json()
    assert fleet["totalAcConsumedKwh"] == first[0] + second[0]


async def test_a_conflict_names_the_other_session(api: Api) -> None:
    """A correction that would give a meter two vehicles at once is a 409 with the session in the way."""
    await add(api, "s-1", 0, 60)
    other = await add(api, "s-2", 60, 120, vehicleId="v-2")
    await add(api, "s-3", 0, 60, meterId="m-3")
    for session_id, update in (
        ("s-1", {"endedAt": rfc3339(at(61))}),
        ("s-1", {"endedAt": None}),
        ("s-3", {"meterId": "m-1", "startedAt": rfc3339(at(70)), "endedAt": rfc3339(at(80))}),
    ):
        body = problem(await api.patch(f"/v1/sessions/{session_id}", json=update), 409, "session_overlap")
        assert body["other"] == other
        assert "'s-2'" in body["detail"]
        assert "'v-2'" in body["detail"]
    assert [each["action"] for each in await changes_of(api, "s-1")] == ["recorded"]


async def test_many_at_once_want_a_meter(settings: Settings, owner: Owner) -> None:
    """Of twenty sessions that overlap and are sent at one moment one is stored, and all others name it."""
    async with serving(settings) as api:
        answers = await asyncio.gather(
            *(
                api.post(
                    "/v1/sessions",
                    json={"vehicleId": f"v-{n}", "meterId": "m-1", "startedAt": rfc3339(at(n))},
                )
                for n in range(20)
            )
        )
    [stored] = [each.json() for each in answers if each.status_code == 201]
    others = [problem(each, 409, "session_overlap") for each in answers if each.status_code != 201]
    assert [each["other"] for each in others] == [stored] * 19
    assert len(await rows(owner, "select * from session_change")) == 1


async def test_corrections_at_once(settings: Settings, owner: Owner) -> None:
    """Corrections of one session at the same moment are done one after another; the trail has no gap."""
    async with serving(settings) as api:
        body = {"sessionId": "s-1", "vehicleId": "v-0", "meterId": "m-1", "startedAt": rfc3339(at(0))}
        assert (await api.post("/v1/sessions", json=body)).status_code == 201
        answers = await asyncio.gather(
            *(api.patch("/v1/sessions/s-1", json={"vehicleId": f"v-{n}"}) for n in range(1, 13))
        )
        assert [each.status_code for each in answers] == [200] * 12
    trail = await rows(owner, "select vehicle_before, vehicle_after from session_change order by change_id")
    assert len(trail) == 13
    assert all(a["vehicle_after"] == b["vehicle_before"] for a, b in pairwise(trail))


async def test_two_that_swap_meters(settings: Settings) -> None:
    """Corrections that want each other's meter end in conflicts, not in a deadlock that anybody sees."""
    async with serving(settings) as api:
        for n in range(2):
            body = {"vehicleId": f"v-{n}", "meterId": f"m-{n}", "startedAt": rfc3339(at(0))}
            assert (await api.post("/v1/sessions", json=body | {"sessionId": f"s-{n}"})).status_code == 201
        for _ in range(3):
            answers = await asyncio.gather(
                *(api.patch(f"/v1/sessions/s-{n}", json={"meterId": f"m-{1 - n}"}) for n in range(2))
            )
            for answer in answers:
                problem(answer, 409, "session_overlap")
