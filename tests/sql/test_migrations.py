"""Migrating: from nothing, again, at once, and as whoever may."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import psycopg

from service import migrations
from tests.support.schema_dump import dump
from tests.support.servers import Postgres


def test_migrating_again_changes_nothing(postgres: Postgres, database: str) -> None:
    """The second run finds the head and leaves everything as it is."""
    before = dump(postgres, database)
    head = migrations.head()
    assert migrations.migrate(postgres.url("fleetwatt_owner", database)) == (head, head)
    assert dump(postgres, database) == before


def test_functions_of_earlier_releases_do_not_stand_in_the_way(postgres: Postgres, database: str) -> None:
    """Those that took other arguments are gone: beside the new ones a call would not be unique."""
    before = dump(postgres, database)
    with psycopg.connect(postgres.url("fleetwatt_owner", database)) as connection:
        for function in (
            "pair_energy(timestamptz, timestamptz)",
            "meter_energy(text, tstzrange, tstzmultirange, tstzmultirange, timestamptz[])",
        ):
            connection.execute(f"create function {function} returns int language sql return 1".encode())
    migrations.migrate(postgres.url("fleetwatt_owner", database))
    assert dump(postgres, database) == before


def test_several_processes_at_once(postgres: Postgres) -> None:
    """Four processes migrate one empty database: all succeed, and the schema is whole."""
    with postgres.database(empty=True) as name:
        url = postgres.url("fleetwatt_owner", name)

        def run(_number: int) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-m", "service", "migrate"],
                env={"FLEETWATT_MIGRATE_DATABASE_URL": url, "PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},
                capture_output=True,
                text=True,
                check=False,
            )

        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(run, range(4)))
        assert [result.returncode for result in results] == [0] * 4, [result.stderr for result in results]
        assert sum("already current" in result.stdout for result in results) == 3
        with psycopg.connect(url) as connection:
            assert connection.execute("select count(*) from meter_reading").fetchone() == (0,)


def test_a_superuser_may_migrate_too(postgres: Postgres) -> None:
    """Whoever migrates, the owner's role owns the tables, and the schema is the same."""
    with postgres.database(empty=True) as name:
        migrations.migrate(postgres.url("postgres", name))
        with postgres.admin(name) as connection:
            owners = connection.execute(
                "select distinct tableowner::text from pg_tables where schemaname = 'public'"
            ).fetchall()
        assert owners == [("fleetwatt_owner",)]
        with psycopg.connect(postgres.url("fleetwatt_service", name)) as connection:
            assert connection.execute("select count(*) from vehicle_reading").fetchone() == (0,)


def test_whoever_migrated_first_the_owner_can_go_on(postgres: Postgres) -> None:
    """A database that a superuser migrated once can be migrated by the owner, and the other way round."""
    head = migrations.head()
    for users in (("postgres", "fleetwatt_owner"), ("fleetwatt_owner", "postgres")):
        with postgres.database(empty=True) as name:
            first, second = (postgres.url(user, name) for user in users)
            assert migrations.migrate(first) == (None, head)
            assert migrations.migrate(second) == (head, head)


def test_privileges_do_not_depend_on_who_migrates(postgres: Postgres) -> None:
    """In a database of the superuser's own, BI still sees nothing of public and the service may insert."""
    with postgres.admin() as connection:
        connection.execute("create database owned_by_superuser")
    try:
        migrations.migrate(postgres.url("postgres", "owned_by_superuser"))
        with postgres.admin("owned_by_superuser") as connection:
            may = connection.execute(
                "select has_schema_privilege('fleetwatt_bi', 'public', 'usage'), "
                "has_schema_privilege('fleetwatt_service', 'public', 'create'), "
                "has_table_privilege('fleetwatt_service', 'meter_reading', 'insert'), "
                "has_table_privilege('fleetwatt_service', 'meter_reading', 'update, delete, truncate')"
            ).fetchone()
        assert may == (False, False, True, False)
    finally:
        with postgres.admin() as connection:
            connection.execute("drop database owned_by_superuser with (force)")


def test_what_the_login_may_not_do_is_told(postgres: Postgres) -> None:
    """Where session settings of the BI role cannot be set, `fleetwatt migrate` says so, and what to run."""
    with postgres.database(empty=True) as name:
        told: list[str] = []
        migrations.migrate(postgres.url("fleetwatt_owner", name), told.append)
        [warning] = told
        assert "fleetwatt_bi" in warning
        assert "alter role fleetwatt_bi" in warning
        told.clear()
        migrations.migrate(postgres.url("postgres", name), told.append)
        assert [text for text in told if "alter role" in text] == []


def test_what_a_database_refuses_is_one_line(postgres: Postgres) -> None:
    """What stands in the way is told in words, with what to do; who wants all of it asks for it."""
    with postgres.database(empty=True) as name:
        with postgres.admin(name) as admin:
            admin.execute("create table meter_reading (mine text)")

        def migrate(**more: str) -> str:
            here = {"FLEETWATT_MIGRATE_DATABASE_URL": postgres.url("postgres", name), **more}
            command = [sys.executable, "-m", "service", "migrate"]
            done = subprocess.run(
                command, env={**os.environ, **here}, capture_output=True, text=True, check=False, timeout=50
            )
            assert done.returncode == 1
            return done.stderr.strip()

        refused = 'fleetwatt: the database refused to be migrated: relation "meter_reading" already exists; '
        assert migrate().startswith(refused)
        assert "\n" not in migrate()
        assert "Traceback" in migrate(FLEETWATT_LOG_LEVEL="debug")
