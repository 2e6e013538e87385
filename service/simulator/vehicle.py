"""One charge of one battery, in closed form, so that any moment costs the same and needs no history.

Up to 80 % the charger gives constant power P. Above, power falls in a straight line over the state of
charge S, to a quarter of P at 100 %, as lithium cells near their voltage limit demand:

    dS/dt = P/C * u,  u = 1 - k (S - 0.8),  k = 0.75 / 0.2   =>   u = exp(-k P/C t)

The battery takes up heat in proportion to power and gives it off to the air: d(dT)/dt = (W P - dT) / theta,
where dT is its temperature above the air around it. With these P(t) that has a closed form as well.
"""

from __future__ import annotations

from math import exp, log
from typing import Final

import msgspec

TAPER_FROM: Final = 0.8
_FLOOR: Final = 0.25
_SLOPE: Final = (1 - _FLOOR) / (1 - TAPER_FROM)

# A pack of 60 kWh ends a long charge at 10 kW some 10 degrees above the air around it.
_HEATING_C_KWH_PER_KW: Final = 100.0
# Long enough that _SLOPE * P / C * theta stays above 1 for every model: the closed form has a pole there.
THERMAL_TIME_H: Final = 4.0
_THERMAL_S: Final = THERMAL_TIME_H * 3600


class Model(msgspec.Struct, frozen=True):
    """A car: usable battery (kWh), rated AC power (kW), and the battery powers it is charged at (kW)."""

    name: str
    battery_kwh: float
    max_ac_kw: float
    min_battery_kw: float
    max_battery_kw: float


# Below its least power here a depot would not charge a car: its measured efficiency falls off there. The
# Peugeot iOn of the measurements is not driven: its 14.5 kWh are full before a session is worth the name.
MODELS: Final = (
    Model("nissan_leaf", 39.0, 6.6, 4.6, 5.9),
    Model("renault_zoe_r110", 52.0, 22.0, 8.0, 10.9),
    Model("renault_zoe_r90", 41.0, 22.0, 4.6, 10.8),
    Model("volkswagen_id3", 58.0, 11.0, 6.0, 10.3),
    Model("volkswagen_id4", 77.0, 11.0, 8.0, 10.1),
)


class Charge(msgspec.Struct, frozen=True, gc=False):
    """One charge from power on to power off.

    Times are seconds since 1970 (UTC), `soc` a fraction of the battery, `warm_c` the battery's
    temperature above the air at power on (degrees).
    """

    model: Model
    on_s: float
    off_s: float
    soc: float
    power_kw: float
    warm_c: float
    taper_s: float
    decay_per_s: float

    def energy_kwh(self, moment_s: float) -> float:
        """Give the DC energy from power on up to a moment, in kWh; constant before and after the charge."""
        after_s = min(moment_s, self.off_s) - self.on_s
        if after_s <= 0:
            return 0.0
        if after_s <= self.taper_s:
            return self.power_kw * after_s / 3600
        tapered = (1 - exp(-self.decay_per_s * (after_s - self.taper_s))) / self.decay_per_s
        return self.power_kw * (self.taper_s + tapered) / 3600

    def soc_at(self, moment_s: float) -> float:
        """Give the state of charge at a moment, as a fraction."""
        return self.soc + self.energy_kwh(moment_s) / self.model.battery_kwh

    def warm_at(self, moment_s: float) -> float:
        """Give the battery's temperature above the air around it (degrees), cooling once power is off."""
        after_s = min(moment_s, self.off_s) - self.on_s
        if after_s <= 0:
            return self.warm_c
        full = _HEATING_C_KWH_PER_KW * self.power_kw / self.model.battery_kwh
        constant_s = min(after_s, self.taper_s)
        warm = full + (self.warm_c - full) * exp(-constant_s / _THERMAL_S)
        if after_s > self.taper_s:
            tapered_s = after_s - self.taper_s
            forced = full / (1 - self.decay_per_s * _THERMAL_S)
            cooled = exp(-tapered_s / _THERMAL_S)
            warm = forced * exp(-self.decay_per_s * tapered_s) + (warm - forced) * cooled
        if moment_s > self.off_s:
            warm *= exp(-(moment_s - self.off_s) / _THERMAL_S)
        return warm


def plan_charge(
    model: Model, *, on_s: float, wanted_s: float, soc_from: float, soc_to: float, warm_c: float
) -> Charge:
    """Plan a charge that begins at `on_s` and reaches `soc_to` within `wanted_s` seconds.

    As a depot's load management would, it takes the least power that is enough. Where the car cannot take
    that much, the charge begins at a higher state of charge than `soc_from`; where it would fall below the
    car's least power, the charge is shorter than wanted. `soc_to` lies above `soc_from`.
    """
    # Hours at a power that fills the battery in one hour; below and above the taper.
    flat_h = max(0.0, min(soc_to, TAPER_FROM) - soc_from)
    taper_h = _taper_h(soc_to) - _taper_h(soc_from)
    wanted_kw = model.battery_kwh * (flat_h + taper_h) * 3600 / wanted_s
    power_kw = min(max(wanted_kw, model.min_battery_kw), model.max_battery_kw)
    if wanted_kw > model.max_battery_kw:
        flat_h = max(0.0, power_kw * wanted_s / 3600 / model.battery_kwh - taper_h)
        soc_from = min(soc_to, TAPER_FROM) - flat_h
    hour_s = model.battery_kwh / power_kw * 3600
    return Charge(
        model=model,
        on_s=on_s,
        off_s=on_s + (flat_h + taper_h) * hour_s,
        soc=soc_from,
        power_kw=power_kw,
        warm_c=warm_c,
        taper_s=flat_h * hour_s if soc_to > TAPER_FROM else float("inf"),
        decay_per_s=_SLOPE / hour_s,
    )


def _taper_h(soc: float) -> float:
    if soc <= TAPER_FROM:
        return 0.0
    return -log(1 - _SLOPE * (soc - TAPER_FROM)) / _SLOPE
