"""From each earlier revision with data of its time: the schema of a new database, and exact answers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import psycopg
import pytest
import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy.pool import NullPool

from service import migrations, paths
from tests.support import snapshots
from tests.support.schema_dump import dump, parts
from tests.support.servers import Postgres

START = datetime(2026, 3, 2, 22, 15, tzinfo=UTC)
# Hours before this were rolled up by the earlier release.
ROLLED_UP = START.replace(minute=0) + timedelta(days=2)


def config() -> Config:
    """Give Alembic's configuration."""
    found = Config()
    found.set_main_option("script_location", str(paths.ALEMBIC))
    return found


REVISIONS = sorted(script.revision for script in ScriptDirectory.from_config(config()).walk_revisions())
# What a release of that time would have had beside its tables, some of it no release has any more.
LEFT_BEHIND = (
    "create function hours_without_raw(wanted text) returns int language sql return 1",
    "create function local_edges(text, text) returns int language sql return hours_without_raw('meter')",
    "create procedure finish_rollup(wanted text) language sql as 'select 1'",
    "create view bi.fleet_yesterday as select local_edges('day', 'UTC') as edges",
    "create view bi.fleet_before as select * from bi.fleet_yesterday",
    "create function count_readings() returns trigger language plpgsql as 'begin return null; end'",
    (
        "create trigger counted after insert on meter_reading for each statement execute function "
        "count_readings()"
    ),
)


def stop_at(url: str, revision: str) -> None:
    """Migrate an empty database as far as a revision, without what is re-applied at each upgrade."""
    engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg:"), poolclass=NullPool)
    with engine.connect() as connection:
        there = config()
        there.attributes["connection"] = connection
        command.upgrade(there, revision)
        connection.commit()


def load(url: str, revision: str, edition: str) -> None:
    """Add what a release of that revision would have stored: no trigger of today's was there to do it."""
    chance = Random(revision)
    moments = [START + timedelta(minutes=41 * n) for n in range(150)]
    with psycopg.connect(url, autocommit=True) as connection:
        snapshots.copy(connection, [snapshots.meter(f"m{n % 2}", at, chance) for n, at in enumerate(moments)])
        snapshots.copy(
            connection, [snapshots.vehicle(f"v{n % 2}", at, chance) for n, at in enumerate(moments)]
        )
        for kind in ("meter", "vehicle"):
            columns = "kwh_consumed_ac, voltage" if kind == "meter" else "soc, kwh_delivered_dc, battery_temp"
            connection.execute(
                f"insert into {kind}_state ({kind}_id, recorded_at, {columns}) "  # noqa: S608
                f"select distinct on ({kind}_id) {kind}_id, recorded_at, {columns} from {kind}_reading "
                f"order by {kind}_id, recorded_at desc".encode()
            )
        for number in range(2):
            for prefix, vehicle, first, last in (("s", number, 5, 70), ("o", 1 - number, 70, None)):
                start, end = (
                    hours and START + timedelta(hours=hours + number, minutes=7) for hours in (first, last)
                )
                connection.execute(
                    "insert into charging_session values (%s, %s, %s, tstzrange(%s, %s))",
                    (f"{prefix}{number}", f"v{vehicle}", f"m{number}", start, end),
                )
        connection.execute(
            "insert into dead_letter (origin, code, message, raw, raw_size) "
            "values ('http:/v1/telemetry', 'bad_json', 'what was refused', 'x', 1)"
        )
        if revision > "0001":
            roll_up(connection, edition)
        if revision > "0007":
            # A trigger of that release logged that the sessions had come.
            connection.execute(
                "insert into balance_due (during) values (tstzrange('-infinity', %s))", (ROLLED_UP,)
            )
        for statement in LEFT_BEHIND:
            connection.execute(statement.encode())


def roll_up(connection: psycopg.Connection[Any], edition: str) -> None:
    """Roll up the first days, as the refresh of that time did."""
    for kind, sums in (("meter", snapshots.METER_SUMS), ("vehicle", snapshots.VEHICLE_SUMS)):
        for rollup, width in (("hourly", "1 hour"), ("daily", "1 day")):
            if edition == "community":
                connection.execute(
                    f"call refresh_continuous_aggregate('{kind}_{rollup}', null, "
                    f"time_bucket('{width}', '{ROLLED_UP}'::timestamptz))".encode()
                )
            else:
                connection.execute(
                    f"insert into {kind}_{rollup}_stored "  # noqa: S608
                    f"select {kind}_id, time_bucket('{width}', recorded_at), {sums} from {kind}_reading "
                    f"where recorded_at < time_bucket('{width}', '{ROLLED_UP}'::timestamptz) "
                    f"group by 1, 2".encode()
                )
    connection.execute(
        "update rollup_progress set logging_from = %(line)s, refreshed_until = %(line)s", {"line": ROLLED_UP}
    )


@pytest.fixture(params=REVISIONS)
def old(request: pytest.FixtureRequest, postgres: Postgres, edition: str) -> Iterator[str]:
    """Give the name of a database at a revision, with data."""
    with postgres.database(empty=True) as name:
        url = postgres.url("fleetwatt_owner", name)
        stop_at(url, request.param)
        load(url, request.param, edition)
        yield name


def test_upgrade(postgres: Postgres, database: str, old: str) -> None:
    """Nothing is left of what is no more; answers equal sums over raw rows at once, and after a refresh."""
    url = postgres.url("fleetwatt_owner", old)
    told: list[str] = []
    migrations.migrate(url, told.append)
    assert parts(postgres, old) == parts(postgres, database)
    assert sum("this release does not have" in text for text in told) == len(LEFT_BEHIND)

    vehicles = ["v0", "v1"]
    windows = [
        (START - timedelta(days=1), START + timedelta(days=9)),
        (START + timedelta(hours=7, minutes=5), START + timedelta(days=3, minutes=50)),
    ]
    chance = Random(old)
    with psycopg.connect(url, autocommit=True) as connection:
        assert snapshots.wrong_answers(connection, vehicles, windows) == []
        late = START + timedelta(hours=9, minutes=1)
        snapshots.insert(connection, [snapshots.meter("m0", late, chance)])
        snapshots.insert(connection, [snapshots.vehicle("v1", late, chance)])
        assert snapshots.wrong_answers(connection, vehicles, windows) == []
        connection.execute("call refresh_rollups()")
        assert snapshots.wrong_answers(connection, vehicles, windows) == []
        assert snapshots.broken_promises(connection) == []
        assert snapshots.wrong_views(connection) == []
        states = connection.execute("select count(*), max(recorded_at) from meter_state").fetchone()
        assert states == (2, START + timedelta(minutes=41 * 149))
        letters = connection.execute("select code, raw, resolved_at from dead_letter").fetchall()
        assert letters == [("bad_json", b"x", None)]


def test_what_is_a_users_own_stays(postgres: Postgres, database: str) -> None:
    """What another role made is not swept away, nor what such a view stands on."""
    owner = postgres.url("fleetwatt_owner", database)
    with psycopg.connect(owner, autocommit=True) as connection:
        connection.execute("create view bi.left_behind as select 1 as one")
    with postgres.admin(database) as connection:
        connection.execute("create view bi.of_mine as select * from bi.left_behind")
        connection.execute("create function public.of_mine() returns int language sql return 1")
    before = dump(postgres, database)
    migrations.migrate(owner)
    assert dump(postgres, database) == before
