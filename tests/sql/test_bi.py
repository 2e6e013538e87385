"""The schema bi: what it promises, and that its role sees and does nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors

from service import migrations, paths
from tests.support import bi_fleet
from tests.support.servers import Postgres

DOCUMENT = Path(__file__).parents[2] / "docs/bi.md"
ENERGY = {
    "kwh_ac": "float8",
    "kwh_dc": "float8",
    "kwh_lost": "float8",
    "efficiency_ratio": "float8",
    "meter_readings": "int8",
    "vehicle_readings": "int8",
}
METER = {
    "readings": "int8",
    "kwh_ac": "float8",
    "kwh_ac_max": "float8",
    "voltage_avg_v": "float8",
    "voltage_min_v": "float8",
    "voltage_max_v": "float8",
}
VEHICLE = {
    "readings": "int8",
    "kwh_dc": "float8",
    "kwh_dc_max": "float8",
    "battery_temp_avg_c": "float8",
    "battery_temp_min_c": "float8",
    "battery_temp_max_c": "float8",
    "soc_first_percent": "float8",
    "soc_last_percent": "float8",
    "soc_min_percent": "float8",
    "soc_max_percent": "float8",
}
# The promise. Add columns at the end, and here; a dashboard somewhere reads all the others.
VIEWS: dict[str, dict[str, str]] = {
    "alerts": {
        "alert_id": "int8",
        "vehicle_id": "text",
        "meter_id": "text",
        "kind": "text",
        "is_open": "bool",
        "opened_at": "timestamptz",
        "closed_at": "timestamptz",
        "close_reason": "text",
        "open_h": "float8",
        "window_from": "timestamptz",
        "window_to": "timestamptz",
        "kwh_ac": "float8",
        "kwh_dc": "float8",
        "kwh_lost": "float8",
        "efficiency_ratio_opened": "float8",
        "efficiency_ratio_worst": "float8",
        "efficiency_ratio": "float8",
        "threshold": "float8",
    },
    "charger_efficiency_daily": {"meter_id": "text", "day": "timestamptz", **ENERGY},
    "charger_efficiency_hourly": {"meter_id": "text", "hour": "timestamptz", **ENERGY},
    "fleet_daily": {"day": "timestamptz", **ENERGY, "vehicles": "int8"},
    "fleet_hourly": {"hour": "timestamptz", **ENERGY, "vehicles": "int8"},
    "meter_daily": {"meter_id": "text", "day": "timestamptz", **METER},
    "meter_hourly": {"meter_id": "text", "hour": "timestamptz", **METER},
    "meter_latest": {
        "meter_id": "text",
        "recorded_at": "timestamptz",
        "silent_s": "float8",
        "kwh_ac": "float8",
        "voltage_v": "float8",
        "updated_at": "timestamptz",
    },
    "rollup_freshness": {
        "stream": "text",
        "refreshed_until": "timestamptz",
        "refreshed_at": "timestamptz",
        "refresh_age_s": "float8",
        "stale_hours": "int8",
        "oldest_stale_hour": "timestamptz",
        "newest_reading_at": "timestamptz",
    },
    "sessions": {
        "session_id": "text",
        "vehicle_id": "text",
        "meter_id": "text",
        "started_at": "timestamptz",
        "ended_at": "timestamptz",
        "is_open": "bool",
        "duration_h": "float8",
        "updated_at": "timestamptz",
    },
    "vehicle_daily": {"vehicle_id": "text", "day": "timestamptz", **VEHICLE},
    "vehicle_efficiency_daily": {"vehicle_id": "text", "day": "timestamptz", **ENERGY},
    "vehicle_efficiency_hourly": {"vehicle_id": "text", "hour": "timestamptz", **ENERGY},
    "vehicle_hourly": {"vehicle_id": "text", "hour": "timestamptz", **VEHICLE},
    "vehicle_latest": {
        "vehicle_id": "text",
        "recorded_at": "timestamptz",
        "silent_s": "float8",
        "soc_percent": "float8",
        "kwh_dc": "float8",
        "battery_temp_c": "float8",
        "updated_at": "timestamptz",
    },
}
FUNCTIONS = {
    "charger_performance(window_from timestamp with time zone, window_to timestamp with time zone)": (
        "meter_id text, vehicle_id text, connected_h double precision, kwh_ac double precision, "
        "kwh_dc double precision, kwh_lost double precision, efficiency_ratio double precision, "
        "meter_readings bigint, vehicle_readings bigint"
    ),
    "fleet_performance(window_from timestamp with time zone, window_to timestamp with time zone)": (
        "vehicle_id text, kwh_ac double precision, kwh_dc double precision, kwh_lost double precision, "
        "efficiency_ratio double precision, meter_readings bigint, vehicle_readings bigint"
    ),
    (
        "fleet_series(window_from timestamp with time zone, window_to timestamp with time zone, "
        "width text, zone text DEFAULT 'UTC'::text)"
    ): (
        "window_start timestamp with time zone, kwh_ac double precision, kwh_dc double precision, "
        "kwh_lost double precision, efficiency_ratio double precision, meter_readings bigint, "
        "vehicle_readings bigint, vehicles bigint"
    ),
    "time_bucket(bucket_width interval, ts timestamp with time zone)": "timestamp with time zone",
    (
        "vehicle_performance(wanted_vehicle text, window_from timestamp with time zone, "
        "window_to timestamp with time zone)"
    ): (
        "kwh_ac double precision, kwh_dc double precision, kwh_lost double precision, "
        "efficiency_ratio double precision, battery_temp_avg_c double precision, meter_readings bigint, "
        "vehicle_readings bigint"
    ),
    (
        "vehicle_series(wanted_vehicle text, window_from timestamp with time zone, "
        "window_to timestamp with time zone, width text, zone text DEFAULT 'UTC'::text)"
    ): (
        "window_start timestamp with time zone, kwh_ac double precision, kwh_dc double precision, "
        "kwh_lost double precision, efficiency_ratio double precision, "
        "battery_temp_avg_c double precision, meter_readings bigint, vehicle_readings bigint"
    ),
}
# TimescaleDB works with the rights of the role that asks, so these are open to all: names, ranges, sizes.
OPEN_TO_ALL = {
    "_timescaledb_cache",
    "_timescaledb_catalog",
    "_timescaledb_config",
    "_timescaledb_internal",
    "timescaledb_experimental",
    "timescaledb_information",
}
# What the views themselves call. Without the right to look into public, nobody can call them by name.
CALLED_BY_VIEWS = {"charger_energy", "cut_parts", "fleet_totals", "meter_raw_hours", "rollup_line"}


@pytest.fixture
def bi(postgres: Postgres, database: str) -> Iterator[psycopg.Connection[Any]]:
    """Give a connection of the role fleetwatt_bi to a database with readings in it."""
    bi_fleet.build(postgres, database)
    with psycopg.connect(postgres.url("fleetwatt_bi", database), autocommit=True) as connection:
        yield connection


def refused(connection: psycopg.Connection[Any], statement: str) -> bool:
    """Tell whether the database refuses a statement for want of privilege, and for no other reason."""
    try:
        connection.execute(statement.encode())
    except errors.InsufficientPrivilege:
        return True
    return False


def test_the_promise(postgres: Postgres, database: str) -> None:
    """Views, their columns in order and with types, and functions with what they take and give."""
    with postgres.admin(database) as connection:
        columns = connection.execute(
            "select c.relname::text, a.attname::text, t.typname::text from pg_class as c "
            "join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped "
            "join pg_type as t on t.oid = a.atttypid where c.relnamespace = 'bi'::regnamespace "
            "and c.relkind <> 'c' order by c.relname, a.attnum"
        ).fetchall()
        functions = connection.execute(
            "select p.proname || '(' || pg_get_function_arguments(p.oid) || ')', "
            "pg_get_function_result(p.oid) from pg_proc as p where p.pronamespace = 'bi'::regnamespace"
        ).fetchall()
    assert columns == [(view, *column) for view, names in VIEWS.items() for column in names.items()]
    assert {str(name): str(result) for name, result in functions} == {
        name: result if name.startswith("time_bucket") else f"TABLE({result})"
        for name, result in FUNCTIONS.items()
    }


def test_each_relation_and_column_says_what_it_is(postgres: Postgres, database: str) -> None:
    """BI tools show comments; each has one, and columns with a unit in their name say the unit."""
    units = {"kwh": "kWh", "_v": ", V", "_c": "degrees Celsius", "_percent": "percent", "_s": ", s"}
    with postgres.admin(database) as connection:
        rows = connection.execute(
            "select c.relname::text, a.attname::text, obj_description(c.oid), "
            "col_description(c.oid, a.attnum) from pg_class as c "
            "join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 "
            "where c.relnamespace = 'bi'::regnamespace"
        ).fetchall()
    assert len(rows) == sum(len(names) for names in VIEWS.values())
    for view, column, of_view, of_column in rows:
        assert of_view, view
        assert of_column, (view, column)
        for part, unit in units.items():
            if str(column).startswith(part) or str(column).endswith(part):
                assert unit in str(of_column), (view, column)


def test_the_document_names_all_of_it() -> None:
    """Each view, column and function stands in docs/bi.md."""
    text = DOCUMENT.read_text()
    words = {*VIEWS} | {column for names in VIEWS.values() for column in names}
    words |= {name.split("(")[0] for name in FUNCTIONS}
    assert [word for word in sorted(words) if f"`{word}" not in text] == []


def test_the_role_reads_nothing_else(bi: psycopg.Connection[Any]) -> None:
    """Of all relations it reads those of bi, PostgreSQL's own, and TimescaleDB's books without readings."""
    rows = bi.execute(
        "select n.nspname::text, c.relname::text from pg_class as c "
        "join pg_namespace as n on n.oid = c.relnamespace where c.relkind in ('r', 'v', 'm', 'p', 'f') "
        "and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast', 'bi')"
    ).fetchall()
    readable = [row for row in rows if not refused(bi, 'table "{}"."{}" limit 0'.format(*row))]
    assert {schema for schema, _ in readable} <= OPEN_TO_ALL
    assert [name for _, name in readable if "_chunk" in name and name.startswith(("_hyper", "_mat"))] == []
    ours = {name for schema, name in rows if schema == "public"}
    assert {"meter_reading", "dead_letter", "charging_session", "meter_hourly_stored"} <= ours
    assert sum("_hyper_" in name for _, name in rows) > 10
    for secret in ("pg_authid", "pg_shadow", "pg_user_mapping", "pg_hba_file_rules"):
        assert refused(bi, f"select * from {secret}"), secret  # noqa: S608 - our own names


def test_what_timescaledb_shows_holds_no_readings(bi: psycopg.Connection[Any]) -> None:
    """Neither values nor device ids are in the books of TimescaleDB or in PostgreSQL's statistics."""
    rows = bi.execute(
        "select n.nspname::text, c.relname::text from pg_class as c "
        "join pg_namespace as n on n.oid = c.relnamespace and n.nspname = any(%s) "
        "where c.relkind in ('r', 'v') and has_table_privilege(c.oid, 'select')",
        (list(OPEN_TO_ALL),),
    ).fetchall()
    seen = 0
    for schema, name in [*rows, ("pg_catalog", "pg_stats"), ("pg_catalog", "pg_stat_activity")]:
        text = f"select count(*) from {schema}.{name} as t where t::text ~ '(car-|m-)[1-5]'"  # noqa: S608
        if not refused(bi, text):
            seen += 1
            assert bi.execute(text.encode()).fetchone() == (0,), name
    assert seen > 30


