"""A batch: whose each reading is, and how places are cut where readings are of many days."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.ingest.batch import DAYS_MAX, Batch
from service.ingest.buffer import Submission
from tests.support.strategies import decoded, meter, pure, vehicle

pytestmark = pytest.mark.anyio


def batch_of(*payloads: list[float]) -> Batch:
    """Make a batch of submissions, each of readings of both kinds at some minutes."""
    return Batch(
        [
            Submission(
                decoded(*[(vehicle if place % 3 else meter)(minute=at) for place, at in enumerate(minutes)]),
                "test",
            )
            for minutes in payloads
        ]
    )


@pure
@given(st.lists(st.integers(0, 5), max_size=8))
async def test_each_place_has_its_owner(sizes: list[int]) -> None:
    """Also beside submissions that hold no reading."""
    batch = batch_of(*([float(number)] * size for number, size in enumerate(sizes)))
    places = iter(range(len(batch.readings)))
    for number, submission in enumerate(batch.submissions):
        for within, reading in enumerate(submission.decoded.readings):
            place = next(places)
            assert batch.readings[place] is reading
            assert batch.owner(place) == number
            assert batch.origin(place) == (submission, within)
    assert next(places, None) is None


days = st.integers(-100_000, 0) | st.integers(-300, 0)
minutes = st.lists(
    st.builds(lambda day, minute: 1440.0 * day + minute, days, st.integers(-60, 60)), max_size=200
)


@pure
@given(st.lists(minutes, min_size=1, max_size=3))
async def test_each_piece_is_of_few_days(payloads: list[list[float]]) -> None:
    """Each reading is in one piece, a day as well, and in it readings keep the order of their arrival."""
    batch = batch_of(*payloads)
    pieces = batch.pieces()
    assert sorted(place for piece in pieces for place in piece) == list(range(len(batch.readings)))
    seen: set[int] = set()
    for piece in pieces:
        by_day: dict[int, list[int]] = {}
        for place in piece:
            by_day.setdefault(batch.readings[place].recorded_at.toordinal(), []).append(place)
        assert len(by_day) <= DAYS_MAX
        assert seen.isdisjoint(by_day)
        seen |= by_day.keys()
        assert all(places == sorted(places) for places in by_day.values())


@pytest.mark.parametrize(("last", "pieces"), [(DAYS_MAX - 1, 1), (DAYS_MAX, 2), (2 * DAYS_MAX, 3)])
async def test_as_few_pieces_as_can_be(last: int, pieces: int) -> None:
    """A reading a day: the days of a piece are full before another one begins."""
    batch = batch_of([-1440.0 * day for day in range(last + 1)])
    assert len(batch.pieces()) == pieces


async def test_no_reading_is_one_empty_piece() -> None:
    """A batch of refusals alone has its letters to write."""
    submission = Submission(decoded(), "test")
    assert list(map(list, Batch([submission]).pieces())) == [[]]


async def test_what_spans_few_days_is_not_looked_at_day_by_day() -> None:
    """Nearly all batches: the places are a range, which costs nothing."""
    soon = msgspec.structs.replace(meter(), recorded_at=meter().recorded_at + timedelta(days=DAYS_MAX - 2))
    batch = Batch([Submission(decoded(meter(), soon), "test")])
    assert batch.pieces() == [range(2)]
