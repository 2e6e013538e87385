"""Every right that the roles have, held against a list: one more is a decision, not an accident."""

from __future__ import annotations

from typing import Final, LiteralString

import psycopg
import pytest
from psycopg import errors

from service import migrations
from tests.support.servers import Postgres

_TABLES: Final = {
    "alembic_version": "select",
    "alert_event": "select",
    "api_key": "select",
    "balance_daily": "select",
    "balance_due": "select",
    "balance_hourly": "select",
    "charging_session": "insert select",
    "dead_letter": "insert maintain select",
    "efficiency_alert": "select",
    "engine_setting": "select",
    "ingest_minute": "insert select update",
    "lifecycle": "select",
    "meter_reading": "insert select",
    "meter_state": "insert select update",
    "rollup_health": "select",
    "rollup_progress": "select",
    "rollup_stale": "select",
    "session_change": "select",
    "session_edge": "select",
    "session_message": "delete insert select update",
    "sign_in": "select",
    "vehicle_reading": "insert select",
    "vehicle_state": "insert select update",
    **dict.fromkeys(
        [
            f"{kind}_{step}{end}"
            for kind in ("meter", "vehicle")
            for step in ("hourly", "daily")
            for end in ("", "_stored")
        ],
        "select",
    ),
}
# Columns that may be changed where the table as a whole may not.
_COLUMNS: Final = {
    "alert_event": "mqtt_delivered_at webhook_error webhook_next_at webhook_state webhook_tries",
    "api_key": "last_used_at",
    "charging_session": "during meter_id updated_at vehicle_id",
    "dead_letter": "replay_error replayed_at replays resolved_at",
}
_FUNCTIONS: Final = """
    alert_rule apply_settings assign_meter balance_parts begin_sign_in billed billed_live billed_rest bins_of
    charged connected_elsewhere connected_energy cut_bins cut_parts database_jobs delivered
    delivered_rest edge_is_exact end_sign_in expire_session_messages
    expired_chunks fit_session_end fit_session_message fit_session_start fleet_energy
    fleet_performance fleet_totals judge_pairs local_starts meter_energy metered pair_energy
    prune_dead_letters raw_is_gone refresh_is_scheduled refuse_session_message rolled_up
    session_end_is_a_guess session_energy session_takes_any_end setting settle_session_messages split_window
    take_session_message vehicle_energy vehicle_performance whole_bins window_edges
"""
# Where no job of the database refreshes the rollups, or drops what is too old.
_REFRESH: Final = """
    close_hours drop_expired drop_expired_chunk evaluate_alerts fill_balances
    fill_session_edges finish_expiry finish_rollup materialize_hours note_chunks
    note_expiry_failure note_refresh note_refresh_failure refresh_rollups refresh_run
    rollup_work store_balances store_rollup store_session_edges
"""
_BI_FUNCTIONS: Final = """
    bi.charger_performance bi.fleet_performance bi.fleet_series bi.time_bucket bi.vehicle_performance
    bi.vehicle_series charger_energy cut_parts fleet_totals meter_raw_hours rollup_line
"""


_FORBIDDEN: Final = [
    "set role fleetwatt_owner",
    "set session authorization postgres",
    "set session_replication_role = replica",
    "select rolpassword from pg_authid",
    "select passwd from pg_shadow",
    "alter system set log_statement = 'all'",
    "copy (select 1) to program 'true'",
    "copy meter_state from program 'true'",
    "copy meter_state from '/etc/passwd'",
    "copy (select 1) to '/tmp/fleetwatt-never'",
    "select pg_read_file('/etc/passwd')",
    "select pg_ls_dir('/')",
    "select lo_import('/etc/passwd')",
    "create extension dblink",
    "create function public.f() returns int language sql as 'select 1'",
    "create schema mine",
    "create event trigger t on ddl_command_start execute function f()",
    "alter function setting(text, double precision) owner to current_user",
    "alter role fleetwatt_owner password 'x'",
    "alter database current_database_name set search_path = pg_temp, public",
    "grant fleetwatt_owner to current_user",
    "create trigger t after insert on meter_reading execute function f()",
    "alter table meter_reading disable trigger all",
    "drop table meter_reading",
    "select pg_reload_conf()",
    "checkpoint",
]


def _ask(postgres: Postgres, database: str, query: LiteralString, *values: str) -> list[tuple[str, str]]:
    with psycopg.connect(postgres.url("fleetwatt_owner", database)) as connection:
        return connection.execute(query, values).fetchall()


def _granted_tables(postgres: Postgres, database: str, role: str) -> dict[str, str]:
    """Give what was granted on tables, views and sequences; role "-" is everybody."""
    rows = _ask(
        postgres,
        database,
        "select c.oid::regclass::text, lower(string_agg(a.privilege_type, ' ' order by a.privilege_type)) "
        "from pg_class as c, aclexplode(c.relacl) as a where a.grantee::regrole::text = %s "
        "and c.relnamespace in ('public'::regnamespace, 'bi'::regnamespace) group by c.oid",
        role,
    )
    return dict(rows)


