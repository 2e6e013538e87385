"""The ledger: every reading that was sent, what was acknowledged, and how both compare with the rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zlib import crc32

import msgspec
from psycopg import AsyncConnection, sql

Key = tuple[str, int]
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TABLES: Final = {
    "meter": ("meter_reading", "meter_state", "meter_id", ("kwh_consumed_ac", "voltage")),
    "vehicle": ("vehicle_reading", "vehicle_state", "vehicle_id", ("kwh_delivered_dc", "soc")),
}


def micros_now() -> int:
    """Give the time in microseconds since 1970, the resolution of a timestamp."""
    return (datetime.now(UTC) - _EPOCH) // timedelta(microseconds=1)


def _values(key: Key) -> tuple[float, float]:
    """Derive the two values of a reading from its key, so that a row tells whether it is the one sent."""
    draw = crc32(f"{key[0]}|{key[1]}".encode())
    return draw % 100_000 / 1000, draw // 100_000 % 1000 / 10


class Account(msgspec.Struct, kw_only=True):
    """How the ledger and the database compare; what should not be is listed, the first of each."""

    sent: int = 0
    acknowledged: int = 0
    stored: int = 0
    lost: list[Key] = []
    twice: int = 0
    changed: list[Key] = []
    strangers: list[Key] = []
    states_wrong: list[str] = []
    letters: list[str] = []


class Ledger:
    """Makes readings that are all different, and remembers what became of them.

    `name` starts the id of each device. Keys are (device id, microseconds since 1970).
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.sent: dict[Key, str] = {}
        self.acknowledged: set[Key] = set()
        self._last: dict[str, int] = {}

    def reading(self, device: str, kind: str, *, named: bool = True) -> tuple[Key, dict[str, Any]]:
        """Make the next reading of a device, now; `named` puts the device's id into it."""
        device_id = f"{self.name}-{device}-{kind[0]}"
        micros = max(micros_now(), self._last.get(device_id, 0) + 1)
        self._last[device_id] = micros
        key = (device_id, micros)
        first, second = _values(key)
        when = (_EPOCH + timedelta(microseconds=micros)).isoformat().replace("+00:00", "Z")
        if kind == "meter":
            body: dict[str, Any] = {"kwhConsumedAc": first, "voltage": second}
        else:
            body = {"kwhDeliveredDc": first, "soc": second, "batteryTemp": 20.5}
        if named:
            body[f"{kind}Id"] = device_id
        self.sent[key] = kind
        return key, {**body, "timestamp": when}

    def acknowledge(self, keys: list[Key]) -> None:
        """Note that the engine, or the broker, took readings over."""
        self.acknowledged.update(keys)

    async def account(self, connection: AsyncConnection[Any], *, excused: str | None = None) -> Account:
        """Hold the ledger against the tables.

        Devices whose name goes on with `excused` may miss acknowledged readings: they are not counted lost.
        """
        account = Account(sent=len(self.sent), acknowledged=len(self.acknowledged))
        found: set[Key] = set()
        newest: dict[str, int] = {}
        for row in await self._rows(connection):
            key = (row[0], int(row[1]))
            account.twice += key in found
            found.add(key)
            newest[key[0]] = max(newest.get(key[0], 0), key[1])
            if key not in self.sent:
                account.strangers.append(key)
            elif (row[2], row[3]) != _values(key):
                account.changed.append(key)
        account.stored = len(found)
        missing = sorted(self.acknowledged - found)
        if excused is not None:
            missing = [key for key in missing if not key[0].startswith(f"{self.name}-{excused}")]
        account.lost = missing
        account.states_wrong = await self._wrong_states(connection, newest)
        account.letters = await self._letters(connection)
        return account

    def missing(self, stored: int) -> int:
        """Give how many acknowledged readings cannot be among so many stored ones yet."""
        return max(0, len(self.acknowledged) - stored)

    async def count(self, connection: AsyncConnection[Any]) -> int:
        """Count this ledger's rows."""
        return len(await self._rows(connection))

    async def _rows(self, connection: AsyncConnection[Any]) -> list[tuple[Any, ...]]:
        result: list[tuple[Any, ...]] = []
        for table, _, device, (first, second) in _TABLES.values():
            statement = sql.SQL(
                "select {0}, extract(epoch from recorded_at) * 1000000, {1}, {2} from {3} where {0} like %s"
            ).format(*map(sql.Identifier, (device, first, second, table)))
            result += await (await connection.execute(statement, [f"{self.name}-%"])).fetchall()
        return result

    async def _wrong_states(self, connection: AsyncConnection[Any], newest: dict[str, int]) -> list[str]:
        wrong = set(newest)
        for _, state, device, (first, second) in _TABLES.values():
            statement = sql.SQL(
                "select {0}, extract(epoch from recorded_at) * 1000000, {1}, {2} from {3} where {0} like %s"
            ).format(*map(sql.Identifier, (device, first, second, state)))
            for row in await (await connection.execute(statement, [f"{self.name}-%"])).fetchall():
                key = (row[0], int(row[1]))
                if newest.get(key[0]) == key[1] and (row[2], row[3]) == _values(key):
                    wrong.discard(key[0])
        return sorted(wrong)

    async def _letters(self, connection: AsyncConnection[Any]) -> list[str]:
        cursor = await connection.execute(
            "select origin || ': ' || message from dead_letter "
            "where device_id like %(name)s or convert_from(raw, 'utf8') like %(inside)s",
            {"name": f"{self.name}-%", "inside": f"%{self.name}-%"},
        )
        return [row[0] for row in await cursor.fetchall()]


async def uncounted(connection: AsyncConnection[Any]) -> int:
    """Give by how much the ingest counters differ from the rows, over the whole database."""
    cursor = await connection.execute(
        "select (select count(*) from meter_reading) + (select count(*) from vehicle_reading) "
        "- (select coalesce(sum(accepted), 0) from ingest_minute)"
    )
    row = await cursor.fetchone()
    return int(row[0]) if row else 0
