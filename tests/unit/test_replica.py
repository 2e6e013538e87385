"""How far a replica is behind, told by marks in the primary's log."""

from __future__ import annotations

import math

import pytest
from structlog.testing import capture_logs

from service import dsn
from service.errors import SettingsError
from service.questions import Questions
from service.replica import Progress
from service.settings import Settings


def test_nothing_is_known_at_first() -> None:
    """A replica of which nothing is known is infinitely far behind, whatever it has replayed."""
    progress = Progress()
    assert progress.lag_s(5.0) == math.inf
    progress.replayed(1000)
    assert progress.lag_s(5.0) == math.inf


def test_lag_is_the_age_of_the_newest_mark_that_was_reached() -> None:
    """A mark counts once the log was replayed up to it, and lag grows while no further one is reached."""
    progress = Progress()
    for at, position in ((10.0, 100), (11.0, 200), (12.0, 300)):
        progress.mark(at, position, 1)
    progress.replayed(99)
    assert progress.lag_s(12.0) == math.inf
    progress.replayed(250)
    assert progress.lag_s(12.0) == 1.0
    assert progress.lag_s(20.0) == 9.0
    progress.replayed(300)
    assert progress.lag_s(20.0) == 8.0


def test_an_idle_primary_makes_no_lag() -> None:
    """Where nothing is written, each mark is reached as soon as it is made."""
    progress = Progress()
    for at in range(100):
        progress.mark(float(at), 7, 1)
        progress.replayed(7)
        assert progress.lag_s(float(at)) == 0.0


def test_positions_of_another_timeline_do_not_count() -> None:
    """Another primary goes on with a shorter log: marks of the one before would never be reached."""
    progress = Progress()
    progress.mark(1.0, 500, 1)
    progress.replayed(500)
    progress.mark(2.0, 900, 1)
    progress.mark(3.0, 600, 2)
    progress.replayed(600)
    assert progress.lag_s(3.0) == 0.0


def test_marks_are_bounded() -> None:
    """A replica that stands still for days costs no memory; once it is well again that is seen."""
    progress = Progress()
    for at in range(100_000):
        progress.mark(float(at), at, 1)
    progress.replayed(50_000)
    assert progress.lag_s(100_000.0) == math.inf
    progress.replayed(99_999)
    assert progress.lag_s(100_000.0) == 1.0


def test_an_address_that_cannot_be_read() -> None:
    """A mistake in the replica's address is told at start by the name of its setting, without its words."""
    settings = Settings(database_url="postgresql://h/d", read_database_url="postgresql://u:pa/ss@h/d")
    with pytest.raises(SettingsError, match="FLEETWATT_READ_DATABASE_URL cannot be read") as caught:
        Questions(settings)
    assert "ss@" not in str(caught.value)


def test_an_open_way_to_the_replica() -> None:
    """The warning names the setting that is to be mended."""
    with capture_logs() as told:
        dsn.warn_unprotected("postgresql://u@db.example/d", "FLEETWATT_READ_DATABASE_URL")
    [line] = told
    assert line["event"] == "database_not_protected"
    assert "FLEETWATT_READ_DATABASE_URL" in line["hint"]
