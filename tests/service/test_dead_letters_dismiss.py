"""Dead letters that are dismissed: over HTTP, by whom, what stays of them, and what a replay does."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from service.dead_letters.letter import Filters
from service.doctor.examine import examine
from service.doctor.finding import Patient
from service.settings import Settings
from service.sql import query
from tests.support.letters import keep, marks, replaying, tables
from tests.support.strategies import Api, Owner, altered, meter, problem, rfc3339, rows

pytestmark = [pytest.mark.anyio, pytest.mark.either_edition]

NOW = datetime.now(UTC).replace(microsecond=0) - timedelta(days=2)
DISMISSED = (True, 0, "dismissed")
WAITS = (False, 0, None)


async def dismiss(api: Api, body: Any) -> dict[str, Any]:
    """Dismiss letters; give the answer."""
    response = await api.post("/v1/dead-letters/dismiss", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def told(dismissed: int, skipped: int = 0) -> dict[str, Any]:
    """Give the answer that says so, and that there are no more."""
    return {"dismissed": dismissed, "skipped": skipped, "more": False, "next": None}


async def test_by_id(api: Api, owner: Owner) -> None:
    """Letters are resolved and say why; those that are already, or are not there, are skipped."""
    one, two, three = [await keep(owner, b"{", code="malformed_json") for _ in range(3)]
    assert await dismiss(api, {"ids": [one, two, one]}) == told(2)
    assert await marks(owner) == {one: DISMISSED, two: DISMISSED, three: WAITS}
    letter = (await api.get(f"/v1/dead-letters/{one}")).json()
    assert (letter["replayError"], letter["replays"], letter["replayedAt"]) == ("dismissed", 0, None)
    assert (letter["code"], letter["message"], letter["raw"]) == ("malformed_json", "it was refused", "{")
    assert await dismiss(api, {"ids": [one, two, 12345]}) == told(0, skipped=3)
    # Also not again in time.
    assert (await api.get(f"/v1/dead-letters/{one}")).json() == letter
    waiting = (await api.get("/v1/dead-letters")).json()["deadLetters"]
    assert [each["id"] for each in waiting] == [three]
    resolved = (await api.get("/v1/dead-letters", params={"state": "resolved"})).json()["deadLetters"]
    assert [each["id"] for each in resolved] == [two, one]
    [group] = (await api.get("/v1/dead-letters/summary")).json()["groups"]
    assert (group["letters"], group["waiting"]) == (3, 1)


@pytest.mark.parametrize(
    ("body", "which"),
    [
        ({"code": "conflict"}, [0]),
        ({"kind": "vehicle"}, [1, 2]),
        ({"deviceId": "v-1", "origin": "mqtt:"}, [2]),
        ({"from": rfc3339(NOW), "to": rfc3339(NOW + timedelta(hours=1))}, [1]),
        ({"code": "foreign_device"}, [3]),
        ({"all": True}, [0, 1, 2, 3]),
    ],
)
async def test_by_filters(api: Api, owner: Owner, body: dict[str, Any], which: list[int]) -> None:
    """Those that wait and match, as a list has them; all only for who asks for all."""
    ids = [
        await keep(owner, {}, "mqtt:telemetry/meter/m-1", kind="meter", device_id="m-1", code="conflict"),
        await keep(owner, {}, kind="vehicle", device_id="v-1", received_at=NOW),
        await keep(owner, {}, "mqtt:telemetry/vehicle/v-1", kind="vehicle", device_id="v-1"),
        await keep(owner, {}, code="foreign_device"),
    ]
    assert await dismiss(api, body) == told(len(which))
    expected = {number: DISMISSED if place in which else WAITS for place, number in enumerate(ids)}
    assert await marks(owner) == expected
    assert await dismiss(api, body) == told(0)


async def test_some_at_a_time(api: Api, owner: Owner) -> None:
    """The newest go first and `next` goes on below them, so what comes meanwhile is left alone."""
    ids = [await keep(owner, {}) for _ in range(5)]
    assert await dismiss(api, {"all": True, "limit": 2}) == {
        "dismissed": 2, "skipped": 0, "more": True, "next": ids[3],
    }  # fmt: skip
    late = await keep(owner, {})
    answer = await dismiss(api, {"all": True, "limit": 2, "after": ids[3]})
    assert (answer["dismissed"], answer["next"]) == (2, ids[1])
    assert await dismiss(api, {"all": True, "limit": 2, "after": ids[1]}) == told(1)
    assert await marks(owner) == {**dict.fromkeys(ids, DISMISSED), late: WAITS}


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({}, "missing", "all"),
        ({"all": False}, "missing", "all"),
        ({"limit": 5, "after": 9}, "missing", "all"),
        ({"all": True, "code": "conflict"}, "ambiguous", "all"),
        ({"all": True, "ids": [1]}, "ambiguous", "all"),
        ({"ids": [1], "code": "conflict"}, "ambiguous", "ids"),
        ({"ids": [1], "after": 9}, "ambiguous", "ids"),
        ({"ids": []}, "bad_value", "ids"),
        ({"all": "yes"}, "bad_value", "all"),
        ({"codes": "conflict"}, "unknown_field", "codes"),
        ({"code": "A"}, "bad_parameter", "code"),
        ({"limit": 10_001, "all": True}, "bad_value", "limit"),
    ],
)
async def test_bad_dismissals(api: Api, owner: Owner, body: Any, code: str, field: str) -> None:
    """A request that does not say which letters, or says it twice, dismisses nothing."""
    await keep(owner, {})
    response = await api.post("/v1/dead-letters/dismiss", json=body)
    assert problem(response, 400, code)["field"] == field
    assert list((await marks(owner)).values()) == [WAITS]


async def test_a_replay_leaves_dismissed_letters_alone_unless_asked_by_id(
    settings: Settings, owner: Owner
) -> None:
    """By filter it is not tried; by id it is, and is dismissed no longer once it is stored."""
    good = await keep(owner, altered(meter()), kind="meter", code="conflict")
    bad = await keep(owner, altered(meter(minute=1), voltage=-1), kind="meter", code="conflict")
    async with replaying(settings) as (replay, letters):
        assert await letters.dismiss([good, bad]) == 2
        by_filter = await replay.matching(Filters(letter_code="conflict"), 10)
        assert (by_filter.replayed, by_filter.skipped) == (0, 0)
        assert (await tables(owner))["meter"] == []
        report = await replay.those([good, bad])
        assert (report.stored, report.refused, report.skipped) == (1, 1, 0)
        # What was refused again stays dismissed: nobody has to look at it.
        assert await marks(owner) == {good: (True, 1, None), bad: (True, 1, "dismissed")}
        assert (await replay.those([good])).skipped == 1
        # What is stored cannot be dismissed any more.
        assert await letters.dismiss([good]) == 0


async def test_a_replay_that_ends_after_the_dismissal(settings: Settings, owner: Owner) -> None:
    """What it stored counts as stored; what it had refused stays dismissed."""
    stored, refused = await keep(owner, {}), await keep(owner, {})
    async with replaying(settings) as (_, letters):
        await letters.dismiss([stored, refused])
        await letters.mark({stored: None, refused: "missing: no"})
    assert await marks(owner) == {stored: (True, 1, None), refused: (True, 1, "dismissed")}


async def test_dismissals_and_marks_at_once(settings: Settings, owner: Owner) -> None:
    """Letters dismissed and marked many times at once make no deadlock, and each is dismissed once."""
    ids = [await keep(owner, {}) for _ in range(300)]
    async with replaying(settings) as (_, letters):

        async def mark() -> int:
            await letters.mark(dict.fromkeys(ids, "missing: no"))
            return 0

        counts = await asyncio.gather(
            *(each for _ in range(6) for each in (letters.dismiss(ids[::-1]), mark(), letters.dismiss(ids)))
        )
    assert sum(counts) == 300
    assert {mark[2] for mark in (await marks(owner)).values()} == {"dismissed"}


async def test_dismissed_letters_are_pruned_as_resolved_ones(settings: Settings, owner: Owner) -> None:
    """Where there is too much, they go before those that wait, though they are younger."""
    waiting = await keep(owner, b"x" * 700_000)
    dismissed = await keep(owner, b"x" * 700_000)
    async with replaying(settings) as (_, letters):
        await letters.dismiss([dismissed])
        async with letters.pool.connection() as connection:
            values = {"max_age_days": 90, "max_total_bytes": 1024 * 1024, "bite": 100}
            await connection.execute(query("prune_dead_letters"), values)
    assert list(await marks(owner)) == [waiting]


async def test_the_doctor_is_content(settings: Settings, owner: Owner) -> None:
    """A letter that waits is a finding, a dismissed one is none."""

    async def found() -> list[str]:
        report = await asyncio.to_thread(examine, Patient(settings=settings))
        return [finding.what for finding in report.findings if finding.check == "dead letters"]

    number = await keep(owner, b"{")
    assert "1 dead letters wait" in (await found())[0]
    async with replaying(settings) as (_, letters):
        await letters.dismiss([number])
    assert await found() == []


async def test_the_service_may_and_readers_may_not(settings: Settings, owner: Owner) -> None:
    """The rights to mark a letter are those to dismiss one; the role for BI has none."""
    number = await keep(owner, b"{")
    [role] = await rows(owner, "select has_table_privilege('fleetwatt_bi', 'dead_letter', 'update') as may")
    assert role["may"] is False
    async with await psycopg.AsyncConnection.connect(settings.database_url) as connection:
        cursor = await connection.execute("select current_user")
        assert await cursor.fetchone() == ("fleetwatt_service",)
        await connection.execute(query("dismiss_dead_letters"), {"letter_ids": [number]})
    assert await marks(owner) == {number: DISMISSED}
