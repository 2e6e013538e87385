"""The rule of alerts, a pure SQL function: when a pair gets an alert, keeps it and loses it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import psycopg
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.support.servers import Postgres
from tests.support.strategies import against_a_database

STATES = ("none", "low_efficiency", "data_fault")
THRESHOLD, MARGIN, TOLERANCE, LEAST_KWH, LEAST_COVERAGE = 0.85, 0.02, 0.03, 5.0, 0.8

states = st.sampled_from(STATES)
energies = st.floats(0, 200)
coverages = st.floats(0, 1)
enough = st.floats(LEAST_COVERAGE, 1)


class Settings(NamedTuple):
    """The settings of the rule."""

    threshold: float = THRESHOLD
    close_margin: float = MARGIN
    fault_tolerance: float = TOLERANCE
    least_kwh: float = LEAST_KWH
    least_coverage: float = LEAST_COVERAGE


class Measured(NamedTuple):
    """What was measured of a pair."""

    kwh_ac: float
    kwh_dc: float
    meter_coverage: float = 1.0
    vehicle_coverage: float = 1.0


settings = st.builds(
    Settings, st.floats(0.1, 1), st.floats(0, 0.3), st.floats(0, 0.3), st.floats(0.1, 20), coverages
)
measured = st.builds(Measured, energies, energies, coverages, coverages)


class Rule:
    """Asks the function."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def __call__(
        self, present: str | None, pair: tuple[float | None, ...], rule: Settings | None = None
    ) -> str | None:
        """Give the verdict."""
        row = self._connection.execute(
            "select alert_verdict(%s, %s::float8, %s::float8, %s::float8, %s::float8, "
            "%s::float8, %s::float8, %s::float8, %s::float8, %s::float8)",
            (present, *pair, *(rule or Settings())),
        ).fetchone()
        assert row is not None
        verdict: str | None = row[0]
        return verdict


@pytest.fixture
def rule(postgres: Postgres, database: str) -> Iterator[Rule]:
    """Give the rule of a database."""
    with psycopg.connect(postgres.url("fleetwatt_owner", database), autocommit=True) as connection:
        yield Rule(connection)


@pytest.mark.parametrize(
    ("ratio", "from_none", "from_low", "from_fault"),
    [
        (0.0, "low_efficiency", "low_efficiency", "low_efficiency"),
        (0.8499, "low_efficiency", "low_efficiency", "low_efficiency"),
        (0.8501, "none", "low_efficiency", "none"),
        (0.8699, "none", "low_efficiency", "none"),
        (0.8701, "none", "none", "none"),
        (0.92, "none", "none", "none"),
        (1.0, "none", "none", "none"),
        (1.0001, "none", "none", "data_fault"),
        (1.0299, "none", "none", "data_fault"),
        (1.0301, "data_fault", "data_fault", "data_fault"),
        (9.0, "data_fault", "data_fault", "data_fault"),
    ],
)
def test_with_all_readings_the_ratio_decides(
    rule: Rule, ratio: float, from_none: str, from_low: str, from_fault: str
) -> None:
    """Opened under the threshold or over 1 + tolerance, closed at threshold + margin or at 1."""
    pair = Measured(100, 100 * ratio)
    assert [rule(state, pair) for state in (None, *STATES)] == [from_none, from_none, from_low, from_fault]


@against_a_database
@given(states, measured, settings)
def test_again_says_the_same(rule: Rule, present: str, pair: Measured, by: Settings) -> None:
    """What the rule made of a pair it leaves alone: evaluating twice is evaluating once."""
    verdict = rule(present, pair, by)
    if verdict is not None:
        assert rule(verdict, pair, by) == verdict


@against_a_database
@given(measured, settings)
def test_whether_it_can_tell_does_not_depend_on_the_alert(rule: Rule, pair: Measured, by: Settings) -> None:
    """Nothing is told exactly when energy or coverage of either side are too small."""
    too_little = (
        max(pair.kwh_ac, pair.kwh_dc) < by.least_kwh
        or min(pair.meter_coverage, pair.vehicle_coverage) < by.least_coverage
    )
    assert {rule(state, pair, by) is None for state in STATES} == {too_little}


