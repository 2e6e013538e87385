"""Tallies: histograms as Prometheus has them, and labels of which nobody outside makes more."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from service.ingest.buffer import Buffer, Submission
from service.tallies import OTHER, Http, Source, Spread
from tests.support.strategies import decoded, meter

_BOUNDS: Final = (0, 1, 2.5, 10)


@given(st.lists(st.floats(-100, 100)))
def test_spread(values: list[float]) -> None:
    """One by one or all at once, each value is in the buckets that reach it, ends included."""
    one_by_one, at_once = Spread(_BOUNDS), Spread(_BOUNDS)
    for value in values:
        one_by_one.add(value)
    at_once.add_all(values)
    assert one_by_one.counts == at_once.counts
    assert at_once.buckets() == [
        ("0.0", sum(value <= 0 for value in values)),
        ("1.0", sum(value <= 1 for value in values)),
        ("2.5", sum(value <= 2.5 for value in values)),
        ("10.0", sum(value <= 10 for value in values)),
        ("+Inf", len(values)),
    ]
    assert bisect_left(_BOUNDS, 1) == 1, "the end of a bucket belongs to it"


def test_clocks_that_are_ahead() -> None:
    """A reading from the future is counted, and takes nothing off a sum that must never shrink."""
    spread = Spread(_BOUNDS)
    spread.add_all([-120.0, 0.5])
    assert (spread.counts[:2], spread.total) == ([1, 1], 0.5)


def test_what_clients_choose() -> None:
    """However many methods and statuses there are, the labels are of a few."""
    http = Http()
    for number in range(50):
        http.done(OTHER, f"BREW{number}", 400 + number, 0.1)
    http.done("/health", "HEAD", 0, 0.1)
    assert {key: sum(spread.counts) for key, spread in http.answered.items()} == {
        (OTHER, OTHER, 4): 50,
        ("/health", "HEAD", 0): 1,
    }


def test_source() -> None:
    """A payload's readings count as received, good or refused; refusals by their code."""

    class Refused:
        code = "missing"

    source = Source()
    source.decoded(3, [])
    source.decoded(1, [Refused(), Refused()])
    assert (source.received, source.accepted, source.rejected) == (6, 0, {"missing": 2})


@pytest.mark.anyio
async def test_what_its_sender_gave_up() -> None:
    """Readings whose sender was told to send again are not written, and counted as such."""

    def count() -> float:
        return REGISTRY.get_sample_value("fleetwatt_given_back_readings_total", {"reason": "gave_up"}) or 0

    before = count()
    buffer = Buffer(max_readings=10, max_bytes=10_000, batch_max=10)
    gone, waits = Submission(decoded(meter(), meter("m-2")), "test:"), Submission(decoded(meter()), "test:")
    for submission in (gone, waits):
        buffer.add(submission)
    gone.committed.cancel()
    async with asyncio.timeout(20):
        assert await buffer.take() == [waits]
    assert count() - before == 2
