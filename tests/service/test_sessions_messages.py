"""Messages about sessions against the database: what becomes of each, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
import pytest

from service import db
from service.sessions.messages import SessionMessages
from service.sessions.model import derived_id
from service.settings import Settings
from tests.support.strategies import Api, Owner, at, rfc3339, rows

pytestmark = pytest.mark.anyio

SESSIONS: Final = (
    "select session_id, vehicle_id, meter_id, lower(during) as s, upper(during) as e "
    "from charging_session order by meter_id, during"
)
LETTERS: Final = (
    "select code, field, device_id, origin, raw, raw_size from dead_letter order by dead_letter_id"
)
WAITING: Final = "select * from session_message where ended_session is null order by message_id"
TRAIL: Final = "select action, source, started_after, ended_after from session_change order by change_id"


@pytest.fixture
async def messages(settings: Settings) -> AsyncIterator[SessionMessages]:
    """Give what takes messages, on the test's database."""
    async with db.read_pool(settings) as pool:
        yield SessionMessages(settings, pool)


def start(minute: float, vehicle: str = "v-1", **more: Any) -> dict[str, Any]:
    """Make the start of a session, in minutes from the suite's NOW."""
    return {"vehicleId": vehicle, "startedAt": rfc3339(at(minute)), **more}


def end(minute: float, **more: Any) -> dict[str, Any]:
    """Make the end of a session."""
    return {"endedAt": rfc3339(at(minute)), **more}


async def take(messages: SessionMessages, *sent: dict[str, Any], meter: str = "m-1") -> None:
    """Hand messages of a meter over, one after another."""
    for each in sent:
        await messages.take(f"sessions/{meter}", msgspec.json.encode(each))


async def spans(owner: Owner, meter: str = "m-1") -> list[tuple[str, float, float | None]]:
    """Give the sessions of a meter as (vehicle, start, end) in minutes."""
    return [
        (
            row["vehicle_id"],
            (row["s"] - at(0)).total_seconds() / 60,
            None if row["e"] is None else (row["e"] - at(0)).total_seconds() / 60,
        )
        for row in await rows(owner, SESSIONS)
        if row["meter_id"] == meter
    ]


async def test_start_end_and_whole(messages: SessionMessages, owner: Owner) -> None:
    """A start opens a session, an end closes it, a whole one is stored at once; the trail says so."""
    await take(messages, start(0), end(30), start(40, "v-2", endedAt=rfc3339(at(50))), start(60, "v-3"))
    assert await spans(owner) == [("v-1", 0, 30), ("v-2", 40, 50), ("v-3", 60, None)]
    found = [(row["action"], row["source"]) for row in await rows(owner, TRAIL)]
    assert found == [("started", "mqtt"), ("ended", "mqtt"), ("recorded", "mqtt"), ("started", "mqtt")]
    assert (await rows(owner, SESSIONS))[0]["session_id"] == derived_id("v-1", "m-1", at(0))
    assert await rows(owner, LETTERS) == []


async def test_names_of_sessions(messages: SessionMessages, owner: Owner) -> None:
    """An id that is sent is kept, and the end that names it closes it, also before another one's start."""
    await take(messages, start(0, sessionId="s-1"), end(30, sessionId="s-1", meterId="m-1", vehicleId="x"))
    await take(messages, end(90, sessionId="s-3"), start(40, sessionId="s-2"), end(50))
    await take(messages, start(60, sessionId="s-3"))
    assert await spans(owner) == [("v-1", 0, 30), ("v-1", 40, 50), ("v-1", 60, 90)]
    assert [row["session_id"] for row in await rows(owner, SESSIONS)] == ["s-1", "s-2", "s-3"]
    assert await rows(owner, WAITING) == []


async def test_repeats_leave_no_trace(messages: SessionMessages, owner: Owner) -> None:
    """What was used, waits or was corrected since, and comes again, changes nothing and is no dead letter."""
    sent = [
        start(0),
        end(30),
        start(40, "v-2", sessionId="s-2"),
        end(200),
        start(300, endedAt=rfc3339(at(310))),
    ]
    await take(messages, *sent[:3], end(50, sessionId="s-2"), *sent[3:])
    first = derived_id("v-1", "m-1", at(0))
    await owner.execute("update charging_session set vehicle_id = 'v-9' where session_id = %s", (first,))
    await owner.execute(
        "update charging_session set during = tstzrange(lower(during), upper(during) + interval '1 minute') "
        "where session_id = 's-2'"
    )
    everything = (SESSIONS, TRAIL, "select *, xmin::text from session_message order by message_id", LETTERS)
    before = [await rows(owner, statement) for statement in everything]
    for _ in range(2):
        await take(messages, *sent, end(50, sessionId="s-2"))
    assert [await rows(owner, statement) for statement in everything] == before
    # As long as it takes for used ends to be forgotten, and after it.
    await owner.execute("delete from session_message where ended_session is not null")
    await take(messages, end(30), end(50, sessionId="s-2"))
    assert await rows(owner, SESSIONS) == before[0]
    assert await rows(owner, LETTERS) == []


