"""What a benchmark finds: figures, and how they stand to what was set as a target."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bench.engine import Engine
from bench.sizes import Sizes


class FailedError(Exception):
    """A benchmark's own check does not hold: what it measured is not what it says."""


class Target(NamedTuple):
    """What a figure is to reach."""

    figure: str
    limit: float
    at_least: bool = True

    def reached_by(self, value: float) -> bool:
        """Tell whether a value is good enough."""
        return value >= self.limit if self.at_least else value < self.limit


@dataclass
class Result:
    """What one scenario found: figures by name, points of a curve, and targets."""

    scenario: str
    what: str
    figures: dict[str, Any] = field(default_factory=dict)
    points: list[dict[str, float]] = field(default_factory=list)
    targets: list[dict[str, Any]] = field(default_factory=list)
    failed: str = ""

    def judge(self, targets: Sequence[Target]) -> None:
        """Note how the figures stand to the targets."""
        for target in targets:
            value = self.figures[target.figure]
            wanted = f"{'at least' if target.at_least else 'under'} {target.limit:g}"
            reached = target.reached_by(value)
            self.targets.append(
                {"figure": target.figure, "wanted": wanted, "value": value, "reached": reached}
            )


class Scenario(NamedTuple):
    """Something to measure: its name, what it is, how, and whether the short form has it."""

    name: str
    what: str
    run: Callable[[Engine, Sizes], Result]
    short: bool = True


def check(holds: bool, message: str) -> None:
    """Raise FailedError unless something holds that a benchmark relies on."""
    if not holds:
        raise FailedError(message)


def spread(name: str, values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Give the median under a name, and the least and the greatest beside it."""
    found = {name: statistics.median(values), f"{name}_min": min(values), f"{name}_max": max(values)}
    return {key: round(value, digits) for key, value in found.items()}


def percentiles(name: str, seconds: Sequence[float]) -> dict[str, float]:
    """Give the median, the 99th percentile and the maximum of some times, in ms."""
    ordered = sorted(seconds)
    at = {"p50": statistics.median(ordered), "p99": ordered[math.ceil(0.99 * len(ordered)) - 1]}
    at["max"] = ordered[-1]
    return {f"{name}_{key}_ms": round(value * 1000, 2) for key, value in at.items()}
