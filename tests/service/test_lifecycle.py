"""The life of data as the service sees it: who drops what is old, and what is late for the columnstore."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import psycopg
import pytest
from click.testing import CliRunner
from litestar.testing import AsyncTestClient
from psycopg import AsyncConnection

from service.cli import group
from service.errors import DatabaseUnavailableError, SettingsError
from service.maintenance import retention
from service.maintenance.retention import Expiry, Rules
from service.settings import Settings

pytestmark = pytest.mark.anyio

Owner = AsyncConnection[dict[str, Any]]
DAY = timedelta(days=1)
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
OLD = TODAY - 20 * DAY
VEHICLES = 150


def reading(number: int, moment: datetime, kwh: float = 0.5) -> dict[str, Any]:
    """Give a reading of a meter."""
    return {
        "meterId": f"m-{number}",
        "kwhConsumedAc": kwh,
        "voltage": 230,
        "timestamp": moment.isoformat(),
    }


async def one(owner: Owner, statement: str, *values: Any) -> Any:
    """Give the first column of the first row."""
    row = await (await owner.execute(statement.encode(), values)).fetchone()
    return next(iter(row.values())) if row else None


async def run_job(owner: Owner, job: str, table: str | None = None) -> None:
    """Run a job of the database here and now, as its owner."""
    number = await one(
        owner,
        "select job_id from database_jobs() where job = %s and hypertable is not distinct from %s",
        job,
        table,
    )
    await owner.execute("call run_job(%s)", (number,))


async def fill(api: AsyncTestClient[Any], owner: Owner) -> None:
    """Store a day of readings every ten minutes of many meters, 20 days ago, and roll it up."""
    for hour in range(24):
        batch = [
            reading(number, OLD + timedelta(hours=hour, minutes=minute))
            for number in range(VEHICLES)
            for minute in range(0, 60, 10)
        ]
        answer = await api.post("/v1/telemetry", json=batch)
        assert answer.json()["accepted"] == len(batch)
    await owner.execute("call refresh_rollups()")


async def test_late_readings_reach_the_columnstore(
    api: AsyncTestClient[Any], owner: Owner, settings: Settings, edition: str
) -> None:
    """For a chunk in the columnstore new readings are stored, repeats and conflicts found, rollups follow."""
    if edition == "apache":
        pytest.skip("this edition has no columnstore")
    await fill(api, owner)
    url = settings.migrate_database_url
    assert retention.apply(url, msgspec.structs.replace(settings, columnstore_after_days=7)) is not None
    await run_job(owner, "policy_compression", "meter_reading")
    is_compressed = (
        "select bool_and(is_compressed) from timescaledb_information.chunks where hypertable_name = %s"
    )
    assert await one(owner, is_compressed, "meter_reading")
    stored = await one(owner, "select count(*) from meter_reading")
    noon, late = OLD + DAY / 2, OLD + DAY / 2 + timedelta(seconds=30)
    newest = await one(owner, "select recorded_at from meter_state where meter_id = 'm-0'")

    # By COPY; then again: all of it is known. A few go by INSERT.
    batch = [
        reading(number, late + minute * timedelta(minutes=1))
        for number in range(VEHICLES)
        for minute in (0, 5)
    ]
    for body, accepted in ((batch, len(batch)), (batch, 0), ([reading(0, late + DAY / 100)], 1)):
        answer = (await api.post("/v1/telemetry", json=body)).json()
        assert (answer["accepted"], answer["duplicates"]) == (accepted, len(body) - accepted)
        assert answer["rejected"] == []
    # A repeat of all that is in the columnstore opens it for each reading, whatever the number.
    again = [
        reading(number, OLD + timedelta(minutes=minute))
        for number in range(VEHICLES)
        for minute in range(0, 24 * 60, 10)
    ]
    answer = (await api.post("/v1/telemetry", json=again)).json()
    assert (answer["accepted"], answer["duplicates"]) == (0, len(again))
    # Other values are a conflict, both with what is compressed and with what came late.
    mixed = [reading(1, noon, 0.75), reading(1, late, 0.75), reading(1, noon + timedelta(seconds=1))]
    answer = (await api.post("/v1/telemetry", json=mixed)).json()
    assert answer["accepted"] == 1
    assert [(each["index"], each["code"]) for each in answer["rejected"]] == [
        (0, "conflict"),
        (1, "conflict"),
    ]
    assert await one(owner, "select count(*) from dead_letter") == 2

    assert await one(owner, "select count(*) from meter_reading") == stored + len(batch) + 2
    assert await one(owner, "select recorded_at from meter_state where meter_id = 'm-0'") == newest
    assert await one(owner, "select count(distinct hour) from rollup_stale") == 1
    await owner.execute("call refresh_rollups()")
    counted = "select readings from meter_hourly_stored where hour = %s and meter_id = 'm-1'"
    assert await one(owner, counted, noon) == 6 + 3
    # What came late is converted by the policy's next run, and migrating again minds neither.
    await run_job(owner, "policy_compression", "meter_reading")
    assert retention.apply(url, msgspec.structs.replace(settings, columnstore_after_days=7)) is None
    assert await one(owner, "select sum(readings) from meter_hourly_stored") == stored + len(batch) + 2


async def test_who_drops_what_is_too_old(
    api: AsyncTestClient[Any], owner: Owner, settings: Settings, edition: str
) -> None:
    """On Apache-2 a turn of the service does, on Community a job of the database."""
    await fill(api, owner)
    told: list[str] = []
    rules = retention.apply(
        settings.migrate_database_url,
        msgspec.structs.replace(settings, raw_retention_days=10),
        told.append,
    )
    [what_goes] = told
    assert what_goes.endswith(f": 1 chunks of meter_reading until {OLD + DAY:%Y-%m-%d}")
    assert str(rules) == "readings are kept 10 days, rollups for good; chunks of 24 h, columnstore off"
    hours = await one(owner, "select count(*) from meter_hourly_stored")
    await Expiry(settings).turn()
    left = await one(owner, "select count(*) from meter_reading")
    if edition == "community":
        assert left == VEHICLES * 144
        await run_job(owner, "drop_expired")
        left = await one(owner, "select count(*) from meter_reading")
    assert left == 0
    assert await one(owner, "select count(*) from meter_hourly_stored") == hours


async def test_a_failure_is_noted(settings: Settings, owner: Owner, edition: str) -> None:
    """Where the service drops, a failure is counted with its reason, and the next turn tries again."""
    if edition == "community":
        pytest.skip("here the database's own books tell of its job")
    await owner.execute("alter table session_edge rename to away")
    with pytest.raises(psycopg.errors.UndefinedTable):
        await Expiry(settings).turn()
    assert "session_edge" in await one(owner, "select last_error from lifecycle")
    await owner.execute("alter table away rename to session_edge")
    await Expiry(settings).turn()
    assert await one(owner, "select ran_at from lifecycle") is not None


def test_migrate_hands_the_settings_over(
    settings: Settings, edition: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`fleetwatt migrate` says what changed and what the edition cannot do; without settings all is off."""
    monkeypatch.setenv("FLEETWATT_MIGRATE_DATABASE_URL", settings.migrate_database_url)
    monkeypatch.setenv("FLEETWATT_DATA_DIR", "/nonexistent")
    runner = CliRunner()
    assert "lifecycle" not in runner.invoke(group, ["migrate"]).output
    monkeypatch.setenv("FLEETWATT_RAW_RETENTION_DAYS", "400")
    monkeypatch.setenv("FLEETWATT_COLUMNSTORE_AFTER_DAYS", "14")
    output = runner.invoke(group, ["migrate"]).output
    assert "lifecycle: readings are kept 400 days, rollups for good; chunks of 24 h" in output
    assert ("has no effect" in output) == (edition == "apache")
    assert "lifecycle" not in runner.invoke(group, ["migrate"]).output
    monkeypatch.delenv("FLEETWATT_RAW_RETENTION_DAYS")
    monkeypatch.delenv("FLEETWATT_COLUMNSTORE_AFTER_DAYS")
    output = runner.invoke(group, ["migrate"]).output
    assert "readings are kept for good, rollups for good; chunks of 24 h, columnstore off" in output


@pytest.mark.parametrize("days", [(0, 30), (30, 29)])
def test_rollups_outlive_readings(days: tuple[int, int]) -> None:
    """Settings by which rollups would go before the readings behind them are refused, with both names."""
    settings = Settings(raw_retention_days=days[0], rollup_retention_days=days[1])
    with pytest.raises(SettingsError, match=r"ROLLUP_RETENTION_DAYS.*RAW_RETENTION_DAYS"):
        Rules.of(settings)


def test_no_database_to_hand_them_to() -> None:
    """Without a database that answers, one line says so."""
    with pytest.raises(DatabaseUnavailableError, match="did not take the settings"):
        retention.apply("postgresql://fleetwatt_owner@127.0.0.1:1/none", Settings())
