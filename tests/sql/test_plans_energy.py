"""Plans of the energy functions as they run: by index, in the window's chunks, raw rows only at its ends."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import psycopg
import pytest

from service.sql import query
from tests.support.servers import Postgres

DAYS = 12
START = datetime(2026, 1, 1, tzinfo=UTC)
RAW = {"meter_reading", "vehicle_reading"}
ROLLUPS = {f"{kind}_{width}" for kind in ("meter", "vehicle") for width in ("hourly", "daily")}
# Which relation a chunk belongs to; a continuous aggregate's chunks are those of the table behind it.
CHUNKS = """
    select c.chunk_name::text, coalesce(a.view_name, c.hypertable_name)::text, c.range_start
    from timescaledb_information.chunks as c
    left join timescaledb_information.continuous_aggregates as a
        on c.hypertable_name = a.materialization_hypertable_name
"""
# Far more devices than are asked for, so that reading them all would never be the better plan.
FILL = """
    insert into {} select 'd-' || d, t, {}
    from generate_series(1, 60) as d,
    generate_series(%s::timestamptz, %s, interval '10 minutes') as t
"""


@pytest.fixture
def rolled(postgres: Postgres, database: str) -> Iterator[psycopg.Connection[Any]]:
    """Give a connection to twelve days of 60 vehicles, rolled up, that hands back each plan as a notice."""
    with postgres.admin(database) as connection:
        for table, columns in (("meter_reading", "0.1, 230"), ("vehicle_reading", "50, 0.09, 20")):
            connection.execute(
                FILL.format(table, columns).encode(), (START, START + timedelta(days=DAYS, minutes=-10))
            )
        connection.execute(
            "insert into charging_session (vehicle_id, meter_id, during) "
            "select 'd-' || d, 'd-' || d, tstzrange(%s, null) from generate_series(1, 60) as d",
            (START,),
        )
        connection.execute("call refresh_rollups()")
        connection.execute("vacuum analyze")
        connection.execute("load 'auto_explain'")
        for setting in ("log_min_duration = 0", "log_nested_statements = on", "log_analyze = on",
                        "log_timing = off", "log_level = notice"):  # fmt: skip
            connection.execute(f"set auto_explain.{setting}".encode())
        yield connection


class Read(NamedTuple):
    """What a statement read: the days of each relation's chunks, relations read end to end, and the plans."""

    days: dict[str, set[int]]
    scanned: set[str]
    text: str


def read(connection: psycopg.Connection[Any], statement: str, *parameters: Any, **named: Any) -> Read:
    """Run a statement and tell what it, and every function in it, read."""
    plans: list[str] = []

    def keep(notice: psycopg.errors.Diagnostic) -> None:
        plans.append(notice.message_primary or "")

    connection.add_notice_handler(keep)
    try:
        connection.execute(statement.encode(), named or parameters)
    finally:
        connection.remove_notice_handler(keep)
    text = "\n".join(plan for plan in plans if "duration" in plan)
    result = Read({}, set(), text)
    owners = {name: (owner, start) for name, owner, start in connection.execute(CHUNKS.encode())}
    # A node that never ran looked at nothing.
    for line in re.findall(r"[^\n]* on _hyper_\d+_\d+_chunk[^\n]*\(actual rows=\d+ loops=[1-9]", text):
        [name] = re.findall(r" on (_hyper_\d+_\d+_chunk)", line)
        relation, start = owners[name]
        relation = relation.removesuffix("_stored")
        result.days.setdefault(relation, set()).add((start - START).days)
        if "Seq Scan" in line:
            result.scanned.add(relation)
    return result


@pytest.mark.parametrize("minute", [0, 17])
def test_performance_reads_rollups_and_the_ends_of_the_window(
    rolled: psycopg.Connection[Any], minute: int
) -> None:
    """A day's summary reads hours from rollups, and raw rows by index where the window ends."""
    start = START + timedelta(days=5, hours=6, minutes=minute)
    days, scanned, text = read(
        rolled, "select * from vehicle_performance('d-7', %s, %s)", start, start + timedelta(days=1)
    )
    assert not scanned, text
    assert {"meter_hourly", "vehicle_hourly"} <= set(days), text
    for table in RAW:
        # A window that begins and ends on the hour needs no raw row at all.
        assert days.get(table, set()) == ({5, 6} if minute else set()), text


def test_a_long_window_reads_days(rolled: psycopg.Connection[Any]) -> None:
    """Ten days come from the daily rollups; hours and raw rows only at the ends."""
    start = START + timedelta(days=1, hours=7, minutes=30)
    days, scanned, text = read(
        rolled, "select * from vehicle_performance('d-7', %s, %s)", start, start + timedelta(days=10)
    )
    assert not scanned, text
    assert set(days) == RAW | ROLLUPS, text
    assert days["meter_reading"] == days["vehicle_reading"] == {1, 11}, text