async def test_what_can_never_fit_is_a_dead_letter_at_once(messages: SessionMessages, owner: Owner) -> None:
    """Another session under the id, a wrong meter, an end before the start, another end: each is named."""
    await take(messages, start(0, sessionId="s-1"), end(30, sessionId="s-1"), start(60, sessionId="s-2"))
    refused: list[tuple[dict[str, Any], str, str, str]] = [
        (start(100, sessionId="s-1"), "m-1", "session_exists", "sessionId"),
        (start(0, "v-2", sessionId="s-1"), "m-1", "session_exists", "sessionId"),
        (start(0, sessionId="s-1"), "m-2", "session_exists", "sessionId"),
        (end(70, sessionId="s-2"), "m-2", "id_mismatch", "sessionId"),
        (end(60, sessionId="s-2"), "m-1", "out_of_range", "endedAt"),
        (end(20, sessionId="s-1"), "m-1", "session_ended", "endedAt"),
        (start(0, sessionId="s-1", endedAt=rfc3339(at(20))), "m-1", "session_ended", "endedAt"),
    ]
    for message, meter, _, _ in refused:
        await take(messages, message, meter=meter)
    assert await spans(owner) == [("v-1", 0, 30), ("v-1", 60, None)]
    assert await rows(owner, WAITING) == []
    letters = await rows(owner, LETTERS)
    assert [(row["code"], row["field"], row["device_id"]) for row in letters] == [
        (code, field, meter) for _, meter, code, field in refused
    ]
    assert [bytes(row["raw"]) for row in letters] == [msgspec.json.encode(message) for message, *_ in refused]
    assert [row["origin"] for row in letters] == [f"mqtt:sessions/{meter}" for _, meter, _, _ in refused]


async def test_what_is_no_message_is_a_dead_letter(messages: SessionMessages, owner: Owner) -> None:
    """Bytes that are no start and no end are kept, whole or cut off, with a code and the field to blame."""
    good = start(0)
    bad: list[tuple[bytes, str, str | None]] = [
        (b"", "empty_body", None),
        (b"{", "malformed_json", None),
        (b"\xff\x00", "malformed_json", None),
        (b"[]", "wrong_shape", None),
        (b"5", "wrong_shape", None),
        (b'{"x": ' + b"[" * 100_000, "too_deep", None),
        (b"{}", "missing", "startedAt"),
        (msgspec.json.encode({"startedAt": good["startedAt"]}), "missing", "vehicleId"),
        (msgspec.json.encode(good | {"meterId": "m-2"}), "id_mismatch", "meterId"),
        (msgspec.json.encode(good | {"vehicleId": "a b"}), "bad_id", "vehicleId"),
        (msgspec.json.encode(good | {"sessionId": 5}), "wrong_type", "sessionId"),
        (msgspec.json.encode(good | {"startedAt": "2026-01-31T12:00:00"}), "naive_timestamp", "startedAt"),
        (msgspec.json.encode(good | {"startedAt": 1769860800}), "wrong_type", "startedAt"),
        (msgspec.json.encode(good | {"endedAt": good["startedAt"]}), "out_of_range", "endedAt"),
        (msgspec.json.encode(good | {"startedAt": "0001-01-01T00:00:00+14:00"}), "out_of_range", "startedAt"),
        (msgspec.json.encode({"endedAt": "2999-01-01T00:00:00Z"}), "future_timestamp", "endedAt"),
        (b'{"endedAt": "' + b"x" * 300_000 + b'"}', "wrong_type", "endedAt"),
    ]
    for payload, _, _ in bad:
        await messages.take("sessions/m-1", payload)
    for topic in ("sessions/a b", "sessions/" + "x" * 65, "sessions/", "sessions/zähler"):
        await messages.take(topic, msgspec.json.encode(good))
    letters = await rows(owner, LETTERS)
    assert [(row["code"], row["field"]) for row in letters] == [
        *[(code, field) for _, code, field in bad],
        *[("unknown_topic", "topic")] * 4,
    ]
    for (payload, _, _), letter in zip(bad, letters, strict=False):
        assert bytes(letter["raw"]) == payload[: 256 * 1024]
        assert letter["raw_size"] == len(payload)
    assert await rows(owner, SESSIONS) == []