def test_the_role_runs_nothing_else(bi: psycopg.Connection[Any]) -> None:
    """It may call what its views call and the functions of bi; by name only the latter."""
    rows = bi.execute(
        "select n.nspname::text, p.proname::text from pg_proc as p "
        "join pg_namespace as n on n.oid = p.pronamespace and n.nspname in ('public', 'bi') "
        "where has_function_privilege(p.oid, 'execute') "
        "and not exists (select from pg_depend as d where d.objid = p.oid and d.deptype = 'e')"
    ).fetchall()
    assert {name for schema, name in rows if schema == "public"} == CALLED_BY_VIEWS
    assert {name for schema, name in rows if schema == "bi"} == {name.split("(")[0] for name in FUNCTIONS}
    for call in (
        "public.meter_raw_hours('m-1', '-infinity', 'infinity')",
        "public.vehicle_performance('car-1', '-infinity', 'infinity')",
        "public.fleet_totals(array[now(), now()])",
    ):
        assert refused(bi, f"select * from {call}"), call  # noqa: S608 - our own calls
    assert refused(bi, "call public.refresh_rollups()")


def test_the_role_writes_nowhere(bi: psycopg.Connection[Any]) -> None:
    """No privilege to change any relation or sequence, to create anything, or to become somebody else."""
    writable = bi.execute(
        "select c.oid::regclass::text from pg_class as c where c.relkind in ('r', 'v', 'm', 'p', 'f') "
        "and has_table_privilege(c.oid, 'insert, update, delete, truncate, references, trigger, maintain')"
    ).fetchall()
    assert writable == [("pg_settings",)]  # an update there is a SET
    sequences = bi.execute(
        "select c.relname from pg_class as c where "
        "case when c.relkind = 'S' then has_sequence_privilege(c.oid, 'usage, update') end"
    ).fetchall()
    assert sequences == []
    for view in VIEWS:
        # PostgreSQL asks for the privilege only where it could rewrite the view at all.
        with pytest.raises((errors.InsufficientPrivilege, errors.ObjectNotInPrerequisiteState)):
            bi.execute(f"delete from bi.{view}".encode())  # noqa: S608 - our own names
    for statement in (
        "create table bi.t (a int)",
        "create table public.t (a int)",
        "create schema s",
        "create function bi.f() returns int language sql as 'select 1'",
        "create extension dblink schema bi",
        "create role somebody",
        "alter role fleetwatt_bi superuser",
        "set role fleetwatt_owner",
        "copy (select 1) to program 'true'",
        "copy (select 1) to '/tmp/bi'",
        "select pg_read_file('postgresql.conf')",
        "alter view bi.sessions rename to s",
        "comment on view bi.sessions is ''",
        "select drop_chunks('public.meter_reading', now())",
    ):
        with pytest.raises((errors.InsufficientPrivilege, errors.UndefinedFunction)):
            bi.execute(statement.encode())


