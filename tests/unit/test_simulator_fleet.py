"""A fleet: the same for everyone who asks, balanced books, and no meter that serves two at once."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.ingest.decode import decode
from service.readings import MeterReading, TimeRule, VehicleReading
from service.simulator.fleet import Fleet, PlannedSession, moments

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)

sizes = st.integers(1, 40)
starts = st.datetimes(datetime(2001, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
intervals = st.sampled_from([0.5, 1, 7, 60, 300, 900, 3600])


def _books(
    fleet: Fleet, start: datetime, end: datetime, interval_s: float
) -> dict[PlannedSession, tuple[float, float]]:
    """Sum (AC, DC) by session, as the engine does: a reading belongs where its timestamp falls."""
    by_device = defaultdict(list)
    whole = [
        session
        for session in fleet.sessions(start, end)
        if start < session.started_at and session.ended_at < end
    ]
    for session in whole:
        by_device[session.meter_id].append(session)
        by_device[session.vehicle_id].append(session)
    ac, dc = dict.fromkeys(whole, 0.0), dict.fromkeys(whole, 0.0)
    for tick in fleet.readings(start, end, interval_s):
        for reading in tick:
            for session in by_device[reading.device_id]:
                if session.started_at <= reading.recorded_at < session.ended_at:
                    if isinstance(reading, MeterReading):
                        ac[session] += reading.kwh_consumed_ac
                    else:
                        dc[session] += reading.kwh_delivered_dc
    return {session: (ac[session], dc[session]) for session in whole}


@given(vehicles=sizes, meters=sizes, seed=st.integers(), moment=starts, interval_s=intervals)
def test_readings_depend_on_seed_device_and_moment_only(
    vehicles: int, meters: int, seed: int, moment: datetime, interval_s: float
) -> None:
    """Another instance, asked out of order and about other moments first, gives equal readings."""
    first, second = Fleet(vehicles, meters, seed), Fleet(vehicles, meters, seed)
    wanted = first.readings_at(moment, interval_s)
    for hours in (30, -5, 3):
        second.readings_at(moment + timedelta(hours=hours), 60)
    assert second.readings_at(moment, interval_s) == wanted
    assert len(wanted) == vehicles + meters


def test_another_seed_is_another_fleet() -> None:
    """Two seeds give different readings."""
    assert Fleet(5, 5, 1).readings_at(NOON, 60) != Fleet(5, 5, 2).readings_at(NOON, 60)


@given(vehicles=sizes, meters=sizes, seed=st.integers(), start=starts)
def test_a_meter_and_a_vehicle_are_in_one_session_at_a_time(
    vehicles: int, meters: int, seed: int, start: datetime
) -> None:
    """Sessions of a meter never overlap, nor do those of a vehicle, whoever outnumbers whom."""
    sessions = list(Fleet(vehicles, meters, seed).sessions(start, start + 3 * DAY))
    assert len({session.session_id for session in sessions}) == len(sessions)
    for device in ("meter_id", "vehicle_id"):
        by_device = defaultdict(list)
        for session in sessions:
            by_device[getattr(session, device)].append((session.started_at, session.ended_at))
        for spans in by_device.values():
            spans.sort()
            assert all(before[1] <= after[0] for before, after in pairwise(spans))


@given(seed=st.integers(), start=starts, hours=st.integers(1, 40))
def test_sessions_of_a_window_are_those_that_overlap_it(seed: int, start: datetime, hours: int) -> None:
    """A narrow window finds exactly what a wide one finds of it; times lie on whole seconds."""
    fleet, end = Fleet(9, 4, seed), start + timedelta(hours=hours)
    wide = fleet.sessions(start - 5 * DAY, end + 5 * DAY)
    overlapping = [session for session in wide if session.started_at < end and session.ended_at > start]
    assert list(fleet.sessions(start, end)) == overlapping
    assert all(session.started_at.microsecond == session.ended_at.microsecond == 0 for session in overlapping)


@pytest.mark.parametrize(("vehicles", "meters"), [(24, 24), (24, 9), (6, 10)])
def test_ratios_tell_faulty_chargers_from_healthy_ones(vehicles: int, meters: int) -> None:
    """Over a whole session DC / AC is 0.86 to 0.97 with a healthy charger, near 0.75 with a faulty one."""
    fleet = Fleet(vehicles, meters, seed=7, faulty_share=0.2)
    books = _books(fleet, NOON, NOON + 2 * DAY, 60)
    assert {session.meter_id in fleet.faulty_meters for session in books} == {True, False}
    for session, (ac, dc) in books.items():
        assert dc > 5
        low, high = (0.72, 0.78) if session.meter_id in fleet.faulty_meters else (0.86, 0.97)
        assert low < dc / ac < high


@pytest.mark.parametrize("interval_s", [10, 60, 900])
def test_no_energy_is_lost_at_the_edges_of_sessions(interval_s: float) -> None:
    """Outside of sessions every reading is 0 kWh, up to an interval of 15 minutes."""
    fleet, end = Fleet(6, 4, seed=3), NOON + DAY
    spans = defaultdict(list)
    for session in fleet.sessions(NOON - DAY, end + DAY):
        for device in (session.meter_id, session.vehicle_id):
            spans[device].append((session.started_at, session.ended_at))
    for tick in fleet.readings(NOON, end, interval_s):
        for reading in tick:
            kwh = reading.kwh_consumed_ac if isinstance(reading, MeterReading) else reading.kwh_delivered_dc
            inside = any(since <= reading.recorded_at < until for since, until in spans[reading.device_id])
            assert kwh == 0 or inside


def test_a_vehicles_energy_is_what_its_battery_gained() -> None:
    """The sum over any interval length is the same, as long as the windows are the same."""
    totals = []
    for interval_s in (20, 60, 3600):
        fleet, total = Fleet(3, 2, seed=5), 0.0
        for tick in fleet.readings(NOON, NOON + DAY, interval_s):
            total += sum(reading.kwh_delivered_dc for reading in tick if isinstance(reading, VehicleReading))
        totals.append(total)
    assert totals == pytest.approx([totals[0]] * 3, abs=0.01)


@given(vehicles=sizes, meters=sizes, seed=st.integers(), moment=starts)
def test_soc_never_falls_in_a_session_nor_jumps(
    vehicles: int, meters: int, seed: int, moment: datetime
) -> None:
    """Minute by minute the state of charge stays in 0..100, moves by little, and rises only with energy."""
    fleet = Fleet(vehicles, meters, seed)
    socs: dict[str, VehicleReading] = {}
    for tick in fleet.readings(moment, moment + timedelta(minutes=8), 60):
        for reading in tick:
            if isinstance(reading, VehicleReading):
                before = socs.get(reading.device_id)
                assert 0 <= reading.soc <= 100
                if before is not None:
                    assert abs(reading.soc - before.soc) < 3
                    assert reading.soc >= before.soc or reading.kwh_delivered_dc == 0
                    assert reading.soc <= before.soc or reading.kwh_delivered_dc > 0
                socs[reading.device_id] = reading


@pytest.mark.parametrize("hour", range(0, 24, 3))
def test_a_third_of_the_fleet_charges_at_any_hour(hour: int) -> None:
    """A quarter to a bit over a third of 200 vehicles charge, by day and by night."""
    readings = Fleet(200, 200, seed=1).readings_at(NOON + timedelta(hours=hour), 60)
    charging = [r for r in readings if isinstance(r, VehicleReading) and r.kwh_delivered_dc > 0]
    assert 0.25 <= len(charging) / 200 <= 0.37


@given(vehicles=sizes, meters=sizes, seed=st.integers(), moment=starts, interval_s=intervals)
def test_every_reading_is_accepted(
    vehicles: int, meters: int, seed: int, moment: datetime, interval_s: float
) -> None:
    """What a fleet sends decodes to the same readings, without a rejection."""
    readings = Fleet(vehicles, meters, seed).readings_at(moment, interval_s)
    decoded = decode(msgspec.json.encode(readings), TimeRule(now=moment.timestamp))
    assert decoded.rejections == []
    assert decoded.readings == readings


@given(start=starts, minutes=st.integers(0, 500), interval_s=intervals)
def test_windows_that_meet_share_no_tick(start: datetime, minutes: int, interval_s: float) -> None:
    """Ticks of a split window are those of the whole, and lie on multiples of the interval."""
    middle, end = start + timedelta(minutes=minutes), start + timedelta(minutes=500)
    whole = list(moments(start, end, interval_s))
    assert [*moments(start, middle, interval_s), *moments(middle, end, interval_s)] == whole
    assert all(start < moment <= end for moment in whole)
    assert all(moment.timestamp() % interval_s == 0 for moment in whole)


@pytest.mark.parametrize(("share", "faulty"), [(0, 0), (0.001, 1), (0.03, 3), (1, 100)])
def test_the_share_of_faulty_chargers_is_met(share: float, faulty: int) -> None:
    """As many meters are faulty as the share says, rounded up, so a small fleet has one as well."""
    assert len(Fleet(100, 120, 1, share).faulty_meters) == faulty


@pytest.mark.parametrize(
    ("vehicles", "meters", "share"), [(0, 1, 0.1), (1, 0, 0.1), (1, 1, 1.1), (1, 1, -0.1)]
)
def test_impossible_fleets_are_refused(vehicles: int, meters: int, share: float) -> None:
    """A fleet needs devices, and a share lies between 0 and 1."""
    with pytest.raises(ValueError, match=r"fleet|share"):
        Fleet(vehicles, meters, 1, share)


@pytest.mark.parametrize("interval_s", [0, -1, 3601])
def test_impossible_intervals_are_refused(interval_s: float) -> None:
    """An interval is longer than nothing and at most an hour."""
    with pytest.raises(ValueError, match="interval"):
        Fleet(1, 1, 1).readings_at(NOON, interval_s)
