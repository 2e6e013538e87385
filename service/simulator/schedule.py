"""Who charges where and when, and what a vehicle does in between.

The vehicles of a meter take turns: time is cut into slots, and slot after slot belongs to the next vehicle
of that meter. Each slot holds one session, planned from (seed, vehicle, number of the turn) alone, so any
session is known without those before it, and sessions on a meter cannot overlap. The state of a vehicle at
a moment needs two of them: the one it is in or heads for, and the one before.
"""

from __future__ import annotations

from bisect import bisect_right
from math import ceil
from typing import Final

import msgspec

from service.simulator.draws import between, uniforms
from service.simulator.losses import efficiency
from service.simulator.vehicle import MODELS, Charge, Model, plan_charge

HOUR_S: Final = 3600
# A vehicle with a meter of its own, or shared by up to three, charges twice a day; more of them queue up
# for slots of four hours, the least that holds a session.
_TURN_S: Final = 12 * HOUR_S
_LEAST_SLOT_S: Final = 4 * HOUR_S
_LONGEST_CHARGE_S: Final = 4.4 * HOUR_S
_SHORTEST_CHARGE_S: Final = 3.0 * HOUR_S

# The cable is in before power is on and stays in after power is off. The tail outlasts the longest usual
# interval of a meter (15 minutes), so that a reading at or after the end of a session, which no longer
# belongs to it, carries none of its energy; the lead does the same for clocks up to a minute slow.
LEAD_S: Final = (60, 180)
TAIL_S: Final = (15 * 60, 25 * 60)

_FAULTY_RATIO: Final = (0.735, 0.775)
# Fractional part of the golden ratio: multiples of it, taken modulo 1, fill the day evenly for any number
# of meters, so that the share of vehicles that charge hardly changes over the day.
_GOLDEN: Final = 0.6180339887498949
# By how much of the idle part of its slot a session may begin late. With all of it, the share of 200 vehicles
# that charge swings between 23 and 37 % (measured); with a quarter, between 27 and 34 %.
_PLAY: Final = 0.25


class Lane(msgspec.Struct, frozen=True):
    """One meter and the turns at it: its first slot begins at `phase_s`, slots follow without a gap."""

    meter: int
    vehicles: int
    slot_s: int
    phase_s: int


class Session(msgspec.Struct, frozen=True, gc=False):
    """One charging session: booked from `started_s`, included, to `ended_s`, excluded (seconds since 1970).

    `health` is the share of a healthy charger's efficiency that this meter's charger reaches.
    """

    started_s: int
    ended_s: int
    charge: Charge
    health: float
    draws: tuple[float, ...]


class Leg(msgspec.Struct, frozen=True, gc=False):
    """What a vehicle does from the end of one session to the end of the next (seconds since 1970).

    Driving and parking are straight lines between knots: time, state of charge (fraction), temperature of
    the battery above the air (degrees).
    """

    start_s: int
    end_s: int
    before: Session
    session: Session
    times: tuple[float, ...]
    socs: tuple[float, ...]
    warms: tuple[float, ...]

    def between_sessions(self, moment_s: float) -> tuple[float, float]:
        """Give (state of charge, temperature above the air) before power is on."""
        at = bisect_right(self.times, moment_s)
        if at == len(self.times):
            return self.socs[-1], self.warms[-1]
        since = self.times[at - 1]
        part = (moment_s - since) / (self.times[at] - since)
        return (
            self.socs[at - 1] + (self.socs[at] - self.socs[at - 1]) * part,
            self.warms[at - 1] + (self.warms[at] - self.warms[at - 1]) * part,
        )


class Vehicle(msgspec.Struct, frozen=True):
    """What stays the same about a vehicle: its car, its turns, the charge it leaves with, its parking place.

    `shelter_c` is how much warmer than outside the air around it is; `first_s` is when its turn 0 begins.
    """

    number: int
    model: Model
    lane: Lane
    first_s: int
    cycle_s: int
    usual_soc: float
    shelter_c: float


