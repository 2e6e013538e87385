"""Rows of a file to sessions: ids of several columns, times of a zone, and each reason to refuse a row."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given

from service.errors import ImportFileError
from service.importer.refusal import Refusal
from service.sessions.model import Session, derived_id
from service.sessions.rows import SessionMapping, SessionReader
from tests.support.strategies import device_ids, pure, timestamps

HEADER = ["id", "car", "point", "plug", "from", "to", "kWh"]
MAPPING: dict[str, Any] = {
    "vehicle_id": "car",
    "meter_id": "point,plug",
    "session_id": "id",
    "start": "from",
    "end": "to",
    "energy": "kWh",
    "tz": "Europe/Paris",
}
ROW = ["s-1", "v-1", "p", "2", "2023-06-01T12:00:00", "2023-06-01T13:00:00", "7.5"]
PARIS = ZoneInfo("Europe/Paris")


def read(row: list[str] | None, **options: Any) -> Session | Refusal:
    """Read one row of the usual header."""
    return SessionReader(SessionMapping(**{**MAPPING, **options}), HEADER).read(row)


def changed(**cells: str) -> list[str]:
    """Give the good row with some cells replaced."""
    return [cells.get(name.lower(), cell) for name, cell in zip(HEADER, ROW, strict=True)]


def test_a_good_row() -> None:
    """Ids of two columns are joined by a colon, and local times are those of the zone."""
    assert read(ROW) == Session(
        session_id="s-1",
        vehicle_id="v-1",
        meter_id="p:2",
        started_at=datetime(2023, 6, 1, 10, tzinfo=UTC),
        ended_at=datetime(2023, 6, 1, 11, tzinfo=UTC),
    )


def test_usual_names_and_constants() -> None:
    """Without options the names in JSON are taken, a constant goes for all rows, and an id is derived."""
    header = ["vehicleId", "startedAt", "endedAt"]
    start = datetime(2023, 6, 1, 12, tzinfo=UTC)
    reader = SessionReader(SessionMapping(meter_id="=m-1"), header)
    found = reader.read(["v-1", "2023-06-01T14:00:00+02:00", "2023-06-01T13:00:00Z"])
    assert isinstance(found, Session)
    assert (found.meter_id, found.started_at) == ("m-1", start)
    assert found.session_id == derived_id("v-1", "m-1", start)


@pytest.mark.parametrize(
    ("row", "code", "field"),
    [
        (None, "malformed_csv", None),
        (ROW[:-1], "wrong_columns", None),
        (changed(car=""), "missing", "vehicleId"),
        (changed(car="n/a"), "missing", "vehicleId"),
        (changed(car="a b"), "bad_id", "vehicleId"),
        (changed(car="x" * 65), "bad_id", "vehicleId"),
        (changed(plug=""), "missing", "meterId"),
        (changed(plug="2/3"), "bad_id", "meterId"),
        (changed(id=""), "missing", "sessionId"),
        (changed(id="a,b"), "bad_id", "sessionId"),
        ([*ROW[:4], "", *ROW[5:]], "missing", "startedAt"),
        ([*ROW[:4], "soon", *ROW[5:]], "wrong_type", "startedAt"),
        ([*ROW[:4], "2023-03-26T02:30:00", *ROW[5:]], "nonexistent_time", "startedAt"),
        ([*ROW[:4], "2023-10-29T02:30:00", *ROW[5:]], "ambiguous_time", "startedAt"),
        ([*ROW[:4], "1899-01-01T00:00:00", *ROW[5:]], "out_of_range", "startedAt"),
        (changed(to=""), "missing", "endedAt"),
        (changed(to="2023-06-01"), "wrong_type", "endedAt"),
        (changed(to="2023-06-01T12:00:00"), "no_duration", "endedAt"),
        (changed(to="2023-06-01T11:59:59"), "ends_before_start", "endedAt"),
        (changed(to="3023-06-01T11:59:59"), "out_of_range", "endedAt"),
        (changed(kwh="-0.001"), "negative_energy", "energy"),
        (changed(kwh="much"), "wrong_type", "energy"),
    ],
)
def test_reasons(row: list[str] | None, code: str, field: str | None) -> None:
    """Each fault has its code and its field, and words."""
    found = read(row)
    assert isinstance(found, Refusal)
    assert (found.code, found.field) == (code, field)
    assert found.message


def test_energy_is_not_needed() -> None:
    """A row without an energy is a session, and so is any row when nobody asks for the energy."""
    assert isinstance(read(changed(kwh="")), Session)
    assert isinstance(read(changed(kwh="?")), Session)
    assert isinstance(read(changed(kwh="-1"), energy=None), Session)
    assert isinstance(read(changed(kwh="1,5"), decimal_comma=True), Session)


def test_longest() -> None:
    """A session of exactly so many hours is one, a second more is not; and without a limit anything is."""
    assert isinstance(read(ROW, max_hours=1), Session)
    found = read(changed(to="2023-06-01T13:00:01"), max_hours=1)
    assert isinstance(found, Refusal)
    assert (found.code, found.field) == ("too_long", "endedAt")
    assert isinstance(read(changed(to="2024-06-01T13:00:01")), Session)


def test_open_ends() -> None:
    """Where that is wanted a row without an end is an open session; half an end is a mistake all the same."""
    found = read(changed(to=""), open_ends=True)
    assert isinstance(found, Session)
    assert found.ended_at is None
    header = [*HEADER, "time"]
    mapping = SessionMapping(
        **{**MAPPING, "end": "to,time", "time_format": "%Y-%m-%dT%H:%M:%S", "open_ends": True}
    )
    reader = SessionReader(mapping, header)
    half = reader.read([*changed(to=""), "12:00"])
    assert isinstance(half, Refusal)
    assert (half.code, half.field) == ("missing", "endedAt")
    assert isinstance(reader.read([*changed(to=""), ""]), Session)


# Summer time ended at 01:00 UTC: 02:30 local was 00:30 UTC, and again 01:30 UTC.
TWICE: list[tuple[str, str, str]] = [
    ("01:00", "01:30", "23:00-23:30"),
    ("01:30", "03:30", "23:30-02:30"),
    # Whether half an hour or one and a half, nobody knows.
    ("01:30", "02:30", "endedAt"),
    ("02:30", "03:30", "startedAt"),
    ("02:10", "02:20", "startedAt"),
    ("02:50", "02:40", "startedAt"),
    ("02:30", "02:30", "startedAt"),
    ("02:30", "", "startedAt"),
    # An offset is certain, and leaves only one of the two.
    ("02:30+02:00", "02:10", "00:30-01:10"),
    ("02:30+02:00", "02:30", "00:30-01:30"),
    ("02:30+02:00", "02:40", "endedAt"),
    ("02:30+01:00", "02:10", "endedAt"),
    ("02:50", "02:30+01:00", "00:50-01:30"),
    ("02:30", "02:30+01:00", "00:30-01:30"),
    ("02:10", "02:30+01:00", "startedAt"),
    ("02:50", "02:30+02:00", "startedAt"),
]


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("repeats", [1, 3])
def test_the_hour_that_occurs_twice(backward: bool, repeats: int) -> None:
    """A time in it is settled by the session's own other end or refused; no other row has a say."""
    reader = SessionReader(SessionMapping(**MAPPING, open_ends=True), HEADER)
    for start, end, expected in TWICE[:: -1 if backward else 1] * repeats:
        times = [f"2023-10-29T{one[:5]}:00{one[5:]}" if one else "" for one in (start, end)]
        found = reader.read(["s-1", "v", "p", "1", *times, ""])
        if isinstance(found, Refusal):
            assert (found.code, found.field) == ("ambiguous_time", expected), (start, end)
            assert "Europe/Paris" in found.message
            continue
        assert found.ended_at is not None
        span = [moment.astimezone(UTC).strftime("%H:%M") for moment in (found.started_at, found.ended_at)]
        assert "-".join(span) == expected, (start, end)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"vehicle_id": None}, "--vehicle-id"),
        ({"start": None}, "--start"),
        ({"end": "till"}, "no such column"),
        ({"meter_id": "point,nothing"}, "no such column"),
        ({"meter_id": "=a b"}, "not an id of 1 to 64"),
        ({"vehicle_id": "UserID"}, "--vehicle-id UserID: no such column"),
        ({"session_id": "=s-1"}, "--session-id"),
        ({"energy": "=5"}, "no such column"),
        ({"tz": "Mars"}, "unknown zone"),
    ],
)
def test_options_that_do_not_fit_the_file(options: dict[str, Any], words: str) -> None:
    """They stop the import before it began, with words that name the option."""
    with pytest.raises(ImportFileError, match=words):
        read(ROW, **options)


@pure
@given(device_ids, device_ids, timestamps)
def test_an_id_follows_from_vehicle_meter_and_start(vehicle: str, meter: str, start: datetime) -> None:
    """It is a valid id, the same in any zone, and another one for another vehicle, meter or start."""
    own = derived_id(vehicle, meter, start)
    assert own == derived_id(vehicle, meter, start.astimezone(PARIS))
    others = {
        derived_id(vehicle + "x", meter, start),
        derived_id(vehicle, meter + "x", start),
        derived_id(vehicle, meter, start + timedelta(microseconds=1)),
    }
    assert len(others | {own}) == 4
    assert len(own) == 36
