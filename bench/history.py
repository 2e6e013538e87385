"""How long analytics take over a history of minutes, and whether that grows with the history.

`just bench-history` loads a fleet of vehicles and meters, a reading a minute each, rolls it up, and times the
24-hour summary of a vehicle (in the database and over HTTP), the answer over the fleet for the last finished
day and for a window whose ends cut hours, pages of latest states, and the refresh of an hour. It checks what
it times: rollup answers must equal sums over the raw rows, of single vehicles and of all together.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg
from rich.console import Console
from rich.table import Table

from bench import engine
from tests.support import servers
from tests.support.servers import Postgres

# A vehicle charges at its own meter, from some minute of the evening for some eight hours, every day.
LOAD = """
    insert into meter_reading (meter_id, recorded_at, kwh_consumed_ac, voltage)
    select 'METER-' || d, t, (d * 7 + extract(minute from t)) %% 100 / 1000.0, 228 + d %% 5
    from generate_series(%(start)s, %(start)s + interval '59 minutes', interval '1 minute') as t,
    generate_series(1, %(vehicles)s) as d;
"""
LOAD_VEHICLES = """
    insert into vehicle_reading (vehicle_id, recorded_at, soc, kwh_delivered_dc, battery_temp)
    select 'VH-' || d, t, d %% 100, (d * 7 + extract(minute from t)) %% 100 / 1100.0, 20 + d %% 10
    from generate_series(%(start)s, %(start)s + interval '59 minutes', interval '1 minute') as t,
    generate_series(1, %(vehicles)s) as d;
"""
SESSIONS = """
    insert into charging_session (vehicle_id, meter_id, during)
    select 'VH-' || d, 'METER-' || d, tstzrange(day + at, day + at + interval '7 hours 41 minutes')
    from generate_series(%(start)s, %(end)s, interval '1 day') as day,
    generate_series(1, %(vehicles)s) as d,
    lateral (select (18 * 60 + d %% 240) * interval '1 minute' as at) as s;
"""
RAW = """
    select
        (select coalesce(sum(kwh_consumed_ac), 0)
         from charging_session as s join meter_reading as r
             on r.meter_id = s.meter_id and r.recorded_at <@ s.during
         where s.vehicle_id = %(id)s and r.recorded_at >= %(window_from)s and r.recorded_at < %(window_to)s),
        (select coalesce(sum(kwh_delivered_dc), 0) from vehicle_reading
         where vehicle_id = %(id)s and recorded_at >= %(window_from)s and recorded_at < %(window_to)s)
"""
RAW_FLEET = """
    select
        (select coalesce(sum(kwh_consumed_ac), 0)
         from charging_session as s join meter_reading as r
             on r.meter_id = s.meter_id and r.recorded_at <@ s.during
         where r.recorded_at >= %(window_from)s and r.recorded_at < %(window_to)s),
        sum(kwh_delivered_dc), count(distinct vehicle_id)
    from vehicle_reading where recorded_at >= %(window_from)s and recorded_at < %(window_to)s
