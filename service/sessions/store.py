"""Charging sessions in the database: add, change, list, assign; the database itself refuses overlaps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from msgspec import UNSET
from psycopg import AsyncConnection, errors

from service.db import ReadPool, fetch_all
from service.sessions.errors import BadTimesError, ConflictError, SessionError, UnknownError
from service.sessions.model import (
    Assignment,
    Change,
    NewAssignment,
    NewSession,
    Session,
    SessionUpdate,
    TimeFault,
    Values,
    check_times,
)
from service.sql import query

_TRIES: Final = 3
# As for a query: a frozen server must not hold a request for ever.
_TIMEOUT_S: Final = 40.0

T = TypeVar("T")


class Sessions(NamedTuple):
    """Charging sessions over a pool of connections; `source` is what the audit trail says of changes."""

    pool: ReadPool
    source: str = "http"

    async def add(self, new: NewSession) -> tuple[Session, bool]:
        """Store a session; give it and whether it is new: the same session sent twice is no mistake.

        Raises BadTimesError when it ends before it starts, ConflictError when the meter is taken at some time
        then or the id belongs to a different session.
        """
        values = msgspec.structs.asdict(new)
        _check(new.started_at, new.ended_at)
        for _ in range(_TRIES):
            async with self._changing() as connection:
                row = await (await connection.execute(query("add_session"), values)).fetchone()
            if row is not None:
                return Session(**row), True
            if new.session_id is not None and (known := await self._find(new.session_id)) is not None:
                if _values(known) == _values(new):
                    return known, False
                message = f"session {known.session_id!r} exists with other values: change it with PATCH"
                raise ConflictError("session_exists", message, field="sessionId")
            if (other := await self._other(values)) is not None:
                if new.session_id is None and _values(other) == _values(new):
                    return other, False
                raise _overlap(new.meter_id, other)
        # What was in the way is gone each time we look.
        raise _overlap(new.meter_id, None)

    async def get(self, session_id: str) -> Session:
        """Give one session. Raises UnknownError."""
        known = await self._find(session_id)
        if known is None:
            raise _no_session(session_id)
        return known

    async def change(self, session_id: str, update: SessionUpdate) -> Session:
        """End or correct a session; what changes nothing leaves no trace.

        Raises UnknownError, BadTimesError (in the wrong order), ConflictError (overlap).
        """
        return await _again_after_deadlock(lambda: self._change(session_id, update))

    async def _change(self, session_id: str, update: SessionUpdate) -> Session:
        given = {name: value for name, value in msgspec.structs.asdict(update).items() if value is not UNSET}
        values: dict[str, Any] = {}
        try:
            async with self._changing() as connection:
                found = await connection.execute(query("lock_session"), {"session_id": session_id})
                row = await found.fetchone()
                if row is None:
                    raise _no_session(session_id)
                before = Session(**row)
                after = msgspec.structs.replace(before, **given)
                _check(after.started_at, after.ended_at)
                if _values(after) != _values(before):
                    values = msgspec.structs.asdict(after)
                    await connection.execute(query("change_session"), values)
        except errors.ExclusionViolation:
            raise _overlap(values["meter_id"], await self._other(values)) from None
        return await self.get(session_id) if values else before

    async def changes(self, session_id: str) -> list[Change]:
        """Give the audit trail of a session, oldest first; it may begin after the session did.

        Raises UnknownError for a session that never was.
        """
        rows = await fetch_all(self.pool, query("session_changes"), {"session_id": session_id})
        if not rows:
            await self.get(session_id)
        return [
            Change(
                change_id=row["change_id"],
                changed_at=row["changed_at"],
                action=row["action"],
                source=row["source"],
                before=_values_of(row, "before"),
                after=_values_of(row, "after"),
            )
            for row in rows
        ]

    async def assign(self, vehicle_id: str, new: NewAssignment) -> Assignment:
        """Make a meter (or none) the vehicle's until further notice; the same again changes nothing.

        Raises BadTimesError for a time beyond the calendar, UnknownError (no meter wanted, and a vehicle that
        nobody ever heard of), ConflictError when the meter is taken at some time from then on, or an open
        session of the vehicle started too late to be ended then.
        """
        return await _again_after_deadlock(lambda: self._assign(vehicle_id, new))

    async def _assign(self, vehicle_id: str, new: NewAssignment) -> Assignment:
        if new.since is not None:
            _check(new.since, None, name="since")
        values = {"vehicle_id": vehicle_id, "meter_id": new.meter_id, "started_at": new.since}
        try:
            [row] = await fetch_all(self.pool, query("assign_meter"), values)
        except errors.ExclusionViolation:
            other = await self._other({**values, "session_id": None, "ended_at": None})
            raise _overlap(str(new.meter_id), other) from None
        outcome = row.pop("outcome")
        if outcome == "unknown":
            raise _unknown(vehicle_id)
        if outcome == "started_later":
            raise _too_late(Session(**row))
        return Assignment(
            vehicle_id=vehicle_id,
            meter_id=row["meter_id"],
            since=row["started_at"],
            session_id=row["session_id"],
        )

    async def assigned(self, vehicle_id: str) -> Assignment:
        """Give the vehicle's newest open session. Raises UnknownError for a vehicle never heard of."""
        rows = await fetch_all(self.pool, query("assigned_meter"), {"vehicle_id": vehicle_id})
        if not rows:
            raise _unknown(vehicle_id)
        [row] = rows
        return Assignment(
            vehicle_id=vehicle_id,
            meter_id=row["meter_id"],
            since=row["started_at"],
            session_id=row["session_id"],
        )

    async def list(self, filters: dict[str, Any]) -> list[Session]:
        """Give a page of sessions, newest start first; see the query list_sessions for the filters."""
        return [Session(**row) for row in await fetch_all(self.pool, query("list_sessions"), filters)]

    @asynccontextmanager
    async def _changing(self) -> AsyncIterator[AsyncConnection[dict[str, Any]]]:
        """Give a connection in a transaction whose changes the audit trail ascribes to our source."""
        async with (
            asyncio.timeout(_TIMEOUT_S),
            self.pool.connection() as connection,
            connection.transaction(),
        ):
            await connection.execute(query("name_source"), {"source": self.source})
            yield connection

    async def _find(self, session_id: str) -> Session | None:
        rows = await fetch_all(self.pool, query("get_session"), {"session_id": session_id})
        return Session(**rows[0]) if rows else None

    async def _other(self, values: dict[str, Any]) -> Session | None:
        """Find the session that takes the meter at some time in a span."""
        rows = await fetch_all(self.pool, query("overlapping_session"), values)
        return Session(**rows[0]) if rows else None


