"""A simulated fleet: its sessions, and what each of its devices reports at any moment."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from math import ceil, cos, pi
from random import Random
from typing import Final

import msgspec

from service.readings import MeterReading, Reading, VehicleReading
from service.simulator.draws import between, uniforms
from service.simulator.losses import efficiency
from service.simulator.schedule import Leg, Schedule, Session, Vehicle

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
DAY_S: Final = 86_400
YEAR_DAYS: Final = 365.25

LONGEST_INTERVAL_S: Final = 3600
GRID_VOLTAGE_V: Final = 230.0
# A wallbox at the end of its cable: the voltage sags by about this much for each kW drawn.
_SAG_V_PER_KW: Final = 0.2
# Class B meters (EN 50470-3) are good to 1 %; half of that, at random, in each interval.
_METER_NOISE: Final = 0.005


class PlannedSession(msgspec.Struct, frozen=True):
    """A charging session, start included, end excluded; both lie on whole seconds, in UTC."""

    session_id: str
    vehicle_id: str
    meter_id: str
    started_at: datetime
    ended_at: datetime


def moments(start: datetime, end: datetime, interval_s: float) -> Iterator[datetime]:
    """Give the ticks in (start, end]: the whole multiples of the interval since 1970.

    So two runs tick at the same moments whenever they were started, and windows that meet share no tick.
    """
    step_us = round(interval_s * 1_000_000)
    first, last = _microseconds(start) // step_us + 1, _microseconds(end) // step_us
    for tick in range(first, last + 1):
        yield EPOCH + timedelta(microseconds=tick * step_us)


class Fleet:
    """Vehicles that charge at meters; everything about them follows from the seed.

    With as many meters as vehicles each vehicle has its own; with fewer, vehicles take turns at a meter;
    with more, the rest stay idle. `faulty_share` of the meters that are used, but at least one unless the
    share is 0, have a charger that loses a quarter of the energy. Raises ValueError for impossible numbers.
    """

    def __init__(self, vehicles: int, meters: int, seed: int, faulty_share: float = 0.03) -> None:
        if vehicles < 1 or meters < 1:
            raise ValueError("a fleet needs at least one vehicle and one meter")
        if not 0 <= faulty_share <= 1:
            raise ValueError(f"the share of faulty chargers lies between 0 and 1, not at {faulty_share}")
        self.seed = seed
        self.vehicle_ids = [f"VH-{number:04d}" for number in range(1, vehicles + 1)]
        self.meter_ids = [f"METER-{number:04d}" for number in range(1, meters + 1)]
        used = min(vehicles, meters)
        faulty = frozenset(Random(f"{seed}/faulty").sample(range(used), ceil(used * faulty_share)))
        self.faulty_meters = frozenset(self.meter_ids[meter] for meter in faulty)
        self._schedule = Schedule(vehicles, meters, seed, faulty)
        self._legs: list[Leg | None] = [None] * vehicles
        self._voltages = [
            GRID_VOLTAGE_V + between(-2, 2, uniforms(seed, "meter", meter)[0]) for meter in range(meters)
        ]

    def sessions(self, start: datetime, end: datetime) -> Iterator[PlannedSession]:
        """Give the sessions that overlap [start, end), vehicle after vehicle, each's in time order."""
        start_s, end_s = start.timestamp(), end.timestamp()
        schedule = self._schedule
        for vehicle in schedule.vehicles:
            for turn in range(schedule.turn_at(vehicle, start_s), schedule.turn_at(vehicle, end_s) + 1):
                session = schedule.session(vehicle, turn)
                if session.started_s < end_s and session.ended_s > start_s:
                    yield self._name(vehicle, session)

    def _name(self, vehicle: Vehicle, session: Session) -> PlannedSession:
        started_at = datetime.fromtimestamp(session.started_s, UTC)
        vehicle_id = self.vehicle_ids[vehicle.number]
        return PlannedSession(
            session_id=f"sim-{self.seed}-{vehicle_id}-{started_at:%Y%m%dT%H%M%SZ}",
            vehicle_id=vehicle_id,
            meter_id=self.meter_ids[vehicle.lane.meter],
            started_at=started_at,
            ended_at=datetime.fromtimestamp(session.ended_s, UTC),
        )

    def readings(self, start: datetime, end: datetime, interval_s: float) -> Iterator[list[Reading]]:
        """Give what all devices report at each tick in (start, end], tick by tick; see `moments`."""
        for moment in moments(start, end, interval_s):
            yield self.readings_at(moment, interval_s)

    def readings_at(self, moment: datetime, interval_s: float) -> list[Reading]:
        """Give what all devices report at a moment: a reading of each meter, then one of each vehicle.

        Energy is that of the interval that ends at the moment. Raises ValueError unless the interval lies
        above 0 and at most at an hour: more could reach back beyond the session before the last.
        """
        if not 0 < interval_s <= LONGEST_INTERVAL_S:
            raise ValueError(f"an interval lies between 0 and {LONGEST_INTERVAL_S} s, not at {interval_s}")
        at_s = _microseconds(moment) / 1_000_000
        drawn_kwh = [0.0] * len(self.meter_ids)
        vehicles = [
            self._read_vehicle(vehicle, moment, at_s, interval_s, drawn_kwh)
            for vehicle in self._schedule.vehicles
        ]
        return [*self._read_meters(moment, interval_s, drawn_kwh), *vehicles]

    def _read_vehicle(
        self, vehicle: Vehicle, moment: datetime, at_s: float, interval_s: float, drawn_kwh: list[float]
    ) -> VehicleReading:
        """Read one vehicle, and add what its charger drew to its meter."""
        number = vehicle.number
        leg = self._legs[number]
        if leg is None or not leg.start_s <= at_s < leg.end_s:
            leg = self._legs[number] = self._schedule.leg(vehicle, at_s)
        charge = leg.session.charge
        delivered_kwh = 0.0
        if at_s <= charge.on_s:
            soc, warm_c = leg.between_sessions(at_s)
        else:
            charged_kwh = charge.energy_kwh(at_s)
            soc = charge.soc + charged_kwh / vehicle.model.battery_kwh
            warm_c = charge.warm_at(at_s)
            if at_s - interval_s < charge.off_s:
                delivered_kwh = charged_kwh - charge.energy_kwh(at_s - interval_s)
                drawn_kwh[vehicle.lane.meter] += _drawn_kwh(leg.session, delivered_kwh, at_s, interval_s)
        before = leg.before
        if at_s - interval_s < before.charge.off_s:
            late_kwh = before.charge.energy_kwh(at_s) - before.charge.energy_kwh(at_s - interval_s)
            drawn_kwh[vehicle.lane.meter] += _drawn_kwh(before, late_kwh, at_s, interval_s)
            delivered_kwh += late_kwh
        return VehicleReading(
            self.vehicle_ids[number],
            moment,
            _in_halves(100 * soc),
            round(delivered_kwh, 6),
            _in_halves(_air_c(at_s) + vehicle.shelter_c + warm_c),
        )

    def _read_meters(
        self, moment: datetime, interval_s: float, drawn_kwh: list[float]
    ) -> Iterator[MeterReading]:
        # One generator a tick, drawn from in the order of the meters: a generator a meter costs twenty times
        # as much, and a meter's noise still depends on nothing but seed, moment and its own number.
        noise = Random(f"{self.seed}/{_microseconds(moment)}").random
        to_kw = 3600 / interval_s
        for meter_id, voltage, kwh in zip(self.meter_ids, self._voltages, drawn_kwh, strict=True):
            measured_kwh = kwh * (1 + _METER_NOISE * (2 * noise() - 1))
            measured_v = voltage - _SAG_V_PER_KW * kwh * to_kw + 3 * noise() - 1.5
            yield MeterReading(meter_id, moment, round(measured_kwh, 6), round(measured_v, 2))


def _drawn_kwh(session: Session, delivered_kwh: float, at_s: float, interval_s: float) -> float:
    """Give the AC energy behind a DC energy of an interval: the loss of its mean power while power was on."""
    charge = session.charge
    charging_s = min(at_s, charge.off_s) - max(at_s - interval_s, charge.on_s)
    if charging_s <= 0 or delivered_kwh <= 0:
        return 0.0
    ratio = efficiency(charge.model.name, delivered_kwh * 3600 / charging_s)
    return delivered_kwh / (ratio * session.health)


def _in_halves(value: float) -> float:
    """Round as cars do, of percent and degrees.

    Makers' clouds and OCPP give whole numbers, battery management systems halves to tenths.
    """
    return round(2 * value) / 2


def _air_c(at_s: float) -> float:
    """Give the temperature outside (degrees): warmest in July and at 15:00 UTC, as in central Europe."""
    year = cos(2 * pi * (at_s / DAY_S / YEAR_DAYS - 200 / YEAR_DAYS))
    day = cos(2 * pi * (at_s / DAY_S - 15 / 24))
    return 11 + 9 * year + 4 * day


def _microseconds(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)