def test_how_a_session_of_the_role_starts(postgres: Postgres) -> None:
    """Read-only, with time limits and no temporary tables, where whoever migrates may say so."""
    with postgres.database(empty=True) as name:
        migrations.migrate(postgres.url("postgres", name))
        with psycopg.connect(postgres.url("fleetwatt_bi", name), autocommit=True) as connection:
            given = {
                setting: connection.execute(f"show {setting}".encode()).fetchone()
                for setting in ("default_transaction_read_only", "statement_timeout", "search_path", "jit")
            }
            assert given == {
                "default_transaction_read_only": ("on",),
                "statement_timeout": ("1min",),
                "search_path": ("bi",),
                "jit": ("off",),
            }
            assert connection.execute("select count(*) from sessions").fetchone() == (0,)
            with pytest.raises(errors.ReadOnlySqlTransaction):
                connection.execute("select lo_create(0)")
            connection.execute("set default_transaction_read_only = off")
            assert refused(connection, "create temp table t (a int)")
        # What an operator chose stays.
        with postgres.admin() as connection:
            connection.execute(
                f"alter role fleetwatt_bi in database {name} set statement_timeout = '5min'".encode()
            )
        migrations.migrate(postgres.url("postgres", name))
        with psycopg.connect(postgres.url("fleetwatt_bi", name)) as connection:
            assert connection.execute("show statement_timeout").fetchone() == ("5min",)


