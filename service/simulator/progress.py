"""What a run has done so far: counts, rate, and percentiles of the time to the acknowledgement."""

from __future__ import annotations

from math import exp, log
from typing import Final

import msgspec

# A bucket is 5 % wide, so a percentile is at most 2.5 % off; 400 of them reach from 0.05 ms to 4 hours.
_LEAST_MS: Final = 0.05
_WIDTH: Final = log(1.05)
_BUCKETS: Final = 400


class Latencies:
    """A histogram of fixed size on a logarithmic scale, in milliseconds."""

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self.count = 0

    def add(self, latency_s: float, times: int = 1) -> None:
        """Count a latency, given in seconds, so many times."""
        ratio = max(latency_s * 1000 / _LEAST_MS, 1.0)
        self._counts[min(int(log(ratio) / _WIDTH), _BUCKETS - 1)] += times
        self.count += times

    def percentile_ms(self, percent: float) -> float:
        """Give the latency that `percent` % of those counted do not exceed, in ms; 0 before any."""
        wanted, seen = self.count * percent / 100, 0
        for bucket, count in enumerate(self._counts):
            seen += count
            if count and seen >= wanted:
                return _LEAST_MS * exp((bucket + 0.5) * _WIDTH)
        return 0.0


class Progress(msgspec.Struct):
    """Counts of readings, kept up to date while a run lasts.

    `generated` is what the devices reported, `sent` includes `repeats`. `acknowledged` means kept: by the
    broker (MQTT) or in the database (HTTP), where `duplicates` of them were there before; over MQTT no
    one tells, so `duplicates` is the number of repeats. `rejected` are those that the service refused.
    """

    generated: int = 0
    sent: int = 0
    repeats: int = 0
    acknowledged: int = 0
    duplicates: int = 0
    rejected: int = 0
    retries: int = 0
    elapsed_s: float = 0.0
    problem: str = ""
    latencies: Latencies = msgspec.field(default_factory=Latencies)

    @property
    def distinct(self) -> int:
        """Readings sent, each counted once."""
        return self.sent - self.repeats

    @property
    def in_flight(self) -> int:
        """Readings sent and not answered yet."""
        return self.sent - self.acknowledged - self.rejected

    @property
    def rate(self) -> float:
        """Readings acknowledged a second, over the whole run."""
        return self.acknowledged / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def complete(self) -> bool:
        """Whether all that was generated was sent and acknowledged."""
        return self.distinct == self.generated and self.acknowledged == self.sent

    @property
    def p50_ms(self) -> float:
        """Half of the acknowledgements took no longer, in ms."""
        return self.latencies.percentile_ms(50)

    @property
    def p95_ms(self) -> float:
        """95 % of the acknowledgements took no longer, in ms."""
        return self.latencies.percentile_ms(95)

    @property
    def p99_ms(self) -> float:
        """99 % of the acknowledgements took no longer, in ms."""
        return self.latencies.percentile_ms(99)
