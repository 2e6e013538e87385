"""Plans of the views in the schema bi: filters reach the index and leave chunks, and calls, out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import psycopg
import pytest

from tests.support.servers import Postgres

DAYS = 32
START = datetime(2026, 1, 1, tzinfo=UTC)
WINDOW = (START + timedelta(days=13), START + timedelta(days=15))
CHUNKS = """
    select c.chunk_name::text, coalesce(a.view_name, c.hypertable_name)::text, c.range_start, c.range_end
    from timescaledb_information.chunks as c
    left join timescaledb_information.continuous_aggregates as a
        on c.hypertable_name = a.materialization_hypertable_name
"""
RAW = {"meter_reading", "vehicle_reading"}


@pytest.fixture
def month(postgres: Postgres, database: str) -> Iterator[psycopg.Connection[Any]]:
    """Give a connection to a month of 40 vehicles, charged twice a day with edges within hours, rolled up."""
    with postgres.admin(database) as connection:
        for table, columns in (("meter_reading", "0.1, 230"), ("vehicle_reading", "50, 0.09, 20")):
            connection.execute(
                f"insert into {table} select 'd-' || d, t, {columns} "  # noqa: S608 - our own names
                "from generate_series(%s::timestamptz, %s, interval '30 minutes') as t, "
                "generate_series(1, 40) as d",
                (START, START + timedelta(days=DAYS, minutes=-30)),
            )
        connection.execute(
            "insert into charging_session (vehicle_id, meter_id, during) "
            "select 'd-' || d, 'd-' || d, "
            "tstzrange(t + d * interval '1 minute', t + interval '5 hours 30 minutes') "
            "from generate_series(%s::timestamptz, %s, interval '12 hours') as t, "
            "generate_series(1, 40) as d",
            (START, START + timedelta(days=DAYS - 1)),
        )
        connection.execute("call refresh_rollups()")
        connection.execute("vacuum analyze")
        yield connection


class Read(NamedTuple):
    """What a query read: relations and the chunks of theirs that it looked into, and its plan."""

    chunks: dict[str, set[str]]
    expected: dict[str, set[str]]
    plan: str


def explain(connection: psycopg.Connection[Any], statement: str) -> Read:
    """Run a query over the window, and tell what it read and which chunks hold the window."""
    rows = connection.execute(
        f"explain (analyze, costs off, timing off, summary off) {statement}".encode(), WINDOW
    ).fetchall()
    plan = "\n".join(row[0] for row in rows)
    # A probe of the key that ends at once, since the live tail lies elsewhere, counts as left out.
    probes = r"Index (?:Only )?Scan using [^\n]*\(actual rows=0 [^\n]*\n +Index Cond: \(\(\w+_id = "
    looked_into = set(re.findall(r" on (_hyper_\d+_\d+_chunk)[^\n]*\(actual rows", re.sub(probes, "", plan)))
    chunks: dict[str, set[str]] = {}
    expected: dict[str, set[str]] = {}
    for name, relation, start, end in connection.execute(CHUNKS.encode()).fetchall():
        plain = relation.removesuffix("_stored")
        if name in looked_into:
            chunks.setdefault(plain, set()).add(name)
        if start < WINDOW[1] and end > WINDOW[0]:
            expected.setdefault(plain, set()).add(name)
    return Read(chunks, expected, plan)


@pytest.mark.parametrize("view", ["meter_hourly", "meter_daily", "vehicle_hourly", "vehicle_daily"])
def test_a_device_and_a_span_reach_the_rollups_index(month: psycopg.Connection[Any], view: str) -> None:
    """One device's rows come by index, from the chunks of the span, and no raw chunk is touched."""
    kind, width = view.split("_")
    unit = {"hourly": "hour", "daily": "day"}[width]
    read = explain(
        month,
        f"select * from bi.{view} where {kind}_id = 'd-7' and {unit} >= %s and {unit} < %s",  # noqa: S608
    )
    assert read.chunks == {view: read.expected[view]}, read.plan
    assert not re.search(r"Seq Scan on _hyper[^\n]*\(actual", read.plan), read.plan


def test_a_span_of_all_devices_reaches_the_index_on_time(month: psycopg.Connection[Any]) -> None:
    """All devices' hours of a span come by the index on time."""
    read = explain(month, "select * from bi.meter_hourly where hour >= %s and hour < %s")
    assert read.chunks == {"meter_hourly": read.expected["meter_hourly"]}, read.plan
    assert not re.search(r"Seq Scan on _hyper[^\n]*\(actual", read.plan), read.plan


@pytest.mark.parametrize("vehicle", ["and vehicle_id = 'd-7'", ""])
def test_hours_of_efficiency_read_rollups_and_cut_hours(month: psycopg.Connection[Any], vehicle: str) -> None:
    """Rollups of the span by index; of raw rows only the span's cut hours, asked for one by one."""
    read = explain(
        month,
        f"select * from bi.vehicle_efficiency_hourly where hour >= %s and hour < %s {vehicle}",  # noqa: S608
    )
    assert read.chunks == {name: read.expected[name] for name in ("meter_hourly", "vehicle_hourly")}, (
        read.plan
    )
    assert not re.search(r"Seq Scan on _hyper[^\n]*\(actual", read.plan), read.plan
    # Four sessions a vehicle, their starts and ends within hours.
    calls = re.findall(r"Function Scan on meter_raw_hours[^\n]*loops=(\d+)", read.plan)
    assert sum(map(int, calls)) == (8 if vehicle else 40 * 8), read.plan


@pytest.mark.parametrize(
    ("view", "function", "calls"),
    [
        ("vehicle_efficiency_daily where vehicle_id = 'd-7' and", "vehicle_performance", 2),
        ("charger_efficiency_daily where meter_id = 'd-7' and", "charger_energy", 2),
        ("fleet_daily where", "fleet_totals", 2),
        ("charger_efficiency_hourly where meter_id = 'd-7' and", "charger_energy", 48),
    ],
)
def test_days_ask_only_for_the_days_of_the_span(
    month: psycopg.Connection[Any], view: str, function: str, calls: int
) -> None:
    """The exact function runs once for each device and day that the filter leaves."""
    unit = "hour" if "hourly" in view else "day"
    read = explain(month, f"select * from bi.{view} {unit} >= %s and {unit} < %s")  # noqa: S608
    loops = re.findall(rf"Function Scan on {function}[^\n]*loops=(\d+)", read.plan)
    assert list(map(int, loops)) == [calls], read.plan
    assert not RAW & read.chunks.keys(), read.plan


def test_a_span_that_ends_now_reads_the_live_tail_alone(month: psycopg.Connection[Any]) -> None:
    """Of the raw rows, a view that reaches to now looks into no chunk before the line of the refresh."""
    month.execute("insert into meter_reading values ('d-7', now() - interval '1 second', 0.1, 230)")
    rows = month.execute(
        "explain (analyze, costs off, timing off, summary off) "
        "select * from bi.meter_hourly where meter_id = 'd-7' and hour >= now() - interval '2 days'"
    ).fetchall()
    plan = "\n".join(row[0] for row in rows)
    looked_into = set(re.findall(r" on (_hyper_\d+_\d+_chunk)[^\n]*\(actual rows", plan))
    raw = month.execute(
        "select chunk_name::text, range_end from timescaledb_information.chunks "
        "where hypertable_name = 'meter_reading'"
    ).fetchall()
    line = month.execute("select refreshed_until from rollup_progress where stream = 'meter'").fetchone()
    assert line is not None
    assert looked_into & {name for name, _ in raw}, plan
    assert looked_into & {name for name, end in raw if end <= line[0]} == set(), plan
