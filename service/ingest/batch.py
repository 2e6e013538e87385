"""What is written together: submissions, and all their readings side by side."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Final

from service.ingest.buffer import Submission

# Each new day is a chunk with locks of its own that takes a while to make, and others wait meanwhile.
DAYS_MAX: Final = 60


class Batch:
    """Submissions that are written together, and their readings side by side, each with a place."""

    def __init__(self, submissions: list[Submission]) -> None:
        self.submissions = submissions
        self.readings = [reading for each in submissions for reading in each.decoded.readings]
        self._starts = list(accumulate((len(each.decoded.readings) for each in submissions), initial=0))

    def owner(self, place: int) -> int:
        """Give the number of the submission whose reading is at a place."""
        return bisect_right(self._starts, place, hi=len(self.submissions)) - 1

    def origin(self, place: int) -> tuple[Submission, int]:
        """Give whose reading is at a place, and its place among the readings of that submission."""
        number = self.owner(place)
        return self.submissions[number], place - self._starts[number]

    def pieces(self) -> list[Sequence[int]]:
        """Cut the places so that no transaction touches more than so many days; nearly always into one piece.

        Each day is a chunk in the database: one payload of old readings, each of another day, would make
        thousands of them and outgrow the lock table.
        """
        everything = range(len(self.readings))
        times = [reading.recorded_at for reading in self.readings]
        if not times or max(times) - min(times) < timedelta(days=DAYS_MAX - 1):
            return [everything]
        by_day: dict[int, list[int]] = {}
        for place, moment in enumerate(times):
            by_day.setdefault(utc_day(moment), []).append(place)
        days = sorted(by_day)
        return [
            [place for day in days[first : first + DAYS_MAX] for place in by_day[day]]
            for first in range(0, len(days), DAYS_MAX)
        ]


def utc_day(moment: datetime) -> int:
    """Give the number of a moment's day in UTC: that of its chunk, whatever offset it was written with."""
    return moment.astimezone(UTC).toordinal()