def test_a_stale_hour_is_read_from_its_raw_rows_alone(rolled: psycopg.Connection[Any]) -> None:
    """One stale hour costs the raw rows of that hour, and leaves the others to the rollups."""
    rolled.execute(
        "insert into rollup_stale (stream, hour) values ('meter', %s)", (START + timedelta(days=4, hours=9),)
    )
    start = START + timedelta(days=3)
    days, scanned, text = read(
        rolled, "select * from vehicle_performance('d-7', %s, %s)", start, start + timedelta(days=3)
    )
    assert not scanned, text
    assert days["meter_reading"] == {4}, text
    assert "vehicle_reading" not in days, text
    assert "vehicle_hourly" not in days, text


def test_what_is_not_rolled_up_is_read_by_index(rolled: psycopg.Connection[Any]) -> None:
    """Without any rollup the summary still reads one device's rows in the chunks of the window."""
    rolled.execute("update rollup_progress set refreshed_until = '-infinity'")
    start = START + timedelta(days=5, hours=6)
    days, scanned, text = read(
        rolled, "select * from vehicle_performance('d-7', %s, %s)", start, start + timedelta(days=1)
    )
    assert not scanned, text
    assert days == {"meter_reading": {5, 6}, "vehicle_reading": {5, 6}}, text


def test_the_hours_of_a_vehicle(rolled: psycopg.Connection[Any]) -> None:
    """The hourly series of two days reads the hours of one vehicle and its meter, and no raw row."""
    edges = [START + timedelta(days=4, hours=hour) for hour in range(49)]
    for statement in ("select * from delivered(%s, 'd-7')", "select * from billed(%s, 'd-7')"):
        days, scanned, text = read(rolled, statement, edges)
        assert not scanned, text
        assert not RAW & set(days), text


def test_the_hours_of_a_meter(rolled: psycopg.Connection[Any]) -> None:
    """So does that of a meter; its days come from days."""
    edges = [START + timedelta(days=4, hours=hour) for hour in range(49)]
    for statement in ("select * from charged(%s, 'd-7')", "select * from metered(%s, 'd-7')"):
        days, scanned, text = read(rolled, statement, edges)
        assert not scanned, text
        assert not RAW & set(days), text
        days, scanned, text = read(rolled, statement, [START + timedelta(days=day) for day in (2, 3, 4)])
        assert not scanned, text
        assert {name for name in days if "daily" in name} == set(days), text


def test_a_page_of_sessions(rolled: psycopg.Connection[Any]) -> None:
    """It takes one device's sessions by index, and raw rows of vehicles alone, of hours that sessions cut."""
    rolled.execute("delete from charging_session")
    rolled.execute(
        "insert into charging_session (session_id, vehicle_id, meter_id, during) "
        "select 's-' || n, 'd-' || n %% 60, 'd-' || n %% 60, tstzrange(at, at + interval '80 minutes') "
        "from generate_series(1, 6000) as n, lateral (select %s + n / 60 * interval '2 hours' as at) as s",
        (START + timedelta(minutes=25),),
    )
    rolled.execute("call refresh_rollups()")
    rolled.execute("analyze")
    nothing = dict.fromkeys(("vehicle_id", "meter_id", "window_from", "window_to", "after_id"))
    for asked in ({"vehicle_id": "d-7"}, {"meter_id": "d-7"}, {"meter_id": "d-7", "after_id": "s-3007"}):
        parameters = {**nothing, **asked, "page_size": 20}
        days, scanned, text = read(rolled, query("sessions_with_energy").rstrip(";"), **parameters)
        assert not scanned, text
        assert "meter_reading" not in days, text
        assert "on charging_session" in text
        assert "Seq Scan on charging_session" not in text, text
        assert "charging_session_newest" not in text, text
        rows = rolled.execute(query("sessions_with_energy"), parameters).fetchall()
        assert len(rows) == 20
        assert rows[0][0] == ("s-2947" if "after_id" in asked else "s-5947")


