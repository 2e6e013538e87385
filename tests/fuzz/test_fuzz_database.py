"""Whatever the decoder takes can be stored, and so can whatever it refuses."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from service.ingest.outcome import Decoded
from service.ingest.pipeline import Pipeline
from service.readings import MeterReading, Reading
from tests.fuzz.targets import try_one
from tests.support.strategies import Owner, rows

pytestmark = pytest.mark.anyio

_INPUTS = 4000


def _row(reading: Reading) -> tuple[Any, ...]:
    if isinstance(reading, MeterReading):
        return reading.kwh_consumed_ac, reading.voltage
    return reading.soc, reading.kwh_delivered_dc, reading.battery_temp


def _payloads() -> tuple[list[Decoded], dict[tuple[Any, ...], tuple[Any, ...]]]:
    """Give payloads that share no key, so that their order does not matter, and the rows they make."""
    payloads: list[Decoded] = []
    expected: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for number in range(_INPUTS):
        _, decoded = try_one(3, number)
        if decoded is not None:
            found = {
                (type(reading).__name__, reading.device_id, reading.recorded_at): _row(reading)
                for reading in decoded.readings
            }
            if len(found) == len(decoded.readings) and not found.keys() & expected.keys():
                expected |= found
                payloads.append(decoded)
    return payloads, expected


async def test_what_is_taken_is_stored_as_it_was_sent(pipeline: Pipeline, owner: Owner) -> None:
    """Thousands of odd payloads go through the writer: each value comes back equal, each refusal is kept."""
    payloads, expected = _payloads()
    outcomes = await asyncio.gather(*(pipeline.submit(decoded, "fuzz") for decoded in payloads))
    assert sum(outcome.accepted for outcome in outcomes) == len(expected) > _INPUTS / 10
    assert not any(outcome.duplicates or outcome.rejections for outcome in outcomes)
    meters = await rows(owner, "select meter_id, recorded_at, kwh_consumed_ac, voltage from meter_reading")
    vehicles = await rows(
        owner, "select vehicle_id, recorded_at, soc, kwh_delivered_dc, battery_temp from vehicle_reading"
    )
    stored = {
        (kind, *values[:2]): tuple(values[2:])
        for kind, table in (("MeterReading", meters), ("VehicleReading", vehicles))
        for values in (list(row.values()) for row in table)
    }
    assert stored == expected
    letters = await rows(owner, "select code, raw from dead_letter")
    refused = [rejection for decoded in payloads for rejection in decoded.rejections]
    assert len(refused) > _INPUTS / 10
    assert Counter((letter["code"], bytes(letter["raw"])) for letter in letters) == Counter(
        (rejection.code, rejection.raw[: 256 * 1024]) for rejection in refused
    )
