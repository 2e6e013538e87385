"""Least privilege: what each role may do, tried out."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors

from tests.support.servers import Postgres

HISTORY = ["meter_reading", "vehicle_reading"]


@pytest.mark.parametrize("table", HISTORY)
@pytest.mark.parametrize(
    "statement",
    [
        "update {} set kwh = 0",
        "delete from {}",
        "truncate {}",
        "drop table {}",
        "alter table {} add column note text",
        "create index on {} (recorded_at)",
    ],
)
def test_the_service_cannot_change_history(
    postgres: Postgres, database: str, table: str, statement: str
) -> None:
    """The role that ingests adds rows and nothing else."""
    column = "kwh_consumed_ac" if table == "meter_reading" else "kwh_delivered_dc"
    text = statement.format(table).replace("set kwh", f"set {column}")
    with (
        psycopg.connect(postgres.url("fleetwatt_service", database)) as connection,
        pytest.raises(errors.InsufficientPrivilege),
    ):
        connection.execute(text.encode())


def test_the_service_cannot_run_chunk_maintenance(postgres: Postgres, database: str) -> None:
    """drop_chunks is the owner's."""
    with psycopg.connect(postgres.url("fleetwatt_service", database)) as connection:
        connection.execute(
            "insert into meter_reading (meter_id, recorded_at, kwh_consumed_ac, voltage) "
            "values ('m', now(), 1, 230)"
        )
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute("select drop_chunks('meter_reading', now() + interval '9 days')")


def test_bi_sees_nothing_but_its_schema(postgres: Postgres, database: str) -> None:
    """The read-only role can neither read public tables nor create anything."""
    with psycopg.connect(postgres.url("fleetwatt_bi", database), autocommit=True) as connection:
        for table in [
            *HISTORY,
            "meter_state",
            "vehicle_state",
            "charging_session",
            "session_change",
            "session_message",
            "dead_letter",
        ]:
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(f"select * from public.{table}".encode())  # noqa: S608 - our own names
        for statement in ("create table public.t (a int)", "create table bi.t (a int)", "create schema s"):
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(statement.encode())
        visible = connection.execute(
            "select nspname::text from pg_namespace where has_schema_privilege(nspname, 'usage') "
            "and nspname in ('public', 'bi')"
        ).fetchall()
        assert visible == [("bi",)]


def test_the_service_can_do_its_work(postgres: Postgres, database: str) -> None:
    """It adds and reads history and dead letters, keeps the hot state, and cannot take letters back."""
    with psycopg.connect(postgres.url("fleetwatt_service", database), autocommit=True) as connection:
        for statement in (
            "insert into meter_reading values ('m', now(), 1, 230)",
            "insert into vehicle_reading values ('v', now(), 50, 1, 20)",
            "insert into meter_state values ('m-2', now(), 1, 230)",
            "update meter_state set voltage = 231",
            "insert into dead_letter (origin, code, message, raw, raw_size) values ('o', 'c', 'm', '', 0)",
            "select * from meter_reading, vehicle_reading, dead_letter",
        ):
            connection.execute(statement.encode())
        for statement in (
            "delete from dead_letter",
            "update dead_letter set code = ''",
            "delete from meter_state",
            "delete from charging_session",
            "insert into session_change (session_id, action, source) values ('s', 'ended', 'o')",
            "update session_change set source = ''",
            "delete from session_change",
            "truncate session_change",
            "truncate ingest_minute",
            "update alembic_version set version_num = ''",
            "create table public.t (a int)",
            "create role somebody",
        ):
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(statement.encode())


def test_nobody_can_slip_a_table_of_his_own_into_a_function(postgres: Postgres, database: str) -> None:
    """A pinned search_path that does not name pg_temp begins with it: temporary views would come first."""
    with psycopg.connect(postgres.url("fleetwatt_owner", database)) as connection:
        functions = connection.execute(
            "select p.oid::regprocedure::text, p.prosecdef, p.proconfig from pg_proc as p "
            "where p.pronamespace in ('public'::regnamespace, 'bi'::regnamespace) and not exists ("
            "select from pg_depend as d where d.objid = p.oid and d.deptype = 'e')"
        ).fetchall()
    pinned = {
        name: [setting for setting in configuration or [] if setting.startswith("search_path=")]
        for name, _, configuration in functions
    }
    assert {name for name, definer, _ in functions if definer and not pinned[name]} == set()
    wrong = {
        name: found for name, found in pinned.items() if found and "pg_temp" not in found[0].split(", ")[-1]
    }
    assert wrong == {}
    assert len(pinned) > 40