async def test_room_made_by_a_correction_is_found(messages: SessionMessages, owner: Owner, api: Api) -> None:
    """A start that waits because the meter is taken is stored once a correction has freed the meter."""
    await take(messages, start(0, "v-1", sessionId="s-1"), start(30, "v-2"))
    assert await spans(owner) == [("v-1", 0, None)]
    response = await api.patch("/v1/sessions/s-1", json={"endedAt": rfc3339(at(20))})
    assert response.status_code == 200
    assert await messages.expire() == 0
    assert await spans(owner) == [("v-1", 0, 20), ("v-2", 30, None)]


async def test_an_unnamed_end_never_ends_a_standing_assignment(
    messages: SessionMessages, owner: Owner, api: Api
) -> None:
    """The end of some charge does not take a vehicle's meter away; an end that names the session does."""
    body = {"meterId": "m-1", "since": rfc3339(at(0))}
    answer = await api.put("/v1/vehicles/v-1/meter", json=body)
    await take(messages, end(30))
    assert await spans(owner) == [("v-1", 0, None)]
    await take(messages, end(60, sessionId=answer.json()["sessionId"]))
    assert await spans(owner) == [("v-1", 0, 60)]


async def test_an_end_that_others_set_is_not_replaced(
    messages: SessionMessages, owner: Owner, api: Api
) -> None:
    """Only an end matched by time gives way to an earlier one; what a person or an id said stays."""
    await take(messages, start(0, sessionId="s-1"))
    await api.patch("/v1/sessions/s-1", json={"endedAt": rfc3339(at(60))})
    await take(messages, end(30))
    assert await spans(owner) == [("v-1", 0, 60)]
    assert [row["ended_at"] for row in await rows(owner, WAITING)] == [at(30)]


async def test_a_correction_outlives_what_it_corrected(
    messages: SessionMessages, owner: Owner, api: Api
) -> None:
    """An end that a person took back stays taken back when it is delivered again, whatever end came since."""
    await take(messages, start(0, sessionId="s-1"), end(30, sessionId="s-1"))
    await api.patch("/v1/sessions/s-1", json={"endedAt": None})
    await take(messages, end(50))
    assert await spans(owner) == [("v-1", 0, 50)]
    await owner.execute("delete from session_message where ended_at = %s", (at(30),))
    await take(messages, end(30, sessionId="s-1"))
    assert await spans(owner) == [("v-1", 0, 50)]
    # A guess that gives way gives no old, named end another chance.
    await take(messages, end(40), end(30, sessionId="s-1"))
    assert await spans(owner) == [("v-1", 0, 40)]
    assert await rows(owner, LETTERS) == []


async def test_a_named_end_is_never_swallowed(messages: SessionMessages, owner: Owner) -> None:
    """Once a guess is too old to be replaced, a named end that differs is a dead letter."""
    await take(messages, start(0, sessionId="s-1"), end(60), end(30))
    await owner.execute("delete from session_message")
    await take(messages, end(60, sessionId="s-1"))
    assert await spans(owner) == [("v-1", 0, 30)]
    assert [row["code"] for row in await rows(owner, LETTERS)] == ["session_ended"]


async def test_messages_of_one_meter_at_once(messages: SessionMessages, owner: Owner) -> None:
    """Handed over at the same moment, as a broker's backlog is, they are taken in the order of arrival."""
    sent = [each for n in range(15) for each in (start(10 * n, f"v-{n}"), end(10 * n + 9))]
    await asyncio.gather(*[take(messages, one, meter=f"m-{meter}") for one in sent for meter in range(4)])
    for meter in range(4):
        expected = [(f"v-{n}", 10 * n, 10 * n + 9) for n in range(15)]
        assert await spans(owner, f"m-{meter}") == expected
    # In order, nothing had to be moved: each session was started and ended, once.
    found = [(row["action"], row["source"]) for row in await rows(owner, TRAIL)]
    assert sorted(found) == [("ended", "mqtt")] * 60 + [("started", "mqtt")] * 60