async def _again_after_deadlock(work: Callable[[], Awaitable[T]]) -> T:
    """Run a transaction again that the server rolled back for another one: two that swap meters, say."""
    for _ in range(_TRIES - 1):
        try:
            return await work()
        except errors.DeadlockDetected:
            continue
    return await work()


def _values(session: Session | NewSession) -> Values:
    return Values(session.vehicle_id, session.meter_id, session.started_at, session.ended_at)


def _values_of(row: dict[str, Any], when: str) -> Values | None:
    if row[f"vehicle_{when}"] is None:
        return None
    return Values(*(row[f"{name}_{when}"] for name in ("vehicle", "meter", "started", "ended")))


def _check(started_at: datetime, ended_at: datetime | None, *, name: str | None = None) -> None:
    try:
        check_times(started_at, ended_at)
    except TimeFault as fault:
        field = name or fault.field
        message = fault.message.replace(fault.field, field)
        raise BadTimesError("out_of_range", message, field=field) from None


def _overlap(meter_id: str, other: Session | None) -> SessionError:
    named = f" by session {other.session_id!r} of vehicle {other.vehicle_id!r}" if other else ""
    message = f"meter {meter_id!r} is taken in that time{named}"
    return ConflictError("session_overlap", message, field="meterId", other=other)


def _too_late(other: Session) -> SessionError:
    message = (
        f"session {other.session_id!r} on meter {other.meter_id!r} is open and started too late for that: "
        "give a later time, or correct the session with PATCH"
    )
    return ConflictError("session_started_later", message, field="since", other=other)


def _no_session(session_id: str) -> SessionError:
    return UnknownError("unknown_session", f"there is no session {session_id!r}")


def _unknown(vehicle_id: str) -> SessionError:
    return UnknownError("unknown_device", f"no vehicle {vehicle_id!r} was ever heard of")
