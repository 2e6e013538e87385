"""One charge: energy, state of charge, temperature, and the losses on the way from the grid."""

from __future__ import annotations

from itertools import pairwise
from math import isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.simulator.losses import CARS, efficiency
from service.simulator.vehicle import MODELS, TAPER_FROM, THERMAL_TIME_H, Charge, plan_charge

charges = st.builds(
    plan_charge,
    st.sampled_from(MODELS),
    on_s=st.just(1_700_000_000.0),
    wanted_s=st.floats(10_000, 16_000),
    soc_from=st.floats(0.1, 0.4),
    soc_to=st.floats(0.75, 0.98),
    warm_c=st.floats(0, 8),
)


def _moments(charge: Charge) -> list[float]:
    step_s = (charge.off_s - charge.on_s) / 200
    return [charge.on_s + step_s * number for number in range(-10, 220)]


@given(charges)
def test_soc_rises_with_the_energy_and_stays_in_bounds(charge: Charge) -> None:
    """The state of charge never falls during a charge, lies in 0..1, and accounts for each kWh."""
    socs = [charge.soc_at(moment) for moment in _moments(charge)]
    assert all(before <= after for before, after in pairwise(socs))
    assert 0 <= socs[0] < socs[-1] <= 1
    charged = (socs[-1] - socs[0]) * charge.model.battery_kwh
    assert isclose(charged, charge.energy_kwh(charge.off_s), rel_tol=1e-9)


@given(charges)
def test_power_is_constant_and_then_tapers(charge: Charge) -> None:
    """Mean power over a step is the charge's power up to 80 % and falls steadily above."""
    during = [moment for moment in _moments(charge) if charge.on_s <= moment <= charge.off_s]
    powers = [
        (
            charge.soc_at(after),
            (charge.energy_kwh(after) - charge.energy_kwh(before)) * 3600 / (after - before),
        )
        for before, after in pairwise(during)
    ]
    assert all(isclose(kw, charge.power_kw, rel_tol=1e-6) for soc, kw in powers if soc <= TAPER_FROM)
    tapered = [kw for soc, kw in powers if soc > TAPER_FROM]
    assert all(before > after for before, after in pairwise(tapered))
    assert not tapered or tapered[-1] > charge.power_kw / 4


@given(charges, st.floats(10_000, 16_000))
def test_a_planned_charge_keeps_to_the_car_and_the_time(charge: Charge, wanted_s: float) -> None:
    """Power stays within what the car takes, and the charge ends in time, at what was wanted."""
    planned = plan_charge(
        charge.model, on_s=0, wanted_s=wanted_s, soc_from=0.2, soc_to=0.9, warm_c=charge.warm_c
    )
    assert charge.model.min_battery_kw <= planned.power_kw <= charge.model.max_battery_kw
    assert planned.off_s <= wanted_s + 1e-6
    assert isclose(planned.soc_at(planned.off_s), 0.9, rel_tol=1e-9)


@given(charges)
def test_the_battery_warms_while_charging_and_cools_after(charge: Charge) -> None:
    """It is warmer at the end of the flat part than at power on, and half as warm some hours later."""
    if charge.warm_c < 5:
        assert charge.warm_at(charge.on_s + min(charge.taper_s, charge.off_s - charge.on_s)) > charge.warm_c
    at_end = charge.warm_at(charge.off_s)
    assert 0 < at_end < 25
    assert isclose(charge.warm_at(charge.off_s + THERMAL_TIME_H * 3600), at_end / 2.718281828, rel_tol=1e-6)


@given(charges)
def test_the_temperature_follows_its_differential_equation(charge: Charge) -> None:
    """The closed form agrees with small steps of d(dT)/dt = (W P - dT) / theta."""
    warm, moment, step_s = charge.warm_c, charge.on_s, 20.0
    while moment + step_s < charge.off_s:
        power_kw = (charge.energy_kwh(moment + step_s) - charge.energy_kwh(moment)) * 3600 / step_s
        warm += (100 * power_kw / charge.model.battery_kwh - warm) * step_s / (THERMAL_TIME_H * 3600)
        moment += step_s
    assert isclose(charge.warm_at(moment), warm, abs_tol=0.05)


@pytest.mark.parametrize("car", CARS)
def test_efficiency_lies_in_the_measured_range(car: str) -> None:
    """From 2 to 11 kW each car's efficiency lies between 0.7 and 0.98, as measured."""
    assert all(0.7 < efficiency(car, tenth / 10) < 0.98 for tenth in range(20, 111))


def test_efficiency_meets_the_measured_points() -> None:
    """At a measured point it is P / (P + loss), and below the lowest one it falls with power."""
    assert isclose(efficiency("volkswagen_id4", 8.6), 8.6 / (8.6 + 0.769))
    assert (
        efficiency("volkswagen_id3", 1) < efficiency("volkswagen_id3", 2) < efficiency("volkswagen_id3", 4.2)
    )


def test_efficiency_needs_power() -> None:
    """No power has no efficiency."""
    with pytest.raises(ValueError, match="above 0 kW"):
        efficiency("nissan_leaf", 0)