def _functions(postgres: Postgres, database: str, role: str) -> set[str]:
    """Give the functions of ours that a role may call, by whatever grant; triggers are called by nobody."""
    rows = _ask(
        postgres,
        database,
        "select split_part(p.oid::regprocedure::text, '(', 1), p.proacl::text from pg_proc as p "
        "where p.pronamespace in ('public'::regnamespace, 'bi'::regnamespace) "
        "and p.prorettype <> 'trigger'::regtype and has_function_privilege(%s, p.oid, 'execute') "
        "and not exists (select from pg_depend as d where d.classid = 'pg_proc'::regclass "
        "and d.objid = p.oid and d.deptype = 'e')",
        role,
    )
    return {name for name, _ in rows}


def test_tables(postgres: Postgres, database: str) -> None:
    """The service has these rights on tables, the BI role reads its views, everybody else has none."""
    assert _granted_tables(postgres, database, "fleetwatt_service") == _TABLES
    bi = _granted_tables(postgres, database, "fleetwatt_bi")
    assert set(bi.values()) == {"select"}
    assert all(name.startswith("bi.") for name in bi)
    assert _granted_tables(postgres, database, "-") == {}


def test_columns(postgres: Postgres, database: str) -> None:
    """Of tables that it may not change as a whole, the service may update these columns."""
    rows = _ask(
        postgres,
        database,
        "select c.oid::regclass::text, string_agg(t.attname, ' ' order by t.attname) from pg_attribute as t "
        "join pg_class as c on c.oid = t.attrelid, aclexplode(t.attacl) as a "
        "where c.relnamespace in ('public'::regnamespace, 'bi'::regnamespace) "
        "and a.privilege_type = 'UPDATE' and a.grantee = %s::regrole group by c.oid",
        "fleetwatt_service",
    )
    assert dict(rows) == _COLUMNS


def test_functions(postgres: Postgres, database: str, edition: str) -> None:
    """The service calls these functions; where the database refreshes the rollups, none of the refresh."""
    expected = set((_FUNCTIONS + (_REFRESH if edition == "apache" else "")).split())
    assert _functions(postgres, database, "fleetwatt_service") == expected
    assert _functions(postgres, database, "fleetwatt_bi") == set(_BI_FUNCTIONS.split())
    assert _functions(postgres, database, "public") == set()


def test_schemas_and_roles(postgres: Postgres, database: str) -> None:
    """Neither role is a member of another, has an attribute of power, or may create in a schema."""
    for role in ("fleetwatt_service", "fleetwatt_bi"):
        rows = _ask(
            postgres,
            database,
            "select 'member', r.rolname::text from pg_auth_members as m "
            "join pg_roles as r on r.oid = m.roleid where m.member = %s::regrole union all "
            "select 'attribute', rolname::text from pg_roles where rolname = %s "
            "and (rolsuper or rolcreaterole or rolcreatedb or rolreplication or rolbypassrls) union all "
            "select 'creates in', nspname::text from pg_namespace "
            "where has_schema_privilege(%s, oid, 'create') union all "
            "select 'creates schemas in', datname::text from pg_database "
            "where datname = current_database() and has_database_privilege(%s, oid, 'create')",
            role, role, role, role,
        )  # fmt: skip
        assert rows == [], role


@pytest.mark.parametrize("role", ["fleetwatt_service", "fleetwatt_bi"])
def test_what_the_roles_cannot_do(postgres: Postgres, database: str, role: str) -> None:
    """No way out of the role, to files, to programs, to other objects, or around the triggers."""
    # Where a schema is closed, what is in it is as if it were not there.
    closed = (errors.UndefinedTable, errors.UndefinedFunction, errors.InvalidSchemaName)
    with psycopg.connect(postgres.url(role, database), autocommit=True) as connection:
        for statement in _FORBIDDEN:
            text = statement.replace("current_database_name", database)
            with pytest.raises((errors.InsufficientPrivilege, *closed)):
                connection.execute(text.encode())


def test_nobody_shadows_a_table(postgres: Postgres) -> None:
    """Temporary tables, which come before all others, are the owner's alone."""
    with postgres.database(empty=True) as name:
        migrations.migrate(postgres.url("fleetwatt_owner", name))
        for role in ("fleetwatt_service", "fleetwatt_bi"):
            with psycopg.connect(postgres.url(role, name), autocommit=True) as connection:
                for statement in (
                    "create temp table api_key (a int)",
                    "create temp view setting as select 1",
                ):
                    with pytest.raises(errors.InsufficientPrivilege):
                        connection.execute(statement.encode())
