"""The simulated network: it loses nothing, adds exactly its repeats, and is the same each time."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.readings import Reading
from service.simulator.fleet import Fleet
from service.simulator.network import Disturbances, Network

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
TICKS = list(Fleet(6, 6, seed=1).readings(START, START + timedelta(minutes=40), 60))
SENT = [reading for tick in TICKS for reading in tick]

shares = st.sampled_from([0.0, 0.1, 0.5, 0.9])
disturbances = st.builds(
    Disturbances,
    drift_s=st.sampled_from([0.0, 0.5, 20.0, 299.0]),
    outages=shares,
    outage_s=st.sampled_from([30.0, 120.0, 900.0]),
    repeats=st.sampled_from([0.0, 0.1, 1.0]),
    shuffle=shares,
)


def _through(network: Network) -> list[list[Reading]]:
    return [*(network.pass_on(tick) for tick in TICKS), network.flush()]


def _flat(ticks: list[list[Reading]]) -> list[Reading]:
    return [reading for tick in ticks for reading in tick]


@given(disturbances, st.integers())
def test_nothing_is_lost_and_only_repeats_are_added(given_disturbances: Disturbances, seed: int) -> None:
    """What comes out is what went in, drift taken off, and as many repeats as were counted."""
    network = Network(seed, given_disturbances)
    out = _flat(_through(network))
    assert network.held == 0
    assert len(out) == len(SENT) + network.repeated
    distinct = Counter(out)
    assert len(distinct) == len(SENT)
    assert max(distinct.values()) <= 2
    values = Counter(msgspec.structs.replace(reading, recorded_at=START) for reading in distinct)
    assert values == Counter(msgspec.structs.replace(reading, recorded_at=START) for reading in SENT)


@given(disturbances, st.integers())
def test_the_same_seed_disturbs_in_the_same_way(given_disturbances: Disturbances, seed: int) -> None:
    """Two networks with one seed send the same readings in the same order."""
    assert _through(Network(seed, given_disturbances)) == _through(Network(seed, given_disturbances))


def test_a_good_network_changes_nothing() -> None:
    """Without disturbances each tick comes out as it went in."""
    assert _through(Network(1, Disturbances())) == [*TICKS, []]


def test_clocks_are_off_by_a_constant() -> None:
    """Each device has its own offset, below the most allowed, and its readings keep their distance."""
    out = _flat(_through(Network(1, Disturbances(drift_s=90))))
    offsets: dict[str, set[timedelta]] = {}
    for before, after in zip(SENT, out, strict=True):
        offsets.setdefault(before.device_id, set()).add(after.recorded_at - before.recorded_at)
    assert all(len(of_device) == 1 for of_device in offsets.values())
    drifts = [of_device.pop().total_seconds() for of_device in offsets.values()]
    assert len(set(drifts)) == len(drifts)
    assert max(map(abs, drifts)) <= 90
    assert min(drifts) < 0 < max(drifts)


def test_lost_connections_end_in_a_burst() -> None:
    """About the wanted share is held back, and comes out in order, together with the next reading."""
    network = Network(2, Disturbances(outages=0.3, outage_s=300))
    ticks = [network.pass_on(tick) for tick in TICKS]
    bursts = [count for tick in ticks for count in Counter(r.device_id for r in tick).values() if count > 1]
    assert bursts
    assert max(bursts) == 6
    late = sum(count - 1 for count in bursts) + network.held
    assert 0.15 < late / len(SENT) < 0.45
    for device_id in {reading.device_id for reading in SENT}:
        times = [reading.recorded_at for reading in _flat(ticks) if reading.device_id == device_id]
        assert times == sorted(times)


def test_some_readings_are_overtaken() -> None:
    """About the wanted share arrives after a later reading of the same device."""
    out = _flat(_through(Network(3, Disturbances(shuffle=0.1))))
    overtaken = 0
    for device_id in {reading.device_id for reading in SENT}:
        times = [reading.recorded_at for reading in out if reading.device_id == device_id]
        overtaken += sum(before > after for before, after in pairwise(times))
    assert 0.04 < overtaken / len(SENT) < 0.15


def test_about_the_wanted_share_is_repeated() -> None:
    """A tenth of the readings is sent twice, at once or with the next tick."""
    network = Network(4, Disturbances(repeats=0.1))
    ticks = _through(network)
    assert 0.05 < network.repeated / len(SENT) < 0.15
    at_once = sum(len(tick) - len(set(tick)) for tick in ticks)
    assert 0 < at_once < network.repeated


@pytest.mark.parametrize(
    "wrong",
    [
        {"drift_s": 300},
        {"drift_s": -1},
        {"outages": 0.95},
        {"outage_s": 0},
        {"repeats": 1.1},
        {"shuffle": -0.1},
    ],
)
def test_impossible_disturbances_are_refused(wrong: dict[str, float]) -> None:
    """Shares lie between 0 and 1, and drift below what the service refuses."""
    with pytest.raises(ValueError, match=r"drift|share|outage"):
        Disturbances(**wrong)
