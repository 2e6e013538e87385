"""What a network and cheap clocks do to readings: drift, lost connections, repeats, disorder; never a loss.

All of it follows from the seed. Readings go in tick by tick and come out tick by tick, some of them later
and some of them twice; what is still held at the end comes out of `flush`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from random import Random

import msgspec

from service.readings import Reading
from service.simulator.draws import between, uniforms


class Disturbances(msgspec.Struct, frozen=True, kw_only=True):
    """How bad the network is; nothing is disturbed unless asked for.

    `drift_s`: the clock of each device is off by a constant of up to so many seconds, either way.
    `outages`: share of the time that each device has no connection, in stretches of `outage_s` seconds.
    `repeats`: share of the readings that are sent twice, at once or one tick later.
    `shuffle`: share of the readings that are overtaken by one to three later ones of the same device.
    """

    drift_s: float = 0.0
    outages: float = 0.0
    outage_s: float = 120.0
    repeats: float = 0.0
    shuffle: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.drift_s < 300:
            raise ValueError("clock drift lies at 0 s or above and below 300 s: the service refuses more")
        if not 0 <= self.outages <= 0.9:
            raise ValueError("the share of outages lies between 0 and 0.9")
        if self.outage_s <= 0:
            raise ValueError("an outage is longer than 0 s")
        if not (0 <= self.repeats <= 1 and 0 <= self.shuffle <= 1):
            raise ValueError("a share lies between 0 and 1")


class _Outage:
    """The lost connections of one device: one in each stretch of time, at a drawn place in it."""

    def __init__(self, seed: int, device_id: str, disturbances: Disturbances) -> None:
        self._key = (seed, "outage", device_id)
        self._length_s = disturbances.outage_s
        self._period_s = disturbances.outage_s / disturbances.outages
        self._phase_s = uniforms(*self._key)[0] * self._period_s
        self._period: int | None = None
        self._from_s = 0.0

    def covers(self, at_s: float) -> bool:
        """Tell whether the device has no connection at a moment (seconds since 1970)."""
        period = int((at_s - self._phase_s) // self._period_s)
        if period != self._period:
            self._period = period
            place = uniforms(*self._key, period)[0]
            self._from_s = self._phase_s + self._period_s * period + (self._period_s - self._length_s) * place
        return self._from_s <= at_s < self._from_s + self._length_s


class Network:
    """Lets ticks of readings through, disturbed; deterministic for a seed and a sequence of ticks.

    `repeated` counts the repeats that came out so far, so what came out less `repeated` is distinct.
    """

    def __init__(self, seed: int, disturbances: Disturbances) -> None:
        self._seed = seed
        self._disturbances = disturbances
        self._random = Random(f"{seed}/network")
        self._tick = 0
        self._outages: dict[str, _Outage] = {}
        self._cut_off: dict[str, list[Reading]] = {}
        self._late: list[tuple[int, Reading]] = []
        self._again: list[Reading] = []
        self._drifts: dict[str, timedelta] = {}
        self.repeated = 0

    @property
    def held(self) -> int:
        """How many readings went in and have not come out yet; repeats that are due are not among them."""
        return len(self._late) + sum(map(len, self._cut_off.values()))

    def pass_on(self, readings: Sequence[Reading]) -> list[Reading]:
        """Take in what the devices report in one tick; give what is sent in it, in this order."""
        self._tick += 1
        sent = self._connected(readings) if self._disturbances.outages else list(readings)
        if self._disturbances.drift_s:
            sent = [self._drift(reading) for reading in sent]
        if self._disturbances.shuffle:
            sent = self._shuffle(sent)
        return self._repeat(sent)

    def flush(self) -> list[Reading]:
        """Give all that is still held: late readings, bursts of devices that were cut off, due repeats."""
        bursts = [reading for held in self._cut_off.values() for reading in held]
        if self._disturbances.drift_s:
            bursts = [self._drift(reading) for reading in bursts]
        late = [reading for _, reading in self._late]
        due, self._again = self._again, []
        self._cut_off, self._late = {}, []
        self.repeated += len(due)
        return [*late, *bursts, *due]

    def _connected(self, readings: Sequence[Reading]) -> list[Reading]:
        """Keep what a device without connection reports; let it out in one burst once it is back."""
        sent: list[Reading] = []
        for reading in readings:
            device_id = reading.device_id
            outage = self._outages.get(device_id)
            if outage is None:
                outage = self._outages[device_id] = _Outage(self._seed, device_id, self._disturbances)
            if outage.covers(reading.recorded_at.timestamp()):
                self._cut_off.setdefault(device_id, []).append(reading)
                continue
            sent.extend(self._cut_off.pop(device_id, ()))
            sent.append(reading)
        return sent

    def _drift(self, reading: Reading) -> Reading:
        """Stamp a reading with the device's own clock; its energy stays that of the true interval."""
        drift = self._drifts.get(reading.device_id)
        if drift is None:
            most_s = self._disturbances.drift_s
            off_s = between(-most_s, most_s, uniforms(self._seed, "drift", reading.device_id)[0])
            drift = self._drifts[reading.device_id] = timedelta(milliseconds=int(off_s * 1000))
        return msgspec.structs.replace(reading, recorded_at=reading.recorded_at + drift)

    def _shuffle(self, readings: list[Reading]) -> list[Reading]:
        """Hold some readings back for one to three ticks, and let go those whose time has come."""
        sent: list[Reading] = []
        held: list[tuple[int, Reading]] = []
        for reading in readings:
            if self._random.random() < self._disturbances.shuffle:
                held.append((self._tick + self._random.randint(1, 3), reading))
            else:
                sent.append(reading)
        sent.extend(reading for due, reading in self._late if due <= self._tick)
        self._late = [late for late in self._late if late[0] > self._tick] + held
        return sent

    def _repeat(self, readings: list[Reading]) -> list[Reading]:
        """Send some readings twice: half of them at the end of this tick, half with the next."""
        due, self._again = self._again, []
        if self._disturbances.repeats:
            for reading in readings:
                u = self._random.random() / self._disturbances.repeats
                if u < 1:
                    (due if u < 0.5 else self._again).append(reading)
        self.repeated += len(due)
        return [*readings, *due]
