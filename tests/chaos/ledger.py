"""The ledger: everything that was sent, what was acknowledged, and how both compare with the tables."""

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


def moment(micros: int) -> str:
    """Write a moment, given in microseconds since 1970, as devices do."""
    return (_EPOCH + timedelta(microseconds=micros)).isoformat().replace("+00:00", "Z")


def _values(key: Key) -> tuple[float, float]:
    """Derive the two values of a reading from its key, so that a row tells whether it is the one sent."""
    draw = crc32(f"{key[0]}|{key[1]}".encode())
    return draw % 100_000 / 1000, draw // 100_000 % 1000 / 10


class Account(msgspec.Struct, kw_only=True):
    """How the ledger and the database compare; what should not be is listed, the first of each.

    `refused` counts what was bad and acknowledged as such, `letters` the dead letters found for it,
    `not_kept` what HTTP refused while the database was away: the sender is told, and no letter is owed.
    """

    sent: int = 0
    acknowledged: int = 0
    stored: int = 0
    lost: list[Key] = []
    twice: int = 0
    changed: list[Key] = []
    strangers: list[Key] = []
    states_wrong: list[str] = []
    refused: int = 0
    letters: int = 0
    not_kept: int = 0
    letters_lost: list[str] = []
    letters_wrong: list[str] = []
    sessions: int = 0
    sessions_wrong: list[str] = []


class Trip(msgspec.Struct):
    """A session over MQTT: what was sent of it, and which of its ends were acknowledged."""

    meter_id: str
    started_at: int
    ended_at: int = 0
    start_taken: bool = False
    end_taken: bool = False


class Ledger:
    """Makes readings that are all different, and remembers what became of them.

    `name` starts the id of each device. Keys are (device id, microseconds since 1970). `bad` has the bytes
    of what must be refused, with the code that it must get; `refused` what was acknowledged of that; and
    `told` what HTTP has refused, which keeps that as a dead letter only if it can at that moment: when.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.sent: dict[Key, str] = {}
        self.acknowledged: set[Key] = set()
        self.bad: dict[bytes, str] = {}
        self.refused: set[bytes] = set()
        self.told: dict[bytes, float] = {}
        self.trips: dict[str, Trip] = {}
        self._last: dict[str, int] = {}

    def tick(self, device_id: str) -> int:
        """Give the time in microseconds since 1970, later for each call about a device."""
        micros = max(micros_now(), self._last.get(device_id, 0) + 1)
        self._last[device_id] = micros
        return micros

    def reading(self, device: str, kind: str, *, named: bool = True) -> tuple[Key, dict[str, Any]]:
        """Make the next reading of a device, now; `named` puts the device's id into it."""
        device_id = f"{self.name}-{device}-{kind[0]}"
        key = (device_id, self.tick(device_id))
        self.sent[key] = kind
        return key, self.body(key, kind, named=named)

    def body(self, key: Key, kind: str, *, named: bool = True) -> dict[str, Any]:
        """Give what is sent of a reading."""
        first, second = _values(key)
        if kind == "meter":
            body: dict[str, Any] = {"kwhConsumedAc": first, "voltage": second}
        else:
            body = {"kwhDeliveredDc": first, "soc": second, "batteryTemp": 20.5}
        if named:
            body[f"{kind}Id"] = key[0]
        return {**body, "timestamp": moment(key[1])}

    def acknowledge(self, keys: list[Key]) -> None:
        """Note that the engine, or the broker, took readings over."""
        self.acknowledged.update(keys)

    async def account(
        self,
        connection: AsyncConnection[Any],
        *,
        excused: str | None = None,
        away: tuple[float, float] = (0.0, 0.0),
    ) -> Account:
        """Hold the ledger against the tables.

        What names a device that goes on with `excused` may be missing though it was acknowledged: it is not
        counted lost. Between the two moments of `away` HTTP need not keep what it refuses.
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
        excuse = f"{self.name}-{excused}" if excused is not None else "\0"
        account.lost = [key for key in sorted(self.acknowledged - found) if not key[0].startswith(excuse)]
        account.states_wrong = await self._wrong_states(connection, newest)
        await self._judge_letters(connection, account, excuse, away)
        known = await self._sessions(connection)
        account.sessions = len(known)
        account.sessions_wrong = [
            f"{name}: {trip}, but {known.get(name)} is there"
            for name, trip in self.trips.items()
            if not name.startswith(excuse) and not _fits(trip, known.get(name))
        ]
        return account

    async def is_there(self, connection: AsyncConnection[Any]) -> tuple[bool, int]:
        """Tell whether all that was acknowledged is there, and how much of it is."""
        rows = {(row[0], int(row[1])) for row in await self._rows(connection)}
        letters = {raw for raw, _ in await self._letters(connection)}
        known = await self._sessions(connection)
        fitting = sum(_fits(trip, known.get(name)) for name, trip in self.trips.items())
        there = self.acknowledged <= rows and self.refused <= letters and fitting == len(self.trips)
        return there, len(rows) + len(letters) + fitting

    async def _judge_letters(
        self, connection: AsyncConnection[Any], account: Account, excuse: str, away: tuple[float, float]
    ) -> None:
        letters = set(await self._letters(connection))
        kept = {raw for raw, _ in letters}
        account.refused = len(self.refused | self.told.keys())
        account.letters = len(kept & self.bad.keys())
        account.letters_wrong = [str(letter) for letter in letters if self.bad.get(letter[0]) != letter[1]]
        for raw in sorted((self.refused | self.told.keys()) - kept):
            if raw not in self.refused and away[0] <= self.told[raw] <= away[1]:
                account.not_kept += 1
            elif excuse.encode() not in raw:
                account.letters_lost.append(str(raw))

    async def _letters(self, connection: AsyncConnection[Any]) -> list[tuple[bytes, str]]:
        cursor = await connection.execute(
            "select raw, code from public.dead_letter "
            "where device_id like %(like)s or position(%(inside)s::bytea in raw) > 0",
            {"like": f"{self.name}-%", "inside": f"{self.name}-".encode()},
        )
        return [(bytes(row[0]), row[1]) for row in await cursor.fetchall()]

    async def _sessions(self, connection: AsyncConnection[Any]) -> dict[str, tuple[str, int, int]]:
        cursor = await connection.execute(
            "select session_id, meter_id, extract(epoch from lower(during)) * 1000000, "
            "coalesce(extract(epoch from upper(during)) * 1000000, 0) "
            "from public.charging_session where session_id like %s",
            [f"{self.name}-%"],
        )
        return {row[0]: (row[1], int(row[2]), int(row[3])) for row in await cursor.fetchall()}

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


def _fits(trip: Trip, row: tuple[str, int, int] | None) -> bool:
    """Tell whether a session is stored as far as it was acknowledged, and as it was sent."""
    if row is None:
        return not trip.start_taken
    ends = {trip.ended_at} if trip.end_taken else {0, trip.ended_at}
    return row[:2] == (trip.meter_id, trip.started_at) and row[2] in ends


async def uncounted(connection: AsyncConnection[Any]) -> int:
    """Give by how much the ingest counters differ from the rows, over the whole database."""
    cursor = await connection.execute(
        "select (select count(*) from meter_reading) + (select count(*) from vehicle_reading) "
        "- (select coalesce(sum(accepted), 0) from ingest_minute)"
    )
    row = await cursor.fetchone()
    return int(row[0]) if row else 0