class Schedule:
    """The turns of a whole fleet. `faulty` holds the numbers of the meters whose chargers fail."""

    def __init__(self, vehicles: int, meters: int, seed: int, faulty: frozenset[int]) -> None:
        self._seed = seed
        self._faulty = faulty
        used = min(vehicles, meters)
        lanes = [self._plan_lane(meter, -(-(vehicles - meter) // used)) for meter in range(used)]
        self.vehicles = [
            self._plan_vehicle(number, lanes[number % used], number // used) for number in range(vehicles)
        ]

    def _plan_lane(self, meter: int, vehicles: int) -> Lane:
        slot_s = max(_LEAST_SLOT_S, _TURN_S // vehicles)
        shift = uniforms(self._seed, "phase")[0]
        phase_s = int((shift + meter * _GOLDEN) % 1 * slot_s * vehicles)
        return Lane(meter, vehicles, slot_s, phase_s)

    def _plan_vehicle(self, number: int, lane: Lane, turn: int) -> Vehicle:
        u = uniforms(self._seed, "vehicle", number)
        return Vehicle(
            number=number,
            model=MODELS[int(u[0] * len(MODELS))],
            lane=lane,
            first_s=lane.phase_s + turn * lane.slot_s,
            cycle_s=lane.slot_s * lane.vehicles,
            usual_soc=between(0.84, 0.96, u[1]),
            shelter_c=between(0, 5, u[2]),
        )

    def turn_at(self, vehicle: Vehicle, moment_s: float) -> int:
        """Give the number of the last turn of a vehicle that began by this moment."""
        return int((moment_s - vehicle.first_s) // vehicle.cycle_s)

    def session(self, vehicle: Vehicle, turn: int) -> Session:
        """Plan the session of one turn; the same each time it is asked for."""
        u = uniforms(self._seed, "session", vehicle.number, turn)
        lane = vehicle.lane
        lead_s, tail_s = int(between(*LEAD_S, u[0])), int(between(*TAIL_S, u[1]))
        longest_s = min(_LONGEST_CHARGE_S, lane.slot_s - LEAD_S[1] - TAIL_S[1])
        # Every session leaves with about the same charge and begins far below it: so the one before always
        # ended higher than this one begins, although neither knows of the other.
        charge = plan_charge(
            vehicle.model,
            on_s=0,
            wanted_s=between(_SHORTEST_CHARGE_S, longest_s, u[2]),
            soc_from=between(0.12, 0.4, u[3]),
            soc_to=vehicle.usual_soc + between(-0.02, 0.02, u[4]),
            warm_c=between(2, 6, u[5]),
        )
        booked_s = lead_s + ceil(charge.off_s) + tail_s
        play_s = (lane.slot_s - booked_s) * _PLAY
        started_s = vehicle.first_s + turn * vehicle.cycle_s + int(play_s * u[6])
        on_s = started_s + lead_s
        health = 1.0
        if lane.meter in self._faulty:
            health = between(*_FAULTY_RATIO, u[7]) / efficiency(vehicle.model.name, charge.power_kw)
        return Session(
            started_s=started_s,
            ended_s=started_s + booked_s,
            charge=msgspec.structs.replace(charge, on_s=on_s, off_s=on_s + charge.off_s),
            health=health,
            draws=u,
        )

    def leg(self, vehicle: Vehicle, moment_s: float) -> Leg:
        """Give the leg that a vehicle is on at a moment: from the end of a session to the end of the next."""
        turn = self.turn_at(vehicle, moment_s)
        session = self.session(vehicle, turn)
        if moment_s >= session.ended_s:
            return _join(session, self.session(vehicle, turn + 1))
        return _join(self.session(vehicle, turn - 1), session)


def _join(before: Session, session: Session) -> Leg:
    """Fill the time between two sessions with two drives, a stop between them and parking before them."""
    u = session.draws
    start_s, gap_s = before.ended_s, session.started_s - before.ended_s
    leave = between(0.05, 0.3, u[8])
    arrive = leave + between(0.15, 0.3, u[9])
    go_on = arrive + between(0.1, 0.3, u[10])
    first_share = (arrive - leave) / (arrive - leave + 1 - go_on)
    soc, soc_left = before.charge.soc_at(start_s), session.charge.soc
    soc_stop = soc + (soc_left - soc) * first_share
    warm, warm_stop = before.charge.warm_at(start_s), between(2, 6, u[11])
    return Leg(
        start_s=start_s,
        end_s=session.ended_s,
        before=before,
        session=session,
        times=(start_s, *(start_s + gap_s * part for part in (leave, arrive, go_on)), session.started_s),
        socs=(soc, soc, soc_stop, soc_stop, soc_left),
        warms=(warm, warm / 2, warm_stop, warm_stop / 2, session.charge.warm_c),
    )