"""
ONE = "select kwh_ac, kwh_dc from vehicle_performance(%(id)s, %(window_from)s, %(window_to)s)"
FLEET = "select sum(kwh_ac), sum(kwh_dc), count(*) from fleet_performance(%(window_from)s, %(window_to)s)"


def load(connection: psycopg.Connection[Any], vehicles: int, start: datetime, hours: int) -> None:
    """Store a reading a minute of each device, in the order of time, and the sessions."""
    for hour in range(hours):
        at = {"start": start + timedelta(hours=hour), "vehicles": vehicles}
        connection.execute(LOAD.encode(), at)
        connection.execute(LOAD_VEHICLES.encode(), at)
    connection.execute(
        SESSIONS.encode(), {"start": start, "end": start + timedelta(hours=hours), "vehicles": vehicles}
    )


def timed(work: Callable[[int], object], times: int) -> dict[str, float]:
    """Run something a number of times; give its median, its 99th percentile and its worst, in ms."""
    took = []
    for number in range(times):
        begin = time.perf_counter()
        work(number)
        took.append((time.perf_counter() - begin) * 1000)
    took.sort()
    return {
        "p50_ms": round(statistics.median(took), 2),
        "p99_ms": round(took[min(len(took) - 1, int(len(took) * 0.99))], 2),
        "max_ms": round(took[-1], 2),
    }


def equal(connection: psycopg.Connection[Any], statement: str, raw: str, values: dict[str, Any]) -> None:
    """Hold an answer against sums over the raw rows."""
    [told] = connection.execute(statement.encode(), values)
    [summed] = connection.execute(raw.encode(), values)
    assert all(abs(a - b) < 1e-9 * (1 + b) for a, b in zip(told, summed, strict=True)), (told, summed)


def over_http(url: str, vehicles: int, window: dict[str, datetime]) -> dict[str, Any]:
    """Time what is asked over HTTP, of a service of its own."""
    result: dict[str, Any] = {}
    chosen = random.Random(7)
    unaligned = {"from": window["window_from"].isoformat(), "to": window["window_to"].isoformat()}
    with (
        engine.serving(url, LOG_LEVEL="error") as (port, _),
        httpx.Client(base_url=f"http://127.0.0.1:{port}") as client,
    ):

        def get(path: str, query: dict[str, str]) -> Callable[[int], object]:
            def run(_number: int) -> object:
                route = path.format(id=f"VH-{chosen.randint(1, vehicles)}")
                return client.get(route, params=query).raise_for_status().content

            return run

        performance = get("/v1/analytics/performance/{id}", unaligned)
        timed(performance, 50)
        result["performance_http"] = timed(performance, 500)
        result["current_state_http"] = timed(get("/v1/ingest/vehicle/{id}/current", {}), 500)
        # The last finished day, unless asked.
        timed(get("/v1/analytics/fleet", {}), 3)
        result["fleet_http"] = timed(get("/v1/analytics/fleet", {}), 30)
        result["fleet_http_unaligned"] = timed(get("/v1/analytics/fleet", unaligned), 10)
        after: str | None = None
        seen: set[str] = set()

        def page(_number: int) -> None:
            nonlocal after
            query = {"limit": "1000", **({"after": after} if after else {})}
            told = client.get("/v1/analytics/vehicles/states", params=query).raise_for_status()
            body = told.json()
            after = body["next"]
            seen.update(row["vehicleId"] for row in body["vehicles"])

        pages = -(-vehicles // 1000)
        timed(page, pages)
        assert len(seen) == vehicles, len(seen)
        result["states_http_page_of_1000"] = timed(page, 5 * pages)
    return result


def measure(server: Postgres, vehicles: int, days: float) -> dict[str, Any]:
    """Load one history and time what is asked of it."""
    hours = round(days * 24)
    # Hours settle for two minutes before they are rolled up.
    end = (datetime.now(UTC) - timedelta(minutes=2)).replace(minute=0, second=0, microsecond=0)
    start = end - timedelta(hours=hours)
    aligned = {"window_from": end - timedelta(hours=24), "window_to": end}
    # Neither end lies on the hour: raw rows are read at both.
    window = {key: moment - timedelta(minutes=13) for key, moment in aligned.items()}
    result: dict[str, Any] = {"vehicles": vehicles, "days": days}
    chosen = random.Random(7)
    with (
        server.database() as name,
        psycopg.connect(server.url("fleetwatt_owner", name), autocommit=True) as connection,
    ):
        connection.execute("set timezone = 'UTC'")
        begin = time.perf_counter()
        load(connection, vehicles, start, hours)
        result["load_s"] = round(time.perf_counter() - begin, 1)
        connection.execute("vacuum analyze")
        begin = time.perf_counter()
        connection.execute("call refresh_rollups()")
        result["first_refresh_s"] = round(time.perf_counter() - begin, 1)
        connection.execute("vacuum analyze")
        [rows] = connection.execute(
            "select sum(readings)::bigint, (select sum(readings)::bigint from vehicle_hourly) "
            "from meter_hourly"
        )
        assert rows == (vehicles * hours * 60,) * 2, rows
        result["rows_per_hypertable"] = rows[0]

        def ask(statement: str, window: dict[str, datetime] = window) -> Callable[[int], object]:
            def run(_number: int) -> object:
                vehicle = f"VH-{chosen.randint(1, vehicles)}"
                return connection.execute(statement.encode(), {"id": vehicle, **window}).fetchall()

            return run

        for number in range(1, 21):
            values = {"id": f"VH-{number * vehicles // 20}", **window}
            equal(connection, ONE, RAW, values)
        for values in (aligned, window):
            equal(connection, FLEET, RAW_FLEET, values)
        # Loading left the caches full of other things than a running service has in them.
        timed(ask(ONE), 500)
        result["performance"] = timed(ask(ONE), 1000)
        result["performance_raw"] = timed(ask(RAW), 100)
        timed(ask(FLEET, aligned), 3)
        result["fleet_aligned"] = timed(ask(FLEET, aligned), 30)
        result["fleet_unaligned"] = timed(ask(FLEET), 10)

        def refresh(number: int) -> None:
            late = end - timedelta(hours=3 + number, minutes=30, seconds=30)
            connection.execute("insert into meter_reading values ('METER-1', %s, 0.1, 230)", (late,))
            connection.execute("insert into vehicle_reading values ('VH-1', %s, 50, 0.1, 20)", (late,))
            connection.execute("call refresh_rollups()")

        # A late reading of each kind; then what of that is the evaluation of alerts alone.
        result["refresh_hour_of_both"] = timed(refresh, 5)
        result["evaluate_alerts"] = timed(lambda _: connection.execute("select evaluate_alerts()"), 5)
        result |= over_http(server.url("fleetwatt_service", name), vehicles, window)
    return result


def main() -> None:
    """Measure a tenth of the fleet, then all of it, and print both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vehicles", type=int, default=10_000)
    parser.add_argument("--days", type=float, default=2.0)
    parser.add_argument("--edition", choices=["apache", "community"], default="apache")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    root = servers.apache_root() if options.edition == "apache" else servers.community_root()
    if root is None:
        sys.exit("no TimescaleDB Community here: FLEETWATT_TEST_PG_BIN can name the bin folder of one")
    quick = {"shared_buffers": "2GB", "max_wal_size": "4GB", "work_mem": "16MB"}
    with servers.running_postgres(root, quick) as server:
        fleets = (options.vehicles // 10, options.vehicles)
        results = [measure(server, vehicles, options.days) for vehicles in fleets]
    if options.json:
        print(json.dumps(results, indent=1))  # noqa: T201 - that is the output
        return
    table = Table("", *(f"{r['vehicles']:,} vehicles x {r['days']:g} days" for r in results))
    for key in results[0]:
        table.add_row(key, *(str(result[key]) for result in results))
    Console().print(table)


if __name__ == "__main__":
    main()