def warnings_of(postgres: Postgres, user: str, database: str) -> list[tuple[str, str]]:
    """Run 078_bi_role.sql as `fleetwatt migrate` does; give what it warns of and the statements it names."""
    result = []

    def take(notice: errors.Diagnostic) -> None:
        if notice.severity_nonlocalized == "WARNING":
            result.append((str(notice.message_primary), str(notice.message_hint)))

    with psycopg.connect(postgres.url(user, database)) as connection:
        connection.add_notice_handler(take)
        connection.execute("set local role fleetwatt_owner")
        connection.execute((paths.SQL / "repeatable/078_bi_role.sql").read_bytes())
    return result


def test_an_owner_without_a_say_over_the_role_is_told(postgres: Postgres, database: str) -> None:
    """Where the migrating role may not alter fleetwatt_bi, a warning says what is missing and what to run."""
    with psycopg.connect(postgres.url("fleetwatt_bi", database)) as connection:
        assert connection.execute("show statement_timeout").fetchone() == ("0",)
    [(missing, hint)] = warnings_of(postgres, "fleetwatt_owner", database)
    asked = re.findall(r"alter role fleetwatt_bi in database \w+ set ([^;]+)", DOCUMENT.read_text())
    assert len(asked) == 6
    assert missing.endswith("not set: " + ", ".join(asked))
    with postgres.admin() as connection:
        for statement in hint.partition(": ")[2].split("; ")[:-1]:
            connection.execute(statement.encode())
    with psycopg.connect(postgres.url("fleetwatt_bi", database), autocommit=True) as connection:
        for setting in asked:
            name, _, value = setting.partition(" = ")
            row = connection.execute(
                f"select current_setting('{name}') = set_config('{name}', %s, false)".encode(),
                (value.strip("'"),),
            ).fetchone()
            assert row == (True,), setting
    assert warnings_of(postgres, "fleetwatt_owner", database) == []


def test_who_does_not_own_the_database_is_told(postgres: Postgres, database: str) -> None:
    """Where temporary tables stay open to everybody, a warning says so, until somebody runs what it names."""
    with postgres.admin() as connection:
        connection.execute(f"grant temporary on database {database} to public".encode())
        connection.execute(f"alter database {database} owner to postgres".encode())
    [_, (missing, hint)] = warnings_of(postgres, "fleetwatt_owner", database)
    assert "temporary tables" in missing
    assert database in missing
    with psycopg.connect(postgres.url("fleetwatt_bi", database), autocommit=True) as connection:
        assert not refused(connection, "create temp table t (a int)")
        with postgres.admin() as admin:
            for statement in hint.partition(": ")[2].split("; ")[:-1]:
                admin.execute(statement.encode())
        assert refused(connection, "create temp table u (a int)")
    assert len(warnings_of(postgres, "fleetwatt_owner", database)) == 1
    with psycopg.connect(postgres.url("fleetwatt_owner", database)) as owner:
        owner.execute("create temp table t (a int)")
