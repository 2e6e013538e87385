"""How long data are kept and in which form: the database takes settings over, and drops what is too old.

`fleetwatt migrate` hands the settings over, as the owner. Where no job of the database does it, the service
has dropped what is due by them; it can change none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, NoReturn

import psycopg

from service import db, lifecycle, log
from service.errors import DatabaseUnavailableError, SettingsError, first_line, is_transient
from service.settings import Settings
from service.sql import query

_LOOK_S: Final = 600.0
_log = log.get("lifecycle")


class Rules(NamedTuple):
    """What the settings ask for, in hours and days; 0 days: never."""

    chunk_hours: int
    columnstore_after_days: int
    raw_retention_days: int
    rollup_retention_days: int

    @classmethod
    def of(cls, settings: Settings) -> Rules:
        """Take them from the settings; SettingsError for rollups that would go before the readings."""
        rules = cls(
            settings.chunk_hours,
            settings.columnstore_after_days,
            settings.raw_retention_days,
            settings.rollup_retention_days,
        )
        if rules.rollup_retention_days and not rules.raw_retention_days:
            raise SettingsError(
                "FLEETWATT_ROLLUP_RETENTION_DAYS without FLEETWATT_RAW_RETENTION_DAYS: rollups cannot go "
                "while the readings that they are made of are kept for good; set both, or neither"
            )
        if 0 < rules.rollup_retention_days < rules.raw_retention_days:
            raise SettingsError(
                f"FLEETWATT_ROLLUP_RETENTION_DAYS={rules.rollup_retention_days} is less than "
                f"FLEETWATT_RAW_RETENTION_DAYS={rules.raw_retention_days}: rollups are kept at least as long "
                "as the readings that they are made of"
            )
        return rules

    @classmethod
    def there(cls, row: Mapping[str, Any]) -> Rules:
        """Take them from the database's row of `lifecycle`."""
        return cls(*(row[name] for name in cls._fields))

    @property
    def variables(self) -> str:
        """Write those that are not as by default as variables before a command, such as `FLEETWATT_X=6 `."""
        usual = Rules.of(Settings())
        return "".join(
            f"FLEETWATT_{name.upper()}={value} "
            for name, value in self._asdict().items()
            if value != getattr(usual, name)
        )

    @property
    def migrate(self) -> str:
        """Write the command that hands these over."""
        return f"{self.variables}fleetwatt migrate"

    def __str__(self) -> str:
        raw, rollups = _days(self.raw_retention_days), _days(self.rollup_retention_days)
        columnstore = f"after {_days(self.columnstore_after_days)}" if self.columnstore_after_days else "off"
        return (
            f"readings are kept {raw}, rollups {rollups}; chunks of {self.chunk_hours} h, "
            f"columnstore {columnstore}"
        )


def _days(days: int) -> str:
    return f"{days} days" if days else "for good"


def apply(url: str, settings: Settings, warn: Callable[[str], None] = lambda _: None) -> Rules | None:
    """Have a migrated database take the settings over, as a role that migrates; give them if they are new.

    `warn` is told what goes by new settings, and what this edition of TimescaleDB cannot do. Raises
    SettingsError for settings that do not go together and DatabaseUnavailableError.
    """
    rules = Rules.of(settings)
    try:
        with psycopg.connect(
            url,
            application_name="fleetwatt migrate",
            # Who waits for a table keeps all others waiting behind him.
            options="-c lock_timeout=10s -c statement_timeout=10min",
            connect_timeout=10,
        ) as connection:
            connection.execute("SET LOCAL ROLE fleetwatt_owner")
            [changed] = connection.execute(query("apply_lifecycle"), rules._asdict()).fetchone() or [False]
            [columnstore] = connection.execute(query("columnstore_is_scheduled")).fetchone() or [False]
            expired = connection.execute(query("expired"), rules._asdict()).fetchall() if changed else []
    except psycopg.Error as error:
        if not is_transient(error):
            raise
        raise DatabaseUnavailableError(
            f"the database did not take the settings of lifecycle over: {first_line(error)}"
        ) from None
    if rules.columnstore_after_days and not columnstore:
        warn(
            "FLEETWATT_COLUMNSTORE_AFTER_DAYS has no effect: the columnstore needs TimescaleDB Community, "
            "and this server has the Apache-2 edition"
        )
    if expired:
        what = "; ".join(
            f"{chunks} chunks of {name} until {to:%Y-%m-%d}" for name, chunks, _, to, *_ in expired
        )
        warn(f"what is too old by the settings of lifecycle goes within the hour: {what}")
    return rules if changed else None


class Expiry:
    """The loop that every process runs; the database sees to it that only one of them works."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def run(self) -> NoReturn:
        """Drop what is too old for ever; what goes wrong is logged, noted, and tried again next time."""
        await lifecycle.repeat(self.turn, _LOOK_S, _log, "expiry_failed")

    async def turn(self) -> None:
        """Drop what is due, unless a job of the database does. Raises psycopg.Error."""
        async with await db.writer_connection(db.require_url(self._settings), "lifecycle") as connection:
            cursor = await connection.execute(query("refresh_is_scheduled"))
            [scheduled] = await cursor.fetchone() or [True]
            if scheduled:
                return
            before = await _dropped(connection)
            try:
                await connection.execute(query("drop_expired"))
                if (after := await _dropped(connection)) > before:
                    _log.info("dropped_what_is_too_old", chunks=after - before)
            except psycopg.Error as error:
                if not connection.closed:
                    await connection.execute(query("note_expiry_failure"), {"reason": str(error)})
                raise


async def _dropped(connection: psycopg.AsyncConnection[Any]) -> int:
    row = await (await connection.execute(query("dropped_chunks"))).fetchone()
    return row[0] if row else 0
