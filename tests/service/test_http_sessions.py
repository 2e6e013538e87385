"""Charging sessions over HTTP: start, end, correct, list; and that a meter serves one vehicle at a time."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.support.strategies import NOW, Api, Owner, problem, rfc3339, rows

pytestmark = pytest.mark.anyio


def session(start: float = 0, end: float | None = None, **changes: Any) -> dict[str, Any]:
    """Make a session from and to hours after NOW."""
    made = {
        "vehicleId": "v-1",
        "meterId": "m-1",
        "startedAt": rfc3339(NOW + timedelta(hours=start)),
        "endedAt": None if end is None else rfc3339(NOW + timedelta(hours=end)),
    }
    return made | changes


async def add(api: Api, body: dict[str, Any]) -> dict[str, Any]:
    """Store a session that is fine; give it as it is told."""
    response = await api.post("/v1/sessions", json=body)
    assert response.status_code == 201, response.text
    told: dict[str, Any] = response.json()
    return told


async def listed(api: Api, query: str = "") -> list[str]:
    """Give the ids of a list of sessions."""
    response = await api.get(f"/v1/sessions?{query}")
    assert response.status_code == 200, response.text
    return [each["sessionId"] for each in response.json()["sessions"]]


async def test_start(api: Api, owner: Owner) -> None:
    """A session gets an id, is told as the contract has it, and is in the table."""
    told = await add(api, session())
    assert told == session(sessionId=told["sessionId"])
    assert told["sessionId"]
    finished = await add(api, session(-2, -1, sessionId="s-1"))
    assert finished == session(-2, -1, sessionId="s-1")
    stored = await rows(owner, "select * from charging_session order by lower(during)")
    assert [row["session_id"] for row in stored] == ["s-1", told["sessionId"]]
    assert (stored[0]["during"].lower, stored[0]["during"].bounds) == (NOW - timedelta(hours=2), "[)")
    assert stored[1]["during"].upper is None


async def test_the_same_again(api: Api, owner: Owner) -> None:
    """The same session under the same id, in whatever zone it is written, is a 200 and stored once."""
    body = session(0, 1, sessionId="s-1")
    told = await add(api, body)
    for again in (body, body | {"startedAt": "2026-01-31T14:00:00+02:00"}):
        response = await api.post("/v1/sessions", json=again)
        assert (response.status_code, response.json()) == (200, told)
    assert len(await rows(owner, "select * from charging_session")) == 1


@pytest.mark.parametrize("end", [None, 1], ids=["open", "ended"])
async def test_the_same_again_without_an_id(api: Api, owner: Owner, end: float | None) -> None:
    """A session sent again without an id is the one that is stored; any other value is another one."""
    told = await add(api, session(0, end))
    response = await api.post("/v1/sessions", json=session(0, end))
    assert (response.status_code, response.json()) == (200, told)
    for other in (session(0, 2), session(0, end, vehicleId="v-2"), session(-1, end), session(0.5, end)):
        body = problem(await api.post("/v1/sessions", json=other), 409, "session_overlap")
        assert body["other"] == told
    # Who gives an id means a session of that id.
    problem(await api.post("/v1/sessions", json=session(0, end, sessionId="s-2")), 409, "session_overlap")
    assert len(await rows(owner, "select * from session_change")) == 1


@pytest.mark.parametrize(
    "changes",
    [{"vehicleId": "v-2"}, {"meterId": "m-2"}, {"endedAt": None}, {"startedAt": "2026-01-31T11:00:00Z"}],
)
async def test_other_values_under_the_id(api: Api, changes: dict[str, Any]) -> None:
    """Other values under an id that is taken are a 409 that names the id; the first stays."""
    told = await add(api, session(0, 1, sessionId="s-1"))
    body = problem(
        await api.post("/v1/sessions", json=session(0, 1, sessionId="s-1", **changes)), 409, "session_exists"
    )
    assert body["field"] == "sessionId"
    assert (await api.get("/v1/sessions")).json()["sessions"] == [told]


async def test_overlap(api: Api) -> None:
    """A meter that serves a vehicle cannot serve another: a 409 that names the session in the way."""
    first = await add(api, session(0, 2, sessionId="s-1"))
    for start, end in ((0, 2), (1, 3), (-1, 0.001), (0.5, 1), (-1, None), (1.999, None)):
        other = session(start, end, vehicleId="v-2")
        body = problem(await api.post("/v1/sessions", json=other), 409, "session_overlap")
        assert (body["field"], body["other"]) == ("meterId", first)
        assert "s-1" in body["detail"]
        assert "v-1" in body["detail"]
    # Start included, end excluded: one begins where the other ends. Another meter is free.
    await add(api, session(2, 3, vehicleId="v-2"))
    await add(api, session(-1, 0, vehicleId="v-2"))
    await add(api, session(0, 2, meterId="m-2"))


async def test_end_and_correct(api: Api, owner: Owner) -> None:
    """PATCH ends a session, opens it again, and corrects what is given; the rest stays."""
    await add(api, session(0, sessionId="s-1"))
    steps = [
        ({"endedAt": rfc3339(NOW + timedelta(hours=1))}, session(0, 1)),
        ({"meterId": "m-2"}, session(0, 1, meterId="m-2")),
        ({"vehicleId": "v-2", "meterId": "m-1"}, session(0, 1, vehicleId="v-2")),
        ({"startedAt": rfc3339(NOW - timedelta(hours=1))}, session(-1, 1, vehicleId="v-2")),
        ({"endedAt": None}, session(-1, vehicleId="v-2")),
        ({"endedAt": None}, session(-1, vehicleId="v-2")),
    ]
    for change, expected in steps:
        response = await api.patch("/v1/sessions/s-1", json=change)
        assert response.status_code == 200, response.text
        assert response.json() == expected | {"sessionId": "s-1"}
        assert (await api.get("/v1/sessions")).json()["sessions"] == [response.json()]
    [stored] = await rows(owner, "select * from charging_session")
    assert stored["during"].upper is None


async def test_bad_changes(api: Api) -> None:
    """A change that cannot be is refused and changes nothing: 404, 400 or 409."""
    before = [
        await add(api, session(2, 3, sessionId="s-2", vehicleId="v-2")),
        await add(api, session(0, 1, sessionId="s-1")),
    ]
    problem(await api.patch("/v1/sessions/nobody", json={"endedAt": None}), 404, "unknown_session")
    late = {"endedAt": rfc3339(NOW + timedelta(hours=2, seconds=1))}
    body = problem(await api.patch("/v1/sessions/s-1", json=late), 409, "session_overlap")
    assert body["other"]["sessionId"] == "s-2"
    body = problem(await api.patch("/v1/sessions/s-1", json={"endedAt": None}), 409, "session_overlap")
    assert body["other"]["sessionId"] == "s-2"
    for change, field in (
        ({"endedAt": rfc3339(NOW)}, "endedAt"),
        ({"startedAt": rfc3339(NOW + timedelta(hours=1))}, "endedAt"),
        ({"endedAt": "soon"}, "endedAt"),
        ({"startedAt": None}, "startedAt"),
        ({"startedAt": "2026-01-31T12:00:00"}, "startedAt"),
        ({"vehicleId": None}, "vehicleId"),
        ({"meterId": "a b"}, "meterId"),
    ):
        body = problem(await api.patch("/v1/sessions/s-1", json=change), 400)
        assert field in str(body)
    for nothing in ({}, {"ended_at": rfc3339(NOW)}, {"end": None, "sessionId": "s-9"}):
        body = problem(await api.patch("/v1/sessions/s-1", json=nothing), 400, "missing")
        assert '"endedAt"' in body["detail"]
    assert (await api.get("/v1/sessions")).json()["sessions"] == before


async def test_list(api: Api) -> None:
    """The list is newest first; filters by vehicle, meter, time and open or ended combine."""
    await add(api, session(0, 1, sessionId="a"))
    await add(api, session(1, 2, sessionId="b", vehicleId="v-2"))
    await add(api, session(2, None, sessionId="c"))
    await add(api, session(0, 1, sessionId="d", meterId="m-2"))
    for query, expected in {
        "": ["c", "b", "d", "a"],
        "vehicleId=v-1": ["c", "d", "a"],
        "vehicleId=v-1&meterId=m-1": ["c", "a"],
        "meterId=m-2": ["d"],
        "open=true": ["c"],
        "open=false": ["b", "d", "a"],
        "vehicleId=nobody": [],
        # A span touches what it shares a moment with: start included, end excluded.
        "from=2026-01-31T13:00:00Z": ["c", "b"],
        "to=2026-01-31T13:00:00Z": ["d", "a"],
        "from=2026-01-31T12:59:59Z&to=2026-01-31T13:00:01Z": ["b", "d", "a"],
        "from=2030-01-01T00:00:00Z&to=2031-01-01T00:00:00Z": ["c"],
        "to=2020-01-01T00:00:00Z": [],
        "open=true&vehicleId=v-2": [],
    }.items():
        assert await listed(api, query) == expected, query


async def test_pages(api: Api) -> None:
    """Walking page by page gives every session once, ties in time included, and then ends."""
    for number in range(7):
        await add(api, session(number // 3, number // 3 + 1, sessionId=f"s-{number}", meterId=f"m-{number}"))
    everything = await listed(api)
    assert sorted(everything) == [f"s-{number}" for number in range(7)]
    for size in (1, 2, 3, 7, 100):
        walked, after = [], ""
        for _ in range(9):
            page = (await api.get(f"/v1/sessions?limit={size}{after}")).json()
            walked += [each["sessionId"] for each in page["sessions"]]
            assert 0 < len(page["sessions"]) <= size
            if page["next"] is None:
                break
            after = f"&after={page['next']}"
        assert (walked, page["next"]) == (everything, None)


@pytest.mark.parametrize(
    "body",
    [
        session(startedAt="0001-01-01T00:00:00+14:00"),
        session(startedAt="2026-01-01T00:00:00Z", endedAt="9999-12-31T23:59:59-14:00"),
        session(startedAt="9999-12-31T23:59:59.999999-14:00"),
    ],
)
async def test_times_beyond_the_calendar(api: Api, body: dict[str, Any]) -> None:
    """A time that is outside the years 1 to 9999 once in UTC is refused, and the list stays readable."""
    answer = await api.post("/v1/sessions", json=body)
    assert await listed(api) == []
    problem(answer, 400)
    await add(api, session(0, 1, sessionId="s-1"))
    problem(await api.patch("/v1/sessions/s-1", json={"endedAt": "9999-12-31T23:59:59-14:00"}), 400)
    assert await listed(api) == ["s-1"]


async def test_any_zone(api: Api) -> None:
    """Every offset that RFC 3339 can write is taken and told in UTC."""
    for place, zone in enumerate(("+15:59", "+16:00", "-23:59", "+23:59")):
        told = await add(api, session(meterId=f"m-{place}", startedAt=f"2026-01-31T12:00:00{zone}"))
        assert told["startedAt"].endswith("Z")
