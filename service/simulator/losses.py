"""Measured losses of on-board chargers: how much AC a car draws for the DC that reaches its battery.

Source: TransiEnt-official/transient-lib (BSD-3), charging measurements of six cars at a 400 V grid,
598 rows of power into the battery and power lost. Only figures were taken: for each car the median loss
of the measurements around each whole kW. Medians, since single points are off by a factor of two and more
(the Zoe R110 at 10.5 kW: 3.3 kW lost, against 1.3 kW at 10.6 kW).
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

# Power into the battery (kW), power lost on the way from the grid (kW).
_POINTS: Final[dict[str, tuple[tuple[float, float], ...]]] = {
    "nissan_leaf": ((1.4, 0.218), (2.0, 0.429), (3.0, 0.482), (4.0, 0.606), (5.0, 0.722), (6.0, 0.771)),
    "peugeot_ion": ((2.4, 0.494), (4.0, 0.607), (6.0, 0.689), (8.6, 0.709), (9.9, 1.142), (17.2, 1.776)),
    "renault_zoe_r110": ((0.1, 0.069), (2.1, 0.857), (4.9, 1.163), (8.0, 1.124), (9.3, 1.203), (10.9, 1.322)),
    "renault_zoe_r90": ((2.1, 0.556), (4.0, 0.511), (5.9, 0.451), (7.0, 0.344), (8.0, 0.435), (10.8, 0.339)),
    "volkswagen_id3": ((4.2, 0.244), (5.0, 0.303), (6.0, 0.405), (8.1, 0.532), (9.8, 0.637), (11.1, 0.856)),
    "volkswagen_id4": ((4.1, 0.599), (6.5, 0.637), (8.6, 0.769), (10.9, 0.970)),
}
_CURVES: Final = {
    name: (tuple(power for power, _ in points), tuple(loss for _, loss in points))
    for name, points in _POINTS.items()
}
CARS: Final = tuple(_POINTS)


def efficiency(model: str, battery_kw: float) -> float:
    """Give DC / AC of a car's charger at a power into the battery: P_bat / (P_bat + P_loss), in (0, 1).

    Losses are interpolated between the measured points. Below the lowest point they stay what they were
    there (pumps and electronics draw the same, so efficiency falls with power), above the highest the
    efficiency stays. Raises KeyError for a car that was not measured, ValueError for a power not above 0.
    """
    if battery_kw <= 0:
        raise ValueError(f"efficiency needs a power above 0 kW, not {battery_kw}")
    powers, losses = _CURVES[model]
    at = bisect_right(powers, battery_kw)
    if at == 0:
        loss = losses[0]
    elif at == len(powers):
        loss = losses[-1] * battery_kw / powers[-1]
    else:
        low, high = powers[at - 1], powers[at]
        loss = losses[at - 1] + (losses[at] - losses[at - 1]) * (battery_kw - low) / (high - low)
    return battery_kw / (battery_kw + loss)