@pytest.mark.parametrize("gap", range(4))
def test_what_was_not_measured_tells_nothing(rule: Rule, gap: int) -> None:
    """A pair without sessions in the window, or of which a figure is unknown, stays what it is."""
    pair: list[float | None] = [10.0, 5.0, 1.0, 1.0]
    pair[gap] = None
    assert [rule(state, tuple(pair)) for state in STATES] == [None] * 3


@against_a_database
@given(states, st.lists(st.floats(0, 0.999), min_size=1, max_size=12))
def test_never_flaps_within_the_margin(rule: Rule, present: str, places: list[float]) -> None:
    """However DC/AC moves between threshold and margin, a low efficiency neither opens nor closes."""
    assume(present != "data_fault")
    state: str | None = present
    for place in places:
        state = rule(state, Measured(100, 100 * (THRESHOLD + 1e-9 + place * (MARGIN - 2e-9))))
        assert state == present


@against_a_database
@given(st.sampled_from(["none", "data_fault"]), st.lists(st.floats(0.001, 1), min_size=1, max_size=12))
def test_never_flaps_within_the_tolerance(rule: Rule, present: str, places: list[float]) -> None:
    """However DC/AC moves between 1 and the tolerance, a data fault neither opens nor closes."""
    state: str | None = present
    for place in places:
        state = rule(state, Measured(100, 100 * (1 + place * (TOLERANCE - 1e-9))))
        assert state == present


@against_a_database
@given(st.floats(5, 200), st.floats(0, 400), enough, enough, states)
def test_missing_readings_decide_nothing(
    rule: Rule,
    kwh_ac: float,
    kwh_dc: float,
    meter_coverage: float,
    vehicle_coverage: float,
    present: str,
) -> None:
    """A change of state would also have come with the missing readings, at the mean of the rest."""
    verdict = rule(present, Measured(kwh_ac, kwh_dc, meter_coverage, vehicle_coverage))
    assume(verdict not in {present, None})
    whole = Measured(kwh_ac / meter_coverage, kwh_dc / vehicle_coverage)
    edges = (THRESHOLD, THRESHOLD + MARGIN, 1.0, 1 + TOLERANCE)
    assume(all(abs(whole.kwh_dc - edge * whole.kwh_ac) > 1e-6 for edge in edges))
    changed = rule(present, whole)
    assert changed != present
    if verdict != "none":
        assert changed == verdict


@against_a_database
@given(states, st.floats(5, 200), st.floats(0, 400), st.floats(0, 400), enough, enough)
def test_more_arriving_is_never_less_efficient(
    rule: Rule,
    present: str,
    kwh_ac: float,
    one: float,
    other: float,
    meter_coverage: float,
    vehicle_coverage: float,
) -> None:
    """With the same AC, more DC moves the verdict from low over none to fault, never back."""
    order = ("low_efficiency", "none", "data_fault")
    less, more = (
        rule(present, Measured(kwh_ac, kwh_dc, meter_coverage, vehicle_coverage))
        for kwh_dc in sorted((one, other))
    )
    assert order.index(str(less)) <= order.index(str(more))


def test_a_threshold_near_one_can_still_close(rule: Rule) -> None:
    """Threshold and margin together never ask for more than 1, which no sound charger exceeds."""
    by = Settings(threshold=0.99, close_margin=0.05)
    assert rule("low_efficiency", Measured(10, 10), by) == "none"


def test_a_meter_that_counts_nothing(rule: Rule) -> None:
    """Energy that arrives while the meter says zero is a data fault; nothing on either side tells nothing."""
    assert rule(None, Measured(0, 10)) == "data_fault"
    assert rule("low_efficiency", Measured(0, 10)) == "data_fault"
    assert rule("data_fault", Measured(0, 0)) is None
    assert rule(None, Measured(10, 0)) == "low_efficiency"