def test_power_reads_five_minutes(rolled: psycopg.Connection[Any]) -> None:
    """The fleet's power finds its minutes by the block-range index of the newest chunk."""
    for table, columns in (("meter_reading", "0.1, 230"), ("vehicle_reading", "50, 0.09, 20")):
        rolled.execute(
            f"insert into {table} select 'd-' || d, t, {columns} "  # noqa: S608 - our own names
            "from generate_series(now() - interval '20 hours', now(), interval '1 minute') as t, "
            "generate_series(1, 60) as d order by t"
        )
    rolled.execute("vacuum analyze meter_reading, vehicle_reading")
    # A chunk must be larger by far before the index pays.
    rolled.execute("set enable_seqscan = off")
    days, scanned, text = read(rolled, query("overview_power").rstrip(";"))
    assert not scanned, text
    now = (datetime.now(UTC) - START).days
    assert set(days) == RAW, text
    assert days["meter_reading"] | days["vehicle_reading"] <= {now - 1, now}, text
    # The others, but for the day before, are no part of the plan.
    assert set(re.findall(r"excluded during startup: (\d+)", text)) <= {"0", "1"}, text
    assert "meter_reading_recorded_at" in text
    assert "vehicle_reading_recorded_at" in text


def test_the_open_hour_of_the_fleet_is_read_once(rolled: psycopg.Connection[Any]) -> None:
    """What nobody has rolled up is joined to sessions in one go, though statistics know none of it yet."""
    rolled.execute("alter table meter_reading set (autovacuum_enabled = off)")
    since = START + timedelta(days=DAYS, hours=8)
    for start, minutes in ((since - timedelta(hours=8), 480), (since, 30)):
        # The second time the newest rows are those that no statistics have seen.
        rolled.execute(
            "insert into meter_reading select 'd-' || d, %s::timestamptz + n * interval '1 minute', 0.1, 230 "
            "from generate_series(0, %s - 1) as n, generate_series(1, 60) as d",
            (start, minutes),
        )
        if start < since:
            rolled.execute("vacuum analyze meter_reading")
    rolled.execute("update rollup_progress set refreshed_until = %s", (since,))
    _, _, text = read(rolled, "select * from fleet_totals(%s)", [START, since + timedelta(minutes=30)])
    [plan] = [plan for plan in text.split("duration: ") if "inner join meter_reading as r" in plan]
    assert "Hash Join" in plan, plan
    assert "Nested Loop" not in plan, plan
    [row] = rolled.execute(
        "select kwh_ac, meter_readings from fleet_totals(%s)", ([since, since + timedelta(minutes=30)],)
    )
    assert row == (pytest.approx(180), 1800)


def test_the_fleet_reads_no_more_than_the_window(rolled: psycopg.Connection[Any]) -> None:
    """The answer over all vehicles reads rollups, and raw rows only where the window's ends cut an hour."""
    start = START + timedelta(days=5, hours=6, minutes=17)
    days, scanned, text = read(
        rolled, "select * from fleet_performance(%s, %s)", start, start + timedelta(days=1)
    )
    assert days["meter_reading"] == days["vehicle_reading"] == {5, 6}, text
    assert "meter_reading" not in scanned, text
    aligned = START + timedelta(days=5)
    days, scanned, text = read(
        rolled, "select * from fleet_performance(%s, %s)", aligned, aligned + timedelta(days=1)
    )
    assert not RAW & set(days), text


@pytest.mark.parametrize(
    "statement",
    ["select * from vehicle_performance('d-7', %s, %s)", "select * from fleet_performance(%s, %s)"],
)
def test_sessions_that_cut_hours_cost_no_raw_row(rolled: psycopg.Connection[Any], statement: str) -> None:
    """A session that starts and ends within hours is answered from rolled-up parts, once refreshed."""
    day = START + timedelta(days=5)
    rolled.execute(
        "update charging_session set during = tstzrange(%s, %s)",
        (day + timedelta(hours=2, minutes=17), day + timedelta(hours=20, minutes=41)),
    )
    for raw in ({"meter_reading"}, set()):
        days, _, text = read(rolled, statement, day, day + timedelta(days=1))
        assert RAW & set(days) == raw, text
        rolled.execute("call refresh_rollups()")


def test_refreshing_an_hour_reads_its_day_alone(rolled: psycopg.Connection[Any]) -> None:
    """A stale hour costs a look into the chunk of its day, found by the block-range index."""
    late = START + timedelta(days=4, hours=9, minutes=5)
    rolled.execute("insert into meter_reading values ('d-1', %s, 0.1, 230)", (late,))
    days, _, text = read(rolled, "call refresh_rollups()")
    assert days["meter_reading"] == {4}, text
    assert "vehicle_reading" not in days, text
    assert rolled.execute("select count(*) from rollup_stale").fetchone() == (0,)


def test_states_and_freshness_never_touch_history(rolled: psycopg.Connection[Any]) -> None:
    """How fresh the rollups are is told by two small tables."""
    days, _, text = read(rolled, "select * from rollup_health")
    assert days == {}, text
