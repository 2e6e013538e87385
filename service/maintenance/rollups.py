"""Keeps the rollups fresh, where the database does not do it by itself, and tells how fresh they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from service import db, lifecycle, log, metrics
from service.settings import Settings
from service.sql import query

_log = log.get("rollups")


class Rollups(NamedTuple):
    """The loop that every process runs; the database sees to it that only one of them works.

    `for_sql` are further settings that SQL works by, by name: the database sees no environment, and on some
    editions it works by itself.
    """

    settings: Settings
    for_sql: Mapping[str, float] = {}

    async def run(self) -> NoReturn:
        """Refresh and report for ever; what goes wrong is logged, counted, and tried again next time."""
        await lifecycle.repeat(self.turn, self.settings.rollup_refresh_s, _log, "refresh_failed")

    async def turn(self) -> None:
        """Hand over the settings, refresh once unless the database does, and publish how fresh all is.

        Works on a connection of its own, closed at the end: with it goes the lock of a failed refresh.
        Raises psycopg.Error.
        """
        async with await db.writer_connection(db.require_url(self.settings), "refresh") as connection:
            numbers = {"rollup_settle_s": self.settings.rollup_settle_s, **self.for_sql}
            cursor = await connection.execute(
                query("apply_settings"),
                {"names": list(numbers), "setting_values": [float(number) for number in numbers.values()]},
            )
            if changed := [name for (name,) in await cursor.fetchall()]:
                # Seen again and again it means that two processes were given different settings.
                _log.info("settings_applied", settings={name: numbers[name] for name in sorted(changed)})
            cursor = await connection.execute(query("refresh_is_scheduled"))
            [scheduled] = await cursor.fetchone() or [True]
            try:
                if not scheduled:
                    await connection.execute(query("refresh_rollups"))
            except psycopg.Error as error:
                if not connection.closed:
                    await connection.execute(query("note_refresh_failure"), {"reason": str(error)})
                raise
            finally:
                if not connection.closed:
                    await _publish(connection)


async def _publish(connection: AsyncConnection[Any]) -> None:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(query("rollup_freshness"))
        for row in await cursor.fetchall():
            stream = row["stream"]
            until = row["refreshed_until"]
            metrics.ROLLUP_REFRESHED_UNTIL.labels(stream).set(until.timestamp() if until else 0)
            at = row["refreshed_at"]
            metrics.ROLLUP_REFRESHED_AT.labels(stream).set(at.timestamp() if at else 0)
            failed_at = row["failed_at"]
            metrics.ROLLUP_FAILED_AT.labels(stream).set(failed_at.timestamp() if failed_at else 0)
            metrics.ROLLUP_STALE_HOURS.labels(stream).set(row["stale_hours"])
            metrics.ROLLUP_FAILURES.labels(stream).set(row["failures"])
        await cursor.execute(query("job_failures"))
        for row in await cursor.fetchall():
            metrics.JOB_FAILURES.labels(row["job"]).set(row["failures"])
