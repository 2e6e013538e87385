"""Plans of the hot queries: index scans only, and only in the chunks that can hold what is asked for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from service.sql import query
from tests.support.servers import Postgres

DAYS = 6
START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def plain(postgres: Postgres, database: str) -> Iterator[psycopg.Connection[Any]]:
    """Give a connection to a database with six days of 50 meters and vehicles, a reading every 10 minutes."""
    with psycopg.connect(postgres.url("fleetwatt_owner", database), autocommit=True) as connection:
        for table, columns in (
            ("meter_reading", "0.1, 230"),
            ("vehicle_reading", "50, 0.1, 20"),
        ):
            connection.execute(
                f"insert into {table} select 'd-' || d, t, {columns} "  # noqa: S608 - our own names
                "from generate_series(1, 50) as d, "
                "generate_series(%s::timestamptz, %s, interval '10 minutes') as t",
                (START, START + timedelta(days=DAYS, minutes=-10)),
            )
        connection.execute(
            "insert into charging_session (vehicle_id, meter_id, during) "
            "select 'd-' || d, 'd-' || d, tstzrange(%s, null) from generate_series(1, 50) as d",
            (START,),
        )
        connection.execute("analyze")
        yield connection


def bounds(times: list[datetime]) -> dict[str, datetime]:
    """Give the bounds that a batch is compared within."""
    return {"earliest": min(times), "latest": max(times)}


def plan(connection: psycopg.Connection[Any], text: Any, parameters: dict[str, Any]) -> str:
    """Give the executed plan of a query as text."""
    rows = connection.execute(
        b"explain (analyze, costs off, timing off, summary off) " + text.encode(), parameters
    )
    return "\n".join(row[0] for row in rows)


def chunks(text: str) -> set[str]:
    """Give the chunks that a plan really looked into."""
    scanned = re.findall(r"on (_hyper_\d+_\d+_chunk)[^\n]*\(actual rows", text)
    return set(scanned)


def test_looking_up_stored_readings_probes_the_index(plain: psycopg.Connection[Any]) -> None:
    """A replayed batch costs one index probe a reading, in the chunk of its day."""
    times = [START + timedelta(days=4, minutes=10 * number) for number in range(20)]
    batch = {"ids": ["d-1"] * 20, "times": times, "kwh": [0.1] * 20, "voltage": [230.0] * 20}
    batch |= bounds(times)
    executed = plan(plain, query("compare_meter_readings").rstrip(";"), batch)
    assert "Seq Scan on _hyper" not in executed, executed
    assert len(chunks(executed)) == 1, executed
    # Nor are other chunks planned for: with years of them that would take longer than the look-up.
    assert set(re.findall(r"_hyper_\d+_\d+_chunk", executed)) == chunks(executed), executed


@pytest.mark.parametrize("name", ["meter_current", "vehicle_current"])
def test_current_state_is_one_key_look_up(plain: psycopg.Connection[Any], name: str) -> None:
    """The latest state of a device is found by its key, however many devices there are."""
    table = name.replace("current", "state")
    columns = "10, 230" if name == "meter_current" else "50, 0.1, 20"
    plain.execute(
        f"insert into {table} select 's-' || d, now(), {columns} "  # noqa: S608 - our own names
        "from generate_series(1, 20000) as d".encode()
    )
    plain.execute("analyze")
    executed = plan(plain, query(name).rstrip(";"), {"id": "s-77"})
    assert "Index Scan" in executed, executed
    assert "Seq Scan" not in executed, executed


@pytest.mark.parametrize("name", ["meter_states", "vehicle_states"])
def test_a_page_of_states_follows_the_key(plain: psycopg.Connection[Any], name: str) -> None:
    """A page is read in key order from where the last one ended, without sorting."""
    table = name.removesuffix("s")
    columns = "10, 230" if name == "meter_states" else "50, 0.1, 20"
    plain.execute(
        f"insert into {table} select 's-' || d, now(), {columns} "  # noqa: S608 - our own names
        "from generate_series(1, 20000) as d".encode()
    )
    plain.execute("analyze")
    parameters = {"after": "s-5", "since": None, "before": None, "soc_below": None, "page_size": 100}
    executed = plan(plain, query(name).rstrip(";"), parameters)
    assert "Index Scan" in executed, executed
    assert "Sort" not in executed, executed


def chunks_of(connection: psycopg.Connection[Any], table: str, *days: int) -> set[str]:
    """Give the chunks of a table that hold some of the days."""
    rows = connection.execute(
        "select chunk_name::text from timescaledb_information.chunks "
        "where hypertable_name = %s and range_start = any(%s::timestamptz[])",
        (table, [START + timedelta(days=day) for day in days]),
    )
    return {row[0] for row in rows}


@pytest.mark.parametrize("kind", ["meter", "vehicle"])
def test_a_batch_over_two_days_probes_two_chunks(plain: psycopg.Connection[Any], kind: str) -> None:
    """Comparing and inserting a batch look up keys by index, in the chunks of its days alone."""
    times = [START + timedelta(days=day, minutes=10 * number) for day in (1, 4) for number in range(20)]
    batch: dict[str, Any] = {"ids": ["d-1"] * 40, "times": times, "kwh": [0.1] * 40}
    batch |= {"voltage": [230.0] * 40, "soc": [50.0] * 40, "battery_temp": [20.0] * 40, **bounds(times)}
    compared = plan(plain, query(f"compare_{kind}_readings").rstrip(";"), batch)
    assert chunks(compared) == chunks_of(plain, f"{kind}_reading", 1, 4), compared
    assert "Seq Scan" not in compared, compared
    inserted = plan(plain, query(f"insert_new_{kind}_readings").rstrip(";"), batch)
    assert "Seq Scan" not in inserted, inserted
    assert chunks(inserted) == set(), inserted


def test_sessions_are_found_by_index(plain: psycopg.Connection[Any]) -> None:
    """A session by its id, those of a vehicle in a span, and the one that keeps a meter busy."""
    plain.execute(
        "insert into charging_session (session_id, vehicle_id, meter_id, during) "
        "select 's-' || n, 'x-' || n %% 500, 'y-' || n %% 500, tstzrange(at, at + interval '2 hours') "
        "from generate_series(1, 20000) as n, lateral (select %s + n / 500 * interval '3 hours' as at) as s",
        (START,),
    )
    plain.execute("analyze")
    span = {"window_from": START, "window_to": START + timedelta(hours=8)}
    none = dict.fromkeys(("meter_id", "is_open", "after_start", "after_id"))
    asked: dict[str, dict[str, Any]] = {
        "get_session": {"session_id": "s-77"},
        "overlapping_session": {
            "meter_id": "y-7",
            "session_id": None,
            "started_at": START,
            "ended_at": START + timedelta(hours=1),
        },
        "list_sessions": {**none, **span, "vehicle_id": "x-7", "page_size": 10},
    }
    for name, parameters in asked.items():
        executed = plan(plain, query(name).rstrip(";"), parameters)
        assert "Seq Scan" not in executed, executed
